"""`explain_weight_decay`: what decays, by how much, through which route."""

from collections.abc import Iterable
from typing import Any

import keras

from keras_lowrank.decay.advice import advice
from keras_lowrank.decay.routes import DecayingWeight
from keras_lowrank.decay.routes import learning_rate
from keras_lowrank.tables import Column
from keras_lowrank.tables import Table
from keras_lowrank.tables import number
from keras_lowrank.tables import shape_text


class WeightDecayTable(Table):
    """What `explain_weight_decay` returns: a row per weight, and warnings.

    Args:
        title: String printed above the table.
        rows: Sequence of dicts, one per weight of the model.
        warnings: Sequence of strings, also printed as notes.
    """

    def __init__(
        self,
        title: str,
        rows: Iterable[dict[str, Any]],
        warnings: Iterable[str],
    ):
        columns = (
            Column("name", "weight"),
            Column("shape", format=shape_text),
            Column("role"),
            Column("routes", "decays by", format=_routes_text),
            Column("decay", "per step", format=number(4)),
            Column("factor", "step factor", format=_factor_text),
        )
        self.warnings = list(warnings)
        notes = [f"Warning: {message}" for message in self.warnings]
        super().__init__(title, columns, rows, notes)


def explain_weight_decay(model: keras.Model) -> WeightDecayTable:
    """Show which weights of a compiled model decay, and by how much.

    Asks every route that weight decay can take in Keras: a `WeightDecay` of
    this library, `weight_decay` of a Keras optimizer minus what the current
    backend excludes, and `L2` or `L1L2` on the variable. None of this is
    changed or guessed: the exclusions are asked of the optimizer itself.

    Args:
        model: Compiled and built `keras.Model`, with any optimizer.

    Returns:
        `WeightDecayTable`. Each row has `name`, `shape`, `role`, `trainable`,
        `routes`, `coupling`, `rate` (torch's convention), `decay` (learning
        rate times rate: the fraction that one step takes) and `factor`, what
        one step multiplies the weight by where the gradient of the loss is
        zero. Momentum spreads a coupled decay over later steps; the factor of
        a coupled decay under an adaptive optimizer depends on the gradients
        and is `None`. `.warnings` lists what is probably not meant.

    Raises:
        ValueError: If the model is not compiled, or not built.

    Example:

    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    >>> sgd = keras.optimizers.SGD(0.1)
    >>> model.compile(WeightDecay(0.5).wrap(sgd), loss="mse")
    >>> table = explain_weight_decay(model)
    >>> [round(row["factor"], 4) for row in table.rows]
    [0.95, 1.0]
    >>> table.warnings
    []
    """
    if not isinstance(model, keras.Model):
        raise TypeError(
            "`model` must be a `keras.Model`. "
            f"Received: {model!r} (of type {type(model).__name__})."
        )
    if not model.built:
        raise ValueError(
            f"The model '{model.name}' is not built, so it has no weights to "
            "explain. Build it with `model.build(input_shape)`, or call it."
        )
    if getattr(model, "optimizer", None) is None:
        raise ValueError(
            f"The model '{model.name}' is not compiled, so nothing decays it "
            "yet. Call `model.compile(optimizer, loss)` first."
        )
    weights = [DecayingWeight(v, model) for v in model.weights]
    title = f"Weight decay of '{model.name}' with {_names(model)}"
    rows = [weight.row() for weight in weights]
    return WeightDecayTable(title, rows, advice(model, weights))


def _names(model) -> str:
    optimizer = model.optimizer
    while hasattr(optimizer, "inner_optimizer"):
        optimizer = optimizer.inner_optimizer
    if isinstance(optimizer, keras.optimizers.MultiOptimizer):
        return "several optimizers"
    rate = f"{learning_rate(optimizer):.4g}"
    return f"{type(optimizer).__name__} at learning rate {rate}"


def _routes_text(routes: tuple[str, ...]) -> str:
    return " + ".join(routes) or "-"


def _factor_text(factor: float) -> str:
    return f"{factor:.8g}"
