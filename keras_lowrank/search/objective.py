"""What a search is after: a low rank, high accuracy, or a front of both.

KerasTuner minimizes one number. Its own `MultiObjective` adds raw metrics up,
in which a rank in the tens drowns a loss; so an objective here makes a score
between 0 and 2, in which a trial that breaks the constraint is always worse
than one that keeps it, and among those the smaller breach is better (the rules
of Deb, 2000). Optuna takes a `ParetoFront` as it is.
"""

import dataclasses
import math
import numbers
from collections.abc import Mapping
from typing import Any

# The score of a trial that failed, diverged or collapsed.
WORST_SCORE = 2.0

# An accuracy is a mean of float32 numbers: equal ones may differ by so much.
_ROUNDING = 1e-6

# Entry of the metrics with what a rank can be at most.
FULL_RANK = "full_rank_mean"


@dataclasses.dataclass(frozen=True)
class LowestRank:
    """The lowest rank among trials that are accurate enough.

    The score is `rank / full rank` where the floor is kept, and otherwise
    1 plus the part of the floor that is missing.

    Args:
        accuracy_floor: Float in (0, 1], the least accuracy.
        rank: Name of the metric to minimize, between 0 and the full rank.
        accuracy: Name of the metric that has the floor, between 0 and 1.

    Raises:
        ValueError: when the floor is out of range.

    Example:

    >>> objective = LowestRank(accuracy_floor=0.95)
    >>> metrics = {"rank_mean": 20.0, "full_rank_mean": 100.0}
    >>> objective.score(metrics | {"val_accuracy": 0.97})
    0.2
    >>> round(objective.score(metrics | {"val_accuracy": 0.76}), 3)
    1.2
    """

    accuracy_floor: float
    rank: str = "rank_mean"
    accuracy: str = "val_accuracy"

    def __post_init__(self):
        _check_between(self, "accuracy_floor", 0, 1)

    @property
    def goals(self) -> tuple[tuple[str, str], ...]:
        """Metrics that matter, and whether each is to be `"min"` or `"max"`."""
        return ((self.rank, "min"), (self.accuracy, "max"))

    def meets(self, metrics: Mapping[str, float]) -> bool:
        """Whether a trial keeps the constraint."""
        floor = self.accuracy_floor - _ROUNDING
        return _metric(metrics, self.accuracy) >= floor

    def score(self, metrics: Mapping[str, float]) -> float:
        """The number to minimize, between 0 and 2."""
        accuracy = _accuracy(metrics, self.accuracy)
        if self.meets(metrics):
            return _relative_rank(metrics, self.rank)
        return 1 + (self.accuracy_floor - accuracy) / self.accuracy_floor

    def __str__(self):
        return f"lowest {self.rank} with {self.accuracy} >= " + (
            f"{self.accuracy_floor:.4g}"
        )


@dataclasses.dataclass(frozen=True)
class BestAccuracy:
    """The best accuracy among trials of a rank that is low enough.

    The score is `1 - accuracy` where the budget is kept, and otherwise 1 plus
    the part by which the rank is over it, of what it can be over.

    Args:
        rank_budget: Number > 0, the most that the rank may be.
        rank: Name of the metric that has the budget.
        accuracy: Name of the metric to maximize, between 0 and 1.

    Raises:
        ValueError: when the budget is out of range.
    """

    rank_budget: float
    rank: str = "rank_mean"
    accuracy: str = "val_accuracy"

    def __post_init__(self):
        _check_between(self, "rank_budget", 0, math.inf)

    @property
    def goals(self) -> tuple[tuple[str, str], ...]:
        """Metrics that matter, and whether each is to be `"min"` or `"max"`."""
        return ((self.accuracy, "max"), (self.rank, "min"))

    def meets(self, metrics: Mapping[str, float]) -> bool:
        """Whether a trial keeps the constraint."""
        return _metric(metrics, self.rank) <= self.rank_budget

    def score(self, metrics: Mapping[str, float]) -> float:
        """The number to minimize, between 0 and 2."""
        rank = _metric(metrics, self.rank)
        if rank <= self.rank_budget:
            return 1 - _accuracy(metrics, self.accuracy)
        full = _metric(metrics, FULL_RANK)
        return 1 + min(1.0, (rank - self.rank_budget) / (full or 1.0))

    def __str__(self):
        return (
            f"best {self.accuracy} with {self.rank} <= {self.rank_budget:.4g}"
        )


