"""Runs on disk: where they are, whether they are complete, what they say."""

import contextlib
import dataclasses
import json
import math
import os
import pathlib
import platform
import sqlite3
import time
from collections.abc import Iterable
from typing import Any

import keras
import numpy as np

from keras_lowrank.experiments.spec import ExperimentSpec
from keras_lowrank.experiments.specs import flat
from keras_lowrank.experiments.specs import labels
from keras_lowrank.records import Recording
from keras_lowrank.records import open_run
from keras_lowrank.tables import Column
from keras_lowrank.tables import Table
from keras_lowrank.tables import number
from keras_lowrank.tables import plain
from keras_lowrank.version import __version__

SPEC_FILE = "spec.json"
RESULT_FILE = "result.json"
MODEL_FILE = "model.keras"
LOCK_FILE = "lock"

TAKEN = "Another process trains the run"


@dataclasses.dataclass(frozen=True)
class Run:
    """A run on disk, complete or not.

    Args:
        spec: `ExperimentSpec`.
        run_dir: Path of its directory.
        backend: String, the backend of Keras it runs on.
    """

    spec: ExperimentSpec
    run_dir: pathlib.Path
    backend: str

    @property
    def complete(self) -> bool:
        """Whether the run came to its end."""
        return (self.run_dir / RESULT_FILE).exists()

    @property
    def result(self) -> dict[str, Any]:
        """What is known at the end: epochs, steps, clock, logs, cost, versions.

        Raises:
            ValueError: when the run is not complete.
        """
        if not self.complete:
            raise ValueError(
                f"The run '{self.run_dir}' is not complete. Run its spec "
                "again: it goes on from the last checkpoint."
            )
        result = json.loads((self.run_dir / RESULT_FILE).read_text())
        logs = result["logs"].items()  # NaN has no word in JSON
        result["logs"] = {
            key: math.nan if value is None else value for key, value in logs
        }
        return result

    @property
    def recording(self) -> Recording:
        """The `Recording` so far: spectra, measures and logs by epoch."""
        return open_run(self.run_dir)

    def load_model(self) -> keras.Model:
        """The trained network, of a run that was told to keep it.

        Returns:
            A compiled Keras model, with the optimizer as it was at the end.

        Raises:
            FileNotFoundError: when none was kept.
        """
        path = self.run_dir / MODEL_FILE
        if not path.exists():
            raise FileNotFoundError(
                f"The run '{self.run_dir}' has kept no model"
                + (
                    ", and is complete. Give `keep_model=True` to `run` or "
                    "`run_all`, and another `out_dir`."
                    if self.complete
                    else " yet. It does so at its end, given `keep_model=True`."
                )
            )
        return keras.saving.load_model(path)


def find_run(spec: ExperimentSpec, out_dir, backend: str | None = None) -> Run:
    """The run of a spec under `out_dir`, whether it has begun or not.

    Args:
        spec: `ExperimentSpec`.
        out_dir: Path of the directory of all runs.
        backend: String; the one of this process by default.

    Returns:
        A `Run`, in `out_dir/<spec.id>/<backend>`.
    """
    backend = backend or keras.backend.backend()
    return Run(spec, pathlib.Path(out_dir) / spec.id / backend, backend)


def read_runs(out_dir) -> list[Run]:
    """Every run under a directory, by name.

    Args:
        out_dir: Path, as given to `run`.

    Returns:
        List of `Run`, complete or not.

    Raises:
        FileNotFoundError: when there is no such directory.
    """
    out_dir = pathlib.Path(out_dir)
    if not out_dir.is_dir():
        raise FileNotFoundError(
            f"There is no directory '{out_dir}'. Give the `out_dir` of `run`."
        )
    return [
        Run(
            ExperimentSpec.from_json(path.read_text()),
            path.parent,
            path.parent.name,
        )
        for path in sorted(out_dir.glob(f"*/*/{SPEC_FILE}"))
    ]


def runs_table(runs: Iterable[Run], measures=None) -> list[dict[str, Any]]:
    """One row per complete run: its fields, its logs, its mean measures.

    Args:
        runs: Iterable of `Run`.
        measures: What to report, as `as_measures` takes it; by default what
            was recorded.

    Returns:
        List of dicts, for `pandas.DataFrame`.
    """
    rows = []
    for run in runs:
        if not run.complete:
            continue
        recording = run.recording
        last = max(recording.epochs)
        values = [
            row for row in recording.rows(measures) if row["epoch"] == last
        ]
        described = {"epoch", "step", "learning_rate", "batch_size", "kind"}
        described |= {"weight", "rows", "columns", "reason"}
        means = {
            f"{name}_mean": float(np.mean([row[name] for row in values]))
            for name in values[0]
            if name not in described
        }
        result = run.result
        rows.append(
            {
                "id": run.spec.id,
                "backend": run.backend,
                **flat(run.spec),
                **{key: result[key] for key in ("epochs", "steps")},
                "decay_clock": result["decay_clock"],
                **result["logs"],
                **means,
            }
        )
    return rows


