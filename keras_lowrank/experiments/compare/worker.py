"""One side of a comparison, in a process of its own.

Started by `processes`, with the backend in its environment: trains what the
spec says, then traces it step by step, and prints a line of JSON for whatever
it has done.
"""

import importlib
import json
import pathlib
import platform
import shutil
import sys
from typing import Any

import keras
import numpy as np

from keras_lowrank.experiments.compare.side import Side
from keras_lowrank.experiments.compare.stepper import Stepper
from keras_lowrank.experiments.compare.trace import Trace
from keras_lowrank.experiments.compare.trace import method
from keras_lowrank.experiments.compare.trace import trace_against
from keras_lowrank.experiments.compare.trace import trace_reference
from keras_lowrank.experiments.run import checksum
from keras_lowrank.experiments.run import load_data
from keras_lowrank.experiments.run import run
from keras_lowrank.experiments.spec import ExperimentSpec
from keras_lowrank.version import __version__

# Lines that begin with it are for the process that started this one.
MARK = "keras-lowrank-compare: "


def work(job: dict[str, Any]) -> None:
    """Train and trace one side.

    Args:
        job: Dict of the `spec` and the `side` as text, the directories `runs`
            and `reference` (the run of the reference, or `None` for the
            reference itself), and the `steps` to trace.
    """
    spec = ExperimentSpec.from_dict(job["spec"])
    side = Side.of(job["side"])
    change = side.load_change()
    this = side.run(spec, job["runs"])
    if change is not None and this.run_dir.exists():
        # Its code may be another than that of the last time.
        shutil.rmtree(this.run_dir)
    data = load_data(spec.data)
    run(
        spec,
        this.run_dir.parent.parent,
        report=_tell_epoch,
        data=data,
        change=change,
    )
    stepper = Stepper(spec, data, change)
    settings = {
        "steps": job["steps"],
        "method": method(spec),
        "data": checksum(data),
        "versions": versions(),
    }
    if job["reference"] is None:
        trace_reference(stepper, this.run_dir, settings, _tell)
    else:
        reference = Trace.open(pathlib.Path(job["reference"]))
        if reference is None:
            raise ValueError(
                f"There is no complete trace in '{job['reference']}'. Start "
                "the comparison again."
            )
        trace_against(stepper, this.run_dir, reference, settings, _tell)


def versions() -> dict[str, str]:
    """What this side runs on."""
    backend = keras.backend.backend()
    return {
        "keras_lowrank": __version__,
        "keras": keras.__version__,
        backend: importlib.import_module(backend).__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
    }


def _tell(doing: str, share: float) -> None:
    print(MARK + json.dumps({"doing": doing, "share": share}), flush=True)


def _tell_epoch(spec, epoch: int, epochs: int, logs) -> None:
    _tell("train", epoch / epochs)


if __name__ == "__main__":
    work(json.loads(sys.argv[1]))
