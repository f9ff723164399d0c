"""Claims about what ranks do over a run, and about what orders them."""

import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np

from keras_lowrank.experiments.paper.claims import Claim
from keras_lowrank.experiments.paper.claims import Verdict
from keras_lowrank.experiments.paper.curves import clock
from keras_lowrank.experiments.paper.fields import decay_per_step
from keras_lowrank.experiments.paper.figure import label
from keras_lowrank.experiments.paper.points import Outcome
from keras_lowrank.experiments.paper.points import Point
from keras_lowrank.experiments.paper.points import Study
from keras_lowrank.experiments.spec import ExperimentSpec

CLOCK, MEMORY, NOISE = "clock", "B / (mu w)", "mu / B"


def coordinate(name: str, spec: ExperimentSpec, recording) -> np.ndarray:
    """What may order the ranks of runs, at each measurement of one.

    Args:
        name: `"clock"`, the decay clock; `"B / (mu w)"`, the samples of a
            memory of decay, as in Theorem 3.3; or `"mu / B"`.
        spec: `ExperimentSpec`.
        recording: Its `Recording`.

    Returns:
        Float64 array with a value for each measurement.
    """
    if name == CLOCK:
        return clock(spec, recording)
    value = {
        MEMORY: spec.batch_size / decay_per_step(spec),
        NOISE: noise_scale(spec),
    }[name]
    return np.full(len(recording), value)


def noise_scale(spec: ExperimentSpec) -> float:
    """Learning rate over batch size, before the rate is cut."""
    return spec.learning_rate / spec.batch_size


def _runs(
    claim: Claim, study: Study
) -> Iterator[tuple[str, Outcome, np.ndarray, np.ndarray]]:
    """Runs alive: what they are called, mean ranks, and decay clocks."""
    measure = study.figure.measure(study.size)
    for point in claim.points(study):
        for outcome in point.alive:
            yield (
                f"{label(point.key)}, seed {outcome.spec.seed}",
                outcome,
                outcome.recording.means(measure),
                clock(outcome.spec, outcome.recording),
            )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settles(Claim):
    """From some decay clock on, the mean rank stays where it is.

    Args:
        after: Float, the decay clock.
        share: Float, how far it may move after that, of the rank at the
            initialisation.
    """

    after: float
    share: float

    def judge(self, study: Study) -> Verdict:
        """As for every claim."""
        told, holds = [], []
        for name, outcome, ranks, taus in _runs(self, study):
            late = ranks[taus >= self.after]
            if len(late) < 2:
                continue
            start = outcome.start["rank"]
            holds.append(float(np.ptp(late)) <= self.share * start)
            told.append(
                f"{name}: {start:.1f} at the start, then {late.min():.1f} to "
                f"{late.max():.1f} in {len(late)} measurements up to clock "
                f"{taus[-1]:.1f}"
            )
        if not holds:
            return self.verdict(
                None, f"no run measured twice after clock {self.after:g}"
            )
        return self.verdict(all(holds), "; ".join(told))


