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
            study.trouble
            or f"the size `{study.size}` is reduced, and has not been shown to "
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
        order: Tuple of the values of the field in the order that is meant,
            where it is not that of the values themselves.
    """

    field: str
    rises: bool
    value: str = "rank"
    slack: float = 0.01
    order: tuple[Any, ...] = ()

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
            others: sorted(group, key=self._place)
            for others, group in groups.items()
            if len(group) > 1
        }

    def _place(self, point: Point):
        value = point.field(self.field)
        return self.order.index(value) if self.order else value

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
