import keras
import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import (
    EventAccumulator,
)

from keras_lowrank import RankTracker

X = np.random.default_rng(0).normal(size=(32, 6)).astype("float32")


def read(log_dir):
    events = EventAccumulator(str(log_dir), size_guidance={"histograms": 0})
    return events.Reload()


def fit(tracker, **arguments):
    keras.utils.set_random_seed(1)
    layers = [
        keras.layers.Dense(8, name="wide"),
        keras.layers.Dense(3, name="last"),
    ]
    model = keras.Sequential(layers)
    model.compile("sgd", "mse")
    arguments = {"epochs": 3, "verbose": 0} | arguments
    model.fit(X, X[:, :3], callbacks=[tracker], **arguments)
    return tracker


def test_scalars_are_the_recorded_numbers(tmp_path):
    tracker = fit(RankTracker(every=1, tensorboard=tmp_path))
    events = read(tmp_path)
    history = tracker.history
    for tag in ("rank/wide/kernel", "stable_rank/last/kernel", "rank_mean"):
        scalars = events.Scalars(tag)
        assert [event.step for event in scalars] == [0, 1, 2, 3]
        values = [event.value for event in scalars]
        assert values == pytest.approx(history[tag], rel=1e-6)
    losses = [event.value for event in events.Scalars("loss")]
    assert losses == pytest.approx(history["loss"][1:], rel=1e-6)


def test_spectra_are_histograms(tmp_path):
    tracker = fit(RankTracker(every=1, tensorboard=True, run_dir=tmp_path))
    histogram = read(tmp_path).Histograms("spectrum/wide/kernel")[-1]
    spectrum = tracker.recording.spectra("wide/kernel")[3]
    relative = spectrum.values / spectrum.values[0]
    value = histogram.histogram_value
    assert histogram.step == 3 and value.num == len(relative)
    assert sum(value.bucket) == len(relative)
    assert value.max == 1.0 and value.min == relative[-1]
    limits = np.array(value.bucket_limit)
    for threshold in (1e-2, 1e-1):
        index = np.argmin(np.abs(limits - threshold))
        below = sum(value.bucket[: index + 1])
        assert below == np.sum(relative < limits[index])


@pytest.mark.parametrize("stored", [True, False])
def test_a_resumed_fit_hides_what_it_trains_again(tmp_path, stored):
    settings = {"every": 1, "tensorboard": tmp_path / "events"}
    if stored:
        settings["run_dir"] = tmp_path / "run"
    fit(RankTracker(**settings), epochs=5)
    fit(RankTracker(**settings), initial_epoch=3, epochs=6)
    events = read(tmp_path / "events").Scalars("rank_mean")
    assert [event.step for event in events] == [0, 1, 2, 3, 4, 5, 6]


def test_a_spectrum_that_is_not_finite_is_no_histogram(tmp_path):
    class Spoil(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            if epoch == 1:
                kernel = self.model.get_layer("wide").kernel
                kernel.assign(np.full(kernel.shape, np.nan))

    keras.utils.set_random_seed(1)
    model = keras.Sequential([keras.layers.Dense(8, name="wide")])
    model.compile("sgd", "mse")
    tracker = RankTracker(every=1, tensorboard=tmp_path)
    with pytest.warns(UserWarning, match="not finite"):
        model.fit(
            X,
            np.tile(X, 2)[:, :8],
            epochs=3,
            verbose=0,
            callbacks=[tracker, Spoil()],
        )
    events = read(tmp_path)
    steps = [e.step for e in events.Histograms("spectrum/wide/kernel")]
    assert steps == [0, 1]
    assert np.isnan(events.Scalars("rank/wide/kernel")[-1].value)
