"""Norms of weights at the last steps before an epoch ends, on the device.

A hook for each batch would switch off the asynchronous dispatch of `fit`, and
so cost more than it measures. The step itself writes its row into a buffer
instead: a variable of the optimizer, compiled with the update, read once an
epoch.
"""

import dataclasses
from typing import Any

import numpy as np
from keras import ops

from keras_lowrank import linalg


@dataclasses.dataclass(frozen=True, eq=False)
class Steps:
    """What a `StepLog` has of the last steps, the newest first.

    Row `n` is about the state `n` steps ago; the learning rate and the decay
    are those of the step that led to it.

    Args:
        learning_rates: Float64 array of shape `(rows,)`.
        decays: Float64 array of shape `(rows,)`, what `decay` gave.
        products: Float64 array of shape `(rows, weights, 3)`: for each weight
            its square norm, its product with the velocity, and the square
            norm of that.
    """

    learning_rates: np.ndarray
    decays: np.ndarray
    products: np.ndarray


class StepLog:
    """Makes an optimizer write down norms at the last steps of an epoch.

    Args:
        optimizer: Built Keras optimizer that makes the updates itself.
        weights: List of the variables.
        velocities: List of the velocity of each, or empty without momentum.
        rows: Int >= 1, how many states to keep.
        steps_per_epoch: Int, to write only at the end of an epoch; or `None`
            to write at every step.
        decay: Function without arguments, the weight decay of the next step,
            a scalar tensor.
    """

    def __init__(
        self, optimizer, weights, velocities, rows, steps_per_epoch, decay
    ):
        self.optimizer = optimizer
        self.weights = weights
        self.velocities = velocities
        self.rows = rows
        self.steps_per_epoch = steps_per_epoch
        self.decay = decay
        self._first = self._updates()
        self._buffer: Any = None
        self._calls = 0  # of `apply`, where Python sees each of them

    def attach(self) -> None:
        """Begin to write; what was attached before is detached."""
        earlier = vars(self.optimizer).get("_lowrank_step_log")
        if earlier is not None:  # of a `fit` that was interrupted
            earlier.detach()
        optimizer = self.optimizer
        count = len(optimizer.variables)
        self._buffer = optimizer.add_variable(
            shape=(self.rows, 2 + 3 * len(self.weights)),
            dtype="float32",
            initializer="zeros",
            aggregation="only_first_replica",
            name="lowrank_step_log",
        )
        apply, save = optimizer.apply, optimizer.save_own_variables

        def apply_and_write(grads, trainable_variables=None):
            if linalg.runs_eagerly():
                self._calls += 1
                if not self._is_late(self._calls - 1):
                    # Nothing would be written, at the cost of ten operations.
                    apply(grads, trainable_variables)
                    return
            given = [
                ops.cast(value, "float32")
                for value in (optimizer.learning_rate, self.decay())
            ]
            apply(grads, trainable_variables)
            self._write(given)

        def save_without_log(store):
            # A checkpoint made meanwhile is that of an ordinary optimizer.
            save(store)
            if str(count) in store.keys():
                del store[str(count)]

        for name, value in (
            ("apply", apply_and_write),
            ("save_own_variables", save_without_log),
            ("_lowrank_step_log", self),
        ):
            object.__setattr__(optimizer, name, value)

    def detach(self) -> None:
        """Leave the optimizer as it was."""
        for name in ("apply", "save_own_variables", "_lowrank_step_log"):
            object.__delattr__(self.optimizer, name)
        self.optimizer._untrack_variable(self._buffer)

    def read(self) -> Steps:
        """The rows written, as far back as they go without a gap."""
        table = ops.convert_to_numpy(self._buffer).astype(np.float64)
        last = self._updates()
        count = min(self.rows, last - self._first)
        order = [(last - 1 - back) % self.rows for back in range(count)]
        table = table[order]
        return Steps(
            learning_rates=table[:, 0],
            decays=table[:, 1],
            products=table[:, 2:].reshape(count, len(self.weights), 3),
        )

    def _updates(self) -> int:
        return int(ops.convert_to_numpy(self.optimizer.iterations))

    def _write(self, given) -> None:
        made = ops.cast(self.optimizer.iterations, "int32")
        place = ops.mod(made - 1, self.rows)

        def written():
            return ops.slice_update(
                self._buffer.value, (place, 0), self._row(given)[None]
            )

        late = self._is_late(made - 1 - self._first)
        if isinstance(late, bool):
            self._buffer.assign(written())
            return
        self._buffer.assign(
            ops.cond(late, written, lambda: ops.copy(self._buffer.value))
        )

    def _is_late(self, step):
        """Whether a step, counted from 0, is one whose state is kept.

        `True` where all are; a tensor where the step is one.
        """
        if self.steps_per_epoch is None or self.rows >= self.steps_per_epoch:
            return True
        return step % self.steps_per_epoch >= self.steps_per_epoch - self.rows

    def _row(self, given):
        values = list(given)
        for index, variable in enumerate(self.weights):
            weight = ops.cast(variable.value, "float32")
            if not self.velocities:
                zero = ops.zeros((), "float32")
                values += [ops.sum(weight * weight), zero, zero]
                continue
            velocity = ops.cast(self.velocities[index].value, "float32")
            values += [
                ops.sum(weight * weight),
                ops.sum(weight * velocity),
                ops.sum(velocity * velocity),
            ]
        return ops.stack(values)
