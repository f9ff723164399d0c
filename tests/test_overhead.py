"""What measuring costs, and that it keeps to it."""

import subprocess
import sys
import types

import keras
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from keras_lowrank import KerasLowrankWarning
from keras_lowrank import RankTracker
from keras_lowrank import open_run
from keras_lowrank.callbacks import rank_tracker
from keras_lowrank.callbacks.budget import Budget


def simulated(share, epochs, seconds, cost, first=None, known=True, hook=0.0):
    """Epochs measured, and the share of the time that this took at the end."""
    budget = Budget(share, epochs if known else None)
    measured, measuring, asking = [0], cost, 0.0
    trained = 0.0
    for epoch in range(1, epochs + 1):
        trained += seconds if first is None or epoch > 1 else first
        asking += hook
        spent = measuring + asking
        if epoch == epochs or budget.allows(
            epoch, measured[-1], trained + spent, spent, measuring, cost
        ):
            measuring += cost
            measured.append(epoch)
    spent = measuring + asking
    return measured, spent / (trained + spent)


@pytest.mark.once
class TestBudget:
    @given(
        share=st.sampled_from([0.001, 0.01, 0.1]),
        epochs=st.integers(1, 400),
        seconds=st.floats(1e-3, 1e3),
        cost=st.floats(1e-3, 10.0),
        compiling=st.floats(1.0, 50.0),
        known=st.booleans(),
    )
    def test_it_holds_or_only_the_ends_are_measured(
        self, share, epochs, seconds, cost, compiling, known
    ):
        measured, taken = simulated(
            share, epochs, seconds, cost, compiling * seconds, known
        )
        assert taken <= share * (1 + 1e-9) or measured == [0, epochs]
        assert measured[-1] == epochs

    @given(
        epochs=st.integers(10, 400),
        seconds=st.floats(1e-2, 1e2),
        share_of_an_epoch=st.floats(1e-5, 0.5),
    )
    def test_what_it_allows_is_used_and_spread(
        self, epochs, seconds, share_of_an_epoch
    ):
        measured, taken = simulated(
            0.01, epochs, seconds, share_of_an_epoch * seconds
        )
        gaps = np.diff(measured)
        if share_of_an_epoch < 0.003:
            assert (gaps == 1).all()
        if taken < 0.004:  # room for twice as many
            assert (gaps[1:] == 1).all()
        assert gaps.max() <= 2 * np.median(gaps) + 2

    def test_being_asked_counts_as_well(self):
        # Half of one percent goes into being asked, whatever is measured.
        measured, taken = simulated(0.01, 150, 0.02, 0.004, hook=1e-4)
        assert taken <= 0.01
        assert 3 <= len(measured) < len(simulated(0.01, 150, 0.02, 0.004)[0])

    def test_a_long_first_epoch_promises_nothing_of_the_others(self):
        # Compiling takes a hundred times what an epoch does.
        measured, taken = simulated(0.01, 100, 0.03, 0.003, first=3.0)
        assert taken <= 0.01
        assert len(measured) > 10

    def test_epochs_of_minutes_are_all_measured(self):
        measured, _ = simulated(0.01, 3, 600.0, 0.2)
        assert measured == [0, 1, 2, 3]


class Clock(keras.callbacks.Callback):
    """A clock that says an epoch takes one second, a measurement 0.05."""

    def __init__(self, monkeypatch, cost=0.05):
        super().__init__()
        self.now = 0.0
        fake = types.SimpleNamespace(perf_counter=lambda: self.now)
        monkeypatch.setattr(rank_tracker, "time", fake)
        measure = rank_tracker.Recorder.measure

        def slow(recorder, *args, **kwargs):
            self.now += cost
            return measure(recorder, *args, **kwargs)

        monkeypatch.setattr(rank_tracker.Recorder, "measure", slow)

    def on_epoch_begin(self, epoch, logs=None):
        self.now += 1.0


def fit(*callbacks, epochs, **options):
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(4)])
    model.compile("sgd", "mse")
    x, y = np.ones((8, 6)), np.ones((8, 4))
    return model.fit(
        x, y, epochs=epochs, callbacks=list(callbacks), verbose=0, **options
    )


