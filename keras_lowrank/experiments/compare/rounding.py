"""How far rounding alone drives a training: shadows of the reference."""

import numpy as np
from keras import ops

from keras_lowrank.experiments.compare.stepper import Stepper

# Relative rounding of what a step computes in, by the precision of the spec.
_COMPUTES_IN = {
    "float32": 2.0**-23,
    "mixed_bfloat16": 2.0**-7,
    "mixed_float16": 2.0**-10,
    "float64": 2.0**-52,
}


def lost_share(precision: str) -> float:
    """Relative difference at which two runs have come apart.

    Rounding does that, too, and more of it tells nothing: 1e-3 in float32,
    a tenth where steps are computed in 16 bits.

    Args:
        precision: String, as an `ExperimentSpec` has it.
    """
    return min(0.1, 2.0**13 * _COMPUTES_IN[precision])


class Rounding:
    """Errors of the size of rounding, drawn anew for every step.

    A step sees every weight, and its images, off by up to `units` units in
    the last place of what it computes in; what it stores is off by up to
    `units` units in the last place of what it is stored in. The first error
    goes into the step's gradient and is then taken away from the weights.

    Args:
        stepper: The `Stepper` to disturb.
        seed: Int >= 0, of the errors.
        units: Float > 0.
    """

    def __init__(self, stepper: Stepper, seed: int, units: float):
        self.stepper = stepper
        self.units = units
        self.rng = np.random.default_rng(seed)
        self.eps = _COMPUTES_IN[stepper.spec.precision]

    def go(self) -> float:
        """Make one update of the stepper, with errors."""
        x, y = self.stepper.batch()
        x = x + self._error(x, self.eps)
        taken = []
        for item in self.stepper.variables:
            if item.trainable:
                value = _read(item.variable)
                error = self._error(value, self.eps)
                item.variable.assign(value + error)
                taken.append(_read(item.variable) - value)
        loss = self.stepper.go((x, y))
        errors = iter(taken)
        for item in self.stepper.variables:
            value = _read(item.variable)
            if item.trainable:
                value = value - next(errors)
            if np.issubdtype(value.dtype, np.floating):
                eps = np.finfo(value.dtype).eps
                item.variable.assign(value + self._error(value, eps))
        return loss

    def _error(self, value, eps: float):
        size = self.units * eps
        relative = self.rng.uniform(-size, size, value.shape)
        return (value * relative).astype(value.dtype)


def _read(variable) -> np.ndarray:
    return np.array(ops.convert_to_numpy(variable))
