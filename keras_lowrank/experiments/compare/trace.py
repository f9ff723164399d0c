"""The states of one side on disk, and how far rounding drives its shadows."""

import contextlib
import dataclasses
import json
import math
import pathlib
import shutil
import uuid
from collections.abc import Callable
from typing import Any

from keras_lowrank.experiments.compare.moments import DENSE
from keras_lowrank.experiments.compare.moments import RESTART_STEPS
from keras_lowrank.experiments.compare.moments import RESTARTS
from keras_lowrank.experiments.compare.moments import SPARSE
from keras_lowrank.experiments.compare.moments import Moments
from keras_lowrank.experiments.compare.moments import choose_moments
from keras_lowrank.experiments.compare.rounding import Rounding
from keras_lowrank.experiments.compare.rounding import lost_share
from keras_lowrank.experiments.compare.snapshot import ALL_WEIGHTS
from keras_lowrank.experiments.compare.snapshot import Snapshot
from keras_lowrank.experiments.compare.snapshot import differences
from keras_lowrank.experiments.compare.stepper import Stepper
from keras_lowrank.experiments.runs import write_whole
from keras_lowrank.experiments.spec import ExperimentSpec

DIRECTORY = "trace"
ABOUT_FILE = "about.json"

# Shadows err at every step by some units in the last place. One unit gives
# what two backends differ by: over eleven experiments 99 of 100 differences
# were below 2.8 times the largest of three such shadows, and all, while the
# runs kept together, below 4.2 times. But rounding now and then meets a ReLU at
# zero, where the smallest error changes the gradient of a whole sample. Eight
# units meet it eight times as often, so that their shadows part before two
# backends do; and of eight shadows from the state before such a step, each
# meets it in about one of two cases, so that hardly ever all miss it.
UNITS = 8.0
SHADOWS = 3
SHADOWS_OF_RESTARTS = 8

# From `(start, step)` to relative differences by name.
Differences = dict[tuple[int, int], dict[str, float]]
# Told of what is being done, as a fraction of it.
Tell = Callable[[str, float], None]


@dataclasses.dataclass(frozen=True, eq=False)
class Trace:
    """The traced states of one side.

    Args:
        path: Path of the directory.
        about: Dict of the moments, the layers of the variables, and, of the
            reference, the differences of its shadows.
    """

    path: pathlib.Path
    about: dict[str, Any]

    @classmethod
    def open(cls, run_dir: pathlib.Path) -> "Trace | None":
        """The trace beside a run, or `None` where it is not complete."""
        path = run_dir / DIRECTORY
        if not (path / ABOUT_FILE).exists():
            return None
        return cls(path, json.loads((path / ABOUT_FILE).read_text()))

    @property
    def moments(self) -> Moments:
        """Which steps were traced."""
        return Moments.from_list(self.about["moments"])

    @property
    def is_reference(self) -> bool:
        """Whether the others start again from its states."""
        return "shadows" in self.about

    def snapshot(self, start: int, step: int) -> Snapshot:
        """The state after a step of a leg."""
        # The reference runs on, and is at that step anyway.
        start = 0 if self.is_reference else start
        return Snapshot.load(self.path / _name(start, step))

    def expected(self) -> Differences:
        """What rounding does: the largest of shadows that err by one unit."""
        return _read(self.about["expected"])

    def shadows(self) -> Differences:
        """The largest of shadows that err by `UNITS`, of every moment.

        Only of those that no shadow has come to without being lost.
        """
        return _read(self.about["shadows"])


def method(spec: ExperimentSpec) -> list[float]:
    """The numbers that a trace depends on besides the spec and its data."""
    return [
        *(DENSE, SPARSE, RESTARTS, RESTART_STEPS),
        *(UNITS, SHADOWS, SHADOWS_OF_RESTARTS, lost_share(spec.precision)),
    ]


def trace_reference(
    stepper: Stepper, run_dir, settings: dict[str, Any], tell: Tell
) -> Trace:
    """Trace the side that the others are compared with, and its shadows.

    Args:
        stepper: `Stepper` at step 0.
        run_dir: Path of the directory of its run.
        settings: Dict of what a trace depends on; one of the same settings
            is not made again. `settings["steps"]` is the length of the leg
            from the initial weights.
        tell: Function told of what is done, and of the share of it.
    """
    run_dir = pathlib.Path(run_dir)
    found = Trace.open(run_dir)
    if found and found.is_reference and found.about["settings"] == settings:
        return found
    moments = choose_moments(
        stepper.plan, settings["steps"], stepper.state_bytes
    )
    with _fresh(run_dir) as path:
        wanted = set(moments.of_reference)
        stepper.read().save(path / _name(0, 0))
        while stepper.step < max(wanted):
            loss = stepper.go()
            if stepper.step in wanted:
                stepper.read(loss).save(path / _name(0, stepper.step))
                tell("trace", stepper.step / max(wanted))
        return _complete(
            path,
            stepper,
            moments,
            settings,
            token=uuid.uuid4().hex,
            expected=_shadows(stepper, moments, path, 1.0, tell),
            shadows=_shadows(stepper, moments, path, UNITS, tell),
        )


