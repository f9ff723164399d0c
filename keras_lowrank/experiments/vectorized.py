"""Many small networks at once: one program on JAX trains a whole grid.

Small networks leave a machine idle between their steps. Here the state of
every run is stacked along a first axis, the step of Keras' stateless API is
mapped over it, an epoch is one compiled loop, and the runs are spread over
the devices of JAX. On a CPU those are as many as the process was told to
make of it (`jax.config.update("jax_num_cpu_devices", n)` before JAX is
used); the command `keras-lowrank` makes one of each core.
"""

import contextlib
import dataclasses
import functools
import time
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

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
from keras_lowrank.experiments.run import Report
from keras_lowrank.experiments.run import checkpoint_of
from keras_lowrank.experiments.run import checksum
from keras_lowrank.experiments.run import identity
from keras_lowrank.experiments.run import measured_weights
from keras_lowrank.experiments.runs import Run
from keras_lowrank.experiments.spec import ExperimentSpec
from keras_lowrank.experiments.training import EVALUATION_BATCH
from keras_lowrank.experiments.training import build_model
from keras_lowrank.experiments.training import get_state
from keras_lowrank.experiments.training import given_variables
from keras_lowrank.experiments.training import set_state

# What may differ between the runs of one program.
_VARYING = (
    "learning_rate",
    "learning_rate_factor",
    "milestones",
    "milestone_unit",
    "weight_decay",
    "seed",
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

    Returns:
        List of the complete `Run`s.
    """
    found = [runs.find_run(spec, out_dir) for spec in specs]
    with contextlib.ExitStack() as held:
        for this in found:
            held.enter_context(runs.training(this))
        _train(found, data, report, checkpoint_seconds)
    return found


def _train(found: list[Run], data: Data, report, checkpoint_seconds) -> None:
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
        weights = measured_weights(specs[0], self.model)
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


class Program:
    """The compiled functions, over the stacked state of the runs."""

    def __init__(self, model: keras.Model, data: Data, weight_decay):
        import jax

        self.model = model
        self.optimizer = model.optimizer
        self.count = count = len(weight_decay)
        self.samples = len(data.x_train)
        devices = jax.local_devices()[:count]
        # Every device has as many runs; the last fill up with copies.
        self.padding = -count % len(devices)
        self.mesh = jax.sharding.Mesh(np.array(devices), ("run",))
        self._by_run = jax.sharding.NamedSharding(
            self.mesh, jax.sharding.PartitionSpec("run")
        )
        everywhere = jax.sharding.NamedSharding(
            self.mesh, jax.sharding.PartitionSpec()
        )
        self.train = jax.device_put((data.x_train, data.y_train), everywhere)
        self.test = jax.device_put((data.x_test, data.y_test), everywhere)
        self.weight_decay = self._spread(np.array(weight_decay, np.float32))
        # Which of the optimizer's variables are given, the others are state.
        given = given_variables(model)
        self.given = [
            next((key for key, item in given.items() if item is variable), None)
            for variable in self.optimizer.variables
        ]
        self._trainable = len(model.trainable_variables)
        self._fixed = self._trainable + len(model.non_trainable_variables)

    # Between runs and their stack --------------------------------------------

    def stack(self, states: list[list[np.ndarray]]):
        """The states of all runs, each array with a first axis of runs."""
        import jax

        filled = states + [states[-1]] * self.padding
        return jax.device_put(
            [np.stack(values) for values in zip(*filled, strict=True)],
            self._by_run,
        )

    def unstack(self, state) -> list[list[np.ndarray]]:
        """The reverse of `stack`, on the host."""
        import jax

        arrays = jax.device_get(state)
        return [[array[run] for array in arrays] for run in range(self.count)]

    def _spread(self, array: np.ndarray):
        import jax

        filled = np.concatenate([array, array[-1:].repeat(self.padding, 0)])
        return jax.device_put(filled, self._by_run)

    # One epoch ---------------------------------------------------------------

    def epoch(self, state, orders, learning_rates, batch_size: int):
        """Train every run for an epoch.

        Args:
            state: As `stack` gives it; not to be used again.
            orders: List of the orders of the samples, one per run.
            learning_rates: Array of shape `(runs, steps)`.
            batch_size: Int.

        Returns:
            Tuple of the new state and of a list of dicts with the means of
            `loss` and `accuracy` over the epoch, in training mode.
        """
        order = np.stack(orders).astype(np.int32)
        rates = learning_rates.astype(np.float32)
        whole = self.samples // batch_size * batch_size
        totals = np.zeros((self.count, 2))
        for first, last, size in (
            (0, whole, batch_size),
            (whole, self.samples, self.samples - whole),
        ):
            if first == last:
                continue
            steps = slice(first // batch_size, -(-last // batch_size))
            batches = order[:, first:last].reshape(self.count, -1, size)
            state, sums = self._steps(
                state,
                self._spread(batches),
                self._spread(rates[:, steps]),
                self.weight_decay,
                *self.train,
            )
            totals += np.asarray(sums, np.float64)[: self.count]
        means = totals / self.samples
        return state, [
            {"loss": float(loss), "accuracy": float(accuracy)}
            for loss, accuracy in means
        ]

    @functools.cached_property
    def _steps(self):
        import jax

        def epoch(state, batches, rates, weight_decay, x, y):
            def step(carry, now):
                state, sums = carry
                indices, learning_rate = now
                given = {
                    "learning_rate": learning_rate,
                    "weight_decay": weight_decay,
                }
                # Also where all runs see one batch: XLA on a CPU took half as
                # long again to multiply many matrices with a shared one.
                state, more = jax.vmap(self._step)(
                    state, given, x[indices], y[indices]
                )
                return (state, sums + more), None

            steps_first = functools.partial(jax.numpy.moveaxis, source=1)
            (state, sums), _ = jax.lax.scan(
                step,
                (state, jax.numpy.zeros_like(rates, shape=(len(rates), 2))),
                (
                    steps_first(batches, destination=0),
                    steps_first(rates, destination=0),
                ),
            )
            return state, sums

        return self._over_runs(epoch, 4, donate_argnums=0)

    def _step(self, state, given, x, y):
        import jax

        trainable = state[: self._trainable]
        fixed = state[self._trainable : self._fixed]
        rest = iter(state[self._fixed :])
        (_, (fixed, sums)), gradients = jax.value_and_grad(
            self._loss, has_aux=True
        )(trainable, fixed, x, y)
        trainable, optimizer = self.optimizer.stateless_apply(
            [next(rest) if key is None else given[key] for key in self.given],
            gradients,
            trainable,
        )
        kept = [
            value
            for value, key in zip(optimizer, self.given, strict=True)
            if key is None
        ]
        return [*trainable, *fixed, *kept], sums

    def _loss(self, trainable, fixed, x, y):
        logits, fixed, penalties = self.model.stateless_call(
            trainable, fixed, x, training=True, return_losses=True
        )
        loss, sums = self._loss_and_sums(logits, y)
        return loss + sum(penalties), (fixed, sums)

    def _loss_and_sums(self, logits, y):
        loss = self.model.loss
        if not isinstance(loss, keras.losses.Loss):
            value = ops.mean(loss(y, logits))
        else:
            value = loss(y, logits)
        hits = ops.argmax(logits, axis=-1) == y
        size = y.shape[0]
        return value, ops.stack(
            [
                ops.cast(value, "float32") * size,
                ops.sum(ops.cast(hits, "float32")),
            ]
        )

    def _over_runs(self, function, split: int, **options):
        """Compile a function whose first arguments are split over devices."""
        import jax

        by_run, whole = (
            jax.sharding.PartitionSpec("run"),
            jax.sharding.PartitionSpec(),
        )

        return jax.jit(
            lambda *arguments: jax.shard_map(
                function,
                mesh=self.mesh,
                in_specs=(by_run,) * split
                + (whole,) * (len(arguments) - split),
                out_specs=by_run,
            )(*arguments),
            **options,
        )

    # Evaluation --------------------------------------------------------------

    def evaluate(self, state) -> list[dict[str, float]]:
        """What `training.evaluate` gives, for every run."""
        logs: list[dict[str, float]] = [{} for _ in range(self.count)]
        for half, (x, y) in (("train", self.train), ("val", self.test)):
            sums = np.asarray(self._sums(state, x, y), np.float64)
            for item, (loss, hits) in zip(logs, sums / len(y), strict=False):
                item[f"{half}_loss"] = float(loss)
                item[f"{half}_accuracy"] = float(hits)
        return logs

    @functools.cached_property
    def _sums(self):
        import jax

        def one_run(state, x, y):
            def on_batch(batch):
                logits, _ = self.model.stateless_call(
                    state[: self._trainable],
                    state[self._trainable : self._fixed],
                    batch[0],
                    training=False,
                )
                return self._loss_and_sums(logits, batch[1])[1]

            whole = len(y) // EVALUATION_BATCH * EVALUATION_BATCH
            total = jax.numpy.zeros(2)
            if whole:
                cut = [
                    array[:whole].reshape(
                        -1, EVALUATION_BATCH, *array.shape[1:]
                    )
                    for array in (x, y)
                ]
                total += jax.lax.map(on_batch, cut).sum(0)
            if whole < len(y):
                total += on_batch((x[whole:], y[whole:]))
            return total

        # One after another: the batches are large enough.
        return self._over_runs(
            lambda state, x, y: jax.lax.map(
                lambda one: one_run(one, x, y), state
            ),
            1,
        )
