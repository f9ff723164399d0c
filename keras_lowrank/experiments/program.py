"""The program that trains many small networks at once, on JAX.

Small networks leave a machine idle between their steps. Here the state of
every run is stacked along a first axis, an epoch of Keras' stateless API is
one compiled loop that is mapped over it, and the runs are spread over the
devices of JAX. On a CPU those are as many as the process was told to
make of it (`jax.config.update("jax_num_cpu_devices", n)` before JAX is
used); the command `keras-lowrank` makes one of each core.
"""

import functools

import keras
import numpy as np
from keras import ops

from keras_lowrank.experiments.data import Data
from keras_lowrank.experiments.training import EVALUATION_BATCH
from keras_lowrank.experiments.training import given_variables


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
            def one_run(state, batches, rates, weight_decay):
                def step(carry, now):
                    state, sums = carry
                    indices, learning_rate = now
                    given = {
                        "learning_rate": learning_rate,
                        "weight_decay": weight_decay,
                    }
                    state, more = self._step(
                        state, given, x[indices], y[indices]
                    )
                    return (state, sums + more), None

                sums = jax.numpy.zeros_like(rates, shape=2)
                (state, sums), _ = jax.lax.scan(
                    step, (state, sums), (batches, rates)
                )
                return state, sums

            return self._each_run(one_run)(state, batches, rates, weight_decay)

        return self._over_runs(epoch, 4, donate_argnums=0)

    def _each_run(self, function):
        """Map a function over the runs of a device.

        A GPU has room for the steps of all at once. The cache of a CPU core
        has room for the weights of one, so that there an epoch of one run
        comes after that of another.
        """
        import jax

        if self.mesh.devices[0].platform != "cpu":
            return jax.vmap(function)
        return lambda *arguments: jax.lax.map(
            lambda argument: function(*argument), arguments
        )

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
