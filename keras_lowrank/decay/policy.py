"""`WeightDecay`: how much decay, by which route, on which variables."""

import dataclasses
from collections.abc import Callable
from collections.abc import Sequence
from typing import Any

import keras
from keras.optimizers.schedules import LearningRateSchedule

from keras_lowrank.decay import conventions
from keras_lowrank.decay import coverage
from keras_lowrank.decay.optimizer import DecayedOptimizer


@keras.saving.register_keras_serializable(package="keras_lowrank")
@dataclasses.dataclass(frozen=True, eq=False)
class WeightDecay:
    """Weight decay that means one thing with every optimizer and backend.

    States the rate in a named convention, the route by which it acts, and the
    variables it covers; `wrap` gives all of it to a Keras optimizer. With `w`
    the rate in torch's convention and `W` a covered variable:

    - `"decoupled"`, as in Keras and AdamW: `W` becomes `W * (1 - lr * w)`
      right before the optimizer's own step, whose gradient was taken at the
      undecayed `W`. Momentum and Adam's moments never see the decay.
    - `"coupled"`, as in `torch.optim.SGD` and with `L2`: `w * W` is added to
      the gradient, so it enters momentum and Adam's moments. It is added
      after the optimizer's clipping, as in torch and unlike Keras' `L2`, and
      the reported loss stays free of it.

    Without momentum the two are the same update. With momentum only the
    coupled one matches torch, and an adaptive optimizer rescales it. With
    gradient accumulation both act once per update, not once per batch.

    What is covered is decided once, when the optimizer is built, and by
    identity. Roles and patterns are saved as they are and fit any model.
    Layers, variables and functions are saved as the decision itself, which
    is checked against the variables of the model it is loaded into.

    Args:
        rate: Float, 0 or larger; or a
            `keras.optimizers.schedules.LearningRateSchedule`; or a function
            of the number of updates made, written with `keras.ops` since it
            is traced. Any of them in the unit of `convention`. A function
            must be registered with
            `keras.saving.register_keras_serializable` to be saved.
        convention: String, `"keras"`, `"torch"`, `"l2"` or `"paper_lambda"`;
            see `convert_weight_decay`.
        coupling: String, `"coupled"` or `"decoupled"`; that of the
            convention by default, which is `"decoupled"` for `"keras"` only.
        covers: What decays, kernels by default: a role (see `variable_role`)
            or `"all"`, as in the paper; a regular expression searched in
            `variable.path`; a layer, for all its weights; a `keras.Variable`;
            a function from a variable to a bool; or a list of these.
        exclude: What does not decay even if covered, in the same forms.
        rescale_velocity: Bool. Keras' SGD keeps the learning rate inside its
            velocity, torch's does not, so that they part when it changes.
            `True` multiplies the velocity by the ratio of the new to the old
            one, which follows torch exactly, with or without Nesterov. For
            SGD with momentum. A learning rate of 0 empties the velocity.

    Raises:
        TypeError: If the rate, or what is covered, is of the wrong type.
        ValueError: If the rate is negative, the convention or the coupling
            unknown, or a pattern is not a regular expression.

    Example:

    >>> decay = WeightDecay(5e-4, convention="torch")
    >>> decay.coupling, decay.rate_in("l2")
    ('coupled', 0.00025)
    >>> optimizer = decay.wrap(keras.optimizers.SGD(0.1, momentum=0.9))

    Reference:
        [Loshchilov & Hutter, 2019](https://arxiv.org/abs/1711.05101)
    """

    rate: float | LearningRateSchedule | Callable[[Any], Any]
    convention: str = "keras"
    coupling: str | None = None
    covers: Any = "kernel"
    exclude: Any = ()
    rescale_velocity: bool = False

    def __post_init__(self):
        conventions.check_choice(
            self.convention, conventions.UNITS, "convention"
        )
        coupling = self.coupling or conventions.COUPLINGS[self.convention]
        conventions.check_choice(coupling, ("coupled", "decoupled"), "coupling")
        if not isinstance(self.rescale_velocity, bool):
            raise TypeError(
                "`rescale_velocity` must be True or False. "
                f"Received: rescale_velocity={self.rescale_velocity!r}."
            )
        rate = self.rate
        if isinstance(rate, type) or not callable(rate):
            rate = conventions.check_rate(rate)
        self._set("rate", rate)
        self._set("coupling", coupling)
        self._set("covers", coverage.as_selectors(self.covers, "covers"))
        self._set("exclude", coverage.as_selectors(self.exclude, "exclude"))

    def _set(self, name, value):
        object.__setattr__(self, name, value)

    @property
    def is_constant(self) -> bool:
        """Whether the rate is a number, not a schedule or a function."""
        return isinstance(self.rate, float)

    @property
    def unit(self) -> float:
        """What turns the rate into torch's and Keras' convention."""
        return conventions.UNITS[self.convention]

    def rate_in(self, convention: str) -> float | Callable[[Any], Any]:
        """The rate in another convention.

        Args:
            convention: String, see `convert_weight_decay`.

        Returns:
            Float, or a function of the step where the rate is one.

        Raises:
            ValueError: If the convention is unknown.
        """
        conventions.check_choice(convention, conventions.UNITS, "convention")
        factor = self.unit / conventions.UNITS[convention]
        rate = self.rate
        if callable(rate):
            return lambda step: factor * rate(step)
        return factor * rate

    def resolve(self, variables: Sequence) -> coverage.Coverage:
        """Decide which of `variables` are covered.

        Args:
            variables: Sequence of `keras.Variable`, usually
                `model.trainable_variables`.

        Returns:
            `Coverage` with one bool per variable, and what was asked for but
            matched none of them.

        Raises:
            ValueError: If the coverage was saved for other variables.
        """
        return coverage.resolve(self.covers, self.exclude, variables)

    def wrap(self, optimizer) -> DecayedOptimizer:
        """Give this decay to a Keras optimizer.

        Args:
            optimizer: `keras.optimizers.Optimizer` that does not decay by
                itself, or its name. It belongs to the wrapper from now on.

        Returns:
            `DecayedOptimizer`, for `model.compile`.

        Raises:
            TypeError: If `optimizer` is not a Keras optimizer.
            ValueError: If it decays already, if it wraps others itself, or if
                `rescale_velocity` is asked of one without a velocity.

        Example:

        >>> decay = WeightDecay(0.01, covers=["kernel", "embedding"])
        >>> decay.wrap("adam").inner_optimizer.name
        'adam'
        """
        if isinstance(optimizer, str):
            optimizer = keras.optimizers.get(optimizer)
        return DecayedOptimizer(optimizer, self)

    def bound_to(self, resolved: coverage.Coverage) -> "WeightDecay":
        """This decay in a form that can be saved.

        Args:
            resolved: `Coverage` that this decay resolved to.

        Returns:
            `WeightDecay`: itself if it is of roles and patterns, and else one
            that carries the decision for each variable.
        """
        if coverage.is_portable((*self.covers, *self.exclude)):
            return self
        saved = coverage.SavedCoverage(resolved.entries)
        return dataclasses.replace(self, covers=saved, exclude=())

    def get_config(self) -> dict[str, Any]:
        """The arguments as plain values, for saving."""
        return {
            "rate": self.rate
            if self.is_constant
            else keras.saving.serialize_keras_object(self.rate),
            "convention": self.convention,
            "coupling": self.coupling,
            "covers": self._plain(self.covers),
            "exclude": self._plain(self.exclude),
            "rescale_velocity": self.rescale_velocity,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects=None):
        """The reverse of `get_config`."""
        config = dict(config)
        if isinstance(config["rate"], dict):
            config["rate"] = keras.saving.deserialize_keras_object(
                config["rate"], custom_objects=custom_objects
            )
        return cls(**config)

    def _plain(self, selectors):
        if not coverage.is_portable(selectors):
            raise ValueError(
                "A `WeightDecay` given by layers, variables or functions can "
                "be saved only with the optimizer that it was built into, as "
                "the decision for each variable. Received: "
                f"{', '.join(map(coverage.describe, selectors))}. Build the "
                "optimizer first (`optimizer.build(model.trainable_variables)`"
                "), or use roles and patterns."
            )
        if any(isinstance(s, coverage.SavedCoverage) for s in selectors):
            return [dict(entry) for entry in selectors[0].entries]
        return list(selectors)

    def __reduce__(self):
        # A pickled layer would come back as another one, covering nothing.
        values = [getattr(self, f.name) for f in dataclasses.fields(self)]
        values[3:5] = self._plain(self.covers), self._plain(self.exclude)
        return type(self), tuple(values)

    def __copy__(self):
        return self

    def __deepcopy__(self, memo):
        # Immutable, and a copied layer would be another one.
        return self
