"""What a hundred trials leave in memory, in one process."""

import pathlib
import platform

import keras
import keras_tuner
import numpy as np
import pytest

from keras_lowrank.experiments import ExperimentSpec
from keras_lowrank.search import LowestRank
from keras_lowrank.search import Range
from keras_lowrank.search import RankHyperModel
from keras_lowrank.search import SearchSpec
from keras_lowrank.search import search

TRIALS = 100
WARM = 40  # trials after which each program was compiled

SPACE = {
    "batch_size": [16, 32],
    "learning_rate": Range(0.01, 0.5),
    "weight_decay": Range(1e-4, 1e-2),
}


def build(hp):
    model = keras.Sequential(
        [
            keras.Input((6,)),
            keras.layers.Dense(64, activation="relu"),
            keras.layers.Dense(2),
        ]
    )
    model.compile(
        keras.optimizers.SGD(0.1),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    return model


def resident_mebibytes():
    pages = int(pathlib.Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096 / 2**20


def of_function(directory, mark):
    x = np.random.default_rng(0).normal(size=(64, 6)).astype("float32")
    y = (x[:, 0] > 0).astype("int32")

    class Marking(keras_tuner.RandomSearch):
        def on_trial_end(self, trial):
            super().on_trial_end(trial)
            mark()

    hypermodel = RankHyperModel(build, SPACE, LowestRank(0.1), seeds=1)
    tuner = Marking(
        hypermodel,
        objective=hypermodel.objective,
        max_trials=TRIALS,
        directory=directory,
        seed=1,
    )
    tuner.search(x, y, validation_data=(x, y), verbose=0)


def of_spec(directory, mark):
    class Marking:
        def began(self, trial):
            pass

        def moved(self, trial, moment):
            pass

        def ended(self, trial, score):
            mark()

    spec = ExperimentSpec(
        {"name": "mlp", "depth": 2, "width": 8},
        {"name": "digits", "train_samples": 64, "test_samples": 64},
        learning_rate=0.05,
        epochs=1,
    )
    asked = SearchSpec(spec, SPACE, trials=TRIALS, seeds=2)
    search(asked, directory, Marking())


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.skipif(platform.system() != "Linux", reason="reads /proc")
@pytest.mark.parametrize("searched", [of_function, of_spec])
def test_memory_does_not_grow_with_the_trials(benchmark, tmp_path, searched):
    marks = []
    benchmark.pedantic(
        searched,
        args=(tmp_path, lambda: marks.append(resident_mebibytes())),
        rounds=1,
    )
    assert len(marks) >= TRIALS
    benchmark.extra_info["MiB"] = {
        trials: round(marks[trials - 1]) for trials in (1, WARM, TRIALS)
    }
    # A leak of a graph per trial is a megabyte or more of each.
    assert marks[TRIALS - 1] - marks[WARM - 1] < 0.5 * (TRIALS - WARM)
