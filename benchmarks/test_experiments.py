"""What many runs cost together.

`make bench` runs this on JAX, with one device of XLA for each core, as the
command `keras-lowrank run` has it. Times are those of epochs after the first,
which compiles; either side of a ratio is measured in turn, in one process.
"""

import os
import statistics
import time

import keras
import numpy as np
import pytest

from keras_lowrank.experiments import Batches
from keras_lowrank.experiments import ExperimentSpec
from keras_lowrank.experiments import sweep
from keras_lowrank.experiments.batches import epoch_order
from keras_lowrank.experiments.data import Data
from keras_lowrank.experiments.program import Program
from keras_lowrank.experiments.training import build_model
from keras_lowrank.experiments.training import get_state

STEPS = 200
BATCH = 32
# Multiplications and additions of a step of MLP-BN-10-100 on CIFAR-10: forward,
# and twice that backward, but for the gradient of the input.
FLOP = 2 * BATCH * (2 * 3072 * 100 + 3 * (9 * 100**2 + 100 * 10))

SPEC = ExperimentSpec(
    network={"name": "mlp", "depth": 10, "width": 100},
    data="cifar10",
    batch_size=BATCH,
    weight_decay=4e-4,
    epochs=1,
)


@pytest.fixture(scope="module")
def data():
    """Noise in the shape of CIFAR-10: the arithmetic is the same."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(STEPS * BATCH, 32, 32, 3)).astype(np.float32)
    y = rng.integers(0, 10, len(x)).astype(np.int32)
    return Data("noise", x, y, x[:100], y[:100], classes=10)


class Epochs(keras.callbacks.Callback):
    """Seconds of every epoch but the first."""

    def __init__(self):
        super().__init__()
        self.seconds = []

    def on_epoch_begin(self, epoch, logs=None):
        self.began = time.perf_counter()

    def on_epoch_end(self, epoch, logs=None):
        if epoch:
            self.seconds.append(time.perf_counter() - self.began)


def fit_seconds(data, callbacks=(), epochs=4):
    """Seconds of a step of `fit`, the median over epochs."""
    model = build_model(SPEC, data)
    watch = Epochs()
    batches = Batches(data.x_train, data.y_train, BATCH)
    batches.fit(model, [watch, *callbacks], epochs=epochs, verbose=0)
    return statistics.median(watch.seconds) / STEPS


def together_seconds(data, count, epochs=3):
    """Seconds of a step of one of `count` runs in one program."""
    specs = sweep(SPEC, seed=range(count))
    program = Program(
        build_model(SPEC, data, learning_rate=1.0),
        data,
        [spec.weight_decay for spec in specs],
    )
    state = program.stack([get_state(build_model(s, data)) for s in specs])
    rates = np.full((count, STEPS), 0.1)
    seconds = []
    for epoch in range(epochs + 1):
        orders = [epoch_order(len(data.x_train), s.seed, epoch) for s in specs]
        began = time.perf_counter()
        state, _ = program.epoch(state, orders, rates, BATCH)
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds[1:]) / STEPS / count


def gflops():
    """What the machine multiplies a second, in float32, on all its cores."""
    size = 2048
    a = np.ones((size, size), np.float32)
    best = min(timed(lambda: a @ a) for _ in range(5))
    return 2 * size**3 / best / 1e9


def timed(function):
    began = time.perf_counter()
    function()
    return time.perf_counter() - began


@pytest.mark.skipif(
    keras.backend.backend() != "jax", reason="one program needs JAX"
)
def test_many_runs_in_one_program(data, capsys):
    """Against one `fit` after another."""
    ratios, fits, togethers = [], [], []
    for _ in range(3):
        fits.append(fit_seconds(data))
        togethers.append(together_seconds(data, 8))
        ratios.append(fits[-1] / togethers[-1])
    floor = FLOP / gflops() / 1e9
    with capsys.disabled():
        print(
            f"\nMLP-BN-10-100, batch {BATCH}, {os.cpu_count()} cores: "
            f"{1e3 * statistics.median(fits):.2f} ms a step of fit, "
            f"{1e3 * statistics.median(togethers):.2f} ms of a run among 8; "
            f"{statistics.median(ratios):.2f} times as fast "
            f"({min(ratios):.2f} to {max(ratios):.2f}); "
            f"arithmetic alone {1e3 * floor:.2f} ms"
        )
    assert statistics.median(ratios) > 1.5
