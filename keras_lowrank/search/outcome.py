"""What a training came to: the metrics of its end, not of its best epoch."""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np

from keras_lowrank.measures import numerical_rank
from keras_lowrank.records import Measurement
from keras_lowrank.records import Recording
from keras_lowrank.search.objective import FULL_RANK

# From the best to the worst that one can say of a training.
STATUSES = ("complete", "running", "pruned", "collapsed", "diverged", "failed")


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What a training came to.

    Args:
        status: `"complete"`; `"diverged"`, when the loss or a weight is not
            finite; `"collapsed"`, when a weight matrix is zero, which is no
            low rank but a death; `"failed"`, when it raised an error or was
            killed; `"pruned"`, when it was stopped as hopeless; or
            `"running"`.
        reason: String, what is behind a status other than `"complete"`.
        metrics: Dict from names to floats.
    """

    status: str
    reason: str = ""
    metrics: dict[str, float] = dataclasses.field(default_factory=dict)


def outcome(recording: Recording, last: int = 1) -> Outcome:
    """What a recorded training came to.

    Args:
        recording: `Recording` of a training that ended.
        last: Int >= 1. Metrics are means over the measurements of this many
            last epochs.

    Returns:
        An `Outcome`. Its metrics are the logs of the epochs, the means of the
        recorded measures over the weight matrices; `full_rank_mean`, the mean
        of what the ranks can be at most; and `size`, how many numbers it takes
        to keep the weight matrices, each in two factors of its numerical rank
        where that is less than the matrix itself, with `full_size`, without
        factors.
    """
    end = recording.measurements[-1]
    span = [
        item
        for item in recording.measurements
        if item.epoch > max(0, end.epoch - last)
    ] or [end]
    told = [_metrics(item, recording) for item in span]
    metrics = {
        name: math.fsum(item[name] for item in told) / len(told)
        for name in told[-1]
        if all(name in item for item in told)
    }
    reasons = [
        f"{record.weight}: {record.spectrum.reason}"
        for record in end.records
        if not record.spectrum.finite
    ]
    reasons += [
        f"{name} is {metrics[name]}"
        for name in ("loss", "val_loss")
        if not math.isfinite(metrics.get(name, 0.0))
    ]
    if reasons:
        return Outcome("diverged", "; ".join(reasons), metrics)
    zero = [record.weight for record in end.records if record.collapsed]
    if zero:
        return Outcome("collapsed", f"zero: {', '.join(zero)}", metrics)
    return Outcome("complete", metrics=metrics)


def overall(outcomes: Sequence[Outcome]) -> tuple[str, str]:
    """Status and reason of a trial, those of its worst execution."""
    worst = max(outcomes, key=lambda item: STATUSES.index(item.status))
    return worst.status, worst.reason


def _metrics(item: Measurement, recording: Recording) -> dict[str, float]:
    metrics = dict(item.logs)
    for measure in recording.measures:
        metrics[f"{measure.name}_mean"] = item.mean(measure.name)
    shapes = [record.spectrum.shape for record in item.records]
    if shapes:
        metrics[FULL_RANK] = float(np.mean([min(shape) for shape in shapes]))
        metrics["full_size"] = float(sum(map(math.prod, shapes)))
        metrics["size"] = math.fsum(
            _factored_size(record.spectrum) for record in item.records
        )
    return metrics


def _factored_size(spectrum) -> float:
    """Numbers in two factors of the numerical rank, or in the matrix."""
    rows, columns = spectrum.shape
    if not spectrum.finite:
        return math.nan
    rank = float(numerical_rank(spectrum))
    return min(rank * (rows + columns), rows * columns)
