"""Recorded runs on disk, whoever made them, by names that tell them apart."""

import dataclasses
import math
import pathlib
from collections.abc import Iterable

import numpy as np

from keras_lowrank.experiments.paper.curves import clock
from keras_lowrank.experiments.runs import SPEC_FILE
from keras_lowrank.experiments.spec import ExperimentSpec
from keras_lowrank.experiments.specs import labels
from keras_lowrank.records import Certificates
from keras_lowrank.records import Recording
from keras_lowrank.records import find_runs
from keras_lowrank.records import open_run
from keras_lowrank.records import read_certificates


@dataclasses.dataclass(frozen=True, eq=False)
class FoundRun:
    """A recorded run, complete or not.

    Args:
        name: String, unique among the runs that were looked for together.
        run_dir: Path of its directory.
        recording: `Recording`.
        spec: The `ExperimentSpec` that it is of, or `None` for a `fit` of
            one's own.
    """

    name: str
    run_dir: pathlib.Path
    recording: Recording
    spec: ExperimentSpec | None = None

    @property
    def certificates(self) -> Certificates | None:
        """What a `TheoryTracker` certified of the run, if one was there."""
        return read_certificates(self.run_dir)

    @property
    def clock(self) -> np.ndarray | None:
        """The decay clock at each measurement.

        Exact for an experiment. For a `fit` of one's own the learning rate is
        taken to stay as it is from one measurement to the next, and the decay
        to be that of the weight matrices at the start. `None` where matrices
        decay differently, or where it was not recorded.
        """
        if self.spec is not None:
            return clock(self.spec, self.recording)
        rates = set((self.decay_rates or {}).values())
        if len(rates) != 1:
            return None
        rate = rates.pop()
        measured = self.recording.measurements
        steps = np.array([m.step or 0 for m in measured], np.float64)
        lr = np.array([m.learning_rate or math.nan for m in measured])
        ticks = -np.diff(steps) * np.log1p(-lr[:-1] * rate)
        return np.concatenate([[0.0], np.cumsum(ticks)])

    @property
    def decay_rates(self) -> dict[str, float] | None:
        """Rate of each recorded kernel of a `fit`, in torch's convention.

        As it was when the run began; `None` where that was not recorded.
        """
        decay = self.recording.info.get("weight_decay")
        if not decay or "variables" not in decay:
            return None
        # Of a part of a kernel the name begins with that of the kernel.
        return {
            row["name"]: row["rate"] or 0.0
            for row in decay["variables"]
            if any(
                weight == row["name"] or weight.startswith(f"{row['name']}[")
                for weight in self.recording.weights
            )
        }


def found_runs(paths: Iterable) -> list[FoundRun]:
    """Runs at or below some paths, named by what tells them apart.

    Those of experiments by the fields in which their specs differ, others by
    their directories.

    Args:
        paths: Iterable of paths of run directories, or of directories above.

    Returns:
        List of `FoundRun`, those without a measurement left out.

    Raises:
        FileNotFoundError: when there is no run at one of the paths.
        ValueError: when nothing was measured in any of them.
    """
    found = find_runs(paths)
    specs = {name: _spec(run_dir) for name, run_dir in found.items()}
    known = {name: spec for name, spec in specs.items() if spec is not None}
    if len(known) == len(found) and len(set(known.values())) == len(known) > 1:
        words = labels(list(known.values()))
        names = {name: words[spec] for name, spec in known.items()}
    else:
        names = {name: name for name in found}
    runs = [
        FoundRun(names[name], run_dir, open_run(run_dir), specs[name])
        for name, run_dir in found.items()
    ]
    measured = [run for run in runs if len(run.recording)]
    if not measured:
        raise ValueError(
            "Nothing was measured yet in any of the runs. Received: "
            f"{', '.join(str(run.run_dir) for run in runs)}."
        )
    return measured


def _spec(run_dir: pathlib.Path) -> ExperimentSpec | None:
    path = run_dir / SPEC_FILE
    return ExperimentSpec.from_json(path.read_text()) if path.exists() else None
