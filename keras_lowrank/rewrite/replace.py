"""Layers replaced in a model, which stays the same object."""

from collections.abc import Mapping
from typing import Any

import keras

from keras_lowrank.rewrite.rewritten import mark_rewritten
from keras_lowrank.rewrite.swap import is_graph
from keras_lowrank.rewrite.swap import swap_layers


def replace_layers(model, replacements: Mapping[Any, Any]) -> None:
    """Put layers in the places of others, wherever a model holds them.

    The model stays the same object: callbacks, metrics and whoever refers to
    it go on with the new layers. Graphs of functional and sequential models
    are rewired at any depth, and attributes, lists and dicts of other layers
    are searched. Layers whose parts were replaced are saved with them and
    loaded by `keras.saving.load_model`, although their own config does not
    know: see `Rewritten`.

    A compiled step holds the old layers, and is compiled anew when the model
    is used next. The optimizer is left alone; see `replace_optimizer`.

    Args:
        model: Built Keras model, or a layer.
        replacements: Dict from a layer to a built layer of the same inputs
            and outputs.

    Raises:
        ValueError: when the model holds a layer nowhere that is known. The
            model is unchanged then.

    Example:

    >>> from keras_lowrank.layers import LowRankDense
    >>> full = keras.layers.Dense(8, name="hidden")
    >>> model = keras.Sequential([keras.Input((16,)), full])
    >>> replace_layers(model, {full: LowRankDense.from_layer(full, rank=2)})
    >>> model.layers[0].rank, model.count_params()
    (2, 56)
    """
    swap_layers(model, replacements)
    _mark_outermost(model, set(map(id, replacements.values())))
    if isinstance(model, keras.Model):
        # Compiled steps refer to the old layers.
        model.train_function = None
        model.test_function = None
        model.predict_function = None


def _mark_outermost(layer, new: set[int]) -> None:
    """Mark what is not saved as a graph, but holds a new layer."""
    if is_graph(layer):
        for inner in layer.layers:
            _mark_outermost(inner, new)
    elif any(
        id(one) in new for one in layer._flatten_layers(include_self=False)
    ):
        mark_rewritten(layer)
