"""A copy of a model, which shares nothing with it."""

import pathlib
import tempfile
import warnings
from typing import Any

import keras

from keras_lowrank.rewrite.optimizer import fresh_optimizer
from keras_lowrank.tables import KerasLowrankWarning


def copy_model(model):
    """A copy of a model with weights of its own, not compiled.

    Goes through a `.keras` file, so that whatever can be saved can be copied,
    and what comes out can be saved again.

    Args:
        model: Built Keras model.

    Returns:
        A model of the same class.

    Raises:
        ValueError: when the class of the model cannot be made from its
            config.
    """
    objects = _objects(model)
    with (
        tempfile.TemporaryDirectory() as directory,
        keras.saving.custom_object_scope(objects),
    ):
        path = pathlib.Path(directory) / "model.keras"
        try:
            model.save(path)
            # The file is our own: its functions are those of the model.
            copy = keras.saving.load_model(path, compile=False, safe_mode=False)
        except Exception as error:
            why = " ".join(str(error).split())
            raise ValueError(
                f"'{model.name}' ({type(model).__name__}) cannot be copied "
                f"by way of a file: {why} Give it a `get_config` from which "
                "`from_config` makes it, or pass "
                "`clone=`, a function from the model to a built copy of it "
                "with the same weights."
            ) from error
    check_copy(model, copy)
    return copy


def compile_like(copy, model) -> None:
    """Compile a copy as its model is, with an optimizer that begins anew.

    Args:
        copy: Keras model. One whose class has a `compile` of its own is left
            as it is, with a warning, as Keras does when it loads one.
        model: The compiled model that it is a copy of.
    """
    if type(copy).compile is not keras.Model.compile:
        warnings.warn(
            f"'{copy.name}' ({type(copy).__name__}) has a `compile` of its "
            "own, whose arguments are not known: the copy is not compiled. "
            "Call its `compile` before you train it.",
            KerasLowrankWarning,
            stacklevel=3,
        )
        return
    # What was passed, rather than its config: functions need no name then.
    arguments = dict(model._compile_config.config)
    copy.compile(**keras.tree.map_structure(_anew, arguments))


def _anew(argument):
    """What has a state, without it; anything else itself."""
    if isinstance(argument, keras.optimizers.Optimizer):
        return fresh_optimizer(argument)
    if isinstance(argument, keras.metrics.Metric):
        return type(argument).from_config(argument.get_config())
    return argument


def check_copy(model, copy) -> None:
    """Raise `ValueError` unless a copy is like its model, and apart from it."""
    ours, theirs = ([w.shape for w in m.weights] for m in (model, copy))
    if ours != theirs:
        raise ValueError(
            f"A copy of '{model.name}' must have its weights in their order. "
            f"Received: {len(theirs)} weights in place of {len(ours)}, or "
            "others of their shapes."
        )
    if {id(w) for w in model.weights} & {id(w) for w in copy.weights}:
        raise ValueError(
            f"A copy of '{model.name}' must have weights of its own. "
            "Received: a model that shares some."
        )


def _objects(model) -> dict[str, Any]:
    """Classes and functions that the file of a model refers to, by name."""
    found: dict[str, Any] = {}

    def add(thing):
        if not isinstance(thing, type) and not callable(thing):
            return
        kind = thing if hasattr(thing, "__name__") else type(thing)
        if not kind.__module__.startswith(("keras.", "builtins")):
            found[kind.__name__] = kind

    for layer in model._flatten_layers():
        add(type(layer))
        for value in vars(layer).values():
            add(value)
    return found
