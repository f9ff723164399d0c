"""From runs to points: means over seeds, intervals, and what collapsed."""

import dataclasses
import math
import re
from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

import numpy as np

from keras_lowrank.experiments.paper.curves import HALF_RANK
from keras_lowrank.experiments.paper.curves import half_rank
from keras_lowrank.experiments.paper.figure import Figure
from keras_lowrank.experiments.paper.figure import Key
from keras_lowrank.experiments.paper.sets import ABOVE
from keras_lowrank.experiments.paper.sets import SAMPLES
from keras_lowrank.experiments.paper.sets import chance_of
from keras_lowrank.experiments.plan import steps_per_epoch
from keras_lowrank.experiments.spec import ExperimentSpec
from keras_lowrank.measures import as_measure
from keras_lowrank.records import Measurement
from keras_lowrank.records import Recording
from keras_lowrank.spectrum import Spectrum

# A matrix this much smaller than at the start feeds nothing through a
# normalisation. Float32 weights need not reach 0: they end in denormals,
# which rounding keeps.
_DEAD = 1e-6

# Two-sided 95 % quantiles of Student's t by degrees of freedom; beyond the
# last we take the last, which is wider than need be.
_STUDENT = {2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571, 6: 2.447, 7: 2.365}
_STUDENT |= {8: 2.306, 9: 2.262}


@dataclasses.dataclass(frozen=True)
class Estimate:
    """A number from some seeds.

    Args:
        values: Tuple of floats, one for each seed.
    """

    values: tuple[float, ...]

    @property
    def mean(self) -> float:
        """Mean over the seeds, NaN where there are none."""
        count = len(self.values)
        return math.fsum(self.values) / count if count else math.nan

    @property
    def interval(self) -> tuple[float, float] | None:
        """From three seeds on a 95 % interval, of two the range.

        The interval is Student's, for the mean over seeds.
        """
        count = len(self.values)
        if count < 2:
            return None
        if count == 2:
            return min(self.values), max(self.values)
        quantile = _STUDENT[min(count - 1, max(_STUDENT))]
        half = quantile * float(np.std(self.values, ddof=1)) / count**0.5
        return self.mean - half, self.mean + half

    @property
    def kind(self) -> str:
        """What `interval` is, in words."""
        kinds = {0: "no run", 1: "one seed, no interval", 2: "range of 2 seeds"}
        count = len(self.values)
        return kinds.get(count, f"95 % t-interval of {count} seeds")


@dataclasses.dataclass(frozen=True, eq=False)
class Outcome:
    """What one run came to.

    Args:
        spec: `ExperimentSpec`.
        recording: `Recording`.
        values: Dict from a name to its value at the end: `"rank"`, `"train"`
            and `"test"` accuracy, and those that a figure adds.
        start: Dict of the ranks at the initialisation.
        collapse: String that says why the run counts as collapsed, empty
            where it does not.
    """

    spec: ExperimentSpec
    recording: Recording
    values: Mapping[str, float]
    start: Mapping[str, float]
    collapse: str = ""


@dataclasses.dataclass(frozen=True, eq=False)
class Point:
    """A point of a figure: what the runs of all seeds came to.

    Args:
        key: Pairs of a field and its value.
        outcomes: Tuple of `Outcome`, one for each seed.
        reference: Dict of what the paper reports, empty where it does not,
            or where the size is not to be held against it.
    """

    key: Key
    outcomes: tuple[Outcome, ...]
    reference: Mapping[str, float] = dataclasses.field(default_factory=dict)

    @property
    def alive(self) -> tuple[Outcome, ...]:
        """The outcomes that did not collapse."""
        return tuple(item for item in self.outcomes if not item.collapse)

    @property
    def collapsed(self) -> bool:
        """Whether no seed is left: its rank is not a low one but none."""
        return not self.alive

    @property
    def collapsed_in_paper(self) -> bool:
        """Whether the network that the paper reports was dead."""
        chance = chance_of(self.field("data") or "cifar10")
        at_chance = self.reference.get("train", 1.0) <= ABOVE * chance
        return self.reference.get("rank") == 0 or at_chance

    @property
    def state(self) -> str:
        """Which seeds collapsed and why, empty where none did."""
        dead = [item for item in self.outcomes if item.collapse]
        if not dead:
            return ""
        count = f", {len(dead)} of {len(self.outcomes)} seeds"
        which = "" if self.collapsed else count
        return f"collapsed{which}: {dead[0].collapse}"

    def field(self, name: str) -> Any:
        """The value of a field, `None` where the point has no such field."""
        return dict(self.key).get(name)

    def estimate(self, name: str) -> Estimate:
        """A value over the seeds that did not collapse."""
        return _estimate((item.values for item in self.alive), name)

    def start(self, name: str = "rank") -> float:
        """The mean rank at the initialisation, over all seeds."""
        return _estimate((item.start for item in self.outcomes), name).mean


