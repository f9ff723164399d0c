"""What a few seeds say of a mean: Student's t intervals."""

import dataclasses
import math
from collections.abc import Mapping

import numpy as np


@dataclasses.dataclass(frozen=True)
class Interval:
    """A mean, and where the mean of ever more seeds would lie.

    As text it is the mean and half the width of the interval, with the digits
    that this half leaves of it, and how many values were left out.

    Args:
        mean: Float, the mean of the values; NaN without any.
        low: Float, the lower end; NaN with fewer than two values.
        high: Float, the upper end; NaN with fewer than two values.
        count: Int, how many values there were.
        level: Float in (0, 1), how often such an interval holds the mean.
        missing: Int, how many more there should have been: values that are
            not finite, or that have no partner.

    Example:

    >>> from keras_lowrank.search import Interval
    >>> print(Interval(0.9742, 0.9683, 0.9801, count=5, level=0.95))
    0.974 ± 0.006
    >>> print(Interval(0.9742, 0.9683, 0.9801, 5, 0.95, missing=2))
    0.974 ± 0.006 (2 of 7 missing)
    """

    mean: float
    low: float
    high: float
    count: int
    level: float
    missing: int = 0

    def __str__(self):
        text = _plus_minus(self.mean, (self.high - self.low) / 2)
        if not self.missing:
            return text
        return f"{text} ({self.missing} of {self.count + self.missing} missing)"


def mean_interval(values, level: float = 0.95) -> Interval:
    """Mean of values over seeds, with Student's t interval.

    It assumes that the seeds are independent and that the values, or the means
    of so many of them, are roughly normal. Values that are not finite are left
    out and counted: if runs that diverge do so for a reason, the mean of the
    rest flatters. And the seeds of one data set, however many, say how much
    luck there is in training on it; they say nothing of other data.

    Args:
        values: Sequence of n numbers, one for each seed.
        level: Float in (0, 1), how often such an interval holds the mean.

    Returns:
        An `Interval`. Its ends are NaN with fewer than two finite values.

    Raises:
        ValueError: if `values` is not one-dimensional, or for a level outside
            of (0, 1).
        ImportError: when SciPy is not installed.

    Example:

    >>> from keras_lowrank.search import mean_interval
    >>> interval = mean_interval([36.0, 38.0, 37.0])
    >>> print(interval)
    37.0 ± 2.5
    >>> mean_interval([36.0, float("nan"), 37.0]).missing
    1

    Reference:
        [Student, 1908](https://doi.org/10.1093/biomet/6.1.1)
    """
    array = np.asarray(values, np.float64)
    if array.ndim != 1:
        raise ValueError(
            "`values` must be one number for each seed. "
            f"Received: values of shape {array.shape}."
        )
    if not 0 < level < 1:
        raise ValueError(
            "`level` must be between 0 and 1, such as 0.95. "
            f"Received: level={level}."
        )
    student = _student()
    finite = array[np.isfinite(array)]
    count, missing = len(finite), len(array) - len(finite)
    if not count:
        return Interval(math.nan, math.nan, math.nan, 0, level, missing)
    # Differences from the first, so that equal values have no spread at all.
    mean = float(finite[0] + np.mean(finite - finite[0]))
    half = math.nan
    if count > 1:
        spread = float(np.std(finite - finite[0], ddof=1))
        quantile = float(student.ppf((1 + level) / 2, count - 1))
        half = quantile * spread / math.sqrt(count)
    return Interval(mean, mean - half, mean + half, count, level, missing)


def paired_difference(
    ours: Mapping, theirs: Mapping, level: float = 0.95
) -> Interval:
    """Mean of the differences seed by seed, with Student's t interval.

    Runs with the same seed start from the same weights and see the same
    batches, so that much of the luck cancels: the difference is known better
    than either mean. It assumes that the seeds are independent and their
    differences roughly normal, and like `mean_interval` says nothing of other
    data.

    Args:
        ours: Dict from a seed to a number.
        theirs: Dict from a seed to a number.
        level: Float in (0, 1), how often such an interval holds the mean.

    Returns:
        An `Interval` of `ours - theirs` over the seeds in both. The others are
        counted as missing, as are those where a number is not finite.

    Raises:
        ValueError: if no seed is in both, or for a level outside of (0, 1).
        ImportError: when SciPy is not installed.

    Example:

    >>> from keras_lowrank.search import paired_difference
    >>> ours = {0: 0.91, 1: 0.95, 2: 0.93}
    >>> theirs = {0: 0.90, 1: 0.94, 2: 0.91, 3: 0.99}
    >>> print(paired_difference(ours, theirs))
    0.013 ± 0.014 (1 of 4 missing)
    """
    both = [seed for seed in ours if seed in theirs]
    if not both:
        raise ValueError(
            "`ours` and `theirs` must have seeds in common, since they are "
            f"compared seed by seed. Received: seeds {list(ours)} and "
            f"{list(theirs)}. Run the same seeds, or compare two "
            "`mean_interval`s."
        )
    differences = [float(ours[seed]) - float(theirs[seed]) for seed in both]
    interval = mean_interval(differences, level)
    alone = len(set(ours) | set(theirs)) - len(both)
    return dataclasses.replace(interval, missing=interval.missing + alone)


def _student():
    try:
        from scipy.stats import t
    except ImportError as error:
        raise ImportError(
            "Intervals need SciPy, for Student's t distribution. Install it "
            'with `pip install "keras-lowrank[tuner]"`.'
        ) from error
    return t


def _plus_minus(mean: float, half: float) -> str:
    """A number and its uncertainty, with the digits that matter."""
    if not math.isfinite(half):
        return f"{mean:.4g}"
    if half == 0:
        return f"{mean:g} ± 0"
    # One digit, or two where one would round by a seventh or more, as the
    # Particle Data Group does.
    first = f"{half:.1e}"[:3]
    digits = 1 if "3.5" < first < "9.5" else 2
    rounded = float(f"{half:.{digits - 1}e}")
    decimals = max(0, digits - 1 - math.floor(math.log10(rounded)))
    if decimals <= 6:
        mean = round(mean, decimals) + 0.0  # no minus before a zero
        return f"{mean:.{decimals}f} ± {half:.{decimals}f}"
    leading = math.floor(math.log10(abs(mean))) if mean else 0
    significant = min(max(1, leading + decimals + 1), 15)
    return f"{mean:.{significant}g} ± {rounded:g}"
