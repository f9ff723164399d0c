"""A callback that sets the weight decay, epoch by epoch."""

import numbers

import keras
from keras import ops

from keras_lowrank.decay.optimizer import DecayedOptimizer


def decayed_optimizers(optimizer) -> list[DecayedOptimizer]:
    """Those in `optimizer`, which may wrap them, that hold a `WeightDecay`."""
    if isinstance(optimizer, DecayedOptimizer):
        return [optimizer]
    inner = getattr(optimizer, "inner_optimizer", None)
    several = getattr(optimizer, "optimizers", [] if inner is None else [inner])
    return [found for one in several for found in decayed_optimizers(one)]


class WeightDecayScheduler(keras.callbacks.Callback):
    """Set the weight decay at the beginning of every epoch.

    What `keras.callbacks.LearningRateScheduler` is for the learning rate; acts
    on every backend. The rate is put into `logs` as `weight_decay`. For rates
    that change with the step give a schedule to `WeightDecay` instead.

    Args:
        schedule: Function of the epoch, an int counted from 0, and the
            current rate, a float, that returns the new rate. Rates are in the
            convention of the model's `WeightDecay`.
        verbose: Int, 1 to print every rate that is set.

    Raises:
        ValueError: in `fit`, when the model's optimizer has no `WeightDecay`.

    Example:

    >>> def halve_every_ten(epoch, rate):
    ...     return rate / 2 if epoch and epoch % 10 == 0 else rate
    >>> scheduler = WeightDecayScheduler(halve_every_ten)
    """

    def __init__(self, schedule, verbose=0):
        super().__init__()
        self.schedule = schedule
        self.verbose = verbose

    def on_epoch_begin(self, epoch, logs=None):
        """Set the rate of the epoch."""
        for optimizer, key in self._optimizers():
            rate = self.schedule(epoch, _as_float(optimizer.weight_decay))
            if isinstance(rate, bool) or not isinstance(rate, numbers.Real):
                raise TypeError(
                    "`schedule` must return a float. Received: "
                    f"{rate!r} (of type {type(rate).__name__}) for epoch "
                    f"{epoch}."
                )
            optimizer.weight_decay = rate
            if self.verbose:
                print(
                    f"\nEpoch {epoch + 1}: WeightDecayScheduler setting {key} "
                    f"to {rate}."
                )

    def on_epoch_end(self, epoch, logs=None):
        """Put the rate of the epoch into `logs`."""
        if logs is not None:
            for optimizer, key in self._optimizers():
                logs[key] = _as_float(optimizer.weight_decay)

    def _optimizers(self):
        found = decayed_optimizers(self.model.optimizer)
        if not found:
            raise ValueError(
                "`WeightDecayScheduler` needs an optimizer with a "
                "`WeightDecay`. Received: "
                f"{type(self.model.optimizer).__name__}, whose decay is fixed "
                "once a step is compiled. Compile the model with "
                "`WeightDecay(rate).wrap(optimizer)`."
            )
        if len(found) == 1:
            return [(found[0], "weight_decay")]
        return [(one, f"weight_decay_{one.name}") for one in found]


def _as_float(value) -> float:
    return float(ops.convert_to_numpy(value))
