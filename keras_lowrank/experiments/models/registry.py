"""Networks by name, for experiments that are written in a file."""

import functools
import inspect
from collections.abc import Callable

import keras

from keras_lowrank.experiments.models.convnet import conv_resnet
from keras_lowrank.experiments.models.convnet import convnet
from keras_lowrank.experiments.models.mixed import mixed_resnet
from keras_lowrank.experiments.models.mlp import mlp
from keras_lowrank.experiments.models.resnet import resnet
from keras_lowrank.experiments.models.vgg import vgg16
from keras_lowrank.experiments.models.vit import vit

NETWORKS: dict[str, Callable[..., keras.Model]] = {
    "mlp": mlp,
    **{
        f"resnet{depth}": functools.partial(resnet, depth=depth)
        for depth in (18, 34, 50, 101, 152)
    },
    "vgg16": vgg16,
    "convnet": convnet,
    "conv_resnet": conv_resnet,
    "vit": vit,
    "mixed_resnet": mixed_resnet,
}

# What the paper's average ranks are over: hidden kernels, without the
# classifier, the 1 x 1 convolutions of shortcuts, embeddings, and what leads
# into the blocks of the mixed network.
PAPER_WEIGHTS = (
    r"^(?!classifier|shortcut|patches|positions|conv_stem|hidden_entry)"
)


def build(
    name: str, input_shape, classes: int, seed: int = 0, **options
) -> keras.Model:
    """A network by its name.

    Args:
        name: String, out of `NETWORKS`.
        input_shape: Tuple, the shape of one sample.
        classes: Int, how many logits.
        seed: Int >= 0, of the initial weights.
        **options: What the function of that name takes.

    Returns:
        An uncompiled Keras model.

    Raises:
        ValueError: for an unknown name or option, with those there are.

    Example:

    >>> build("mlp", (8, 8), classes=10, depth=2, width=5).count_params()
    455
    """
    if name not in NETWORKS:
        raise ValueError(
            f"`network` must be one of {', '.join(NETWORKS)}. "
            f"Received: {name!r}."
        )
    function = NETWORKS[name]
    given = getattr(function, "keywords", {})
    known = [
        option
        for option in inspect.signature(function).parameters
        if option not in ("input_shape", "classes", "seed", *given)
    ]
    unknown = sorted(set(options) - set(known))
    if unknown:
        raise ValueError(
            f"The network '{name}' has no option {', '.join(unknown)}. "
            f"Its options are: {', '.join(known)}."
        )
    return function(tuple(input_shape), classes, seed=seed, **options)
