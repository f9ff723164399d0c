"""SGD whose momentum follows torch when the learning rate changes."""

from typing import ClassVar

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="keras_lowrank")
class TorchSGD(keras.optimizers.Optimizer):
    """Gradient descent with the momentum of `torch.optim.SGD`.

    Keras' `SGD` keeps the learning rate inside its velocity, torch's does not:

    ```python
    # keras.optimizers.SGD                # torch.optim.SGD, and this class
    v = momentum * v - learning_rate * g  v = momentum * v + g
    w = w + v                             w = w - learning_rate * v
    ```

    The two agree as long as the learning rate stays. When it drops, Keras
    goes on with steps of the old size for about `1 / (1 - momentum)` updates:
    after a drop to a tenth, with momentum 0.9, weights were measured to differ
    by up to 0.79. Use this class to reproduce what was trained with torch,
    together with `WeightDecay(rate, convention="torch", covers="all")`.

    Args:
        learning_rate: Float, a
            `keras.optimizers.schedules.LearningRateSchedule`, or a function
            without arguments.
        momentum: Float between 0 and 1.
        nesterov: Boolean, whether to use Nesterov momentum, torch's version.
        **kwargs: `name`, clipping, averaging and accumulation, as for every
            Keras optimizer. `weight_decay` is not among them: torch's is
            coupled, that of Keras' optimizers is not.

    Raises:
        ValueError: when the momentum is out of range, missing under
            `nesterov`, or when `weight_decay` is given.

    Example:

    >>> decay = WeightDecay(5e-4, convention="torch", covers="all")
    >>> optimizer = decay.wrap(TorchSGD(0.1, momentum=0.9))

    Reference:
        [`torch.optim.SGD`](https://docs.pytorch.org/docs/stable/generated/torch.optim.SGD.html)
    """

    #: What its lists hold, for whoever carries them to other variables.
    slot_kinds: ClassVar[dict[str, str]] = {"velocities": "mean"}

    def __init__(
        self, learning_rate=0.01, momentum=0.0, nesterov=False, **kwargs
    ):
        if kwargs.get("weight_decay"):
            raise ValueError(
                "`TorchSGD` does not decay by itself. Received: weight_decay="
                f"{kwargs['weight_decay']}. For torch's decay use "
                '`WeightDecay(rate, convention="torch", covers="all")'
                ".wrap(TorchSGD(...))`."
            )
        if not 0 <= momentum <= 1:
            raise ValueError(
                "`momentum` must be between 0 and 1. "
                f"Received: momentum={momentum}."
            )
        if nesterov and not momentum:
            raise ValueError(
                "`nesterov=True` needs a momentum. Received: momentum=0. Give "
                "one, as `momentum=0.9`, or leave out `nesterov`."
            )
        super().__init__(learning_rate=learning_rate, **kwargs)
        self.momentum = momentum
        self.nesterov = nesterov

    def build(self, variables):
        """Create a velocity for each variable, if there is momentum.

        Args:
            variables: List of the model's trainable variables.
        """
        if self.built:
            return
        super().build(variables)
        self.velocities = []
        if self.momentum:
            self.velocities = self.add_optimizer_variables(
                variables, "velocity"
            )

    def update_step(self, gradient, variable, learning_rate):
        """Update one variable."""
        learning_rate = ops.cast(learning_rate, variable.dtype)
        step = ops.cast(gradient, variable.dtype)
        if self.momentum:
            momentum = ops.cast(self.momentum, variable.dtype)
            velocity = self.velocities[self._get_variable_index(variable)]
            moved = ops.add(ops.multiply(velocity, momentum), step)
            self.assign(velocity, moved)
            if self.nesterov:
                step = ops.add(step, ops.multiply(moved, momentum))
            else:
                step = moved
        self.assign_sub(variable, ops.multiply(step, learning_rate))

    def get_config(self):
        """The arguments as plain values, for saving."""
        return super().get_config() | {
            "momentum": self.momentum,
            "nesterov": self.nesterov,
        }