@contextlib.contextmanager
def training(run: Run):
    """Hold the directory of a run, with the spec in it, for one process.

    Raises:
        BlockingIOError: when another process trains the same run.
    """
    begin(run)
    with held(
        run.run_dir,
        f"{TAKEN} '{run.run_dir}'. Wait until it is complete, or give another "
        "`out_dir`.",
    ):
        yield


@contextlib.contextmanager
def held(directory: pathlib.Path, otherwise: str):
    """Hold a directory for one process.

    Args:
        directory: Path.
        otherwise: String, the error for when another process holds it.

    Raises:
        BlockingIOError: when another process holds it.
    """
    # The lock of an empty database goes with the process, however it ends.
    connection = sqlite3.connect(
        directory / LOCK_FILE, timeout=0, isolation_level=None
    )
    try:
        connection.execute("BEGIN EXCLUSIVE")
    except sqlite3.OperationalError as error:
        connection.close()
        raise BlockingIOError(otherwise) from error
    try:
        yield
    finally:
        connection.close()


def wait_until_free(run: Run, seconds: float = 1.0) -> None:
    """Wait while another process trains a run.

    Args:
        run: `Run`.
        seconds: Float, time between looks.
    """
    while not run.complete:
        try:
            with training(run):
                return
        except BlockingIOError:
            time.sleep(seconds)


def summary(runs: Iterable[Run]) -> Table:
    """What complete runs came to, one row each."""
    runs = [run for run in runs if run.complete]
    names = labels([run.spec for run in runs])
    rows = [{"run": names[run.spec], **run.result["logs"]} for run in runs]
    columns = [Column("run", "Run")]
    for key, title, digits in (
        ("loss", "Loss", 3),
        ("train_accuracy", "Train\naccuracy", 3),
        ("val_accuracy", "Test\naccuracy", 3),
    ):
        columns.append(Column(key, title, f"{{:.{digits}f}}".format))
    measured = [key for row in rows for key in row if key.endswith("_mean")]
    for key in dict.fromkeys(measured):
        title = key.removesuffix("_mean").replace("_", "\n").capitalize()
        columns.append(Column(key, title, number(4)))
    notes = [
        f"{measure.name} = {measure.definition}, mean over the weight matrices"
        for measure in (runs[0].recording.measures if runs else ())
    ]
    return Table("Complete runs", columns, rows, notes)


def begin(run: Run) -> None:
    """Make the directory of a run, with the spec in it."""
    run.run_dir.mkdir(parents=True, exist_ok=True)
    write_whole(run.run_dir / SPEC_FILE, run.spec.to_json())


def complete(
    run: Run,
    plan,
    logs: dict[str, float],
    seconds: float,
    cost: dict[str, float | None] | None = None,
) -> None:
    """Write the result that makes a run complete.

    `cost` is what the run took for itself, not known of one that shared its
    program with others.
    """
    result = {
        "epochs": plan.epochs,
        "steps": plan.steps,
        "decay_clock": plan.decay_clock() if plan.weight_decay else 0.0,
        "logs": logs,
        "seconds": seconds,
        "cost": cost or {},
        "finished": time.time(),
        "versions": {
            "keras_lowrank": __version__,
            "keras": keras.__version__,
            "numpy": np.__version__,
            "python": platform.python_version(),
        },
    }
    write_whole(run.run_dir / RESULT_FILE, json.dumps(plain(result), indent=2))


def keep(run: Run, model: keras.Model) -> None:
    """Write the trained network of a run, whole or not at all."""
    path = run.run_dir / MODEL_FILE
    draft = path.with_name(f"{path.stem}.{os.getpid()}.part{path.suffix}")
    model.save(draft)
    os.replace(draft, path)


def write_whole(path: pathlib.Path, text: str) -> None:
    """Write a file that is there whole or not at all.

    Processes that write it at once each have a draft of their own.
    """
    draft = path.with_name(f"{path.name}.{os.getpid()}.part")
    draft.write_text(text, encoding="utf-8")
    os.replace(draft, path)
