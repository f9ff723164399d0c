import keras
import keras_tuner
import numpy as np
import pytest

from keras_lowrank import RankTracker
from keras_lowrank import WeightDecay
from keras_lowrank import open_run

X = np.random.default_rng(0).normal(size=(32, 6)).astype("float32")


def build(hp):
    decay = WeightDecay(hp.Choice("decay", [0.0, 20.0]))
    model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(6)])
    model.compile(decay.wrap(keras.optimizers.SGD(0.04)), "mse")
    return model


@pytest.mark.filterwarnings("ignore::UserWarning:keras_tuner")
@pytest.mark.parametrize("executions", [1, 2])
def test_a_search_monitors_ranks(tmp_path, executions):
    tuner = keras_tuner.GridSearch(
        build,
        objective=keras_tuner.Objective("nuclear_norm_mean", "min"),
        executions_per_trial=executions,
        directory=tmp_path,
        project_name="search",
    )
    tracker = RankTracker(
        every=1, measures=["rank", "nuclear_norm"], run_dir=tmp_path / "run"
    )
    tuner.search(X, X, epochs=3, verbose=0, callbacks=[tracker])
    (best,) = tuner.get_best_hyperparameters()
    # It takes four fifths of the weights at each of three steps.
    assert best.values == {"decay": 20.0}
    scores = [trial.score for trial in tuner.oracle.trials.values()]
    assert len(scores) == 2 and np.isfinite(scores).all()
    # The tuner copies its callbacks: ours was never trained with, and every
    # fit of a copy is in the store.
    assert len(tracker.recording) == 0
    assert open_run(tmp_path / "run").info["fits"] == 2 * executions
    for fit in range(1, 2 * executions + 1):
        recording = open_run(tmp_path / "run", fit=fit)
        assert recording.epochs == [0, 1, 2, 3]
        # The same names in every trial, whatever Keras calls the layers.
        assert recording.weights == ["dense/kernel"]
