"""Every route by which a variable of a Keras model can decay."""

import dataclasses
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_lowrank.decay.coverage import variable_role
from keras_lowrank.decay.optimizer import DecayedOptimizer


@dataclasses.dataclass(frozen=True)
class Route:
    """One way in which one variable decays.

    Args:
        name: String, what applies it.
        coupling: String, `"coupled"` or `"decoupled"`.
        rate: Float, in torch's and Keras' convention.
    """

    name: str
    coupling: str
    rate: float


class DecayingWeight:
    """One weight of a model, the optimizer that updates it, and its routes.

    Args:
        variable: `keras.Variable`.
        model: Compiled and built `keras.Model` that it belongs to.
    """

    def __init__(self, variable, model):
        self.variable = variable
        self.name = variable.path
        self.optimizer = optimizer_of(variable, model.optimizer)
        self.routes: tuple[Route, ...] = ()
        if variable.trainable:
            self.routes = tuple(
                route
                for route in _routes(variable, self.optimizer, model)
                if route.rate
            )

    @property
    def decay(self) -> float:
        """Fraction of the weight that one step takes at zero gradient."""
        rate = sum(route.rate for route in self.routes)
        # A weight that no route reaches may have no learning rate either.
        return rate and rate * learning_rate(self.optimizer)

    @property
    def is_rescaled(self) -> bool:
        """Whether an adaptive optimizer works on a coupled decay."""
        coupled = any(route.coupling == "coupled" for route in self.routes)
        inner = getattr(self.optimizer, "inner_optimizer", self.optimizer)
        return coupled and not isinstance(inner, keras.optimizers.SGD)

    def row(self) -> dict[str, Any]:
        """The row of the table."""
        couplings = dict.fromkeys(route.coupling for route in self.routes)
        return {
            "name": self.name,
            "shape": tuple(self.variable.shape),
            "role": variable_role(self.variable),
            "trainable": bool(self.variable.trainable),
            "routes": tuple(route.name for route in self.routes),
            "coupling": " and ".join(couplings) or None,
            "rate": sum(route.rate for route in self.routes),
            "decay": self.decay,
            "factor": None if self.is_rescaled else 1.0 - self.decay,
        }


def _routes(variable, optimizer, model) -> Iterator[Route]:
    if isinstance(optimizer, DecayedOptimizer):
        if _is_covered(variable, optimizer, model):
            rate = as_float(optimizer.weight_decay_rate) * optimizer.decay.unit
            coupling = optimizer.decay.coupling
            yield Route(f"WeightDecay ({coupling})", coupling, rate)
        optimizer = optimizer.inner_optimizer
    rate = _keras_rate(variable, optimizer)
    if rate and optimizer._use_weight_decay(as_keras_passes_it(variable)):
        kind = type(optimizer).__name__
        yield Route(f"{kind} weight_decay (decoupled)", "decoupled", rate)
    l2 = getattr(variable.regularizer, "l2", None)
    if l2 is not None:
        kind = type(variable.regularizer).__name__
        yield Route(f"{kind} (coupled)", "coupled", 2.0 * as_float(l2))


def _is_covered(variable, optimizer, model) -> bool:
    if optimizer.built:
        return optimizer.decays(variable)
    variables = model.trainable_variables
    mask = optimizer.decay.resolve(variables).mask
    return any(
        hit and v is variable for v, hit in zip(variables, mask, strict=True)
    )


def _keras_rate(variable, optimizer) -> float:
    rate = optimizer.weight_decay
    if isinstance(optimizer, keras.optimizers.Muon):
        # Muon hands some variables to Adam, which has a rate of its own.
        if optimizer._should_use_adamw(variable):
            rate = optimizer.adam_weight_decay
    return 0.0 if rate is None else as_float(rate)


def as_keras_passes_it(variable):
    """What Keras shows to its exclusions on the current backend."""
    # On TensorFlow they see the raw variable, which is named by its path.
    if keras.backend.backend() == "tensorflow":
        return variable.value
    return variable


def optimizer_of(variable, optimizer):
    """The optimizer that updates `variable`, without what wraps it."""
    if isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
        optimizer = optimizer.inner_optimizer
    if isinstance(optimizer, keras.optimizers.MultiOptimizer):
        optimizer = optimizer._optimizer_map(variable)
    return optimizer


def learning_rate(optimizer) -> float:
    """The learning rate of the next step."""
    return as_float(optimizer.learning_rate)


def as_float(value) -> float:
    """A number, a scalar tensor or a scalar variable as a float."""
    return float(np.asarray(ops.convert_to_numpy(value)))
