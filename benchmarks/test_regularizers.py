"""What spectral regularizers cost a training step, and a proximal step alone.

`make bench` runs this. Rows of a group are taken in one process, on the same
network and data, with BLAS and torch held to one thread; the difference to the
row without a penalty is the cost of two kernels of 512 x 512.
"""

import keras
import numpy as np
import pytest
import threadpoolctl
from keras import ops

import keras_lowrank as kl
from keras_lowrank import linalg

BACKEND = keras.backend.backend()
SIZE = 512
BATCH = 128
STEPS = 10

PENALTIES = {
    "none": lambda: None,
    "L2": lambda: keras.regularizers.L2(1e-4),
    "SquaredFrobeniusNorm": lambda: kl.SquaredFrobeniusNorm(1e-4),
    "NuclearNorm": lambda: kl.NuclearNorm(1e-4),
    "NuclearNorm, svd": lambda: kl.NuclearNorm(1e-4, method="svd"),
    "NuclearNorm, newton_schulz": lambda: kl.NuclearNorm(
        1e-4, method="newton_schulz"
    ),
    "SchattenNorm, p=0.5": lambda: kl.SchattenNorm(1e-6, p=0.5),
    "SchattenNorm, p=4, newton_schulz": lambda: kl.SchattenNorm(
        1e-4, p=4, method="newton_schulz"
    ),
    "SpectralNorm": lambda: kl.SpectralNorm(1e-4),
    "SpectralNorm, newton_schulz": lambda: kl.SpectralNorm(
        1e-4, method="newton_schulz"
    ),
    "StableRank": lambda: kl.StableRank(1e-4),
    "StableRank, newton_schulz": lambda: kl.StableRank(
        1e-4, method="newton_schulz"
    ),
    "EffectiveRank": lambda: kl.EffectiveRank(1e-6),
    "LogDet": lambda: kl.LogDet(1e-6),
    "LogDet, newton_schulz": lambda: kl.LogDet(1e-6, method="newton_schulz"),
}
# Of a product only what is decomposed is small.
FACTORED = ("none", "L2", "NuclearNorm", "NuclearNorm, newton_schulz")
# What XLA compiles on TensorFlow, where nothing may be decomposed.
COMPILED = [
    name
    for name in PENALTIES
    if name in ("none", "L2") or "newton_schulz" in name
]


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    if BACKEND == "torch":
        import torch

        torch.set_num_threads(1)
    with threadpoolctl.threadpool_limits(1):
        yield


def trained(layer, jit_compile="auto"):
    """A function that trains for an epoch of `STEPS` steps."""
    model = keras.Sequential(
        [keras.Input((SIZE,)), layer(), layer(), keras.layers.Dense(10)]
    )
    model.compile(keras.optimizers.SGD(1e-3), "mse", jit_compile=jit_compile)
    rng = np.random.default_rng(0)
    x = rng.normal(size=(STEPS * BATCH, SIZE)).astype("float32")
    y = np.zeros((len(x), 10), "float32")
    return lambda: model.fit(x, y, batch_size=BATCH, verbose=0)


def measure(benchmark, group, epoch):
    benchmark.group = f"{group}, {BACKEND}, {STEPS} steps"
    benchmark.pedantic(epoch, rounds=5, warmup_rounds=1)
    per_step = 1e3 * benchmark.stats.stats.median / STEPS
    benchmark.extra_info["ms per step"] = round(per_step, 2)


@pytest.mark.parametrize("name", PENALTIES)
def test_dense(benchmark, name):
    def layer():
        return keras.layers.Dense(
            SIZE, "relu", kernel_regularizer=PENALTIES[name]()
        )

    measure(benchmark, "2 x Dense(512)", trained(layer))


@pytest.mark.parametrize("name", FACTORED)
def test_low_rank_dense(benchmark, name):
    def layer():
        return kl.LowRankDense(
            SIZE, 32, "relu", kernel_regularizer=PENALTIES[name]()
        )

    measure(benchmark, "2 x LowRankDense(512, 32)", trained(layer))


@pytest.mark.skipif(BACKEND != "tensorflow", reason="XLA of TensorFlow")
@pytest.mark.parametrize("name", COMPILED)
def test_compiled_by_xla(benchmark, name):
    def layer():
        return keras.layers.Dense(
            SIZE, "relu", kernel_regularizer=PENALTIES[name]()
        )

    epoch = trained(layer, jit_compile=True)
    measure(benchmark, "2 x Dense(512) by XLA", epoch)


@pytest.mark.parametrize("method", ["exact", "newton_schulz"])
@pytest.mark.parametrize("shape", [(512, 512), (4608, 512)], ids=str)
def test_proximal_step(benchmark, shape, method):
    kernel = np.random.default_rng(0).normal(size=shape).astype("float32")
    kernel /= shape[0] ** 0.5
    tensor = ops.convert_to_tensor(kernel)

    def by_products():
        return ops.convert_to_numpy(linalg.thresholded(tensor, 0.1))

    exact = method == "exact"
    benchmark.group = f"Soft threshold of {shape[0]} x {shape[1]}, {BACKEND}"
    benchmark.pedantic(
        (lambda: linalg.soft_threshold(kernel, 0.1)) if exact else by_products,
        rounds=5,
        warmup_rounds=1,
    )
