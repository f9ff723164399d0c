"""Training what a spec says, from where it was left."""

import statistics
import sys
import time
import zlib
from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from keras_lowrank.callbacks import RankTracker
from keras_lowrank.callbacks import as_schedule
from keras_lowrank.experiments import data as datasets
from keras_lowrank.experiments import runs
from keras_lowrank.experiments.batches import Batches
from keras_lowrank.experiments.checkpoint import Checkpoint
from keras_lowrank.experiments.checkpoint import read_checkpoint
from keras_lowrank.experiments.checkpoint import remove_checkpoint
from keras_lowrank.experiments.checkpoint import write_checkpoints
from keras_lowrank.experiments.choice import Choice
from keras_lowrank.experiments.data import Data
from keras_lowrank.experiments.runs import Run
from keras_lowrank.experiments.spec import ExperimentSpec
from keras_lowrank.experiments.training import Change
from keras_lowrank.experiments.training import build_model
from keras_lowrank.experiments.training import evaluate
from keras_lowrank.experiments.training import get_state
from keras_lowrank.experiments.training import measured_weights
from keras_lowrank.experiments.training import set_state

# What is told of a run after an epoch: spec, complete epochs, all, logs.
Report = Callable[[ExperimentSpec, int, int, dict[str, float]], None]


def run(
    spec: ExperimentSpec,
    out_dir="runs",
    report: Report | None = None,
    checkpoint_seconds: float = 30.0,
    data: Data | None = None,
    change: Change | None = None,
    keep_model: bool = False,
) -> Run:
    """Train what a spec says, or go on with it, or find it done.

    Leaves `out_dir/<spec.id>/<backend>` with the spec, the records (see
    `open_run`), and the result. A run that was killed goes on from its last
    checkpoint, and comes to the same weights to the last bit, on a CPU. A
    complete run is not trained again.

    Args:
        spec: `ExperimentSpec`.
        out_dir: Path of the directory for all runs.
        report: Function told of every epoch, as `report(spec, epoch, epochs,
            logs)`.
        checkpoint_seconds: Float, least time between checkpoints.
        data: The `Data` of the spec, if it is loaded already.
        change: Function given the compiled model before training, for what a
            spec cannot say. It changes the model in place or returns another.
            Such runs need an `out_dir` of their own.
        keep_model: Boolean, whether to leave the trained network as well, for
            `Run.load_model`.

    Returns:
        The `Run`, complete.

    Raises:
        ValueError: for a network, data set or optimizer that is not known, or
            when the data, or the change, are not those it began with.
        OSError: when the data are missing, or `out_dir` cannot be written.

    Example:

    >>> spec = ExperimentSpec("mlp", "digits", epochs=10)
    >>> run(spec).recording.table().print()  # doctest: +SKIP
    """
    this = runs.find_run(spec, out_dir)
    if not this.complete:
        data = load_data(spec.data) if data is None else data
        with runs.training(this):
            _train(this, data, report, checkpoint_seconds, change, keep_model)
    return this


def _train(
    this: Run, data: Data, report, checkpoint_seconds, change, keep_model
) -> None:
    spec = this.spec
    plan = spec.plan(len(data.x_train))
    model = build_model(spec, data, change=change)
    about = identity(this, checksum(data))
    if change is not None:
        about["change"] = f"{change.__module__}:{change.__qualname__}"
    first, seconds = 0, 0.0
    checkpoint = checkpoint_of(this, about)
    if checkpoint is not None:
        first, seconds = checkpoint.epoch, checkpoint.seconds
        set_state(model, checkpoint.state)
    tracker = RankTracker(
        measures=spec.measures,
        weights=measured_weights(spec),
        every=spec.every,
        run_dir=this.run_dir,
    )
    clock = _Clock(seconds)
    batches = Batches(data.x_train, data.y_train, spec.batch_size, spec.seed)
    history = batches.fit(
        model,
        epochs=plan.epochs,
        initial_epoch=first,
        verbose=0,
        callbacks=[
            clock,
            _Evaluation(data, spec),
            tracker,
            _Checkpoints(this, about, clock, checkpoint_seconds),
            _Reporting(spec, report),
        ],
    )
    logs = {key: float(values[-1]) for key, values in history.history.items()}
    if keep_model:
        runs.keep(this, model)
    runs.complete(
        this, plan, logs, clock.seconds, cost(clock.epochs, tracker.overhead)
    )
    remove_checkpoint(this.run_dir)


