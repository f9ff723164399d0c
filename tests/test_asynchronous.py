"""Measuring in a thread, while the training goes on."""

import copy
import pickle
import threading

import keras
import numpy as np
import pytest

from keras_lowrank import RankTracker
from keras_lowrank import linalg
from keras_lowrank import open_run

layers = keras.layers


def make_model():
    keras.utils.set_random_seed(3)
    model = keras.Sequential(
        [
            keras.Input((6, 6, 2)),
            layers.Conv2D(4, 3, activation="relu"),
            layers.Flatten(),
            layers.Dense(8, activation="relu"),
            layers.Dense(3),
        ]
    )
    model.compile(keras.optimizers.SGD(0.05, momentum=0.9), "mse")
    return model


def fit(*callbacks, epochs=4, model=None):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(32, 6, 6, 2)), rng.normal(size=(32, 3))
    return (model or make_model()).fit(
        x,
        y,
        batch_size=8,
        shuffle=False,
        epochs=epochs,
        callbacks=list(callbacks),
        verbose=0,
    )


class SlowSpectra:
    """Spectra that wait until they are let go."""

    def __init__(self, monkeypatch):
        self.go = threading.Event()
        self.threads = set()
        spectra = linalg.spectra

        def slow(*how):
            self.threads.add(threading.current_thread())
            assert self.go.wait(60)
            return spectra(*how)

        monkeypatch.setattr(linalg, "spectra", slow)


