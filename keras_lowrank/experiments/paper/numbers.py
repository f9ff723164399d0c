"""Claims that hold ranks and accuracies against numbers."""

import dataclasses

from keras_lowrank.experiments.paper.claims import Claim
from keras_lowrank.experiments.paper.claims import Verdict
from keras_lowrank.experiments.paper.figure import label
from keras_lowrank.experiments.paper.points import Point
from keras_lowrank.experiments.paper.points import Study


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
