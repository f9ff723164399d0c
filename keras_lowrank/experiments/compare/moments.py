"""Which steps of a run are traced, and from which states it starts again."""

import dataclasses
from typing import Any

import numpy as np

from keras_lowrank.experiments.plan import Plan

# Every step up to here, then ever fewer.
DENSE = 16
# Steps traced after that, spread evenly on a logarithmic axis.
SPARSE = 24
# States of the reference from which every side starts again, at most, and the
# steps that it makes from each.
RESTARTS = 16
RESTART_STEPS = 2
# What the trace of one side may take on disk.
MAX_BYTES = 2**30


@dataclasses.dataclass(frozen=True)
class Moments:
    """The traced steps, as pairs of where a leg starts and a step of it.

    A leg that starts at 0 has the initial weights, the same on every side.
    One that starts at `s` has the state of the reference after its step `s`,
    so that what leaves there was done by the very next steps, however far the
    legs from 0 have come apart by then.

    Args:
        legs: Dict from the step a leg starts at to its traced steps, counted
            from the beginning of the run.
    """

    legs: dict[int, tuple[int, ...]]

    @property
    def pairs(self) -> list[tuple[int, int]]:
        """Every `(start, step)`, in the order of the legs."""
        return [
            (start, step) for start, leg in self.legs.items() for step in leg
        ]

    @property
    def of_reference(self) -> list[int]:
        """The steps at which the reference, which runs on, is needed."""
        steps = {step for _, step in self.pairs}
        return sorted(steps | set(self.legs))

    def to_list(self) -> list[Any]:
        """The legs as plain values."""
        return [[start, list(leg)] for start, leg in self.legs.items()]

    @classmethod
    def from_list(cls, values) -> "Moments":
        """The reverse of `to_list`."""
        return cls({start: tuple(leg) for start, leg in values})


def choose_moments(plan: Plan, steps: int, state_bytes: int) -> Moments:
    """Dense at first, then sparse; and again where the learning rate changes.

    Args:
        plan: The `Plan` of the run.
        steps: Int >= 1, how far the leg from the initial weights goes.
        state_bytes: Int, what the state of the model takes.

    Returns:
        `Moments`, fewer where states are large: their trace takes 1 GiB at
        most, or three states where not even these fit.

    Example:

    >>> plan = Plan(64, 8, 10, (40,), (0.1, 0.02), 0.0)
    >>> moments = choose_moments(plan, steps=30, state_bytes=1000)
    >>> moments.legs[0][-3:], moments.legs[39]
    ((28, 29, 30), (40, 41))
    """
    steps = min(steps, plan.steps)
    room = max(3, MAX_BYTES // max(1, state_bytes))
    # Both sides of a change of learning rate have a step of their own.
    changes = [
        start
        for boundary in plan.boundaries
        for start in (boundary - 1, boundary)
        if 0 < start < plan.steps
    ]
    end = plan.steps_per_epoch
    # The first steps one by one, and the last batch of an epoch, which has a
    # size of its own.
    spread = np.geomspace(1, max(1, plan.steps - 1), RESTARTS).round()
    starts = [int(start) for start in (*spread, end - 1)]
    starts = sorted({start for start in starts if 0 < start < plan.steps})
    restarts: dict[int, tuple[int, ...]] = {}
    # The reference needs the state before a leg, too.
    for start in dict.fromkeys([*changes, *reversed(starts)]):
        last = min(start + RESTART_STEPS, plan.steps)
        taken = sum(len(leg) + 1 for leg in restarts.values())
        if taken + 1 + last - start <= room // 2:
            restarts[start] = tuple(range(start + 1, last + 1))
    taken = sum(len(leg) + 1 for leg in restarts.values())
    free = max(2, room - taken - 1)
    dense = min(DENSE, free // 2, steps)
    sparse = np.geomspace(dense, steps, min(SPARSE, free - dense)).round()
    wanted = {*range(1, dense + 1), *(int(step) for step in sparse), steps}
    if free > DENSE + SPARSE:
        wanted |= {step for step in (end, end + 1) if step <= steps}
    legs = {0: tuple(sorted(wanted))}
    return Moments(legs | dict(sorted(restarts.items())))
