"""The optimizer that applies a `WeightDecay` through any Keras optimizer."""

import dataclasses
import warnings
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_lowrank.decay.convention import check_rate
from keras_lowrank.decay.coverage import Coverage
from keras_lowrank.decay.inner import check_inner
from keras_lowrank.decay.update import add_decay
from keras_lowrank.decay.update import shrink
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

    Made by `WeightDecay.wrap`. The learning rate, clipping, averaging and
    accumulation are the inner optimizer's, and are read and set as if this
    were it.

    `weight_decay` is the rate, in the convention of the policy. It is a
    variable: it is saved, and what is assigned to it acts from the next step
    on, on every backend. Under `mixed_float16` Keras puts a
    `LossScaleOptimizer` around this optimizer, whose `inner_optimizer` it is;
    `WeightDecayScheduler` finds it there.

    Args:
        inner_optimizer: Keras optimizer that does not decay by itself.
        policy: `WeightDecay`.
        name: String, the name of the optimizer.
        coverage: What `get_config` saved: a list with name, shape and
            coverage of each variable, to be used for variables of the same
            names and shapes.

    Raises:
        TypeError: when an argument is of another type.
        ValueError: when the inner optimizer decays by itself, or wraps others.

    Example:

    >>> optimizer = WeightDecay(5e-4).wrap(keras.optimizers.SGD(0.1))
    >>> optimizer.weight_decay = 1e-4
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
    learning_rate = _of_inner("learning_rate")
    _iterations = _of_inner("_iterations")
    _model_variables_moving_average = _of_inner(
        "_model_variables_moving_average"
    )

    def __init__(self, inner_optimizer, policy, name=None, coverage=None):
        if not hasattr(policy, "resolve"):
            raise TypeError(
                f"`policy` must be a `WeightDecay`. Received: {policy!r} "
                f"(of type {type(policy).__name__})."
            )
        check_inner(inner_optimizer)
        super().__init__(learning_rate=0.0, name=name)
        # Steps and learning rate are the inner optimizer's.
        for variable in list(self._variables):
            self._untrack_variable(variable)
        self.inner_optimizer = inner_optimizer
        self.policy = policy
        self.coverage: Coverage | None = None
        self._saved_coverage = coverage
        if policy.is_constant:
            # A traced step would read a number once, for good.
            self._rate = self.add_variable(
                shape=(),
                dtype="float32",
                initializer=keras.initializers.Constant(policy.rate),
                aggregation="only_first_replica",
                name="weight_decay",
            )

    def build(self, variables):
        """Build the inner optimizer and decide what is covered.

        Args:
            variables: List of the model's trainable variables.
        """
        if self.built:
            return
        if not self.inner_optimizer.built:
            self.inner_optimizer.build(variables)
        # Not Keras' own `build`, which would average and accumulate here too.
        for index, variable in enumerate(variables):
            self._trainable_variables_indices[self._var_key(variable)] = index
        self._trainable_variables.extend(variables)
        self.coverage = self.resolve(variables)
        self.built = True
        for message in self.coverage.unmatched:
            warnings.warn(message, KerasLowrankWarning, stacklevel=2)
        twice = [
            variable.path
            for variable in variables
            if self.decays(variable)
            and getattr(variable.regularizer, "l2", None)
        ]
        if twice:
            warnings.warn(
                "These variables have an L2 regularizer and a `WeightDecay`, "
                f"and decay by both: {', '.join(twice)}. Keep one of the two.",
                KerasLowrankWarning,
                stacklevel=2,
            )

    def resolve(self, variables) -> Coverage:
        """Decide which of `variables` are covered, as they were when saved.

        Args:
            variables: List of the model's trainable variables.

        Returns:
            `Coverage`.
        """
        saved = self._saved_coverage or []
        if [entry[:2] for entry in saved] == _signature(variables):
            return Coverage(tuple(bool(entry[2]) for entry in saved))
        return self.policy.resolve(variables)

    def decays(self, variable) -> bool:
        """Whether a variable that the optimizer was built with decays."""
        if self.coverage is None:
            raise ValueError(
                "The optimizer is not built, so nothing is decided yet. Call "
                "`optimizer.build(model.trainable_variables)` first. "
                f"Received: {variable.path}."
            )
        return self.coverage.covered[self._get_variable_index(variable)]

    @property
    def variables(self):
        """State of the decay, then that of the inner optimizer."""
        return [*self._variables, *self.inner_optimizer.variables]

    @property
    def iterations(self):
        """Number of updates made."""
        return self.inner_optimizer.iterations

    @property
    def weight_decay(self):
        """The rate now, in the convention of the policy; can be set."""
        if self.policy.is_constant:
            return self._rate
        return self.policy.rate_at(self.iterations)

    @weight_decay.setter
    def weight_decay(self, rate):
        if "inner_optimizer" not in vars(self):
            return  # Keras' constructor, which sets its default
        if not self.policy.is_constant:
            raise TypeError(
                "The rate of this `WeightDecay` follows a schedule, so it "
                f"cannot be set. Received: weight_decay={rate!r}. Use a number "
                "as its rate to set it during training."
            )
        self._rate.assign(check_rate(rate, "weight_decay"))

    def exclude_from_weight_decay(self, var_list=None, var_names=None):
        """Refuse what Keras would neither save nor match alike everywhere."""
        raise ValueError(
            "`exclude_from_weight_decay` does not act on a `WeightDecay`. "
            f"Received: var_list={var_list}, var_names={var_names}. Use "
            "`WeightDecay(rate, exclude=[...])`, which is saved."
        )

    def apply(self, grads, trainable_variables=None):
        """Decay and update the variables.

        Args:
            grads: List of gradients.
            trainable_variables: List of variables, one per gradient. Those
                the optimizer was built with by default.
        """
        if trainable_variables is not None:
            trainable_variables = list(trainable_variables)
            if not self.built:
                with keras.name_scope(self.name, caller=self):
                    self.build(trainable_variables)
            self._check_variables_are_known(trainable_variables)
        if self.built:
            variables = trainable_variables or self._trainable_variables
            grads = self._decay(list(grads), variables)
        self.inner_optimizer.apply(grads, trainable_variables)

    def _decay(self, grads, variables):
        decaying = [
            index
            for index, variable in enumerate(variables[: len(grads)])
            if grads[index] is not None
            and self.decays(variable)
            and not self._overwrite_variable_with_gradient(variable)
        ]
        if not decaying:
            return grads
        rate = ops.cast(self.weight_decay, "float32") * self.policy.factor
        if self.policy.coupling == "coupled":
            # The inner optimizer divides gradients by its loss scale, and
            # sums them over the replicas of a TensorFlow strategy.
            strategy = getattr(self, "_distribution_strategy", None)
            replicas = 1 if strategy is None else strategy.num_replicas_in_sync
            rate = rate * ((self.loss_scale_factor or 1.0) / replicas)
            for index in decaying:
                grads[index] = add_decay(grads[index], variables[index], rate)
            return grads
        fraction = rate * ops.cast(self.learning_rate, "float32")
        steps = self.gradient_accumulation_steps
        if steps:
            is_update = ops.equal((self._iterations + 1) % steps, 0)
            fraction = fraction * ops.cast(is_update, "float32")
        shrink(self, [variables[index] for index in decaying], fraction)
        return grads

    def with_inner_optimizer(self, inner_optimizer) -> "DecayedOptimizer":
        """The same decay, at the rate that is set now, around another one.

        Args:
            inner_optimizer: Keras optimizer.

        Returns:
            A `DecayedOptimizer`, not built.
        """
        return DecayedOptimizer(
            inner_optimizer, self._policy_now(), name=self.name
        )

    def _policy_now(self):
        """The policy at the rate that is set now."""
        if not self.policy.is_constant:
            return self.policy
        # As Keras saves the learning rate: the one that is set now.
        rate = ops.convert_to_numpy(self._rate)
        if rate == np.float32(self.policy.rate):
            return self.policy
        return dataclasses.replace(self.policy, rate=float(rate))

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
        """Save the rate; the inner optimizer saves itself."""
        if self.policy.is_constant:
            store["weight_decay"] = ops.convert_to_numpy(self._rate)

    def load_own_variables(self, store):
        """The reverse of `save_own_variables`."""
        # Files of other optimizers do not have it.
        if self.policy.is_constant and "weight_decay" in store.keys():
            self._rate.assign(store["weight_decay"])

    def get_config(self):
        """The inner optimizer and the policy as plain values, for saving."""
        policy = self._policy_now()
        coverage = self._saved_coverage
        if self.coverage is not None:
            coverage = [
                [*entry, hit]
                for entry, hit in zip(
                    _signature(self._trainable_variables),
                    self.coverage.covered,
                    strict=True,
                )
            ]
        serialize = keras.saving.serialize_keras_object
        return {
            "name": self.name,
            "inner_optimizer": serialize(self.inner_optimizer),
            "policy": serialize(policy),
            "coverage": coverage,
        }

    @classmethod
    def from_config(cls, config, custom_objects=None):
        """The reverse of `get_config`."""
        config = dict(config)
        for key in ("inner_optimizer", "policy"):
            config[key] = keras.saving.deserialize_keras_object(
                config[key], custom_objects=custom_objects
            )
        return cls(**config)


def _signature(variables) -> list[list]:
    """Names and shapes: what stays the same in the next process."""
    return [[v.name, [int(size) for size in v.shape]] for v in variables]
