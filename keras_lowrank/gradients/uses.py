"""How many vectors of a sample each weight matrix multiplies."""

import dataclasses
import math

import keras
import numpy as np

from keras_lowrank.calls import watch_calls
from keras_lowrank.gradients import rules as _rules  # noqa: F401
from keras_lowrank.gradients.registry import rule_of
from keras_lowrank.weights import WeightMatrix
from keras_lowrank.weights import locate_variables
from keras_lowrank.weights import weight_matrices


@dataclasses.dataclass(frozen=True)
class Uses:
    """How often a weight matrix is used for one sample, `m_l` of the paper.

    Args:
        weight: String, the name of the weight matrix.
        count: Int, how many vectors of a sample it multiplies, over all calls
            of its layer; `None` where it is not known.
        reason: String, why it is not known.
    """

    weight: str
    count: int | None
    reason: str = ""


def weight_uses(model, x=None, weights=None, views=None) -> dict[str, Uses]:
    """How many vectors of one sample each weight matrix multiplies.

    By the chain rule the gradient of one sample is a sum of that many
    products of two vectors, so its rank is at most that number, and the rank
    of the gradient of a batch at most that times its size (Lemma 3.1, and A.1
    for attention). It is 1 for a Dense layer of vectors, the number of
    patches for a convolution, the number of tokens or time steps for a layer
    that meets each, and the sum over the calls of a layer that is shared.

    A block-diagonal matrix, as of a grouped convolution, has its number of
    blocks times as many.

    Args:
        model: Built Keras model.
        x: One sample or more, as `model` takes them, for models whose input
            shapes do not say all. Only shapes matter.
        weights: Which weight matrices, as for `weight_matrices`.
        views: As for `weight_matrices`.

    Returns:
        Dict from the names of weight matrices to `Uses`.

    Raises:
        ValueError: when input shapes are not known and `x` is not given.

    Example:

    >>> model = keras.Sequential([
    ...     keras.Input((8, 8, 3)),
    ...     keras.layers.Conv2D(16, 3, strides=2, padding="same", name="conv"),
    ...     keras.layers.Flatten(),
    ...     keras.layers.Dense(10, name="head"),
    ... ])
    >>> {name: uses.count for name, uses in weight_uses(model).items()}
    {'conv/kernel': 16, 'head/kernel': 1}

    Reference:
        [Galanti et al., CPAL 2025](https://arxiv.org/abs/2206.05794), Lemmas
        3.1 and A.1
    """
    matrices = weight_matrices(model, weights=weights, views=views)
    calls = _record_calls(model, _one_sample(model, x))
    owners = {
        id(location.variable): location.layers
        for location in locate_variables(model)
    }
    return {
        matrix.name: _uses(matrix, owners[id(matrix.variable)], calls)
        for matrix in matrices
    }


def _uses(matrix: WeightMatrix, layers, calls) -> Uses:
    if matrix.note:
        return Uses(matrix.name, None, f"{matrix.note}: not trained as it is")
    for layer in layers:
        rule = rule_of(type(layer))
        if rule is None:
            continue
        if id(layer) not in calls:
            # Its cell is not called by itself, but the layer around it is.
            continue
        counts = [
            count
            for inputs, outputs in calls[id(layer)]
            if (count := rule(layer, matrix.variable, inputs, outputs))
            is not None
        ]
        if not counts:
            continue
        count = sum(counts)
        count *= matrix.blocks
        times = [
            calls[id(around)][0][0][1]
            for around in layers
            if isinstance(around, keras.layers.TimeDistributed)
            and id(around) in calls
        ]
        if times:
            # It calls what is inside once or once a step, by the backend.
            count = counts[0] * math.prod(times)
        return Uses(matrix.name, count)
    kind = type(layers[0]).__name__
    if all(rule_of(type(layer)) is None for layer in layers):
        return Uses(
            matrix.name,
            None,
            f"{kind} has no rule: give it one with `register_uses`",
        )
    return Uses(matrix.name, None, "not used in this call of the model")


def _one_sample(model, x):
    if x is not None:
        return keras.tree.map_structure(lambda array: array[:1], x)
    inputs = getattr(model, "inputs", None)
    if not inputs or any(
        None in tuple(item.shape)[1:] for item in keras.tree.flatten(inputs)
    ):
        raise ValueError(
            f"The input shapes of '{model.name}' are not known in full, and "
            "how often a matrix is used depends on them. Give a sample: "
            "`x=x_train[:1]`."
        )
    structure = getattr(model, "_inputs_struct", None)
    if structure is None:
        structure = inputs[0] if len(inputs) == 1 else inputs
    return keras.tree.map_structure(
        lambda item: np.zeros((1, *item.shape[1:]), item.dtype), structure
    )


def _record_calls(model, sample) -> dict[int, list[tuple[tuple, tuple]]]:
    """Shapes of inputs and outputs of every call, by layer.

    Runs the model once, in inference mode: a symbolic call does not enter
    layers that know the shapes of their outputs.
    """
    calls: dict[int, list[tuple[tuple, tuple]]] = {}

    def record(layer, inputs, outputs):
        shapes = tuple(inputs.shape), tuple(outputs.shape)
        calls.setdefault(id(layer), []).append(shapes)

    watched = [
        layer
        for layer in model._flatten_layers(include_self=False)
        if rule_of(type(layer)) or _is_time_distributed(layer)
    ]
    with watch_calls(watched, record):
        model(sample, training=False)
    return calls


def _is_time_distributed(layer) -> bool:
    return isinstance(layer, keras.layers.TimeDistributed)