@dataclasses.dataclass(frozen=True, kw_only=True)
class RisesAfterCut(Claim):
    """The mean rank is higher at the end than when the rate was first cut.

    Args:
        share: Float, by how much at least, of the rank at the initialisation.
    """

    share: float

    def judge(self, study: Study) -> Verdict:
        """As for every claim."""
        told, holds = [], []
        for name, outcome, ranks, _ in _runs(self, study):
            spec, epochs = outcome.spec, outcome.recording.epochs
            if not spec.milestones or spec.milestone_unit != "epochs":
                continue
            before = [e for e in epochs if 0 < e <= spec.milestones[0]]
            if not before:
                continue
            at_cut = ranks[epochs.index(before[-1])]
            rise = ranks[-1] - at_cut
            holds.append(rise > self.share * outcome.start["rank"])
            told.append(
                f"{name}: {at_cut:.1f} after {before[-1]} epochs, "
                f"{ranks[-1]:.1f} after {epochs[-1]}"
            )
        if not holds:
            return self.verdict(
                None, "no run alive that was measured before a cut"
            )
        return self.verdict(
            all(holds), f"{sum(holds)} of {len(holds)}: {'; '.join(told)}"
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class FallsBelow(Claim):
    """The mean rank falls below a share of that at the initialisation.

    Args:
        share: Float.
        largest: String, a field: only of the points where it is largest.
    """

    share: float
    largest: str

    def judge(self, study: Study) -> Verdict:
        """As for every claim."""
        points = self.points(study)
        largest = max((p.field(self.largest) for p in points), default=None)
        points = [
            point
            for point in points
            if point.alive and point.field(self.largest) == largest
        ]
        if not points:
            return self.verdict(None, "no such point that did not collapse")
        ends = [point.estimate("rank").mean for point in points]
        return self.verdict(
            all(
                end < self.share * point.start()
                for end, point in zip(ends, points, strict=True)
            ),
            "; ".join(
                f"{label(point.key)}: {point.start():.1f} -> {end:.1f} "
                f"({point.estimate('rank').kind})"
                for end, point in zip(ends, points, strict=True)
            ),
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class SameRank(Claim):
    """Points that differ in some fields alone have one rank, or do not.

    Args:
        fields: Tuple of strings.
        share: Float, the largest difference of one rank, of the largest rank
            at an initialisation among them.
        same: Boolean, whether they have one rank.
        after: Float, only points whose runs end at that decay clock or later.
    """

    fields: tuple[str, ...]
    share: float
    same: bool = True
    after: float = 0.0

    def judge(self, study: Study) -> Verdict:
        """As for every claim."""
        groups: dict[str, list[Point]] = {}
        for point in self.points(study):
            if point.alive and _clock_at_end(point) >= self.after:
                others = label(point.key, leave_out=self.fields)
                groups.setdefault(others, []).append(point)
        told, holds = [], []
        for others, group in groups.items():
            if len(group) < 2:
                continue
            ends = [point.estimate("rank").mean for point in group]
            allowed = self.share * max(point.start() for point in group)
            holds.append((max(ends) - min(ends) <= allowed) == self.same)
            series = ", ".join(
                f"{end:.1f} ({self._name(point)})"
                for end, point in zip(ends, group, strict=True)
            )
            told.append(f"{others}: {series}" if others else series)
        if not holds:
            return self.verdict(
                None, f"no two points alive that differ in {self.fields} alone"
            )
        return self.verdict(all(holds), "; ".join(told))

    def _name(self, point: Point) -> str:
        chosen = [pair for pair in point.key if pair[0] in self.fields]
        return label(tuple(chosen))


def _clock_at_end(point: Point) -> float:
    return min(clock(item.spec, item.recording)[-1] for item in point.alive)


@dataclasses.dataclass(frozen=True, kw_only=True)
class OrderedBy(Claim):
    """One quantity orders the ranks of all measurements better than others.

    The order is Spearman's rank correlation, without its sign, over every
    measurement after the first of every run that is alive.

    Args:
        best: `"clock"`, `"B / (mu w)"` or `"mu / B"`.
        others: Tuple of the others it is held against.
        before: Float, only measurements before that decay clock; all by
            default.
        after: Float, only measurements from that decay clock on.
    """

    best: str
    others: tuple[str, ...]
    before: float = np.inf
    after: float = 0.0

    def judge(self, study: Study) -> Verdict:
        """As for every claim."""
        names = (self.best, *self.others)
        ranks: list[float] = []
        columns: dict[str, list[float]] = {name: [] for name in names}
        count = 0
        for _, outcome, run_ranks, taus in _runs(self, study):
            chosen = (taus >= self.after) & (taus < self.before)
            chosen[0] = False  # the initialisation
            count += bool(chosen.any())
            ranks += [*run_ranks[chosen]]
            for name in names:
                values = coordinate(name, outcome.spec, outcome.recording)
                columns[name] += [*values[chosen]]
        if count < 3:
            return self.verdict(None, "fewer than three runs alive there")
        orders = {
            name: abs(_spearman(values, ranks))
            for name, values in columns.items()
        }
        told = ", ".join(f"{n}: {value:.2f}" for n, value in orders.items())
        return self.verdict(
            max(orders, key=orders.__getitem__) == self.best,
            f"Spearman's correlation with the mean rank, {len(ranks)} "
            f"measurements of {count} runs: {told}",
        )


def _spearman(x: Any, y: Any) -> float:
    try:
        from scipy.stats import spearmanr
    except ImportError as error:
        raise ImportError(
            "Rank correlations need SciPy. Install it with `pip install scipy`."
        ) from error
    if len(set(x)) < 2 or len(set(y)) < 2:
        return 0.0  # what does not vary orders nothing
    return float(spearmanr(x, y).statistic)
