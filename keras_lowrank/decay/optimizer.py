"""The optimizer that applies a `WeightDecay` through any Keras optimizer."""

import dataclasses
import warnings
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_lowrank.decay.conventions import check_rate
from keras_lowrank.decay.inner import check_inner
from keras_lowrank.tables import KerasLowrankWarning


def _of_inner(name: str) -> Any:
    """A property that lives in the inner optimizer."""

    def read(self):
        return getattr(self.inner_optimizer, name)

    def write(self, value):
        # Keras' constructor writes its defaults before there is an inner one.
        if "inner_optimizer" in vars(self):
            setattr(self.inner_optimizer, name, value)

    return property(read, write, doc=f"`{name}` of the inner optimizer.")


@keras.saving.register_keras_serializable(package="keras_lowrank")
class DecayedOptimizer(keras.optimizers.Optimizer):
    """A Keras optimizer together with the `WeightDecay` it applies.

    Made by `WeightDecay.wrap`. The decay acts where Keras' own does: after
    unscaling, accumulation and clipping of the gradients, right before the
    inner optimizer's update. Everything else, as the learning rate, clipping,
    averaging and accumulation, is the inner optimizer's and is read and set
    as if this were it.

    Args:
        inner_optimizer: `keras.optimizers.Optimizer` without decay.
        decay: `WeightDecay`.
        name: String, the name of the optimizer.

    Raises:
        TypeError: If one of the arguments is of another type.
        ValueError: If the inner optimizer decays already, wraps others
            itself, or has no velocity to rescale.

    Example:

    >>> optimizer = WeightDecay(5e-4).wrap(keras.optimizers.SGD(0.1))
    >>> optimizer.weight_decay_rate = 1e-4  # acts from the next step on
    >>> round(float(optimizer.learning_rate), 6)
    0.1

    Reference:
        `keras.optimizers.LossScaleOptimizer`, which wraps in the same way.
    """

    built: bool
    clipnorm = _of_inner("clipnorm")
    clipvalue = _of_inner("clipvalue")
    global_clipnorm = _of_inner("global_clipnorm")
    use_ema = _of_inner("use_ema")
    ema_momentum = _of_inner("ema_momentum")
    ema_overwrite_frequency = _of_inner("ema_overwrite_frequency")
    gradient_accumulation_steps = _of_inner("gradient_accumulation_steps")
    loss_scale_factor = _of_inner("loss_scale_factor")
    _model_variables_moving_average = _of_inner(
        "_model_variables_moving_average"
    )

    def __init__(self, inner_optimizer, decay, name=None):
        if not hasattr(decay, "resolve"):
            raise TypeError(
                f"`decay` must be a `WeightDecay`. Received: decay={decay!r} "
                f"(of type {type(decay).__name__})."
            )
        check_inner(inner_optimizer, decay)
        super().__init__(learning_rate=0.0, name=name)
        self.inner_optimizer = inner_optimizer
        self.decay = decay
        self.coverage = None
        self._own_variables = []
        if decay.is_constant:
            # A variable, since a traced step reads a number once, for good.
            self._rate = self._add_scalar(decay.rate, "weight_decay_rate")
        if decay.rescale_velocity:
            # 0 until the first update, before which there is no velocity.
            self._previous_rate = self._add_scalar(0.0, "last_learning_rate")
        # Keras calls this with the final gradients, once per update.
        self._inner_update = inner_optimizer._backend_update_step
        inner_optimizer._backend_update_step = self._decay_and_update

    def _add_scalar(self, value: float, name: str):
        variable = self.add_variable(
            shape=(),
            dtype="float32",
            initializer=keras.initializers.Constant(value),
            aggregation="only_first_replica",
            name=name,
        )
        self._own_variables.append(variable)
        return variable

    def build(self, variables):
        """Build the inner optimizer and decide what is covered.

        Args:
            variables: List of the model's trainable variables.
        """
        if self.built:
            return
        self.coverage = self.decay.resolve(variables)
        for message in self.coverage.unmatched:
            warnings.warn(message, KerasLowrankWarning, stacklevel=2)
        self.inner_optimizer.build(variables)
        for index, variable in enumerate(variables):
            self._trainable_variables_indices[self._var_key(variable)] = index
        self._trainable_variables.extend(variables)
        self.built = True

    def decays(self, variable) -> bool:
        """Whether `variable` is covered.

        Args:
            variable: One of the variables the optimizer was built with.

        Returns:
            Bool.
        """
        if self.coverage is None:
            raise ValueError(
                "The optimizer is not built, so nothing is decided yet. Call "
                "`optimizer.build(model.trainable_variables)`, or `fit`."
            )
        self._check_variables_are_known([variable])
        return self.coverage.mask[self._get_variable_index(variable)]

    @property
    def variables(self):
        """State of the inner optimizer, then that of the decay."""
        return [*self.inner_optimizer.variables, *self._own_variables]

    @property
    def iterations(self):
        """Number of updates made."""
        return self.inner_optimizer.iterations

    @property
    def learning_rate(self):
        """Learning rate of the inner optimizer; can be set."""
        return self.inner_optimizer.learning_rate

    @learning_rate.setter
    def learning_rate(self, learning_rate):
        self.inner_optimizer.learning_rate = learning_rate

    @property
    def weight_decay_rate(self):
        """The rate now, in the convention of the `WeightDecay`.

        A constant rate can be set at any time and acts from the next step on,
        on every backend. In a callback set it through the model, as a
        learning rate: `self.model.optimizer.weight_decay_rate = rate`, where
        a `LossScaleOptimizer` (policy `mixed_float16`) has this optimizer as
        its `inner_optimizer`.
        """
        if self.decay.is_constant:
            return self._rate
        return self._scheduled_rate()

    @weight_decay_rate.setter
    def weight_decay_rate(self, rate):
        if not self.decay.is_constant:
            raise TypeError(
                "The rate of this `WeightDecay` follows a schedule, hence it "
                f"cannot be set. Received: weight_decay_rate={rate!r}. Create "
                "it with a number to set the rate during training."
            )
        self._rate.assign(check_rate(rate))

    @property
    def weight_decay(self):
        """`None`: Keras' own decay is not used here."""
        return None

    @weight_decay.setter
    def weight_decay(self, value):
        # Keras' constructor sets its default, `None`.
        if value is not None:
            raise AttributeError(
                "`weight_decay` of a `DecayedOptimizer` cannot be set. "
                f"Received: weight_decay={value!r}. Set `weight_decay_rate`, "
                f"in the convention '{self.decay.convention}'."
            )

    def exclude_from_weight_decay(self, var_list=None, var_names=None):
        """Refuse what Keras would neither save nor match alike everywhere."""
        raise ValueError(
            "`exclude_from_weight_decay` has no effect on a `WeightDecay`. "
            f"Received: var_list={var_list}, var_names={var_names}. Use "
            "`WeightDecay(..., exclude=[...])` with roles, patterns, layers "
            "or variables."
        )

    def apply(self, grads, trainable_variables=None):
        """Decay and update the variables, building first if need be."""
        if not self.built and trainable_variables is not None:
            trainable_variables = list(trainable_variables)
            with keras.name_scope(self.name):
                self.build(trainable_variables)
        self.inner_optimizer.apply(grads, trainable_variables)

    def _decay_and_update(self, gradients, variables, learning_rate):
        mask = self.coverage.mask
        covered = [mask[self._get_variable_index(v)] for v in variables]
        gradients = list(gradients)
        if any(covered):
            rate = ops.cast(self.weight_decay_rate, "float32") * self.decay.unit
            for index, variable in enumerate(variables):
                if not covered[index]:
                    continue
                if self.decay.coupling == "coupled":
                    gradients[index] = self._add_decay(
                        gradients[index], variable, rate
                    )
                else:
                    # Multiplied by the small number, not by one minus it,
                    # which float32 would round to few digits.
                    taken = rate * ops.cast(learning_rate, "float32")
                    taken = ops.cast(taken, variable.dtype)
                    self.assign_sub(variable, ops.multiply(variable, taken))
        if self.decay.rescale_velocity:
            self._rescale_velocity(ops.cast(learning_rate, "float32"))
        self._inner_update(gradients, variables, learning_rate)

    def _add_decay(self, gradient, variable, rate):
        # Keras sums gradients over the replicas of a TensorFlow strategy.
        strategy = getattr(self, "_distribution_strategy", None)
        if strategy is not None:
            rate = rate / strategy.num_replicas_in_sync
        rate = ops.cast(rate, variable.dtype)
        # A sparse gradient becomes dense: every row decays.
        return ops.add(gradient, ops.multiply(variable, rate))

    def _rescale_velocity(self, learning_rate):
        previous = ops.convert_to_tensor(self._previous_rate)
        known = previous > 0
        ratio = learning_rate / ops.where(known, previous, learning_rate)
        ratio = ops.where(known, ratio, 1.0)
        for velocity in self.inner_optimizer.momentums:
            if velocity is not None:
                factor = ops.cast(ratio, velocity.dtype)
                self.assign(velocity, ops.multiply(velocity, factor))
        steps = self.gradient_accumulation_steps
        if steps:
            # On JAX this runs at every batch; Keras takes back what it did to
            # its own variables between updates, and this is ours.
            count = ops.convert_to_tensor(self.inner_optimizer._iterations)
            is_update = ops.equal((count + 1) % steps, 0)
            learning_rate = ops.where(is_update, learning_rate, previous)
        self._previous_rate.assign(learning_rate)

    def _scheduled_rate(self):
        # The schedule gets a tensor: not all operations take a variable.
        step = ops.convert_to_tensor(self.iterations)
        try:
            rate = ops.cast(self.decay.rate(step), "float32")
        except Exception as error:
            raise ValueError(
                f"The rate of the `WeightDecay`, {self.decay.rate}, could not "
                "be evaluated at a step. It is traced with the training step, "
                "so write it with `keras.ops`, as in `lambda step: 1e-3 * "
                'keras.ops.minimum(keras.ops.cast(step, "float32") / 100, 1)`'
                "; `if`, `float()`, NumPy and `math` cannot be traced. The "
                f"error was: {error}"
            ) from error
        if len(rate.shape):
            raise ValueError(
                "The rate of a `WeightDecay` must be a scalar at every step. "
                f"Received: shape {tuple(rate.shape)} from {self.decay.rate}."
            )
        return rate

    def scale_loss(self, loss):
        """Scale the loss, as the inner optimizer does."""
        return self.inner_optimizer.scale_loss(loss)

    def finalize_variable_values(self, var_list):
        """Set the final values, as the inner optimizer does."""
        self.inner_optimizer.finalize_variable_values(var_list)

    def set_weights(self, weights):
        """Set the values of `variables`."""
        for variable, weight in zip(self.variables, weights, strict=True):
            variable.assign(weight)

    def save_own_variables(self, store):
        """Save what is not the inner optimizer's, which saves itself."""
        for index, variable in enumerate(self._own_variables):
            store[str(index)] = ops.convert_to_numpy(variable)

    def load_own_variables(self, store):
        """The reverse of `save_own_variables`."""
        for index, variable in enumerate(self._own_variables):
            variable.assign(store[str(index)])

    def get_config(self):
        """The inner optimizer and the decay as plain values, for saving."""
        decay = self.decay
        if decay.is_constant:
            # The rate may have been set since, or loaded.
            now = float(ops.convert_to_numpy(self._rate))
            if now != np.float32(decay.rate):
                decay = dataclasses.replace(decay, rate=now)
        if self.coverage is not None:
            decay = decay.bound_to(self.coverage)
        serialize = keras.saving.serialize_keras_object
        return {
            "name": self.name,
            "inner_optimizer": serialize(self.inner_optimizer),
            "decay": serialize(decay),
        }

    @classmethod
    def from_config(cls, config, custom_objects=None):
        """The reverse of `get_config`."""
        config = dict(config)
        for key in ("inner_optimizer", "decay"):
            config[key] = keras.saving.deserialize_keras_object(
                config[key], custom_objects=custom_objects
            )
        return cls(**config)
