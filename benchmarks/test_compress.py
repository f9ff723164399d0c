"""What compression gains, and what it costs, on a network of real images.

`make bench` runs this on the bundled digits. With MNIST at hand, as
`mnist.npz` in the directory that `KERAS_LOWRANK_DATA` names (or as the path
of an `.npz` file in `KERAS_LOWRANK_MNIST`), it runs on that, whose test data
are enough to tell half a point of accuracy.
"""

import os

import keras
import pytest

from keras_lowrank import WeightDecay
from keras_lowrank import compress_and_verify
from keras_lowrank import compression_plan
from keras_lowrank.experiments.data import load

BATCH_SIZES = (1, 32, 256)
TOLERANCE = 0.005


def images():
    """MNIST where it is at hand, and the digits of scikit-learn."""
    path = os.environ.get("KERAS_LOWRANK_MNIST")
    if path:
        return load(path)
    if os.environ.get("KERAS_LOWRANK_DATA"):
        return load("mnist", normalization="unit")
    return load("digits")


def flat(x):
    return x.reshape(len(x), -1)


@pytest.fixture(scope="module")
def data():
    return images()


@pytest.fixture(scope="module")
def trained(data):
    """A wide network, trained with decay as the paper does."""
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((flat(data.x_train).shape[1],)),
            *(
                keras.layers.Dense(1024, activation="relu", name=name)
                for name in ("first", "second", "third")
            ),
            keras.layers.Dense(data.classes, name="head"),
        ]
    )
    steps = -(-len(data.x_train) // 64)
    rate = keras.optimizers.schedules.PiecewiseConstantDecay(
        [8 * steps, 12 * steps], [0.1, 0.02, 0.004]
    )
    model.compile(
        WeightDecay(1e-3).wrap(keras.optimizers.SGD(rate, momentum=0.9)),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    model.fit(
        flat(data.x_train), data.y_train, batch_size=64, epochs=15, verbose=0
    )
    return model


@pytest.fixture(scope="module")
def verified(data, trained):
    plan = compression_plan(trained, parameters=0.3)
    return compress_and_verify(
        trained,
        (flat(data.x_test), data.y_test),
        TOLERANCE,
        plan,
        batch_sizes=BATCH_SIZES,
    )


def test_a_third_of_the_parameters_faster_and_as_accurate(verified):
    """The claim of the library, on a network of real images."""
    verified.print()
    before, after = verified.parameters
    assert before >= 3 * after
    assert verified.change.difference >= -TOLERANCE
    assert verified.faster


@pytest.mark.parametrize("size", BATCH_SIZES)
@pytest.mark.parametrize("which", ["full", "compressed"])
def test_latency(benchmark, data, trained, verified, which, size):
    model = trained if which == "full" else verified.model
    x = flat(data.x_test)[:size]
    benchmark.group = f"predict_on_batch, {size} {data.name}"
    model.predict_on_batch(x)
    benchmark.pedantic(
        model.predict_on_batch, (x,), rounds=100, warmup_rounds=5
    )


@pytest.mark.parametrize("criterion", ["energy", "parameters"])
def test_planning(benchmark, trained, criterion):
    benchmark.group = f"compression_plan, {trained.count_params():,} weights"
    benchmark.pedantic(
        compression_plan,
        (trained,),
        {criterion: 0.5},
        rounds=3,
        warmup_rounds=1,
    )
