"""How long a run is, and what its learning rate is at every step."""

import dataclasses
import math

import numpy as np

MILESTONE_UNITS = ("epochs", "steps", "decay_clock")


@dataclasses.dataclass(frozen=True)
class Plan:
    """The steps of a run.

    Args:
        samples: Int, training samples.
        batch_size: Int, samples of a step; the last of an epoch has the rest.
        epochs: Int.
        boundaries: Tuple of ints, steps made when the learning rate changes.
        rates: Tuple of floats, the learning rates, one more than boundaries.
        weight_decay: Float, in torch's convention.
    """

    samples: int
    batch_size: int
    epochs: int
    boundaries: tuple[int, ...]
    rates: tuple[float, ...]
    weight_decay: float

    @property
    def steps_per_epoch(self) -> int:
        """Updates of the weights in an epoch."""
        return steps_per_epoch(self.samples, self.batch_size)

    @property
    def steps(self) -> int:
        """Updates of the weights in the whole run."""
        return self.epochs * self.steps_per_epoch

    def learning_rates(self, first: int = 0, last: int | None = None):
        """The learning rate of steps `first` to `last`, not included.

        Args:
            first: Int, steps made before.
            last: Int; all steps of the run by default.

        Returns:
            Float64 array of shape `(last - first,)`.
        """
        steps = np.arange(first, self.steps if last is None else last)
        phase = np.searchsorted(self.boundaries, steps, side="right")
        return np.asarray(self.rates)[phase]

    def decay_clock(self, steps: int | None = None) -> float:
        """The decay clock after a number of steps, at the end by default.

        Counts `-log(1 - learning_rate * weight_decay)` for each step;
        infinite where a step leaves nothing of the weights.
        """
        steps = self.steps if steps is None else steps
        edges = (0, *self.boundaries, math.inf)
        return math.fsum(
            (min(end, steps) - start) * _tick(rate, self.weight_decay)
            for start, end, rate in zip(
                edges[:-1], edges[1:], self.rates, strict=True
            )
            if start < steps
        )


def make_plan(
    samples,
    batch_size,
    learning_rate,
    factor,
    milestones,
    milestone_unit,
    stop,
    weight_decay,
) -> Plan:
    """Turn milestones and a stop, in whatever unit, into steps.

    Args:
        samples: Int, training samples.
        batch_size: Int.
        learning_rate: Float, the first.
        factor: Float, what each milestone multiplies it with.
        milestones: Tuple of increasing numbers.
        milestone_unit: String, one of `MILESTONE_UNITS`.
        stop: Pair of a unit and a number.
        weight_decay: Float, in torch's convention.

    Returns:
        A `Plan`.
    """
    per_epoch = steps_per_epoch(samples, batch_size)
    rates = tuple(
        learning_rate * factor**power for power in range(len(milestones) + 1)
    )

    def plan(epochs, boundaries):
        used = rates[: len(boundaries) + 1]
        return Plan(samples, batch_size, epochs, boundaries, used, weight_decay)

    boundaries: tuple[int, ...] = ()
    for milestone in milestones:
        if milestone_unit == "decay_clock":
            step = _steps_to(milestone, plan(0, boundaries))
        else:
            unit = per_epoch if milestone_unit == "epochs" else 1
            step = max(1, round(milestone * unit))
        boundaries += (step,)
    stop_unit, value = stop
    if stop_unit == "decay_clock":
        stop_unit, value = "steps", _steps_to(value, plan(0, boundaries))
    epochs = value if stop_unit == "epochs" else -(-value // per_epoch)
    return plan(max(1, epochs), boundaries)


def steps_per_epoch(samples: int, batch_size: int) -> int:
    """Updates in an epoch, the last of them on what is left over."""
    return -(-samples // batch_size)


def _tick(rate: float, weight_decay: float) -> float:
    """How far one step moves the decay clock."""
    share = rate * weight_decay
    return -math.log1p(-share) if share < 1 else math.inf


def _steps_to(clock: float, plan: Plan) -> int:
    """Steps until the decay clock has come to `clock`."""
    reached = 0.0
    edges = (0, *plan.boundaries, math.inf)
    for start, end, rate in zip(edges, edges[1:], plan.rates, strict=False):
        tick = _tick(rate, plan.weight_decay)
        if tick == math.inf:
            raise ValueError(
                "The decay clock needs steps that leave something of the "
                "weights: `learning_rate * weight_decay` must be below 1. "
                f"Received: {rate:g} * {plan.weight_decay:g}, with the decay "
                "in torch's convention."
            )
        # A hair of rounding must not cost a step.
        step = start + math.ceil((clock - reached) / tick * (1 - 1e-12))
        if step <= end:
            return max(int(step), 1)
        reached += (end - start) * tick
    raise AssertionError("The last phase has no end.")
