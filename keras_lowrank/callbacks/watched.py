"""What the theory can say of each weight matrix, and why it is silent."""

import dataclasses
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np

from keras_lowrank.callbacks.step_log import Steps
from keras_lowrank.decay import TorchSGD
from keras_lowrank.decay import decaying
from keras_lowrank.gradients import Uses
from keras_lowrank.gradients import weight_uses
from keras_lowrank.theory import Window
from keras_lowrank.theory import memory
from keras_lowrank.weights import WeightMatrix
from keras_lowrank.weights import weight_matrices


@dataclasses.dataclass(frozen=True, eq=False)
class Watched:
    """A weight matrix, what decays it, and what the theory says of it.

    Args:
        matrix: `WeightMatrix`.
        uses: Int, or `None` where it is not known.
        decay: `Decaying`, or `None` for a matrix that is not trained.
        silence: String, why Lemma 3.2 says nothing of it; empty if it does.
    """

    matrix: WeightMatrix
    uses: int | None
    decay: Any
    silence: str

    def window(self, samples: int) -> int:
        """How many last steps leave some rank to be excluded."""
        if self.silence or not self.uses:
            return 0
        full = min(self.matrix.matrix_shape)
        return (full - 1) // (self.uses * samples)


def watch(model, weights=None) -> Iterator[Watched]:
    """What the theory can say of each weight matrix of a compiled model.

    Args:
        model: Compiled and built Keras model.
        weights: Which weight matrices, as for `weight_matrices`.

    Yields:
        A `Watched` per weight matrix.
    """
    reason = ""
    try:
        uses = weight_uses(model, weights=weights)
    except ValueError as error:  # shapes that only the data know
        uses, reason = {}, str(error)
    trainable = {id(variable) for variable in model.trainable_variables}
    for matrix in weight_matrices(model, weights=weights):
        known = uses.get(matrix.name, Uses(matrix.name, None, reason))
        if id(matrix.variable) not in trainable:
            yield Watched(matrix, known.count, None, "it is not trained")
            continue
        decay = decaying(matrix.name, matrix.variable, model)
        silence = _silence(matrix, decay, model)
        if known.count is None:
            silence = silence or known.reason
        yield Watched(matrix, known.count, decay, silence)


def _silence(matrix: WeightMatrix, decay, model) -> str:
    """Why the lemma says nothing of a weight matrix, or nothing."""
    optimizer = decay.optimizer
    if not isinstance(optimizer, (keras.optimizers.SGD, TorchSGD)):
        kind = type(optimizer).__name__
        return f"the updates of {kind} are not of the gradients' rank"
    if optimizer is not _updater_of_all(model):
        return "several optimizers update the model"
    if optimizer.clipvalue:
        return "`clipvalue` changes the rank of gradients"
    if optimizer.use_ema:
        return "`use_ema` overwrites the weights"
    if not decay.routes:
        return "it does not decay"
    couplings = {route.coupling for route in decay.routes}
    if optimizer.momentum and len(couplings) > 1:
        return "it decays both coupled and decoupled, with momentum"
    if matrix.part is not None or matrix.note:
        return "it is part of a variable, whose norm is that of the whole"
    return ""


def _updater_of_all(model):
    outer = model.optimizer
    if isinstance(outer, keras.optimizers.LossScaleOptimizer):
        outer = outer.inner_optimizer
    return getattr(outer, "inner_optimizer", outer)


def velocity_of(optimizer, variable):
    """The velocity that an optimizer with momentum keeps of a variable."""
    slots = getattr(optimizer, "velocities", None) or optimizer.momentums
    return slots[optimizer._get_variable_index(variable)]


def window_of(item: Watched, index: int, steps: Steps, samples: int) -> Window:
    """The window that the last steps give a weight matrix.

    Args:
        item: `Watched`.
        index: Int, its place in `steps`.
        steps: `Steps`.
        samples: Int, those of each update.

    Returns:
        A `Window`.
    """
    decay, optimizer = item.decay, item.decay.optimizer
    policy = [route for route in decay.routes if route.of_policy]
    fixed = sum(route.rate for route in decay.routes if not route.of_policy)
    # Row n led to the state n steps ago, and the oldest to where we begin.
    rates = steps.learning_rates[:-1][::-1]
    decays = fixed + steps.decays[:-1][::-1] * bool(policy)
    kind = {
        (True, True): "torch",
        (True, False): "torch_decoupled",
        (False, True): "keras_coupled",
        (False, False): "keras_decoupled",
    }[isinstance(optimizer, TorchSGD), decay.is_coupled]
    p, q = memory(
        rates,
        decays,
        optimizer.momentum,
        kind,
        optimizer.nesterov,
    )
    squares, mixed, velocities = steps.products[:, index].T
    past = p**2 * squares + 2 * p * q * mixed + q**2 * velocities
    return Window.of_past(
        np.sqrt(np.maximum(past, 0.0)),
        [samples] * len(rates),
        item.uses or 0,
        item.matrix.matrix_shape,
    )
