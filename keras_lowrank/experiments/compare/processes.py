"""Starts the process of each side, and hears what it has to say."""

import dataclasses
import json
import os
import sys
from collections.abc import Callable
from typing import Any

from keras_lowrank.experiments.compare.side import Side
from keras_lowrank.experiments.compare.worker import MARK
from keras_lowrank.experiments.process import listen
from keras_lowrank.experiments.spec import ExperimentSpec

# Told of the sides: which, what it does, and the share of that it has done.
Report = Callable[[str, str, float], None]

# Lines that are kept of what a process said before it failed.
_LINES = 12


@dataclasses.dataclass(frozen=True)
class Sides:
    """How it went on each side.

    Args:
        complete: List of `Side`, the reference first.
        missing: List of `Side`, whose backend is not installed.
        failed: Dict from labels to what was said before the failure.
    """

    complete: list[Side]
    missing: list[Side]
    failed: dict[str, str]


def train_sides(
    spec: ExperimentSpec,
    sides: list[Side],
    runs_dir,
    steps: int,
    report: Report | None = None,
) -> Sides:
    """Train and trace the sides, one after another, each in its process.

    The first of them that comes to its end is the reference. One after
    another, so that they do not wait for each other's cores, and their times
    can be compared.

    Args:
        spec: `ExperimentSpec`.
        sides: List of `Side`.
        runs_dir: Path of the directory for their runs.
        steps: Int, the length of the leg from the initial weights.
        report: Function told of what is done.

    Returns:
        `Sides`.

    Raises:
        ValueError: when less than two backends are installed.
    """
    missing = [side for side in sides if not side.installed]
    present = [side for side in sides if side.installed]
    if len(present) < 2:
        raise ValueError(
            "A comparison needs two sides whose backends are installed. "
            f"Received: {', '.join(side.label for side in sides)}, of which "
            f"{', '.join(side.label for side in present) or 'none'} can run. "
            "Install another backend, or compare with a change of this one, "
            "as in `jax,jax+module:function`."
        )
    complete: list[Side] = []
    failed: dict[str, str] = {}
    reference = None
    for side in present:
        job = {
            "spec": spec.to_dict(),
            "side": side.label,
            "runs": str(runs_dir),
            "steps": steps,
            "reference": reference,
        }
        said = _work(side, job, report)
        if said is not None:
            failed[side.label] = said
            continue
        if reference is None:
            reference = str(side.run(spec, runs_dir).run_dir)
        complete.append(side)
    return Sides(complete, missing, failed)


def _work(side: Side, job: dict[str, Any], report: Report | None):
    """Run a job in a process; what it said if it failed, `None` if not."""

    def hear(line: str) -> bool:
        if not line.startswith(MARK):
            return False
        if report is not None:
            told = json.loads(line.removeprefix(MARK))
            report(side.label, told["doing"], told["share"])
        return True

    status, said = listen(
        [sys.executable, "-m", f"{__package__}.worker", json.dumps(job)],
        os.environ | {"KERAS_BACKEND": side.backend},
        hear,
    )
    if status == 0:
        return None
    lines = [line.rstrip() for line in said[-_LINES:]]
    return f"status {status}; " + ("\n".join(lines) or "it said nothing")