def load_data(choice: Choice) -> Data:
    """The data set that a spec names."""
    return datasets.load(choice.name, **choice.keywords)


def checksum(data: Data) -> str:
    """What tells data from other data."""
    value = 0
    for array in (data.x_train, data.y_train, data.x_test, data.y_test):
        value = zlib.crc32(np.ascontiguousarray(array).data, value)
    return f"{value:08x}"


def identity(run: Run, data: str) -> dict[str, Any]:
    """What must be the same when a run goes on.

    Args:
        run: `Run`.
        data: String, the `checksum` of its data.
    """
    return {"spec": run.spec.to_dict(), "backend": run.backend, "data": data}


def checkpoint_of(run: Run, about: dict[str, Any]) -> Checkpoint | None:
    """The checkpoint of a run, once it is seen to be of this very run."""
    checkpoint = read_checkpoint(run.run_dir)
    if checkpoint is None:
        return None
    for key, expected in about.items():
        if checkpoint.about.get(key) != expected:
            raise ValueError(
                f"The checkpoint in '{run.run_dir}' is of another {key}. "
                f"Received: {expected}, where it began with "
                f"{checkpoint.about.get(key)}. Train in another `out_dir`, or "
                "put back what it began with."
            )
    return checkpoint


def cost(epochs: list[float], measuring: float) -> dict[str, float | None]:
    """What a run cost in time and memory, since it last began.

    Args:
        epochs: Seconds of the updates of each epoch, in order.
        measuring: Float, the share of the time that measuring took.

    Returns:
        Dict of `first_epoch_seconds`, in which programs are compiled,
        `epoch_seconds`, the median of the others, `measuring_share`, and
        `peak_bytes`, the most memory that this process has held; `None` for
        what is not known.
    """
    return {
        "first_epoch_seconds": epochs[0] if epochs else None,
        "epoch_seconds": statistics.median(epochs[1:]) if epochs[1:] else None,
        "measuring_share": measuring,
        "peak_bytes": peak_memory(),
    }


def peak_memory() -> int | None:
    """The most memory this process has held, in bytes; `None` on Windows."""
    try:
        import resource
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


class _Clock(keras.callbacks.Callback):
    """Seconds of training, those before a restart included.

    The first of the callbacks, so that `epochs`, the seconds of each epoch
    since a restart, count the updates alone.
    """

    def __init__(self, earlier: float):
        super().__init__()
        self.earlier = earlier
        self.began = self.epoch_began = time.perf_counter()
        self.epochs: list[float] = []

    @property
    def seconds(self) -> float:
        return self.earlier + time.perf_counter() - self.began

    def on_train_begin(self, logs=None):
        self.began = time.perf_counter()

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch_began = time.perf_counter()

    def on_epoch_end(self, epoch, logs=None):
        self.epochs.append(time.perf_counter() - self.epoch_began)


class _Evaluation(keras.callbacks.Callback):
    """Adds the evaluation on both halves of the data to the logs."""

    def __init__(self, data: Data, spec: ExperimentSpec):
        super().__init__()
        self.data = data
        self.due = as_schedule(spec.every)

    def on_epoch_end(self, epoch, logs=None):
        if self.due(epoch + 1) or epoch + 1 == self.params["epochs"]:
            logs.update(evaluate(self.model, self.data))


class _Checkpoints(keras.callbacks.Callback):
    """Writes a checkpoint after an epoch, when enough time has gone by."""

    def __init__(self, run: Run, about, clock: _Clock, seconds: float):
        super().__init__()
        self.run = run
        self.about = about
        self.clock = clock
        self.seconds = seconds
        self.written = clock.earlier

    def on_epoch_end(self, epoch, logs=None):
        if epoch + 1 == self.params["epochs"]:
            return  # the result comes next
        if self.clock.seconds - self.written >= self.seconds:
            checkpoint = Checkpoint(
                epoch + 1, get_state(self.model), self.about, self.clock.seconds
            )
            write_checkpoints([(self.run.run_dir, checkpoint)])
            self.written = self.clock.seconds


class _Reporting(keras.callbacks.Callback):
    """Tells a `Report` of every epoch."""

    def __init__(self, spec: ExperimentSpec, report: Report | None):
        super().__init__()
        self.spec = spec
        self.report = report

    def on_epoch_end(self, epoch, logs=None):
        if self.report is not None:
            epochs = self.params["epochs"]
            self.report(self.spec, epoch + 1, epochs, dict(logs))
