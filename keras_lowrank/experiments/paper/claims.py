"""What the paper says of a figure, and whether the runs bear it out."""

import dataclasses
import itertools
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

from keras_lowrank.experiments.paper.figure import label
from keras_lowrank.experiments.paper.figure import text
from keras_lowrank.experiments.paper.points import Point
from keras_lowrank.experiments.paper.points import Study

HOLDS = "holds"
FAILS = "does not hold"
UNTESTED = "not tested here"

_NAMES = {
    "rank": "mean rank",
    "train": "train accuracy",
    "test": "test accuracy",
}


@dataclasses.dataclass(frozen=True)
class Verdict:
    """What came of a claim.

    Args:
        statement: String, the claim in words.
        outcome: `"holds"`, `"does not hold"` or `"not tested here"`.
        evidence: String: the numbers and seeds it rests on, or why it was not
            tested.
    """

    statement: str
    outcome: str
    evidence: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Claim:
    """A sentence about the points of a figure.

    Args:
        statement: String.
        only: Dict from fields to the values of the points it is about; all
            by default.
        skip: Dict from fields to values of points it is not about.
    """

    statement: str
    only: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    skip: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def judge(self, study: Study) -> Verdict:
        """Whether it holds of the points of a study."""
        raise NotImplementedError

    def points(self, study: Study) -> list[Point]:
        """The points that it is about."""

        def belongs(point: Point) -> bool:
            wanted = all(point.field(k) == v for k, v in self.only.items())
            unwanted = any(point.field(k) == v for k, v in self.skip.items())
            return wanted and not unwanted

        return [point for point in study.points if belongs(point)]

    def verdict(self, holds: bool | None, evidence: str) -> Verdict:
        """A `Verdict`, of `None` one that says it was not tested."""
        outcome = {True: HOLDS, False: FAILS, None: UNTESTED}[holds]
        return Verdict(self.statement, outcome, evidence)

    def against_numbers(self, study: Study) -> Verdict | None:
        """The verdict of a study that the paper's numbers do not bind."""
        if study.numbers:
            return None
        return self.verdict(
            None,
            f"the size `{study.size}` is reduced, and has not been shown to "
            "give the paper's numbers",
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Monotone(Claim):
    """A value rises or falls with a field, all other fields being equal.

    Neighbours may differ the other way by `slack`, which is noise; from one
    end to the other the value must change by more than that. Points that
    collapsed are left out.

    Args:
        field: String.
        rises: Boolean, whether the value rises with the field.
        value: String: `"rank"`, `"test"`, ...
        slack: Float; for ranks a share of the rank at the initialisation.
    """

    field: str
    rises: bool
    value: str = "rank"
    slack: float = 0.01

    def judge(self, study: Study) -> Verdict:
        """As for every claim."""
        points = self.points(study)
        groups = self._groups([point for point in points if point.alive])
        dead = sum(point.collapsed for point in points)
        left_out = f"; {dead} collapsed points left out" if dead else ""
        if not groups:
            return self.verdict(
                None, f"no two points that differ in {self.field}{left_out}"
            )
        told, holds = [], []
        for others, group in groups.items():
            values = [point.estimate(self.value).mean for point in group]
            holds.append(self._ordered(group, values))
            digits = 1 if self._is_rank(group[0]) else 3
            series = ", ".join(f"{value:.{digits}f}" for value in values)
            mark = "" if holds[-1] else " (not so)"
            told.append(f"{others or 'all'}: {series}{mark}")
        swept = ", ".join(
            dict.fromkeys(
                text(point.field(self.field))
                for group in groups.values()
                for point in group
            )
        )
        return self.verdict(
            all(holds),
            f"{_NAMES.get(self.value, self.value)} at {self.field} {swept}: "
            f"{'; '.join(told)}; {self._seeds(groups)}{left_out}",
        )

    def _groups(self, points: Sequence[Point]) -> dict[str, list[Point]]:
        groups: dict[str, list[Point]] = {}
        for point in points:
            if point.estimate(self.value).values:
                others = label(point.key, leave_out=[self.field])
                groups.setdefault(others, []).append(point)
        return {
            others: sorted(group, key=lambda point: point.field(self.field))
            for others, group in groups.items()
            if len(group) > 1
        }

    def _is_rank(self, point: Point) -> bool:
        return self.value in point.outcomes[0].start

    def _ordered(self, group, values) -> bool:
        slack = self.slack
        if self._is_rank(group[0]):
            slack *= group[0].start(self.value)
        sign = 1 if self.rises else -1
        steps = [sign * (b - a) for a, b in itertools.pairwise(values)]
        return all(step >= -slack for step in steps) and sum(steps) > slack

    def _seeds(self, groups) -> str:
        """In how many seeds, each for itself, it holds."""
        by_seed = {
            point: {o.spec.seed: o.values[self.value] for o in point.alive}
            for group in groups.values()
            for point in group
        }
        seeds = sorted(set.intersection(*map(set, by_seed.values())))
        so = sum(
            all(
                self._ordered(group, [by_seed[point][seed] for point in group])
                for group in groups.values()
            )
            for seed in seeds
        )
        return (
            f"so in {so} of {len(seeds)} seeds ({', '.join(map(str, seeds))})"
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class NearStart(Claim):
    """A rank stays near that of the initialisation.

    Args:
        value: String, `"rank"` or a part of the figure.
        share: Float, how far it may go, of that at the initialisation.
        exact: Boolean, whether that is a number of the paper's network, which
            a reduced size cannot test.
    """

    value: str = "rank"
    share: float = 0.1
    exact: bool = False

    def judge(self, study: Study) -> Verdict:
        """As for every claim."""
        if self.exact and (verdict := self.against_numbers(study)):
            return verdict
        points = [
            point
            for point in self.points(study)
            if point.estimate(self.value).values
        ]
        if not points:
            return self.verdict(None, "no such point that did not collapse")
        told, holds = [], []
        for point in points:
            start = point.start(self.value)
            end = point.estimate(self.value)
            holds.append(abs(end.mean - start) <= self.share * start)
            told.append(
                f"{label(point.key)}: {start:.1f} -> {end.mean:.1f} "
                f"({end.kind})"
            )
        return self.verdict(all(holds), "; ".join(told))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Agrees(Claim):
    """A value is that of the paper, at every point that it reports.

    Args:
        within: Float, the largest difference.
        value: String: `"rank"`, `"train"`, `"test"`, ...
    """

    within: float
    value: str = "rank"

    def judge(self, study: Study) -> Verdict:
        """As for every claim."""
        if verdict := self.against_numbers(study):
            return verdict
        worst, missed, count = 0.0, [], 0
        for point in self.points(study):
            expected = point.reference.get(self.value)
            if expected is None or point.collapsed_in_paper:
                continue
            count += 1
            if point.collapsed:
                missed.append(f"{label(point.key)}: {point.state}")
                continue
            actual = point.estimate(self.value)
            distance = abs(actual.mean - expected)
            worst = max(worst, distance)
            if not distance <= self.within:
                missed.append(
                    f"{label(point.key)}: {actual.mean:.4g} against "
                    f"{expected:g} ({actual.kind})"
                )
        if not count:
            return self.verdict(None, "no point that the paper reports")
        evidence = (
            f"{count - len(missed)} of {count} points within {self.within:g}, "
            f"largest difference {worst:.3g}"
        )
        if missed:
            evidence += f"; not so: {'; '.join(missed)}"
        return self.verdict(not missed, evidence)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Scales(Claim):
    """Ranks are equal where learning rate over batch size is.

    Args:
        share: Float, how far they may differ, of that at the initialisation.
    """

    share: float

    def judge(self, study: Study) -> Verdict:
        """As for every claim."""
        groups: dict[tuple[str, str], list[Point]] = {}
        for point in self.points(study):
            rate, batch = (
                point.field("learning_rate"),
                point.field("batch_size"),
            )
            if point.alive and rate and batch:
                others = label(point.key, ("learning_rate", "batch_size"))
                groups.setdefault((f"{rate / batch:.6g}", others), []).append(
                    point
                )
        told, holds = [], []
        for (ratio, others), group in groups.items():
            if len(group) < 2:
                continue
            ranks = [point.estimate("rank").mean for point in group]
            spread = max(ranks) - min(ranks)
            holds.append(spread <= self.share * group[0].start())
            series = ", ".join(f"{rank:.1f}" for rank in ranks)
            told.append(f"{others} ratio {ratio}: {series}".strip())
        if not holds:
            return self.verdict(None, "no two points of one ratio are alive")
        return self.verdict(all(holds), "; ".join(told))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Between(Claim):
    """A value lies in an interval, where another is large enough.

    Args:
        low: Float.
        high: Float.
        value: String.
        where: Pair of a value and what it must be above, or `None`.
    """

    low: float
    high: float
    value: str
    where: tuple[str, float] | None = None

    def judge(self, study: Study) -> Verdict:
        """As for every claim."""
        if verdict := self.against_numbers(study):
            return verdict
        points = self.points(study)
        if self.where is not None:
            name, least = self.where
            points = [p for p in points if p.estimate(name).mean > least]
        points = [point for point in points if point.alive]
        if not points:
            return self.verdict(None, "no such point that did not collapse")
        values = [point.estimate(self.value).mean for point in points]
        return self.verdict(
            self.low <= min(values) and max(values) <= self.high,
            f"from {min(values):.3f} to {max(values):.3f} at {len(values)} "
            f"points, {points[0].estimate(self.value).kind} each",
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Lowest(Claim):
    """The lowest mean rank of some points is a number.

    Args:
        rank: Float.
        within: Float, the largest difference.
    """

    rank: float
    within: float

    def judge(self, study: Study) -> Verdict:
        """As for every claim."""
        if verdict := self.against_numbers(study):
            return verdict
        points = [point for point in self.points(study) if point.alive]
        if not points:
            return self.verdict(None, "no such point that did not collapse")
        lowest = min(points, key=lambda point: point.estimate("rank").mean)
        actual = lowest.estimate("rank")
        return self.verdict(
            abs(actual.mean - self.rank) <= self.within,
            f"{actual.mean:.1f} at {label(lowest.key)} ({actual.kind}), "
            f"the paper {self.rank:g}",
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Collapses(Claim):
    """Where the paper's network is dead, so is ours."""

    statement: str = (
        "where the paper reports rank 0, or train accuracy at chance, the "
        "network has collapsed"
    )

    def judge(self, study: Study) -> Verdict:
        """As for every claim."""
        if verdict := self.against_numbers(study):
            return verdict
        points = [
            point for point in self.points(study) if point.collapsed_in_paper
        ]
        if not points:
            return self.verdict(None, "no point that the paper reports so")
        told = [
            f"{label(point.key)}: "
            + (
                point.state
                or f"rank {point.estimate('rank').mean:.1f}, train accuracy "
                f"{point.estimate('train').mean:.3f}"
            )
            for point in points
        ]
        return self.verdict(
            all(point.collapsed for point in points), "; ".join(told)
        )
