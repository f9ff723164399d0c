"""`WeightDecay`: how much decay, by which route, on which variables."""

import dataclasses
from collections.abc import Callable
from typing import Any

import keras
from keras import ops
from keras.optimizers.schedules import LearningRateSchedule

from keras_lowrank.decay import coverage
from keras_lowrank.decay.convention import CONVENTIONS
from keras_lowrank.decay.convention import COUPLINGS
from keras_lowrank.decay.convention import check_rate
from keras_lowrank.decay.convention import convention
from keras_lowrank.decay.convention import convert_weight_decay
from keras_lowrank.decay.optimizer import DecayedOptimizer


@keras.saving.register_keras_serializable(package="keras_lowrank")
@dataclasses.dataclass(frozen=True, eq=False)
class WeightDecay:
    """Weight decay that means one thing with every optimizer and backend.

    States the rate in a named convention, the coupling, and the variables it
    covers; `wrap` gives all of it to a Keras optimizer. With `w` the rate in
    torch's and Keras' convention and `W` a covered variable,

    - `"decoupled"`, as in Keras and AdamW: `W` becomes `W * (1 - lr * w)`
      before the optimizer's own step, whose gradient was taken before. Neither
      momentum nor Adam's moments see the decay.
    - `"coupled"`, as in `torch.optim.SGD` and with `L2`: `w * W` is added to
      the gradient, so it enters momentum and moments. It comes before the
      optimizer's clipping, as with `L2`; in torch, clipping comes first.

    Without momentum the two are the same update. With momentum only the
    coupled one matches torch (see also `TorchSGD`), and an adaptive optimizer
    rescales it. Either acts once per update under gradient accumulation, not
    on a step skipped by loss scaling, and not on a variable that has no
    gradient, as in torch and in Keras.

    What is covered is decided once, when the optimizer is built, by identity,
    and saved with the model. The policy itself saves roles and patterns as
    they are, layers and variables as patterns of their paths.

    Args:
        rate: Float, 0 or larger; or a
            `keras.optimizers.schedules.LearningRateSchedule`; or a function
            of the number of updates made, a scalar float32 tensor. The
            function is traced with the training step, so it is to be written
            with `keras.ops`, and registered with
            `keras.saving.register_keras_serializable` if it is to be saved.
        convention: String, what `rate` is stated in: `"keras"`, `"torch"`,
            `"l2"` or `"paper_lambda"`; see `convert_weight_decay`.
        coupling: String, `"coupled"` or `"decoupled"`. The convention's own
            by default: decoupled for `"keras"`, coupled for the others.
        covers: What decays: `"kernels"` (the default), `"biases"`,
            `"normalization"`, `"embeddings"`, `"vectors"` or `"all"`, which is
            the paper's choice; another string is a regular expression searched
            in `variable.path`; a layer stands for all its variables; a
            `keras.Variable`; or a list of these.
        exclude: What does not decay even if it is covered, in the same forms.

    Raises:
        TypeError: when an argument is of the wrong type.
        ValueError: when the rate is negative or cannot be traced, or a name
            or pattern is unknown.

    Example:

    >>> decay = WeightDecay(5e-4, convention="torch", covers="all")
    >>> decay.coupling, decay.rate_in("paper_lambda")
    ('coupled', 0.00025)
    >>> optimizer = decay.wrap(keras.optimizers.SGD(0.1))

    Reference:
        [Loshchilov & Hutter, 2019](https://arxiv.org/abs/1711.05101)
    """

    rate: float | LearningRateSchedule | Callable[[Any], Any]
    convention: str = "keras"
    coupling: str | None = None
    covers: Any = "kernels"
    exclude: Any = ()

    def __post_init__(self):
        own = convention(self.convention)
        coupling = own.coupling if self.coupling is None else self.coupling
        if coupling not in COUPLINGS:
            raise ValueError(
                f"`coupling` must be one of {COUPLINGS}, or None for that of "
                f"the convention. Received: coupling={coupling!r}."
            )
        checked = {
            "rate": _checked(self.rate),
            "coupling": coupling,
            "covers": coverage.as_selectors(self.covers, "covers"),
            "exclude": coverage.as_selectors(self.exclude, "exclude"),
        }
        for name, value in checked.items():
            object.__setattr__(self, name, value)

    @property
    def is_constant(self) -> bool:
        """Whether the rate is a number, not a schedule or a function."""
        return isinstance(self.rate, float)

    @property
    def factor(self) -> float:
        """What turns the rate into torch's and Keras' convention."""
        return CONVENTIONS[self.convention].factor

    def rate_in(self, name: str) -> float:
        """The rate in another convention. For constant rates.

        Says how strong the decay is, not how it is coupled.

        Args:
            name: String, a convention.

        Returns:
            Float.
        """
        if not isinstance(self.rate, float):
            raise ValueError(
                "The rate of this `WeightDecay` changes with the step, so it "
                f"has no single value. Received: rate={self.rate!r}. Convert "
                "its values with `convert_weight_decay`."
            )
        return convert_weight_decay(self.rate, self.convention, name)

    def rate_at(self, step):
        """The rate at a step, in the policy's own convention.

        Args:
            step: Scalar tensor or variable, the number of updates made.

        Returns:
            Scalar float32 tensor.
        """
        if isinstance(self.rate, float):
            return ops.convert_to_tensor(self.rate, dtype="float32")
        if not isinstance(self.rate, LearningRateSchedule):
            # So that the function may compute with it, also on TensorFlow,
            # where an integer tensor times a Python float is an error.
            step = ops.cast(step, "float32")
        return ops.cast(self.rate(step), "float32")

    def resolve(self, variables) -> coverage.Coverage:
        """Decide which of `variables` are covered."""
        return coverage.resolve(self.covers, self.exclude, list(variables))

    def wrap(self, optimizer) -> keras.optimizers.Optimizer:
        """Give this decay to a Keras optimizer.

        Args:
            optimizer: Keras optimizer that does not decay by itself, or its
                name. A `LossScaleOptimizer` is taken apart and put around the
                result.

        Returns:
            `DecayedOptimizer`, for `model.compile`; or a `LossScaleOptimizer`
            around one.

        Raises:
            TypeError: when `optimizer` is not a Keras optimizer.
            ValueError: when it decays by itself, or cannot be wrapped.

        Example:

        >>> WeightDecay(0.01).wrap("adam").inner_optimizer.name
        'adam'
        """
        if isinstance(optimizer, str):
            optimizer = keras.optimizers.get(optimizer)
        if not isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
            return DecayedOptimizer(optimizer, self)
        if optimizer.built:
            raise ValueError(
                "A `LossScaleOptimizer` cannot be wrapped once it is built, "
                "since its loss scale would be lost. Received: "
                f"'{optimizer.name}'. Wrap it before the model is compiled."
            )
        return keras.optimizers.LossScaleOptimizer(
            self.wrap(optimizer.inner_optimizer),
            initial_scale=optimizer.initial_scale,
            dynamic_growth_steps=optimizer.dynamic_growth_steps,
            name=optimizer.name,
        )

    def get_config(self) -> dict[str, Any]:
        """The arguments as plain values, for saving."""
        rate = self.rate
        if not self.is_constant:
            rate = keras.saving.serialize_keras_object(rate)
        return {
            "rate": rate,
            "convention": self.convention,
            "coupling": self.coupling,
            "covers": coverage.as_strings(self.covers),
            "exclude": coverage.as_strings(self.exclude),
        }

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects=None):
        """The reverse of `get_config`."""
        rate = config["rate"]
        if isinstance(rate, dict):
            rate = keras.saving.deserialize_keras_object(
                rate, custom_objects=custom_objects
            )
        return cls(**(config | {"rate": rate}))

    def __reduce__(self):
        # A pickled layer would come back as another one, and cover nothing.
        covers = coverage.as_strings(self.covers)
        exclude = coverage.as_strings(self.exclude)
        arguments = (self.rate, self.convention, self.coupling, covers, exclude)
        return type(self), arguments

    def __deepcopy__(self, memo):
        # Nothing in it changes, and a copied layer would be another one.
        return self


def _checked(rate):
    if isinstance(rate, LearningRateSchedule):
        return rate
    if isinstance(rate, type) or not callable(rate):
        return check_rate(rate)
    # A symbol stands for every step: it shows on each backend, torch too,
    # what cannot be traced. `keras.ops.cond` cannot take it on JAX, but can
    # be traced there, as a batch of steps is.
    try:
        values = rate(keras.KerasTensor((), dtype="float32"))
        shape = getattr(values, "shape", ())
    except Exception as error:
        try:
            values = ops.vectorized_map(rate, ops.arange(2, dtype="float32"))
            shape = values.shape[1:]
        except Exception:
            raise ValueError(
                "The `rate` must be computed with `keras.ops`, since it is "
                "traced with the training step. Received: rate="
                f"{rate!r}, which cannot be: {error} Write `if` as "
                "`keras.ops.where(step < 10, 1e-3, 1e-4)`, and leave out "
                "`float()`, `math` and NumPy."
            ) from error
    if values is None or len(shape):
        raise ValueError(
            "The `rate` must give a number for each step. Received: "
            f"rate={rate!r}, which gives {values}."
        )
    return rate