class TestMaxOverhead:
    def test_the_default_is_one_percent(self, monkeypatch, tmp_path):
        tracker = RankTracker(run_dir=tmp_path)
        assert tracker.max_overhead == 0.01
        clock = Clock(monkeypatch)
        history = fit(clock, tracker, epochs=40).history
        assert tracker.recording.epochs == [0, 6, 12, 18, 24, 30, 35, 40]
        assert tracker.overhead <= 0.01
        assert tracker.left_out == 40 - 7
        assert len(history["rank_mean"]) == 40
        assert not np.isnan(history["rank_mean"]).any()
        assert open_run(tmp_path).epochs == tracker.recording.epochs
        assert open_run(tmp_path).info["max_overhead"] == 0.01

    def test_summary_says_what_it_cost_and_left_out(self, monkeypatch):
        tracker = RankTracker()
        fit(Clock(monkeypatch), tracker, epochs=40)
        text = []
        tracker.summary(line_length=100, print_fn=text.append)
        assert "Measured 8 times at a cost of 0.99 % of the fit" in text[0]
        assert "Left out 33 epochs to stay within max_overhead=0.01" in text[0]

    def test_summary_says_why_a_short_fit_cost_more(self, monkeypatch):
        tracker = RankTracker()
        text = []
        for epochs in (2, 40):
            fit(Clock(monkeypatch), tracker, epochs=epochs)
            tracker.summary(line_length=100, print_fn=text.append)
        assert "More than max_overhead=0.01: the first state and" in text[0]
        assert "More than" not in text[1]

    def test_every_is_kept_to_unless_a_limit_is_given(self, monkeypatch):
        tracker = RankTracker(every=1)
        assert tracker.max_overhead is None
        clock = Clock(monkeypatch)
        fit(clock, tracker, epochs=5)
        assert tracker.recording.epochs == [0, 1, 2, 3, 4, 5]
        assert tracker.left_out == 0
        tracker = RankTracker(every=10, max_overhead=0.01)
        fit(clock, tracker, epochs=40)
        assert tracker.recording.epochs == [0, 10, 20, 30, 40]
        tracker = RankTracker(every=10, max_overhead=0.004)
        fit(clock, tracker, epochs=40)
        assert tracker.recording.epochs == [0, 20, 40]
        assert tracker.left_out == 2

    def test_a_continued_fit_has_a_budget_of_its_own(self, monkeypatch):
        tracker = RankTracker()
        clock = Clock(monkeypatch)
        fit(clock, tracker, epochs=20)
        before = tracker.recording.epochs
        fit(clock, tracker, initial_epoch=20, epochs=60)
        after = tracker.recording.epochs
        assert after[: len(before)] == before
        assert after[-1] == 60
        assert tracker.overhead <= 0.01

    def test_who_decides_by_old_values_is_warned(self, monkeypatch):
        stopping = keras.callbacks.EarlyStopping(
            "rank_mean", patience=50, mode="min"
        )
        tracker = RankTracker()
        with pytest.warns(
            KerasLowrankWarning, match="EarlyStopping monitors 'rank_mean'"
        ) as caught:
            fit(Clock(monkeypatch), tracker, stopping, epochs=10)
        assert [w.category for w in caught].count(KerasLowrankWarning) == 1
        fit(RankTracker(every=1), stopping, epochs=3)  # no warning

    def test_an_unbuilt_model_is_measured_after_its_first_epoch(self):
        tracker = RankTracker()
        history = fit(tracker, epochs=4).history
        assert tracker.recording.epochs[-1] == 4
        assert len(history["stable_rank_mean"]) == 4

    @pytest.mark.parametrize("share", [0, -0.1, 1.5, "1%", float("nan")])
    def test_out_of_range(self, share):
        with pytest.raises(ValueError, match="`max_overhead` must be above 0"):
            RankTracker(max_overhead=share)

    def test_processes_that_train_together_leave_nothing_out(self, monkeypatch):
        clock = Clock(monkeypatch)
        monkeypatch.setattr(rank_tracker, "process_count", lambda: 2)
        tracker = RankTracker()
        fit(clock, tracker, epochs=4)
        assert tracker.recording.epochs == [0, 1, 2, 3, 4]
        tracker = RankTracker(every=2, max_overhead=0.01)
        with pytest.warns(KerasLowrankWarning, match="is not kept"):
            fit(clock, tracker, epochs=4)
        assert tracker.recording.epochs == [0, 2, 4]


@pytest.mark.once
@pytest.mark.skipif(
    keras.backend.backend() == "tensorflow", reason="it is the backend"
)
def test_the_first_fit_does_not_wait_for_tensorflow():
    # Keras imports it to serialize what a wrapped optimizer holds.
    script = """
import importlib.util, sys
import keras, numpy as np
from keras.src.utils import module_utils
from keras_lowrank import RankTracker, WeightDecay
model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
schedule = keras.optimizers.schedules.CosineDecay(0.1, 10)
model.compile(WeightDecay(0.1).wrap(keras.optimizers.SGD(schedule)), "mse")
tracker = RankTracker()
model.fit(np.ones((4, 3)), np.ones((4, 2)), verbose=0, callbacks=[tracker])
print("tensorflow" in sys.modules, tracker.recording.info["optimizer"])
found = importlib.util.find_spec("tensorflow") is not None
print(found == module_utils.tensorflow.available)
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True
    )
    first, last = done.stdout.splitlines()
    assert first.startswith("False") and "CosineDecay" in first, done.stderr
    assert last == "True"