@dataclasses.dataclass(frozen=True, eq=False)
class Study:
    """A figure, reproduced in some size.

    Args:
        figure: `Figure`.
        size: String, `"smoke"`, `"cpu"` or `"full"`.
        points: Tuple of `Point`.
        trouble: String: why the runs are not what the size says, empty where
            they are.
    """

    figure: Figure
    size: str
    points: tuple[Point, ...]
    trouble: str = ""

    @property
    def numbers(self) -> bool:
        """Whether it may be held against the paper's numbers."""
        return self.figure.sizes[self.size].numbers and not self.trouble


def _estimate(dicts: Iterable[Mapping[str, float]], name: str) -> Estimate:
    found = (values.get(name, math.nan) for values in dicts)
    return Estimate(tuple(value for value in found if not math.isnan(value)))


def gather(
    figure: Figure,
    size: str,
    recorded: Sequence[tuple[Key, ExperimentSpec, Recording]],
) -> Study:
    """Runs to points.

    Args:
        figure: `Figure`.
        size: String, which of its sizes the runs are of.
        recorded: Sequence of a point, a spec and the `Recording` of its run.

    Returns:
        A `Study`, with the points in the order of the runs.
    """
    found: dict[Key, list[Outcome]] = {}
    for point, spec, recording in recorded:
        outcome = read_outcome(figure, size, point, spec, recording)
        found.setdefault(point, []).append(outcome)
    trouble = _trouble(recorded) if figure.sizes[size].numbers else ""
    # A point of a reduced size may look like one of the paper's, and is not.
    numbers = figure.sizes[size].numbers and not trouble
    reported = figure.references if numbers else {}
    points = tuple(
        Point(point, tuple(outcomes), reported.get(point, {}))
        for point, outcomes in found.items()
    )
    return Study(figure, size, points, trouble)


def _trouble(recorded) -> str:
    """What says that the data are not the whole set, or nothing."""
    for point, spec, recording in recorded:
        data = dict(point).get("data", spec.data.name)
        steps = recording.measurements[-1].steps_per_epoch
        samples = SAMPLES.get(data)
        expected = samples and steps_per_epoch(samples, spec.batch_size)
        if expected and steps != expected:
            return (
                f"the data are not the whole of {data}: {steps} steps an epoch "
                f"at batch size {spec.batch_size}, where its {samples} samples "
                f"make {expected}"
            )
    return ""


def read_outcome(
    figure: Figure,
    size: str,
    point: Key,
    spec: ExperimentSpec,
    recording: Recording,
) -> Outcome:
    """What a run came to, by the measure of a figure.

    Args:
        figure: `Figure`.
        size: String.
        point: The point that the run belongs to.
        spec: `ExperimentSpec` of the run.
        recording: Its `Recording`, to the end.

    Returns:
        An `Outcome`.
    """
    measure = figure.measure(size)

    def ranks(measurement: Measurement) -> dict[str, float]:
        found = {}
        for name, pattern in {"rank": "", **figure.parts}.items():
            values = [
                measure(record.spectrum)
                for record in measurement.records
                if re.search(pattern, record.weight)
            ]
            if values:
                found[name] = float(np.mean(values))
        return found

    first, last = recording.measurements[0], recording.measurements[-1]
    values = ranks(last)
    for name in figure.also:
        also = as_measure(name)
        values[name] = float(
            np.mean([also(record.spectrum) for record in last.records])
        )
    for key, name in (("train_accuracy", "train"), ("val_accuracy", "test")):
        values[name] = float(last.logs[key])
    for epoch in figure.epochs:
        at = [m for m in recording.measurements if m.epoch == epoch]
        if at:
            values[f"rank after {epoch} epochs"] = ranks(at[0])["rank"]
    if figure.half_rank:
        halved = half_rank(recording, measure)
        values |= {} if halved is None else {HALF_RANK: float(halved)}
    data = dict(point).get("data", spec.data.name)
    collapse = _collapse(first, last, values["train"], chance_of(data))
    return Outcome(spec, recording, values, ranks(first), collapse)


def _collapse(first, last, accuracy: float, chance: float) -> str:
    """Why a run is dead, or an empty string."""
    for before, after in zip(first.records, last.records, strict=True):
        if not after.spectrum.finite:
            return f"{after.weight} is not finite"
        norm = _norm(after.spectrum)
        if norm <= _DEAD * _norm(before.spectrum):
            return f"{after.weight} has norm {norm:.2g}"
    if accuracy <= ABOVE * chance:
        return f"train accuracy {accuracy:.3f} is at chance"
    return ""


def _norm(spectrum: Spectrum) -> float:
    return float(np.linalg.norm(spectrum.values))