def trace_against(
    stepper: Stepper,
    run_dir,
    reference: Trace,
    settings: dict[str, Any],
    tell: Tell,
) -> Trace:
    """Trace a side at the moments of the reference, from its states.

    Args:
        stepper: `Stepper` at step 0.
        run_dir: Path of the directory of its run.
        reference: `Trace` of the reference.
        settings: As for `trace_reference`.
        tell: As for `trace_reference`.
    """
    run_dir = pathlib.Path(run_dir)
    # Another trace of the reference has other states to start from.
    settings = settings | {"reference": reference.about["token"]}
    found = Trace.open(run_dir)
    if found and not found.is_reference and found.about["settings"] == settings:
        return found
    moments = reference.moments
    first = stepper.read().state
    with _fresh(run_dir) as path:
        for start, leg in moments.legs.items():
            # Its own initial weights: that they are the same is compared too.
            state = reference.snapshot(0, start).state if start else first
            stepper.restore(state, start)
            for step, snapshot in _walk(stepper, leg, stepper.go):
                snapshot.save(path / _name(start, step))
                tell("trace", step / max(moments.of_reference))
        return _complete(path, stepper, moments, settings)


def _shadows(
    stepper: Stepper, moments: Moments, path, units: float, tell: Tell
) -> list[list[Any]]:
    """The largest differences of some shadows from the reference.

    Returns:
        List of start, step and differences, without the moments at which one
        of the shadows is lost already.
    """
    found = []
    lost = lost_share(stepper.spec.precision)
    for done, (start, leg) in enumerate(moments.legs.items()):
        initial = Snapshot.load(path / _name(0, start))
        several: list[dict[int, dict[str, float]]] = []
        for seed in range(
            SHADOWS_OF_RESTARTS if start and units > 1 else SHADOWS
        ):
            stepper.restore(initial.state, start)
            go = Rounding(stepper, seed, units).go
            walked: dict[int, dict[str, float]] = {}
            for step, snapshot in _walk(stepper, leg, go):
                exact = Snapshot.load(path / _name(0, step))
                walked[step] = differences(snapshot, exact)
                if units > 1 and walked[step][ALL_WEIGHTS] >= lost:
                    del walked[step]
                    break
            several.append(walked)
        found += [
            [start, step, _largest([walked[step] for walked in several])]
            for step in leg
            if all(step in walked for walked in several)
        ]
        tell(f"shadows of {units:g}", (done + 1) / len(moments.legs))
    return found


def _largest(several: list[dict[str, float]]) -> dict[str, float | None]:
    """The largest value of each name; `None` where it is infinite, for JSON."""
    largest = {name: max(item[name] for item in several) for name in several[0]}
    return {
        name: value if math.isfinite(value) else None
        for name, value in largest.items()
    }


def _read(entries) -> Differences:
    return {
        (start, step): {
            name: math.inf if value is None else value
            for name, value in values.items()
        }
        for start, step, values in entries
    }


def _walk(stepper: Stepper, leg, go):
    """Make the steps of a leg, and read the state after those traced."""
    while stepper.step < leg[-1]:
        loss = go()
        if stepper.step in leg:
            yield stepper.step, stepper.read(loss)


@contextlib.contextmanager
def _fresh(run_dir: pathlib.Path):
    """An empty directory for a trace, without what an earlier one left."""
    path = run_dir / DIRECTORY
    if path.exists():
        (path / ABOUT_FILE).unlink(missing_ok=True)
        shutil.rmtree(path)
    path.mkdir(parents=True)
    yield path


def _complete(path, stepper: Stepper, moments: Moments, settings, **more):
    about = {
        "settings": settings,
        "moments": moments.to_list(),
        "layers": {item.name: item.layer for item in stepper.variables},
        **more,
    }
    write_whole(path / ABOUT_FILE, json.dumps(about))
    return Trace(path, about)


def _name(start: int, step: int) -> str:
    return f"from-{start}-step-{step}.npz"
