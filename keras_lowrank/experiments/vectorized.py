"""Many small networks at once: a whole grid trains in one program on JAX.

What is on disk of each run, and the loop over epochs; `program` computes.
"""

import contextlib
import dataclasses
import time
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from keras_lowrank.callbacks import Recorder
from keras_lowrank.callbacks import as_schedule
from keras_lowrank.callbacks import run_info
from keras_lowrank.experiments import runs
from keras_lowrank.experiments.batches import epoch_order
from keras_lowrank.experiments.checkpoint import Checkpoint
from keras_lowrank.experiments.checkpoint import remove_checkpoint
from keras_lowrank.experiments.checkpoint import write_checkpoints
from keras_lowrank.experiments.data import Data
from keras_lowrank.experiments.plan import Plan
from keras_lowrank.experiments.program import Program
from keras_lowrank.experiments.run import Report
from keras_lowrank.experiments.run import checkpoint_of
from keras_lowrank.experiments.run import checksum
from keras_lowrank.experiments.run import identity
from keras_lowrank.experiments.runs import Run
from keras_lowrank.experiments.spec import ExperimentSpec
from keras_lowrank.experiments.training import build_model
from keras_lowrank.experiments.training import get_state
from keras_lowrank.experiments.training import measured_weights
from keras_lowrank.experiments.training import set_state

# What may differ between the runs of one program.
_VARYING = (
    "learning_rate",
    "learning_rate_factor",
    "milestones",
    "milestone_unit",
    "weight_decay",
    "seed",
    "initial_rank",
    "initial_scale",
)


def can_vectorize(spec: ExperimentSpec) -> bool:
    """Whether runs like this one can train in one program."""
    # Loss scaling skips steps, each run its own.
    return (
        keras.backend.backend() == "jax" and spec.precision != "mixed_float16"
    )


def program_of(spec: ExperimentSpec, samples: int) -> ExperimentSpec:
    """What the runs of one program have in common.

    Args:
        spec: `ExperimentSpec`.
        samples: Int, training samples.

    Returns:
        An `ExperimentSpec`, equal for runs that can train together.
    """
    defaults = {
        field.name: field.default
        for field in dataclasses.fields(ExperimentSpec)
        if field.name in _VARYING
    }
    return spec.replace(**defaults, epochs=spec.plan(samples).epochs)


def run_vectorized(
    specs: Sequence[ExperimentSpec],
    out_dir,
    data: Data,
    report: Report | None = None,
    checkpoint_seconds: float = 30.0,
    keep_model: bool = False,
) -> list[Run]:
    """Train runs of one architecture and batch size in one program.

    Leaves what `run` leaves for each of them. Checkpoints are those of `run`,
    so that either goes on with what the other began.

    Args:
        specs: Sequence of `ExperimentSpec`s that have one `program_of`, and
            whose checkpoints are of one epoch.
        out_dir: As for `run`.
        data: The `Data` of the specs.
        report: As for `run`.
        checkpoint_seconds: As for `run`.
        keep_model: As for `run`.

    Returns:
        List of the complete `Run`s.
    """
    found = [runs.find_run(spec, out_dir) for spec in specs]
    with contextlib.ExitStack() as held:
        for this in found:
            held.enter_context(runs.training(this))
        _train(found, data, report, checkpoint_seconds, keep_model)
    return found


def _train(
    found: list[Run], data: Data, report, checkpoint_seconds, keep_model
) -> None:
    specs = [this.spec for this in found]
    group = _Group(found, data)
    program = Program(group.model, data, [spec.weight_decay for spec in specs])
    state = program.stack(group.states)
    group.measure_start()
    due = as_schedule(specs[0].every)
    began = written = time.perf_counter()
    for epoch in range(group.first, group.epochs):
        orders = [
            epoch_order(len(data.x_train), spec.seed, epoch) for spec in specs
        ]
        state, logs = program.epoch(
            state, orders, group.learning_rates(epoch), specs[0].batch_size
        )
        done = epoch + 1
        last = done == group.epochs
        seconds = time.perf_counter() - began
        save = time.perf_counter() - written >= checkpoint_seconds and not last
        if due(done) or last:
            for item, more in zip(logs, program.evaluate(state), strict=True):
                item |= more
            group.states = program.unstack(state)
            group.measure(done, logs)
        elif save:
            group.states = program.unstack(state)
        if save:
            group.checkpoint(done, seconds)
            written = time.perf_counter()
        if report is not None:
            for spec, item in zip(specs, logs, strict=True):
                report(spec, done, group.epochs, item)
    if keep_model:
        group.keep()
    group.complete(logs, time.perf_counter() - began)


