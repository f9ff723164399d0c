"""What Keras' layers call their variables, in the order they are saved in.

Told by the names of classes: nothing that a file names is imported.
"""

import types
from collections.abc import Mapping
from typing import Any

from keras_lowrank.names import automatic_name
from keras_lowrank.names import snake_case

_KERNEL = ("kernel", "bias")
_CELL = ("kernel", "recurrent_kernel", "bias")
_GAINS = ("gamma", "beta")

VARIABLES: dict[str, tuple[str, ...]] = {
    "Dense": _KERNEL,
    "EinsumDense": _KERNEL,
    "Conv1D": _KERNEL,
    "Conv2D": _KERNEL,
    "Conv3D": _KERNEL,
    "Conv1DTranspose": _KERNEL,
    "Conv2DTranspose": _KERNEL,
    "Conv3DTranspose": _KERNEL,
    "DepthwiseConv1D": _KERNEL,
    "DepthwiseConv2D": _KERNEL,
    "SeparableConv1D": ("depthwise_kernel", "pointwise_kernel", "bias"),
    "SeparableConv2D": ("depthwise_kernel", "pointwise_kernel", "bias"),
    "Embedding": ("embeddings",),
    "ReversibleEmbedding": ("embeddings", "reverse_embeddings"),
    "LSTMCell": _CELL,
    "GRUCell": _CELL,
    "SimpleRNNCell": _CELL,
    "ConvLSTMCell": _CELL,
    "BatchNormalization": (*_GAINS, "moving_mean", "moving_variance"),
    "LayerNormalization": _GAINS,
    "GroupNormalization": _GAINS,
    "RMSNormalization": ("scale",),
    "Normalization": ("mean", "variance", "count"),
    "SpectralNormalization": ("kernel", "vector_u"),
    "PReLU": ("alpha",),
}

# What a layer saves besides the one that it wraps, and which is the same.
REFERRED = (("SpectralNormalization", "kernel"),)

# Layers that hold others, which the names of classes are needed for as well.
HOLDERS = (
    "Sequential",
    "Functional",
    "Model",
    "Bidirectional",
    "TimeDistributed",
    "MultiHeadAttention",
    "GroupedQueryAttention",
    "RNN",
    "StackedRNNCells",
    "LSTM",
    "GRU",
    "SimpleRNN",
    "ConvLSTM1D",
    "ConvLSTM2D",
    "ConvLSTM3D",
    "InputLayer",
    "Dropout",
    "Softmax",
)

_BY_STEM = {snake_case(name): name for name in (*VARIABLES, *HOLDERS)}

# What a layer makes for itself, and its config does not tell of.
_CELLS = {"LSTM": "LSTMCell", "GRU": "GRUCell", "SimpleRNN": "SimpleRNNCell"}
_CELLS |= {f"ConvLSTM{n}D": "ConvLSTMCell" for n in (1, 2, 3)}
_ATTENTION = ("MultiHeadAttention", "GroupedQueryAttention")
_PROJECTIONS = ("query", "key", "value")


def class_of_name(name: str) -> str | None:
    """The class of Keras that makes a name, `dense_2` for one."""
    for prefix in ("", "forward_", "backward_"):
        stem = name.removeprefix(prefix)
        for one in (stem, stem.rstrip("0123456789").removesuffix("_")):
            if one in _BY_STEM and automatic_name(name, _BY_STEM[one]):
                return _BY_STEM[one]
    return None


def place_of_name(name: str):
    """Where a layer stands among those its holder has as attributes.

    What Keras made first has the lower number; attention reads before it
    writes.
    """
    if name in _PROJECTIONS:
        return "", _PROJECTIONS.index(name)
    stem = name.rstrip("0123456789")
    digits = name[len(stem) :]
    return stem.rstrip("_"), int(digits[-18:]) if digits else -1


def class_inside(holder: str | None, key: str, name: str, ndim: int):
    """Class and config of a layer that another one makes for itself.

    Args:
        holder: String, the class of the other layer.
        key: String, the attribute it is held by.
        name: String, what it is called.
        ndim: Int, how many axes its kernel has.

    Returns:
        Pair of a string and a dict, or of `None` and an empty dict.
    """
    if key == "cell" and holder in _CELLS:
        return _CELLS[holder], {}
    if holder in ("LowRankDense", "LowRankEmbedding") and ndim == 2:
        # The left factor of an embedding is one, too.
        first = holder == "LowRankEmbedding" and key == "reduce"
        return ("Embedding" if first else "Dense"), {}
    if holder in _ATTENTION:
        # One axis of features, which heads share out; and back.
        if name in _PROJECTIONS and ndim == 3:
            return "EinsumDense", {"equation": "abc,cde->abde"}
        if name == "attention_output" and ndim == 3:
            return "EinsumDense", {"equation": "abcd,cde->abe"}
    return None, {}


def variable_names(
    class_name: str | None, config: Mapping[str, Any], count: int
) -> list[str]:
    """Names of the variables of a layer, or their numbers.

    Args:
        class_name: String, a class of Keras, or `None`.
        config: Dict, the config of the layer, maybe empty.
        count: Int, how many there are in the file.

    Returns:
        List of `count` strings.

    Example:

    >>> variable_names("BatchNormalization", {"scale": False}, 3)
    ['beta', 'moving_mean', 'moving_variance']
    """
    names = list(VARIABLES.get(class_name or "", ()))
    for name, switch in (
        ("bias", "use_bias"),
        ("gamma", "scale"),
        ("beta", "center"),
    ):
        if name in names and config.get(switch) is False:
            names.remove(name)
    return [*names, *map(str, range(len(names), count))][:count]


def settings(class_name: str | None, config: Mapping[str, Any]):
    """The class and the settings that a rule may ask a layer for.

    Args:
        class_name: String, a class of Keras, or `None`.
        config: Dict, the config of the layer, maybe empty.

    Returns:
        Pair of the class, `None` where the config says too little for its
        rule, and an object with the settings as attributes.
    """
    if class_name in ("Conv1D", "Conv2D", "Conv3D"):
        config = {"groups": 1, **config}
    if class_name == "EinsumDense" and "equation" not in config:
        class_name = None
    return class_name, types.SimpleNamespace(
        **{str(key): value for key, value in config.items()}
    )


def quantization(config: Mapping[str, Any]) -> str | None:
    """How a layer is quantized, by its config, or `None`."""
    policy = config.get("dtype")
    inner = policy.get("config") if isinstance(policy, Mapping) else None
    if isinstance(inner, Mapping) and isinstance(inner.get("mode"), str):
        return inner["mode"]
    return None