class Hook(keras.callbacks.Callback):
    """Calls a function at the end of every epoch."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def on_epoch_end(self, epoch, logs=None):
        self.function(epoch + 1)


class TestAsynchronous:
    @pytest.mark.parametrize("workers", [1, 2])
    def test_records_are_those_of_the_synchronous_way(self, tmp_path, workers):
        known = RankTracker(every=1)
        expected = fit(known).history
        tracker = RankTracker(
            every=1, asynchronous=True, workers=workers, run_dir=tmp_path
        )
        history = fit(tracker).history
        assert open_run(tmp_path).epochs == [0, 1, 2, 3, 4]
        for recording in (tracker.recording, open_run(tmp_path)):
            for one, other in zip(
                recording.measurements,
                known.recording.measurements,
                strict=True,
            ):
                assert (one.epoch, one.step) == (other.epoch, other.step)
                assert one.learning_rate == other.learning_rate
                assert one.logs == other.logs
                for ours, theirs in zip(
                    one.records, other.records, strict=True
                ):
                    assert ours.weight == theirs.weight
                    assert ours.values == theirs.values
                    np.testing.assert_array_equal(
                        ours.spectrum.values, theirs.spectrum.values
                    )
        assert set(history) == set(expected)
        assert (
            history["stable_rank_mean"][-1]
            == (expected["stable_rank_mean"][-1])
        )
        assert history["loss"] == expected["loss"]

    def test_training_goes_on_meanwhile_and_logs_repeat(self, monkeypatch):
        known = RankTracker("stable_rank", every=1)
        expected = fit(known).history["stable_rank_mean"]
        slow = SlowSpectra(monkeypatch)
        tracker = RankTracker("stable_rank", every=2, asynchronous=True)
        on_its_way = {}

        def look(epoch):
            on_its_way[epoch] = tracker.recorder.in_flight
            if epoch in (1, 3):
                slow.go.set()
            if epoch == 2:
                assert tracker.recorder.recording.epochs == [0]

        begin = RankTracker._start

        def begin_with_the_first_at_once(self, epoch):
            slow.go.set()
            begin(self, epoch)
            self.recorder.collect()
            slow.go.clear()

        monkeypatch.setattr(RankTracker, "_start", begin_with_the_first_at_once)

        def hold(epoch):
            if epoch == 1:
                slow.go.clear()

        found = fit(tracker, Hook(look), Hook(hold), epochs=5).history
        start = known.recording.measurements[0].mean("stable_rank")
        assert [on_its_way[epoch] for epoch in (1, 2, 3)] == [False, True, True]
        series = found["stable_rank_mean"]
        assert series[:3] == [start] * 3
        assert series[3] == expected[1]  # that of epoch 2 was waited for
        assert tracker.recording.epochs == [0, 2, 4, 5]
        assert threading.main_thread() not in slow.threads

    def test_threads_end_with_the_fit(self):
        before = threading.active_count()
        tracker = RankTracker(every=1, asynchronous=True)
        fit(tracker)
        assert threading.active_count() <= before
        assert not tracker.recorder.in_flight
        assert tracker.recorder.background_seconds > 0
        text = []
        tracker.summary(line_length=90, print_fn=text.append)
        assert "Beside the fit a thread computed for" in text[0]

    def test_what_goes_wrong_in_the_thread_is_raised(self, monkeypatch):
        def broken(*_):
            raise MemoryError("no room for a Gram matrix")

        monkeypatch.setattr(linalg, "spectra", broken)
        with pytest.raises(MemoryError, match="no room for a Gram matrix"):
            fit(RankTracker(every=1, asynchronous=True))

    def test_an_interrupted_fit_loses_nothing_that_was_begun(self, tmp_path):
        def interrupt(epoch):
            if epoch == 2:
                raise KeyboardInterrupt

        tracker = RankTracker(every=1, asynchronous=True, run_dir=tmp_path)
        with pytest.raises(KeyboardInterrupt):
            fit(tracker, Hook(interrupt))
        assert tracker.recording.epochs == [0, 1, 2]
        assert open_run(tmp_path).epochs == [0, 1, 2]
        fit(tracker, epochs=1)  # and it can be used again
        assert tracker.recording.epochs == [0, 1]

    def test_weights_that_are_not_finite_are_said(self):
        model = make_model()
        kernel = model.layers[-1].kernel
        kernel.assign(np.full(kernel.shape, np.nan, "float32"))
        tracker = RankTracker(every=1, asynchronous=True)
        with pytest.warns(UserWarning, match="not finite"):
            fit(tracker, epochs=1, model=model)

    def test_copies_carry_no_threads(self):
        tracker = RankTracker(every=1, asynchronous=True)
        fit(tracker, epochs=1)
        for twin in (
            copy.deepcopy(tracker),
            pickle.loads(pickle.dumps(tracker)),
        ):
            assert twin.recording.epochs == [0, 1]
            fit(twin, epochs=2)
            assert twin.recording.epochs == [0, 1, 2]

    def test_the_device_cannot_be_had_as_well(self):
        with pytest.raises(ValueError, match="a thread of the host"):
            RankTracker(asynchronous=True, device="device")

    def test_unknown_device(self):
        with pytest.raises(ValueError, match="Received: device='tpu'"):
            RankTracker(device="tpu")

    def test_the_device_route_records_the_same(self):
        known, tracker = (
            RankTracker(every=1),
            RankTracker(every=1, device="device"),
        )
        fit(known, tracker)
        for one, other in zip(
            tracker.recording.measurements,
            known.recording.measurements,
            strict=True,
        ):
            for ours, theirs in zip(one.records, other.records, strict=True):
                np.testing.assert_allclose(
                    ours.spectrum.values,
                    theirs.spectrum.values,
                    atol=1e-9 * theirs.spectrum.values[0],
                )


@pytest.mark.once
def test_a_snapshot_has_the_values_of_its_moment():
    from keras_lowrank import weight_matrices

    model = make_model()
    matrices = weight_matrices(model)
    copies = matrices.snapshot()
    before = [spectrum.values for spectrum in linalg.spectra(copies)]
    fit(model=model)
    after = [spectrum.values for spectrum in linalg.spectra(copies)]
    for one, other in zip(before, after, strict=True):
        np.testing.assert_array_equal(one, other)
