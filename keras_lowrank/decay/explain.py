"""`explain_weight_decay`: what decays, by how much, through which route."""

import warnings
from collections.abc import Iterable
from typing import Any

import keras

from keras_lowrank.decay.advice import advice
from keras_lowrank.decay.advice import remarks
from keras_lowrank.decay.routes import Decaying
from keras_lowrank.decay.routes import as_float
from keras_lowrank.decay.routes import decaying
from keras_lowrank.roles import role_of
from keras_lowrank.tables import Column
from keras_lowrank.tables import KerasLowrankWarning
from keras_lowrank.tables import Table
from keras_lowrank.tables import number
from keras_lowrank.tables import shape_text
from keras_lowrank.weights.naming import locate_variables


class WeightDecayTable(Table):
    """What `explain_weight_decay` returns.

    Args:
        title: String printed above the table.
        rows: Sequence of dicts, one per trainable variable.
        warnings: Sequence of strings, printed below the table.
        remarks: Sequence of strings, printed below the warnings.
    """

    def __init__(
        self,
        title: str,
        rows: Iterable[dict[str, Any]],
        warnings: Iterable[str],
        remarks: Iterable[str],
    ):
        columns = (
            Column("name", "variable"),
            Column("role"),
            Column("shape", format=shape_text),
            Column("route"),
            Column("decay", "per step", format=number(3)),
            Column("memory", "memory (steps)", format=number(3)),
            Column("paper_lambda", "lambda", format=number(3)),
        )
        self.warnings = list(warnings)
        notes = [f"Warning: {message}" for message in self.warnings]
        super().__init__(title, columns, rows, [*notes, *remarks])


def explain_weight_decay(model: keras.Model) -> WeightDecayTable:
    """Show which variables of a compiled model decay, how much, and by what.

    Looks at every route that decay can take in Keras: a `WeightDecay`, the
    `weight_decay` of a Keras optimizer minus what it excludes on the current
    backend, and the `L2` of a variable; with any optimizer. The rates are
    those of the next step.

    Warns, in the table and as `KerasLowrankWarning`, about L2 plus weight
    decay, normalization parameters that decay, patterns that match nothing,
    and decay that rounding would swallow.

    Args:
        model: Compiled and built `keras.Model`.

    Returns:
        `WeightDecayTable`. A row has `name`, `path`, `role`, `shape`, `route`,
        `coupling`, `rate` (in torch's and Keras' convention), `paper_lambda`
        (in the paper's), `decay` (the fraction that one step takes at zero
        gradient; `None` where an adaptive optimizer rescales it) and `memory`
        (the steps after which a weight has forgotten, `1 / decay`).

    Raises:
        TypeError: when `model` is not a Keras model.
        ValueError: when it is not built or not compiled.

    Example:

    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    >>> sgd = keras.optimizers.SGD(0.1)
    >>> model.compile(WeightDecay(0.5).wrap(sgd), loss="mse")
    >>> table = explain_weight_decay(model)
    >>> [round(row["decay"], 4) for row in table.rows]
    [0.05, 0.0]
    """
    table = weight_decay_table(model)
    for message in table.warnings:
        warnings.warn(message, KerasLowrankWarning, stacklevel=2)
    return table


def weight_decay_table(model: keras.Model) -> WeightDecayTable:
    """What `explain_weight_decay` returns, without its warnings being issued.

    Args:
        model: Compiled and built `keras.Model`.

    Returns:
        `WeightDecayTable`, whose attribute `warnings` has them.
    """
    _check_model(model)
    trainable = {id(variable) for variable in model.trainable_variables}
    variables = [
        decaying(location.name, location.variable, model)
        for location in locate_variables(model)
        if id(location.variable) in trainable
    ]
    return WeightDecayTable(
        f"Weight decay of '{model.name}' with {_updaters(variables)}",
        [_row(one) for one in variables],
        advice(model, variables),
        remarks(variables),
    )


def _row(one: Decaying) -> dict[str, Any]:
    couplings = dict.fromkeys(route.coupling for route in one.routes)
    decays = bool(one.routes)
    return {
        "name": one.name,
        "path": one.variable.path,
        "role": role_of(one.variable),
        "shape": tuple(one.variable.shape),
        "route": " + ".join(route.name for route in one.routes) or None,
        "coupling": " + ".join(couplings) or None,
        "rate": one.rate,
        "paper_lambda": one.rate / 2 if decays else None,
        "decay": one.decay,
        "memory": 1 / one.decay if one.decay else None,
    }


def _updaters(variables: list[Decaying]) -> str:
    optimizers = {id(one.optimizer): one.optimizer for one in variables}
    return ", ".join(
        f"{type(one).__name__} at learning rate "
        f"{as_float(one.learning_rate):.4g}"
        for one in optimizers.values()
    )


def _check_model(model) -> None:
    if not isinstance(model, keras.Model):
        raise TypeError(
            "`model` must be a `keras.Model`. "
            f"Received: {model!r} (of type {type(model).__name__})."
        )
    if not model.built:
        raise ValueError(
            f"'{model.name}' is not built, so it has no variables to explain. "
            "Call `model.build(input_shape)`, or call the model on a batch of "
            "data once."
        )
    if getattr(model, "optimizer", None) is None:
        raise ValueError(
            f"'{model.name}' is not compiled, so nothing decays it yet. Call "
            "`model.compile(optimizer, loss)` first."
        )