class _Group:
    """The runs that train together, as what is on disk."""

    def __init__(self, found: list[Run], data: Data):
        self.runs = found
        self.specs = specs = [this.spec for this in found]
        self.plans: list[Plan] = [
            spec.plan(len(data.x_train)) for spec in specs
        ]
        self.epochs = self.plans[0].epochs
        data_checksum = checksum(data)
        self.about: list[dict[str, Any]] = [
            identity(run, data_checksum) for run in self.runs
        ]
        checkpoints = [
            checkpoint_of(run, about)
            for run, about in zip(self.runs, self.about, strict=True)
        ]
        self.first = checkpoints[0].epoch if checkpoints[0] else 0
        self.earlier = [item.seconds if item else 0.0 for item in checkpoints]
        self.states = []
        for spec, checkpoint in zip(specs, checkpoints, strict=True):
            if (checkpoint.epoch if checkpoint else 0) != self.first:
                raise ValueError(
                    "Runs of one program must be at one epoch. Received: "
                    f"checkpoints of {[c and c.epoch for c in checkpoints]}."
                )
            if checkpoint is None:
                state = get_state(build_model(spec, data))
            else:
                state = checkpoint.state
            self.states.append(state)
        # One model stands for all; a number as its learning rate is a
        # variable, which can be another for each.
        self.model = build_model(specs[0], data, learning_rate=1.0)
        weights = measured_weights(specs[0])
        self.recorders = [
            Recorder(spec.measures, weights, run_dir=run.run_dir)
            for spec, run in zip(specs, self.runs, strict=True)
        ]

    def learning_rates(self, epoch: int) -> np.ndarray:
        """Learning rates of an epoch, of shape `(runs, steps)`."""
        return np.stack(
            [
                plan.learning_rates(
                    epoch * plan.steps_per_epoch,
                    (epoch + 1) * plan.steps_per_epoch,
                )
                for plan in self.plans
            ]
        )

    def measure_start(self) -> None:
        """Begin the records, with the first state."""
        fit = {"epochs": self.epochs, "together": len(self.runs)}
        fit["steps"] = self.plans[0].steps_per_epoch
        for index, (run, recorder) in enumerate(
            zip(self.runs, self.recorders, strict=True)
        ):
            recorder.open()
            self._show(index, self.first)
            info = run_info(self.model, recorder, run.spec.every, fit)
            due = as_schedule(run.spec.every)(self.first)
            new = recorder.start(self.first, info)
            if new and (due or not len(recorder.recording)):
                self._measure(index, self.first, {})

    def measure(self, epoch: int, logs) -> None:
        """Record every run after an epoch; adds the means to the logs."""
        for index, recorder in enumerate(self.recorders):
            self._show(index, epoch)
            self._measure(index, epoch, logs[index])
            logs[index] |= recorder.log_values()

    def _measure(self, index, epoch, logs):
        self.recorders[index].measure(
            self.model,
            epoch,
            logs,
            batch_size=self.specs[index].batch_size,
            steps_per_epoch=self.plans[index].steps_per_epoch,
        )

    def _show(self, index: int, epoch: int) -> None:
        """Make the model that of one run."""
        set_state(self.model, self.states[index])
        plan, optimizer = self.plans[index], self.model.optimizer
        step = epoch * plan.steps_per_epoch
        (rate,) = plan.learning_rates(step, step + 1)
        optimizer.learning_rate = float(rate)
        optimizer.weight_decay = self.specs[index].weight_decay

    def checkpoint(self, epoch: int, seconds: float) -> None:
        """Write a checkpoint of every run."""
        write_checkpoints(
            (
                run.run_dir,
                Checkpoint(
                    epoch, state, about, earlier + seconds / len(self.runs)
                ),
            )
            for run, state, about, earlier in zip(
                self.runs, self.states, self.about, self.earlier, strict=True
            )
        )

    def keep(self) -> None:
        """Write every trained network."""
        for index, run in enumerate(self.runs):
            self._show(index, self.epochs)
            runs.keep(run, self.model)

    def complete(self, logs, seconds: float) -> None:
        """Write every result. A run's share of the time is its time."""
        for run, plan, recorder, item, earlier in zip(
            self.runs,
            self.plans,
            self.recorders,
            logs,
            self.earlier,
            strict=True,
        ):
            recorder.close()
            runs.complete(run, plan, item, earlier + seconds / len(self.runs))
            remove_checkpoint(run.run_dir)
