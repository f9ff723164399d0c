"""Executions of a trial whose models a function builds."""

import copy
import dataclasses
import math
import os
import pathlib
import time
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Mapping
from typing import Any

import keras

from keras_lowrank.callbacks import RankTracker
from keras_lowrank.callbacks import build_as_fit_will
from keras_lowrank.search.forget import forgetting
from keras_lowrank.search.moment import Moment
from keras_lowrank.search.moment import OnEpoch
from keras_lowrank.search.outcome import Outcome
from keras_lowrank.search.outcome import outcome
from keras_lowrank.search.owned import own_optimizer
from keras_lowrank.search.trials import Execution

WEIGHTS_FILE = "end.weights.h5"


@dataclasses.dataclass(frozen=True)
class Fit:
    """What `fit` is given in every execution of a trial.

    Args:
        args: Tuple of positional arguments, as the data.
        options: Dict of keyword arguments, without the callbacks.
        callbacks: List of callbacks, of which every execution gets copies.
        first_callbacks: Tuple of callbacks for `first_seed` alone, as they
            are.
        first_seed: Int, or `None`.
        continues: Path of the directory of an earlier trial, whose executions
            go on with more epochs; or `None`.
    """

    args: tuple = ()
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    callbacks: tuple = ()
    first_callbacks: tuple = ()
    first_seed: int | None = None
    continues: pathlib.Path | None = None

    @property
    def x(self):
        """The inputs, however they are given."""
        return self.args[0] if self.args else self.options.get("x")


@dataclasses.dataclass(frozen=True)
class BuiltTrainings:
    """Trains what a function builds, seed by seed.

    Args:
        build: Function of nothing that returns a compiled Keras model.
        owned: Dict with some of `batch_size`, `learning_rate` and
            `weight_decay`, which the search gives rather than the function.
        decay: `WeightDecay` whose rate is replaced.
        tracker: Dict of arguments of `RankTracker`.
        last: Int >= 1, epochs that the metrics are means over.
        keep_weights: Boolean, whether the last weights stay on disk.
        checkpoint_seconds: Float, least time between checkpoints.
        on_epoch: `OnEpoch`, or `None`.
    """

    build: Callable[[], keras.Model]
    owned: Mapping[str, Any]
    decay: Any
    tracker: Mapping[str, Any]
    last: int
    keep_weights: bool
    checkpoint_seconds: float
    on_epoch: OnEpoch | None = None

    def executions(
        self, seeds, directory: pathlib.Path, fit: Fit
    ) -> Iterator[Execution]:
        """Train with each of some seeds.

        Args:
            seeds: Iterable of ints.
            directory: Path of the trial's directory.
            fit: `Fit`.

        Yields:
            An `Execution` for each seed, as it ends.
        """
        for seed in seeds:
            with forgetting():
                execution = self._execution(seed, directory, fit)
            yield execution

    def _execution(self, seed: int, directory, fit: Fit) -> Execution:
        run_dir = directory / f"seed_{seed}"
        run_dir.mkdir(parents=True, exist_ok=True)
        began = time.perf_counter()
        keras.utils.set_random_seed(seed)
        model = self.build()
        own_optimizer(model, self.owned, self.decay)
        options = dict(fit.options)
        if "batch_size" in self.owned:
            options["batch_size"] = self.owned["batch_size"]
        start = None
        if fit.continues is not None:
            start = fit.continues / run_dir.name / WEIGHTS_FILE
        state = _State(
            run_dir,
            start,
            options.get("initial_epoch", 0),
            self.checkpoint_seconds,
        )
        options["initial_epoch"] = state.first_epoch
        tracker = RankTracker(run_dir=run_dir, **self.tracker)
        callbacks = [
            state,
            tracker,
            _Watch(seed, run_dir, self.on_epoch),
            *copy.deepcopy(list(fit.callbacks)),
            *(fit.first_callbacks if seed == fit.first_seed else ()),
        ]
        if state.first_epoch:
            # Not the random numbers of the first epoch once more.
            keras.utils.set_random_seed(hash((seed, state.first_epoch)) % 2**32)
        if state.first_epoch < options.get("epochs", 1):
            model.fit(*fit.args, callbacks=callbacks, **options)
        if self.keep_weights:
            _save_whole(model, run_dir / WEIGHTS_FILE)
        came = outcome(tracker.recording, self.last)
        if not came.metrics:
            came = Outcome("failed", "`fit` came to no end of an epoch.")
        state.remove()
        return Execution(seed, came, run_dir, time.perf_counter() - began)


class _State(keras.callbacks.Callback):
    """Goes on from the weights of a checkpoint, and writes the next ones.

    As `BackupAndRestore`, but no more often than the time it costs allows:
    on small networks that would write for longer than they train.
    """

    def __init__(self, run_dir, start, first_epoch: int, seconds: float):
        super().__init__()
        self.run_dir = run_dir
        self.seconds = seconds
        self.path, self.first_epoch = start, first_epoch
        for path in run_dir.glob("checkpoint_*.weights.h5"):
            epoch = int(path.name.split("_")[1].split(".")[0])
            if epoch > self.first_epoch:
                self.path, self.first_epoch = path, epoch
        self.written = time.perf_counter()

    def on_train_begin(self, logs=None):
        if self.path is not None:
            if not build_as_fit_will(self.model):
                raise RuntimeError(
                    "A model that builds itself at its first step cannot go "
                    f"on from '{self.path}'. Give it an `Input`, or build it "
                    "in the function that makes it."
                )
            self.model.optimizer.build(self.model.trainable_variables)
            self.model.load_weights(self.path)
        self.written = time.perf_counter()

    def on_epoch_end(self, epoch, logs=None):
        last = epoch + 1 == self.params.get("epochs")
        if last or time.perf_counter() - self.written < self.seconds:
            return
        earlier = list(self.run_dir.glob("checkpoint_*.weights.h5"))
        path = self.run_dir / f"checkpoint_{epoch + 1}.weights.h5"
        _save_whole(self.model, path)
        for other in earlier:
            other.unlink()
        self.written = time.perf_counter()

    def remove(self) -> None:
        """Remove the checkpoints of an execution that ended."""
        for path in self.run_dir.glob("checkpoint_*.weights.h5"):
            path.unlink()


class _Watch(keras.callbacks.Callback):
    """Tells of every epoch, and ends a training that diverged."""

    def __init__(self, seed: int, run_dir, on_epoch):
        super().__init__()
        self.seed = seed
        self.run_dir = run_dir
        self.on_epoch = on_epoch

    def on_epoch_end(self, epoch, logs=None):
        logs = logs or {}
        if self.on_epoch is not None:
            epochs = self.params["epochs"]
            self.on_epoch(
                Moment(self.seed, epoch + 1, epochs, dict(logs), self.run_dir)
            )
        # Not `TerminateOnNaN`, whose hook on every batch costs the dispatch.
        if not math.isfinite(logs.get("loss", 0.0)):
            self.model.stop_training = True


def _save_whole(model: keras.Model, path: pathlib.Path) -> None:
    """Save weights and optimizer as a file that is whole or not there."""
    draft = path.with_name(f"part.{path.name}")
    model.save_weights(draft)
    os.replace(draft, path)