@dataclasses.dataclass(frozen=True)
class ParetoFront:
    """All trials that no other one beats in every goal.

    Optuna searches for the front itself. KerasTuner needs one number and gets
    the augmented Chebyshev distance from the ideal point, with goals between
    0 and 1 and equal weights: its adaptive methods then look for the middle of
    the front, while random search and grids cover what they cover anyway.

    Args:
        goals: Pairs of the name of a metric and `"min"` or `"max"`. What is to
            be maximal must lie between 0 and 1; a rank is divided by the full
            rank, a size by the full size.

    Raises:
        ValueError: for fewer than two goals, or an unknown direction.

    Reference:
        [Knowles, 2006](https://doi.org/10.1109/TEVC.2005.851274)
    """

    goals: tuple[tuple[str, str], ...] = (
        ("val_accuracy", "max"),
        ("rank_mean", "min"),
    )

    def __post_init__(self):
        goals = tuple((str(name), way) for name, way in self.goals)
        object.__setattr__(self, "goals", goals)
        if len({name for name, _ in goals}) < 2:
            raise ValueError(
                "A front needs two goals or more. "
                f"Received: goals={self.goals}."
            )
        for name, way in goals:
            if way not in ("min", "max"):
                raise ValueError(
                    'A goal is to be "min" or "max". '
                    f"Received: {name!r} {way!r}."
                )

    def meets(self, metrics: Mapping[str, float]) -> bool:
        """Whether a trial keeps the constraints, of which there are none."""
        return True

    def score(self, metrics: Mapping[str, float]) -> float:
        """The number to minimize, between 0 and 2."""
        losses = [_loss(metrics, name, way) for name, way in self.goals]
        # The sum breaks ties between points of one largest loss.
        return (max(losses) + 0.05 * math.fsum(losses)) / (
            1 + 0.05 * len(losses)
        )

    def __str__(self):
        told = (
            f"{'highest' if way == 'max' else 'lowest'} {name}"
            for name, way in self.goals
        )
        return "front of " + " and ".join(told)


Objective = LowestRank | BestAccuracy | ParetoFront

OBJECTIVES: dict[str, type[Objective]] = {
    "lowest_rank": LowestRank,
    "best_accuracy": BestAccuracy,
    "pareto_front": ParetoFront,
}


def objective_to_dict(objective: Objective) -> dict[str, Any]:
    """An objective as plain values."""
    (name,) = (
        key for key, kind in OBJECTIVES.items() if type(objective) is kind
    )
    return {"name": name} | dataclasses.asdict(objective)


def as_objective(value) -> Objective:
    """An objective out of itself, or of the dict that stands for it.

    Args:
        value: An objective, or a dict of a `name` out of `OBJECTIVES` and its
            arguments.

    Raises:
        TypeError: for anything else, or for an unknown argument.
        ValueError: for an unknown name.
    """
    if isinstance(value, Objective):
        return value
    if not isinstance(value, Mapping) or "name" not in value:
        raise TypeError(
            "`objective` must be LowestRank, BestAccuracy or ParetoFront, or "
            f"a dict with a `name` out of {tuple(OBJECTIVES)}. "
            f"Received: objective={value!r}."
        )
    arguments = dict(value)
    name = arguments.pop("name")
    if name not in OBJECTIVES:
        raise ValueError(
            f"An objective is one of {tuple(OBJECTIVES)}. Received: {name!r}."
        )
    if "goals" in arguments:
        arguments["goals"] = tuple(tuple(goal) for goal in arguments["goals"])
    known = {field.name for field in dataclasses.fields(OBJECTIVES[name])}
    if unknown := set(arguments) - known:
        raise TypeError(
            f"The objective {name} takes {', '.join(sorted(known))}. "
            f"Received: {', '.join(sorted(unknown))}."
        )
    return OBJECTIVES[name](**arguments)


def _metric(metrics: Mapping[str, float], name: str) -> float:
    if name not in metrics:
        raise ValueError(
            f"The objective needs the metric {name!r}. "
            f"Received: {', '.join(sorted(metrics)) or 'none'}. Accuracy on "
            "held-out data is there with `validation_data` and "
            '`metrics=["accuracy"]`, a rank with its measure.'
        )
    return float(metrics[name])


def _accuracy(metrics: Mapping[str, float], name: str) -> float:
    value = _metric(metrics, name)
    if not 0 <= value <= 1:
        raise ValueError(
            "What is to be high must lie between 0 and 1. "
            f"Received: {name}={value:g}."
        )
    return value


def _relative_rank(metrics: Mapping[str, float], name: str) -> float:
    full = _metric(metrics, FULL_RANK)
    return min(1.0, _metric(metrics, name) / full) if full else 1.0


def _loss(metrics: Mapping[str, float], name: str, way: str) -> float:
    """A goal between 0, the best, and 1."""
    if way == "max":
        return 1 - _accuracy(metrics, name)
    if f"full_{name}" in metrics:
        full = _metric(metrics, f"full_{name}")
    elif name.endswith("_mean"):
        full = _metric(metrics, FULL_RANK)
    else:
        # Losses and the like have no largest value.
        value = _metric(metrics, name)
        return value / (1 + value) if value > 0 else 0.0
    return min(1.0, _metric(metrics, name) / full) if full else 1.0


def _check_between(objective, name: str, low: float, high: float) -> None:
    value = getattr(objective, name)
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError(
            f"`{name}` must be a number. Received: {name}={value!r}."
        )
    value = float(value)
    if not low < value <= high or not math.isfinite(value):
        raise ValueError(
            f"`{name}` must be above {low}"
            + (f" and at most {high}" if math.isfinite(high) else "")
            + f". Received: {name}={value}."
        )
