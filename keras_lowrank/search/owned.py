"""What the search gives a model rather than the function that builds it."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import keras

from keras_lowrank.decay import WeightDecay
from keras_lowrank.decay import decayed_optimizers

OWNED = ("batch_size", "learning_rate", "weight_decay")


def own_optimizer(
    model: keras.Model, values: Mapping[str, Any], decay: WeightDecay
) -> None:
    """Give a compiled model the learning rate and the decay of a trial.

    Args:
        model: Compiled Keras model that was not trained yet.
        values: Dict with `learning_rate`, `weight_decay`, both or neither; the
            decay in the convention of the model's own `WeightDecay`, or of
            `decay` where it has none.
        decay: `WeightDecay` that the optimizer gets, with that rate, where it
            has none.

    Raises:
        ValueError: when the model is not compiled, when its learning rate is
            a schedule, or when it decays by something else as well.
    """
    optimizer = getattr(model, "optimizer", None)
    if optimizer is None:
        raise ValueError(
            "The function must return a compiled model. Received: "
            f"'{model.name}', without an optimizer."
        )
    if "learning_rate" in values:
        if not isinstance(optimizer.learning_rate, keras.Variable):
            raise ValueError(
                "`learning_rate` is in the search space, but the optimizer of "
                "the model follows a schedule: "
                f"{type(_schedule(optimizer)).__name__}. Give it a number, or "
                "search for the numbers of the schedule in the function that "
                "builds the model."
            )
        optimizer.learning_rate = values["learning_rate"]
    if "weight_decay" not in values:
        return
    rate = values["weight_decay"]
    found = decayed_optimizers(optimizer)
    for one in found:
        one.weight_decay = rate
    if not found:
        policy = dataclasses.replace(decay, rate=rate)
        if hasattr(optimizer, "inner_optimizer"):  # of loss scaling
            inner = policy.wrap(optimizer.inner_optimizer)
            optimizer = type(optimizer)(inner, name=optimizer.name)
        else:
            optimizer = policy.wrap(optimizer)
        # Nothing was traced yet, so this is what `compile` would have done.
        model.optimizer = optimizer


def decay_rate(model: keras.Model) -> float:
    """The constant decay of a model in torch's convention, 0 without one."""
    return math.fsum(
        float(keras.ops.convert_to_numpy(one.weight_decay)) * one.policy.factor
        for one in decayed_optimizers(model.optimizer)
    )


def _schedule(optimizer):
    while hasattr(optimizer, "inner_optimizer"):
        optimizer = optimizer.inner_optimizer
    return getattr(optimizer, "_learning_rate", None)
