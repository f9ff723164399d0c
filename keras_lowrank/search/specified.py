"""Executions of a trial that an `ExperimentSpec` describes."""

import dataclasses
import functools
import json
import pathlib
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Mapping
from typing import Any

from keras_lowrank.experiments import ExperimentSpec
from keras_lowrank.experiments import find_run
from keras_lowrank.experiments import run_all
from keras_lowrank.experiments import sweep
from keras_lowrank.experiments.process import ProcessError
from keras_lowrank.experiments.process import Processes
from keras_lowrank.experiments.runs import TAKEN
from keras_lowrank.experiments.runs import wait_until_free
from keras_lowrank.search.forget import forgetting
from keras_lowrank.search.moment import Moment
from keras_lowrank.search.moment import OnEpoch
from keras_lowrank.search.outcome import outcome
from keras_lowrank.search.space import Range
from keras_lowrank.search.space import SearchSpace
from keras_lowrank.search.trials import Execution

RUNS_DIR = "runs"
SWEEP_FILE = "specs.json"


@dataclasses.dataclass(frozen=True)
class SpecTrainings:
    """Trains a spec with the values of a trial, all its seeds together.

    A run that another trial has completed, or this one before it was killed,
    is not trained again: its directory is named after its spec.

    Args:
        spec: `ExperimentSpec` of the point of the space.
        last: Int >= 1, epochs that the metrics are means over.
        checkpoint_seconds: Float, least time between checkpoints.
        on_epoch: `OnEpoch`, or `None`.
        processes: `Processes` that train, or `None` for this process.
    """

    spec: ExperimentSpec
    last: int
    checkpoint_seconds: float
    on_epoch: OnEpoch | None = None
    processes: Processes | None = None

    def executions(
        self, seeds, out_dir: pathlib.Path, directory: pathlib.Path
    ) -> Iterator[Execution]:
        """Train with each of some seeds.

        Args:
            seeds: Iterable of ints.
            out_dir: Path of the directory of all runs of the search.
            directory: Path of the directory of the trial.

        Yields:
            An `Execution` for each seed.
        """
        specs = sweep(self.spec, seed=list(seeds))
        if any(not find_run(spec, out_dir).complete for spec in specs):
            self._train(specs, out_dir, directory)
        for spec in specs:
            yield self.execution(spec.seed, out_dir)

    def _train(self, specs, out_dir, directory) -> None:
        by_id = {spec.id: spec for spec in specs}

        def report(spec, epoch, epochs, logs):
            if self.on_epoch is not None:
                run_dir = find_run(spec, out_dir).run_dir
                moment = Moment(spec.seed, epoch, epochs, logs, run_dir)
                self.on_epoch(moment)

        def tell(told):
            spec = by_id[told["id"]]
            report(spec, told["epoch"], told["epochs"], told["logs"])

        train: Callable[[], object]
        if self.processes is None:
            train = functools.partial(
                run_all,
                specs,
                out_dir,
                report=report,
                workers=1,
                checkpoint_seconds=self.checkpoint_seconds,
            )
        else:
            path = directory / SWEEP_FILE
            seeds = [spec.seed for spec in specs]
            swept = self.spec.to_dict() | {"sweep": {"seed": seeds}}
            path.write_text(json.dumps(swept, indent=2), encoding="utf-8")
            train = functools.partial(
                self.processes.train,
                path,
                out_dir,
                tell,
                self.checkpoint_seconds,
                what=f"The trial '{directory}'",
            )
        while not _done(specs, out_dir, train):
            pass

    def execution(self, seed: int, out_dir: pathlib.Path) -> Execution:
        """The execution of one seed, whose run is complete."""
        run = find_run(self.spec.replace(seed=seed), out_dir)
        return Execution(
            seed,
            outcome(run.recording, self.last),
            run.run_dir,
            run.result["seconds"],
        )


def _done(specs, out_dir, train) -> bool:
    """Train, unless another process does that; then its result is ours.

    It may be that of another trial, or one that outlives a killed search by
    an epoch.
    """
    for spec in specs:
        wait_until_free(find_run(spec, out_dir))
    try:
        with forgetting():
            train()
    except BlockingIOError:
        return False
    except ProcessError as error:
        if TAKEN in error.said:
            return False
        raise
    return True


def spec_at(spec: ExperimentSpec, values: Mapping[str, Any]) -> ExperimentSpec:
    """The spec at a point of a search space.

    Args:
        spec: `ExperimentSpec`, the default point.
        values: Dict from fields, or `"network.width"` and the like, to values.

    Returns:
        An `ExperimentSpec`.
    """
    (found,) = sweep(spec, {name: [value] for name, value in values.items()})
    return found


def check_space(spec: ExperimentSpec, space: SearchSpace) -> None:
    """Say what is wrong with a name or a value before a search.

    Args:
        spec: `ExperimentSpec`, the default point.
        space: `SearchSpace` of its fields.

    Raises:
        TypeError: for a value of the wrong type.
        ValueError: for an unknown field, a value out of range, or seeds.
    """
    if "seed" in space.names:
        raise ValueError(
            "Seeds are given as `seeds`, not in the space: they are what "
            "intervals are taken over."
        )
    for name, axis in space.axes.items():
        ends = (axis.min, axis.max) if isinstance(axis, Range) else axis
        for value in ends:
            spec_at(spec, {name: value})


def values_of(spec: ExperimentSpec, names) -> dict[str, Any]:
    """Where a spec lies in a search space; what it leaves open is left out.

    Args:
        spec: `ExperimentSpec`.
        names: Iterable of names, as `spec_at` takes them.
    """
    values = {}
    for name in names:
        field, dot, option = name.partition(".")
        value = getattr(spec, field)
        if dot:
            value = value.keywords.get(option)
        elif hasattr(value, "keywords"):
            value = value.name
        if value is not None:
            values[name] = value
    return values


def with_equal(
    spec: ExperimentSpec, what: str | None, samples: int
) -> ExperimentSpec:
    """A spec that keeps its steps, or its decay clock, wherever it is moved.

    A grid over batch sizes at a number of epochs compares runs of unequal
    numbers of steps, and finds lower ranks where there were more. With
    `"steps"` every point makes as many steps as the spec does, and cuts its
    learning rate at the same ones; with `"decay_clock"` every point forgets
    its initial weights to the same degree, `exp(-clock)`.

    Args:
        spec: `ExperimentSpec`.
        what: `"steps"`, `"decay_clock"`, or `None` for the spec as it is.
        samples: Int, training samples.

    Returns:
        An `ExperimentSpec` with the same plan, in other units.

    Raises:
        ValueError: for another word, or a decay clock that stands still.
    """
    if what is None:
        return spec
    if what not in ("steps", "decay_clock"):
        raise ValueError(
            '`equal` must be "steps", "decay_clock" or None. '
            f"Received: equal={what!r}."
        )
    plan = spec.plan(samples)
    marks: list[float] = list(plan.boundaries)
    stop: float = plan.steps
    if what == "decay_clock":
        if not spec.weight_decay:
            raise ValueError(
                '`equal="decay_clock"` needs a default with weight decay, '
                "whose clock the others follow. Received: weight_decay=0.0."
            )
        marks = [plan.decay_clock(step) for step in plan.boundaries]
        stop = plan.decay_clock()
    return spec.replace(
        milestones=tuple(marks), milestone_unit=what, **{what: stop}
    )
