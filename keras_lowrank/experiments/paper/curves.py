"""What a run says over its epochs: its decay clock, its norms, its drop."""

import dataclasses
import math

import numpy as np

from keras_lowrank import plots
from keras_lowrank.experiments.spec import ExperimentSpec
from keras_lowrank.measures import Measure
from keras_lowrank.records import Recording

HALF_RANK = "epoch of half rank"


@dataclasses.dataclass(frozen=True, eq=False)
class Ratios:
    """Norms of the weights of a run, each by the one before.

    Args:
        epochs: Array of shape `(n,)`, at which the later norm was measured.
        values: Array of shape `(n, weights)`, the ratios.
        decay: Array of shape `(n,)`: what decay alone would have left,
            `exp(-(tau_after - tau_before))` of the decay clock.
        rates: Array of shape `(n,)`, learning rates before.
    """

    epochs: np.ndarray
    values: np.ndarray
    decay: np.ndarray
    rates: np.ndarray


def clock(spec: ExperimentSpec, recording: Recording) -> np.ndarray:
    """The decay clock of a run at each of its measurements.

    Args:
        spec: `ExperimentSpec`.
        recording: `Recording` of `n` measurements.

    Returns:
        Float64 array of shape `(n,)`.
    """
    measured = recording.measurements
    per_epoch = next(m.steps_per_epoch for m in measured if m.steps_per_epoch)
    # As many samples as make those steps: the plan needs no more.
    plan = spec.plan(per_epoch * spec.batch_size)
    return np.array([plan.decay_clock(m.epoch * per_epoch) for m in measured])


def norm_ratios(spec: ExperimentSpec, recording: Recording) -> Ratios:
    """Frobenius norms between the measurements of a run.

    Args:
        spec: `ExperimentSpec`.
        recording: `Recording` with at least two measurements.

    Returns:
        `Ratios`.
    """
    measured = recording.measurements
    return Ratios(
        np.array([m.epoch for m in measured[1:]]),
        plots.norm_ratios(recording),
        np.exp(-np.diff(clock(spec, recording))),
        np.array([m.learning_rate or math.nan for m in measured[:-1]]),
    )


def half_rank(recording: Recording, measure: Measure) -> int | None:
    """The first epoch at which the mean rank is below half of its start.

    Args:
        recording: `Recording`.
        measure: `Measure`, the rank that is meant.

    Returns:
        Int, or `None` where it stays above.
    """
    ranks = recording.means(measure)
    low = np.flatnonzero(ranks < ranks[:1] / 2)
    return recording.epochs[low[0]] if len(low) else None
