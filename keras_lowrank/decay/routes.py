"""Every route by which a variable of a Keras model can decay."""

import dataclasses
from collections.abc import Iterator
from typing import Any

import keras
from keras import ops

from keras_lowrank.decay.optimizer import DecayedOptimizer
from keras_lowrank.decay.torch_sgd import TorchSGD


@dataclasses.dataclass(frozen=True)
class Route:
    """One way in which one variable decays.

    Args:
        name: String, what applies it.
        coupling: String, `"coupled"` or `"decoupled"`.
        rate: Float, in torch's and Keras' convention.
        of_policy: Boolean, whether a `WeightDecay` says so, which may change
            with the step.
    """

    name: str
    coupling: str
    rate: float
    of_policy: bool = False


@dataclasses.dataclass(frozen=True, eq=False)
class Decaying:
    """A trainable variable, the optimizer that updates it, and its routes.

    Args:
        name: String, stable and relative to the model.
        variable: `keras.Variable`.
        optimizer: Keras optimizer that makes its update, nothing around it.
        routes: Tuple of `Route`, empty if it does not decay.
    """

    name: str
    variable: Any
    optimizer: Any
    routes: tuple[Route, ...]

    @property
    def rate(self) -> float:
        """All routes together, in torch's and Keras' convention."""
        return sum(route.rate for route in self.routes)

    @property
    def is_coupled(self) -> bool:
        """Whether some of the decay is part of the gradient."""
        return any(route.coupling == "coupled" for route in self.routes)

    @property
    def is_rescaled(self) -> bool:
        """Whether an adaptive optimizer works on the decay."""
        plain = isinstance(self.optimizer, (keras.optimizers.SGD, TorchSGD))
        return self.is_coupled and not plain

    @property
    def momentum(self) -> float:
        """Momentum that the decay enters, 0 where it does not."""
        if self.is_coupled and not self.is_rescaled:
            return self.optimizer.momentum
        return 0.0

    @property
    def decay(self) -> float | None:
        """Fraction of the variable that a step takes at zero gradient.

        In the long run, where momentum spreads it over steps. `None` where it
        depends on the gradients.
        """
        if not self.routes:
            return 0.0
        if self.is_rescaled or self.momentum == 1:
            return None
        return as_float(self.optimizer.learning_rate) * sum(
            route.rate / (1 - self.momentum)
            if route.coupling == "coupled"
            else route.rate
            for route in self.routes
        )


def decaying(name: str, variable, model) -> Decaying:
    """What there is to say of one trainable variable of a compiled model."""
    optimizer = updater(model.optimizer, variable)
    routes = tuple(_routes(variable, optimizer, model))
    inner = getattr(optimizer, "inner_optimizer", optimizer)
    return Decaying(name, variable, inner, routes)


def updater(optimizer, variable):
    """The optimizer in `optimizer` that updates `variable`."""
    if isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
        return updater(optimizer.inner_optimizer, variable)
    if isinstance(optimizer, keras.optimizers.MultiOptimizer):
        return optimizer._optimizer_map(variable)
    return optimizer


def seen_by(optimizer, variable):
    """What Keras shows of a variable to the exclusions of an optimizer."""
    # On TensorFlow they see the raw variable, whose name is its path.
    raw = hasattr(optimizer, "_distribution_strategy")
    return variable.value if raw and not _is_muon(optimizer) else variable


def as_float(value) -> float:
    """A number, a scalar tensor or a scalar variable as a float."""
    return float(ops.convert_to_numpy(value))


def _routes(variable, optimizer, model) -> Iterator[Route]:
    if isinstance(optimizer, DecayedOptimizer):
        policy = optimizer.policy
        if _is_covered(variable, optimizer, model):
            rate = as_float(optimizer.weight_decay) * policy.factor
            name = f"{policy.coupling} weight decay"
            yield Route(name, policy.coupling, rate, of_policy=True)
    else:
        rate = _keras_rate(variable, optimizer)
        if rate and optimizer._use_weight_decay(seen_by(optimizer, variable)):
            yield Route("Keras weight_decay", "decoupled", rate)
    l2 = getattr(variable.regularizer, "l2", None)
    if l2 is not None and as_float(l2):
        yield Route("L2 regularizer", "coupled", 2 * as_float(l2))


def _is_covered(variable, optimizer, model) -> bool:
    if optimizer.built:
        variables, coverage = optimizer._trainable_variables, optimizer.coverage
    else:
        variables = model.trainable_variables
        coverage = optimizer.resolve(variables)
    return any(
        hit and one is variable
        for one, hit in zip(variables, coverage.covered, strict=True)
    )


def _keras_rate(variable, optimizer) -> float:
    rate = optimizer.weight_decay
    # Muon leaves some variables to Adam, with a rate of its own.
    if _is_muon(optimizer) and optimizer._should_use_adamw(variable):
        rate = optimizer.adam_weight_decay
    return 0.0 if rate is None else as_float(rate)


def _is_muon(optimizer) -> bool:
    return isinstance(optimizer, keras.optimizers.Muon)
