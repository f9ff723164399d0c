"""Full layers replaced by low-rank ones."""

import contextlib
from collections.abc import Mapping
from typing import Any

import keras

from keras_lowrank.layers import low_rank_class
from keras_lowrank.rewrite.optimizer import carry_optimizer
from keras_lowrank.rewrite.optimizer import check_optimizer
from keras_lowrank.rewrite.replace import replace_layers
from keras_lowrank.weights import locate_layers


def make_low_rank(model, options: Mapping[str, Mapping[str, Any]]) -> dict:
    """Replace layers of a model by their truncations, in place.

    The optimizer of a compiled model goes on: see `carry_optimizer`.

    Args:
        model: Built Keras model.
        options: Dict from names of layers, relative to the model, to what
            `from_layer` of their low-rank class takes: the `rank`, and maybe
            a `scheme` and a `second_moment`.

    Returns:
        Dict from the layers that were replaced to those in their places.

    Raises:
        ValueError: when the model has no layer of a name, or one has no
            low-rank form.
    """
    check_optimizer(model)
    found = locate_layers(model, keras.Layer)
    unknown = [name for name in options if name not in found]
    if unknown:
        raise ValueError(
            f"'{model.name}' has no layers of the names {unknown}. "
            f"Its layers: {list(found)}."
        )
    replacements = {}
    in_fit = getattr(model, "train_function", None) is not None
    with _scope(model):
        for name, given in options.items():
            form = low_rank_class(found[name])
            if form is None:
                raise ValueError(
                    f"'{name}' of '{model.name}' is a "
                    f"{type(found[name]).__name__}, which has no low-rank "
                    "form."
                )
            replacements[found[name]] = form.from_layer(found[name], **given)
        replace_layers(model, replacements)
        carry_optimizer(model, replacements)
        if in_fit:
            # One that goes on calls it again without asking for it.
            model.make_train_function(force=True)
    return replacements


def _scope(model):
    """Where a model's variables are made: on every replica, if it has some."""
    strategy = getattr(model, "distribute_strategy", None)
    return contextlib.nullcontext() if strategy is None else strategy.scope()
