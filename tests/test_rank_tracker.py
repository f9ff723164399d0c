import contextlib
import copy
import csv
import itertools
import math
import pickle
import sqlite3

import keras
import numpy as np
import pytest

from keras_lowrank import FeatureRank
from keras_lowrank import KerasLowrankWarning
from keras_lowrank import RankTracker
from keras_lowrank import linalg
from keras_lowrank import log_spaced
from keras_lowrank import numerical_rank
from keras_lowrank import open_run
from keras_lowrank import stable_rank

BACKEND = keras.backend.backend()
X = np.random.default_rng(0).normal(size=(48, 6)).astype("float32")
Y = (X[:, 0] > 0).astype("int32")
KEYS = ["rank_mean", "stable_rank_mean", "effective_rank_mean"]


def small_model(**compile_arguments):
    model = keras.Sequential(
        [
            keras.layers.Dense(8, activation="relu", name="first"),
            keras.layers.Dense(2, name="second"),
        ]
    )
    arguments = {
        "optimizer": keras.optimizers.SGD(0.1, momentum=0.5),
        "loss": keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        "metrics": ["accuracy"],
    }
    model.compile(**(arguments | compile_arguments))
    return model


def fit(model, *callbacks, epochs=3, **arguments):
    arguments = {"batch_size": 16, "verbose": 0} | arguments
    return model.fit(
        X, Y, epochs=epochs, callbacks=list(callbacks), **arguments
    )


def kernel_spectrum(model, index):
    return linalg.spectrum(model.layers[index].kernel)


class TestWhatIsMeasured:
    def test_last_measurement_is_of_the_trained_weights(self):
        model, tracker = small_model(), RankTracker(every=1)
        fit(model, tracker)
        for index, record in enumerate(
            tracker.recording.measurements[-1].records
        ):
            expected = kernel_spectrum(model, index)
            np.testing.assert_array_equal(
                record.spectrum.values, expected.values
            )
            assert record.values["stable_rank"] == stable_rank(expected)
            assert record.values["rank"] == numerical_rank(expected)

    def test_epoch_0_is_the_initialisation(self):
        model, tracker = small_model(), RankTracker(every=1)
        model.build((None, 6))
        before = [kernel_spectrum(model, index).values for index in (0, 1)]
        fit(model, tracker)
        first = tracker.recording.measurements[0]
        assert first.epoch == 0 and first.step == 0
        for record, expected in zip(first.records, before, strict=True):
            np.testing.assert_array_equal(record.spectrum.values, expected)

    def test_every_epoch_is_of_the_weights_of_that_epoch(self):
        seen = []

        class Witness(keras.callbacks.Callback):
            def on_epoch_end(self, epoch, logs=None):
                seen.append(kernel_spectrum(self.model, 0).values)

        model, tracker = small_model(), RankTracker(every=1)
        fit(model, tracker, Witness())
        found = tracker.recording.spectra("first/kernel")
        assert list(found) == [0, 1, 2, 3]
        for epoch in (1, 2, 3):
            np.testing.assert_array_equal(found[epoch].values, seen[epoch - 1])

    def test_settings_of_the_run_are_recorded(self):
        tracker = RankTracker(every=1)
        schedule = keras.optimizers.schedules.PiecewiseConstantDecay(
            [3, 6], [0.1, 0.01, 0.001]
        )
        fit(small_model(optimizer=keras.optimizers.SGD(schedule)), tracker)
        last = tracker.recording.measurements[-1]
        assert [item.step for item in tracker.recording.measurements] == [
            0,
            3,
            6,
            9,
        ]
        rates = [item.learning_rate for item in tracker.recording.measurements]
        assert rates == pytest.approx([0.1, 0.1, 0.01, 0.001])
        assert last.batch_size == 16 and last.steps_per_epoch == 3
        assert set(last.logs) == {"loss", "accuracy"}
        assert tracker.recording.info["backend"] == BACKEND
        assert "optimizer" in tracker.recording.info

    def test_several_optimizers_have_no_learning_rate(self):
        optimizers = keras.optimizers.OptimizerMap(
            keras.optimizers.SGD(0.1), {"first/.*": keras.optimizers.Adam()}
        )
        tracker = RankTracker(every=1)
        several = keras.optimizers.MultiOptimizer(optimizers)
        fit(small_model(optimizer=several), tracker, epochs=2)
        assert tracker.history["learning_rate"] == [None] * 3
        assert tracker.history["step"] == [0, 3, 6]

    def test_a_measure_that_fails_is_told_of_at_once(self):
        def broken(spectrum):
            raise ZeroDivisionError("on purpose")

        with pytest.raises(ZeroDivisionError, match="on purpose"):
            fit(small_model(), RankTracker(every=1, measures=["rank", broken]))

    def test_a_measure_that_fails_later_does_not_stop_training(self):
        calls = []

        def fragile(spectrum):
            calls.append(spectrum)
            if len(calls) > 4:
                raise ZeroDivisionError("on purpose")
            return 1.0

        tracker = RankTracker(every=1, measures=["rank", fragile])
        with pytest.warns(KerasLowrankWarning, match="'fragile' of 'first"):
            history = fit(small_model(), tracker, epochs=3).history
        assert history["fragile_mean"][0] == 1.0
        assert math.isnan(history["fragile_mean"][-1])
        assert not math.isnan(history["rank_mean"][-1])
        assert tracker.recording.spectra("first/kernel")[3].finite

    def test_what_cannot_be_recorded_does_not_stop_training(self):
        class Odd(keras.optimizers.SGD):
            def get_config(self):
                raise NotImplementedError("no config")

        class Chatty(keras.callbacks.Callback):
            def on_epoch_end(self, epoch, logs=None):
                logs["note"] = "all well"

        tracker = RankTracker(every=1)
        with pytest.warns(KerasLowrankWarning, match="leaves 'note' out"):
            fit(small_model(optimizer=Odd(0.1)), Chatty(), tracker, epochs=2)
        assert "note" not in tracker.history and "loss" in tracker.history
        info = tracker.recording.info["optimizer"]
        assert info["config_error"] == "NotImplementedError: no config"

    @pytest.mark.parametrize("how", ["regex", "list", "callable"])
    def test_weights_can_be_chosen(self, how):
        weights = {
            "regex": "second",
            "list": ["second/kernel"],
            "callable": lambda matrix: matrix.name.startswith("second"),
        }[how]
        tracker = RankTracker(every=1, weights=weights)
        fit(small_model(), tracker, epochs=1)
        assert tracker.recording.weights == ["second/kernel"]

    def test_measures_can_be_chosen(self):
        def tail(spectrum):
            return float(spectrum.values[-1])

        tracker = RankTracker(every=1, measures=["rank", "nuclear_norm", tail])
        history = fit(small_model(), tracker).history
        assert {"rank_mean", "nuclear_norm_mean", "tail_mean"} <= set(history)
        expected = [
            np.mean([record.spectrum.values[-1] for record in item.records])
            for item in tracker.recording.measurements[1:]
        ]
        assert history["tail_mean"] == pytest.approx(expected)

    def test_heads_can_be_split(self):
        inputs = keras.Input((4, 6))
        outputs = keras.layers.MultiHeadAttention(2, 3)(inputs, inputs)
        model = keras.Model(inputs, outputs)
        model.compile("sgd", "mse")
        tracker = RankTracker(
            every=1, views={"heads": "split"}, weights="query"
        )
        data = np.ones((4, 4, 6), "float32")
        model.fit(data, data, verbose=0, callbacks=[tracker])
        assert len(tracker.recording.weights) == 2

    def test_batch_size_of_a_data_set(self):
        if BACKEND == "tensorflow":
            import tensorflow as tf

            data = tf.data.Dataset.from_tensor_slices((X, Y)).batch(
                12, drop_remainder=True
            )
        elif BACKEND == "torch":
            import torch

            data = torch.utils.data.DataLoader(
                torch.utils.data.TensorDataset(
                    torch.as_tensor(X), torch.as_tensor(Y)
                ),
                batch_size=12,
            )
        else:
            pytest.skip("JAX has no data sets of its own")
        tracker = RankTracker(every=1)
        small_model().fit(data, callbacks=[tracker], verbose=0)
        assert tracker.recording.measurements[-1].batch_size == 12


class TestWhen:
    @pytest.mark.parametrize(
        ("every", "epochs"),
        [
            (1, [0, 1, 2, 3, 4, 5, 6, 7]),
            (3, [0, 3, 6, 7]),
            (100, [0, 7]),
            ("log", [0, 1, 2, 3, 4, 5, 6, 7]),
            (log_spaced(2), [0, 1, 3, 7]),
            (lambda epoch: epoch == 4, [0, 4, 7]),
        ],
    )
    def test_epochs(self, every, epochs):
        tracker = RankTracker(every=every)
        fit(small_model(), tracker, epochs=7)
        assert tracker.recording.epochs == epochs

    def test_last_state_is_measured_when_stopped_early(self):
        class Stop(keras.callbacks.Callback):
            def on_epoch_end(self, epoch, logs=None):
                self.model.stop_training = epoch == 1

        model, tracker = small_model(), RankTracker(every=10)
        fit(model, tracker, Stop(), epochs=9)
        assert tracker.recording.epochs == [0, 2]
        last = tracker.recording.measurements[-1].records[0].spectrum
        np.testing.assert_array_equal(
            last.values, kernel_spectrum(model, 0).values
        )

    def test_initial_epoch(self):
        tracker = RankTracker(every=1)
        fit(small_model(), tracker, initial_epoch=4, epochs=6)
        assert tracker.recording.epochs == [4, 5, 6]

    @pytest.mark.parametrize("every", [0, -1, "often"])
    def test_bad_numbers(self, every):
        with pytest.raises(ValueError, match=f"every={every!r}"):
            RankTracker(every=every)

    @pytest.mark.parametrize("every", [True, 1.5, []])
    def test_bad_types(self, every):
        with pytest.raises(TypeError, match="`every` must be"):
            RankTracker(every=every)


class TestLogs:
    @pytest.mark.parametrize("every", [1, 2, 5])
    def test_keys_are_complete_from_the_first_epoch(self, every, tmp_path):
        path = tmp_path / "log.csv"
        history = fit(
            small_model(),
            RankTracker(every=every),
            keras.callbacks.CSVLogger(path),
            epochs=6,
        ).history
        assert {len(series) for series in history.values()} == {6}
        assert set(KEYS) < set(history)
        with open(path) as file:
            rows = list(csv.DictReader(file))
        assert len(rows) == 6
        for row, value in zip(rows, history["rank_mean"], strict=True):
            assert float(row["rank_mean"]) == value

    def test_between_measurements_the_last_value_is_repeated(self):
        tracker = RankTracker(every=2)
        series = fit(small_model(), tracker, epochs=5).history
        means = tracker.history["stable_rank_mean"]
        assert tracker.recording.epochs == [0, 2, 4, 5]
        assert series["stable_rank_mean"] == [
            means[0],
            means[1],
            means[1],
            means[2],
            means[3],
        ]

    def test_values_in_logs_are_python_floats(self):
        history = fit(small_model(), RankTracker(every=1)).history
        assert {type(value) for key in KEYS for value in history[key]} == {
            float
        }

    def test_early_stopping_monitors_ranks(self):
        # Never better than a rank of -1, so it stops after its patience.
        stopping = keras.callbacks.EarlyStopping(
            "rank_mean", mode="min", patience=2, baseline=-1.0
        )
        history = fit(
            small_model(), RankTracker(every=1), stopping, epochs=9
        ).history
        assert len(history["rank_mean"]) == 2

    def test_checkpoints_monitor_ranks(self, tmp_path):
        path = tmp_path / "{rank_mean:.0f}.weights.h5"
        checkpoint = keras.callbacks.ModelCheckpoint(
            path,
            monitor="stable_rank_mean",
            mode="min",
            save_best_only=True,
            save_weights_only=True,
        )
        fit(small_model(), RankTracker(every=1), checkpoint)
        assert list(tmp_path.glob("*.weights.h5"))

    @pytest.mark.parametrize("verbose", [0, 1, 2])
    def test_the_progress_bar_shows_them(self, verbose, capsys):
        fit(small_model(), RankTracker(every=1), verbose=verbose)
        assert ("rank_mean" in capsys.readouterr().out) == (verbose > 0)

    @pytest.mark.parametrize(
        "consumer",
        [
            lambda path: keras.callbacks.EarlyStopping("rank_mean", mode="min"),
            lambda path: keras.callbacks.CSVLogger(path / "log.csv"),
        ],
        ids=["monitor", "csv"],
    )
    @pytest.mark.filterwarnings("ignore:Early stopping conditioned")
    def test_a_consumer_listed_earlier_is_warned_of(self, consumer, tmp_path):
        with pytest.warns(KerasLowrankWarning, match="List RankTracker first"):
            fit(small_model(), consumer(tmp_path), RankTracker(every=1))

    def test_other_monitors_may_come_earlier(self):
        fit(
            small_model(),
            keras.callbacks.EarlyStopping("loss"),
            RankTracker(every=1),
        )

    def test_default_tracker_leaves_asynchronous_dispatch_on(self):
        # Batch hooks of a callback switch it off.
        plain = keras.callbacks.CallbackList([])
        tracked = keras.callbacks.CallbackList([RankTracker(every=1)])
        assert tracked._async_train == plain._async_train


class TestReading:
    def test_frame_history_and_summary_agree(self):
        tracker = RankTracker(every=1)
        fit(small_model(), tracker)
        frame = tracker.to_frame()
        assert len(frame) == 4 * 2
        first = frame[frame.weight == "first/kernel"]
        assert (
            list(first.stable_rank)
            == tracker.history["stable_rank/first/kernel"]
        )
        assert list(tracker.to_frame("energy_rank").energy_rank.dropna())
        lines = []
        tracker.summary(print_fn=lines.append, line_length=100)
        (text,) = lines
        assert "first/kernel" in text and "6 x 8" in text
        assert "numerical_rank(tolerance=0.001" in text
        assert "% of the fit" in text and "Measured 4 times" in text

    def test_overhead_is_a_share_of_the_fit(self):
        tracker = RankTracker(every=1)
        assert math.isnan(tracker.overhead)
        fit(small_model(), tracker)
        assert 0 < tracker.overhead < 1
        costs = sum(item.seconds for item in tracker.recording.measurements)
        assert costs <= tracker.own_seconds < tracker.fit_seconds

    def test_summary_before_any_fit(self, capsys):
        RankTracker(every=1).summary()
        assert "Nothing was measured" in capsys.readouterr().out


class TestRunDirectory:
    def test_store_holds_what_the_tracker_holds(self, tmp_path):
        tracker = RankTracker(every=1, run_dir=tmp_path / "run")
        fit(small_model(), tracker)
        stored = open_run(tmp_path / "run")
        assert stored.history == tracker.history
        assert stored.info["backend"] == BACKEND
        assert stored.info["fit"]["epochs"] == 3

    def test_a_second_fit_is_kept_beside_the_first(self, tmp_path):
        model, tracker = small_model(), RankTracker(every=1, run_dir=tmp_path)
        fit(model, tracker, epochs=3)
        first = tracker.history
        fit(model, tracker, epochs=2)
        assert tracker.recording.epochs == [0, 1, 2]
        assert open_run(tmp_path).epochs == [0, 1, 2]
        assert open_run(tmp_path, fit=1).history == first

    def test_a_continued_fit_continues_the_recording(self, tmp_path):
        for run_dir in (tmp_path, None):
            model, tracker = (
                small_model(),
                RankTracker(every=1, run_dir=run_dir),
            )
            fit(model, tracker, epochs=3)
            fit(model, tracker, initial_epoch=3, epochs=5)
            assert tracker.recording.epochs == [0, 1, 2, 3, 4, 5]
            assert [i.step for i in tracker.recording.measurements][-1] == 15
        assert open_run(tmp_path).epochs == [0, 1, 2, 3, 4, 5]

    def test_unwritable_directory_fails_before_training(self, tmp_path):
        (tmp_path / "taken").write_text("")
        model = small_model()
        model.build((None, 6))
        before = model.get_weights()
        with pytest.raises(OSError, match="Choose another `run_dir`"):
            fit(model, RankTracker(every=1, run_dir=tmp_path / "taken"))
        for old, new in zip(before, model.get_weights(), strict=True):
            np.testing.assert_array_equal(old, new)

    def test_training_outlives_a_store_that_fails(self, tmp_path, monkeypatch):
        from keras_lowrank.records import Store

        write, failing = Store.write, [True]

        def sometimes(self, measurement):
            if measurement.epoch in (1, 2) and failing:
                raise OSError("Cannot use the store: disk full.")
            write(self, measurement)

        class Freed(keras.callbacks.Callback):
            def on_epoch_end(self, epoch, logs=None):
                if epoch == 2:
                    failing.clear()

        monkeypatch.setattr(Store, "write", sometimes)
        tracker = RankTracker(every=1, run_dir=tmp_path)
        with pytest.warns(KerasLowrankWarning, match="disk full.*in memory"):
            fit(small_model(), tracker, Freed(), epochs=5)
        assert tracker.recording.epochs == [0, 1, 2, 3, 4, 5]
        # Written late, but all of it and in order.
        assert open_run(tmp_path).history == tracker.history

    def test_tensorboard_in_the_run_directory_needs_one(self):
        with pytest.raises(ValueError, match="Give a `run_dir`"):
            RankTracker(every=1, tensorboard=True)


class TestSinks:
    @pytest.mark.parametrize("asynchronous", [False, True])
    def test_all_have_every_measurement_in_order(self, asynchronous):
        first, second = [], []
        tracker = RankTracker(
            every=1,
            sinks=[first.append, second.append],
            asynchronous=asynchronous,
        )
        fit(small_model(), tracker)
        assert first == second == tracker.recording.measurements
        assert [one.epoch for one in first] == [0, 1, 2, 3]

    def test_a_sink_that_fails_later_loses_nothing(self, tmp_path):
        got = []

        def full(measurement):
            if measurement.epoch in (1, 2):
                raise OSError("no space left")
            got.append(measurement.epoch)

        tracker = RankTracker(every=1, run_dir=tmp_path, sinks=[full])
        with pytest.warns(KerasLowrankWarning, match="'full' failed.*epoch 1"):
            fit(small_model(), tracker)
        assert got == [0, 3]
        assert open_run(tmp_path).epochs == [0, 1, 2, 3]

    def test_a_sink_that_fails_at_once_is_told_of(self, tmp_path):
        tracker = RankTracker(run_dir=tmp_path, sinks=[lambda: None])
        with pytest.raises(TypeError, match="positional argument"):
            fit(small_model(), tracker)
        assert open_run(tmp_path).epochs == [0]

    @pytest.mark.parametrize("sinks", [print, ["stdout"], "stdout", 3])
    def test_only_functions(self, sinks):
        with pytest.raises(TypeError, match="list of functions"):
            RankTracker(sinks=sinks)


class TestCitizenship:
    @pytest.mark.parametrize("jit_compile", [True, False])
    def test_jit_compile(self, jit_compile):
        if BACKEND == "torch" and jit_compile:
            pytest.skip("torch.compile needs a compiler at run time")
        model, tracker = (
            small_model(jit_compile=jit_compile),
            RankTracker(every=1),
        )
        fit(model, tracker)
        self.assert_up_to_date(model, tracker)

    def test_run_eagerly(self):
        model, tracker = small_model(run_eagerly=True), RankTracker(every=1)
        fit(model, tracker)
        self.assert_up_to_date(model, tracker)

    @pytest.mark.skipif(BACKEND == "torch", reason="Keras refuses it on torch")
    def test_steps_per_execution(self):
        model, tracker = (
            small_model(steps_per_execution=3),
            RankTracker(every=1),
        )
        fit(model, tracker)
        self.assert_up_to_date(model, tracker)
        assert tracker.recording.measurements[-1].step == 9

    def test_gradient_accumulation(self):
        optimizer = keras.optimizers.SGD(0.1, gradient_accumulation_steps=3)
        model, tracker = small_model(optimizer=optimizer), RankTracker(every=1)
        fit(model, tracker)
        self.assert_up_to_date(model, tracker)
        # Three batches to an update.
        assert tracker.recording.measurements[-1].step == 3

    @pytest.mark.parametrize(
        "policy", ["mixed_float16", "mixed_bfloat16", "bfloat16", "float64"]
    )
    def test_dtype_policies(self, policy):
        keras.config.set_dtype_policy(policy)
        try:
            model, tracker = small_model(), RankTracker(every=1)
            fit(model, tracker)
        finally:
            keras.config.set_dtype_policy("float32")
        self.assert_up_to_date(model, tracker)

    def test_validation_and_evaluate(self):
        model, tracker = small_model(), RankTracker(every=1)
        fit(model, tracker, validation_data=(X, Y))
        assert "val_loss" in tracker.recording.measurements[-1].logs
        before = tracker.history
        model.evaluate(X, Y, verbose=0, callbacks=[tracker])
        model.predict(X, verbose=0, callbacks=[tracker])
        assert tracker.history == before

    def test_evaluate_alone(self):
        model, tracker = small_model(), RankTracker(every=1)
        model.evaluate(X, Y, verbose=0, callbacks=[tracker])
        assert len(tracker.recording) == 0

    def test_two_fits_start_anew(self):
        model, tracker = small_model(), RankTracker(every=1)
        fit(model, tracker)
        fit(model, tracker, epochs=2)
        assert tracker.recording.epochs == [0, 1, 2]
        self.assert_up_to_date(model, tracker)

    def test_another_model(self):
        tracker = RankTracker(every=1)
        fit(small_model(), tracker)
        other = keras.Sequential([keras.layers.Dense(2, name="only")])
        other.compile("sgd", "mse")
        other.fit(X, X[:, :2], callbacks=[tracker], verbose=0)
        assert tracker.recording.weights == ["only/kernel"]

    def test_an_exception_in_fit(self, tmp_path):
        class Fail(keras.callbacks.Callback):
            def on_epoch_end(self, epoch, logs=None):
                if epoch == 1:
                    raise RuntimeError("on purpose")

        model, tracker = small_model(), RankTracker(every=1, run_dir=tmp_path)
        with pytest.raises(RuntimeError, match="on purpose"):
            fit(model, tracker, Fail())
        assert open_run(tmp_path).epochs == [0, 1, 2]
        assert tracker.recording.epochs == [0, 1, 2]
        fit(model, tracker, epochs=1)
        assert open_run(tmp_path).epochs == [0, 1]
        assert open_run(tmp_path, fit=1).epochs == [0, 1, 2]

    @pytest.mark.parametrize("when", ["before", "after"])
    @pytest.mark.parametrize(
        "duplicate",
        [copy.deepcopy, lambda tracker: pickle.loads(pickle.dumps(tracker))],
        ids=["deepcopy", "pickle"],
    )
    def test_copies(self, duplicate, when, tmp_path):
        model, tracker = small_model(), RankTracker(every=2, run_dir=tmp_path)
        if when == "after":
            fit(model, tracker)
        twin = duplicate(tracker)
        assert twin.history == tracker.history
        fit(model, twin, epochs=5)
        assert twin.recording.epochs == [0, 2, 4, 5]
        assert tracker.recording.epochs == (
            [0, 2, 3] if when == "after" else []
        )

    def test_an_unbuilt_model_is_built_by_fit(self):
        class Subclassed(keras.Model):
            def __init__(self):
                super().__init__()
                self.hidden = keras.layers.Dense(5)
                self.last = keras.layers.Dense(2)

            def call(self, inputs):
                return self.last(self.hidden(inputs))

        model, tracker = Subclassed(), RankTracker(every=1)
        model.compile("sgd", "mse")
        model.fit(X, X[:, :2], callbacks=[tracker], verbose=0, epochs=2)
        assert tracker.recording.epochs == [0, 1, 2]
        assert len(tracker.recording.weights) == 2

    @pytest.mark.parametrize("form", ["arrays", "dict", "generator"])
    def test_epoch_0_of_a_model_that_fit_builds(self, form):
        class Two(keras.Model):
            def __init__(self):
                super().__init__()
                self.hidden = keras.layers.Dense(5, name="hidden")
                self.drop = keras.layers.Dropout(0.5)
                self.last = keras.layers.Dense(2, name="last")

            def call(self, inputs, training=False):
                x = inputs["x"] if isinstance(inputs, dict) else inputs
                return self.last(self.drop(self.hidden(x), training=training))

        def batches():
            for start in itertools.cycle((0, 16, 32)):
                yield X[start : start + 16], Y[start : start + 16]

        data = {
            "arrays": {"x": X, "y": Y, "batch_size": 16},
            "dict": {"x": {"x": X}, "y": Y, "batch_size": 16},
            "generator": {"x": batches(), "steps_per_epoch": 3},
        }[form]
        keras.utils.set_random_seed(3)
        built = Two()
        built({"x": X[:1]} if form == "dict" else X[:1])
        expected = linalg.spectrum(built.hidden.kernel).values
        keras.utils.set_random_seed(3)
        model, tracker = Two(), RankTracker(every=1)
        model.compile(
            "sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        )
        history = model.fit(**data, callbacks=[tracker], verbose=0).history
        assert set(KEYS) < set(history)
        assert tracker.recording.epochs == [0, 1]
        first, last = tracker.recording.spectra("hidden/kernel").values()
        np.testing.assert_array_equal(first.values, expected)
        assert not np.array_equal(first.values, last.values)
        assert tracker.recording.measurements[-1].step == 3

    def test_a_model_that_cannot_be_built_in_time(self):
        model, tracker = small_model(), RankTracker(every=5)
        history = keras.callbacks.History()
        callbacks = keras.callbacks.CallbackList(
            [tracker, history], model=model
        )
        callbacks.on_train_begin()
        with pytest.warns(
            KerasLowrankWarning, match=r"'sequential.* not built"
        ):
            callbacks.on_epoch_begin(0)
        model.train_on_batch(X, Y)
        callbacks.on_epoch_end(0, {"loss": 1.0})
        callbacks.on_train_end()
        assert tracker.recording.epochs == [1]
        assert set(history.history) == {"loss", *KEYS}

    def test_a_model_without_matrices(self):
        model = keras.Sequential([keras.layers.BatchNormalization()])
        model.compile("sgd", "mse")
        with pytest.warns(
            KerasLowrankWarning, match="no weight matrix"
        ) as caught:
            history = model.fit(
                X, X, callbacks=[RankTracker(every=1)], verbose=0, epochs=2
            ).history
        ours = [w for w in caught if w.category is KerasLowrankWarning]
        assert len(ours) == 1
        assert all(math.isnan(value) for value in history["rank_mean"])

    @pytest.mark.parametrize("bad", [np.nan, np.inf])
    def test_non_finite_weights_do_not_stop_training(self, bad):
        class Spoil(keras.callbacks.Callback):
            def on_epoch_begin(self, epoch, logs=None):
                if epoch == 1:
                    kernel = self.model.layers[0].kernel
                    kernel.assign(np.full(kernel.shape, bad))

        tracker = RankTracker(every=1)
        model = small_model()
        with pytest.warns(KerasLowrankWarning, match="first/kernel") as caught:
            history = fit(model, tracker, Spoil(), epochs=4).history
        ours = [w for w in caught if w.category is KerasLowrankWarning]
        assert len(ours) == 1
        assert math.isnan(history["rank_mean"][-1])
        assert len(history["loss"]) == 4
        reason = tracker.recording.measurements[-1].records[0].spectrum.reason
        assert "of 48 entries" in reason

    def test_collapse_is_said(self):
        class Collapse(keras.callbacks.Callback):
            def on_epoch_begin(self, epoch, logs=None):
                for layer in self.model.layers:
                    layer.kernel.assign(np.zeros(layer.kernel.shape))

        optimizer = keras.optimizers.SGD(1e-12)
        tracker = RankTracker(every=1)
        model = small_model(optimizer=optimizer)
        with pytest.warns(KerasLowrankWarning, match="collapsed to zero"):
            # A learning rate this small leaves zeros where gradients vanish.
            fit(model, tracker, Collapse(), epochs=2)
        assert tracker.recording.measurements[-1].records[0].collapsed

    def test_weights_that_start_at_zero_are_no_collapse(self):
        model = keras.Sequential(
            [keras.layers.Dense(3, kernel_initializer="zeros")]
        )
        model.compile(keras.optimizers.SGD(0.0), "mse")
        tracker = RankTracker(every=1)
        model.fit(X, X[:, :3], callbacks=[tracker], verbose=0)
        assert tracker.history["rank_mean"] == [0.0, 0.0]

    def test_a_custom_loop(self):
        model, tracker = small_model(), RankTracker(every=1)
        model.build((None, 6))
        history = keras.callbacks.History()
        callbacks = keras.callbacks.CallbackList(
            [tracker, history], model=model
        )
        callbacks.on_train_begin()
        for epoch in range(2):
            callbacks.on_epoch_begin(epoch)
            model.train_on_batch(X, Y)
            callbacks.on_epoch_end(epoch, {"loss": 1.0})
        callbacks.on_train_end()
        assert tracker.recording.epochs == [0, 1, 2]
        assert set(history.history) == {"loss", *KEYS}

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"measures": "rnak"}, "Unknown measure 'rnak'"),
            ({"method": "fast"}, "method='fast'"),
            ({"workers": 0}, "workers=0"),
            ({"features": "seen"}, "features='seen'"),
        ],
    )
    def test_bad_arguments_fail_at_once(self, arguments, message):
        with pytest.raises(ValueError, match=message):
            RankTracker(**arguments)

    def test_weights_that_match_nothing(self):
        with pytest.raises(ValueError, match="first/kernel"):
            fit(small_model(), RankTracker(every=1, weights="no such layer"))

    def assert_up_to_date(self, model, tracker):
        last = tracker.recording.measurements[-1]
        for index, record in enumerate(last.records):
            expected = kernel_spectrum(model, index)
            np.testing.assert_array_equal(
                record.spectrum.values, expected.values
            )


def seeing_model():
    """A network that `fit` leaves as it is, with a layer that sees it."""
    block = keras.Sequential([FeatureRank(name="seen")], name="block")
    layers = [
        keras.layers.Dense(8, activation="relu", name="first"),
        block,
        keras.layers.Dense(2, name="second"),
    ]
    model = keras.Sequential([keras.Input((6,)), *layers])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(0.0), loss)
    return model


def seen_spectrum(model, x=X):
    kernel, bias = model.layers[0].get_weights()
    return linalg.spectrum(np.maximum(x @ kernel + bias, 0), method="svd")


NAME = "features/block/seen"


class TestFeatures:
    @pytest.mark.parametrize("validation", [None, (X[:9], Y[:9])])
    @pytest.mark.parametrize("every", [1, 2])
    def test_those_of_the_training_samples(self, validation, every):
        model = seeing_model()
        tracker = RankTracker(features=True, every=every)
        fit(model, tracker, epochs=3, validation_data=validation)
        spectra = tracker.recording.spectra(NAME)
        # None have passed before the first epoch.
        assert list(spectra) == tracker.recording.epochs[1:]
        wanted = seen_spectrum(model)
        for found in spectra.values():
            assert found.shape == (48, 8)
            np.testing.assert_allclose(
                found.values,
                wanted.values,
                rtol=1e-5,
                atol=1e-6 * wanted.values[0],
            )

    def test_they_are_in_no_mean_over_weights(self):
        model, tracker = seeing_model(), RankTracker(every=1, features=True)
        plain = RankTracker(every=1)
        history = fit(model, tracker, plain).history
        for key in KEYS:
            assert tracker.history[key] == plain.history[key]
        wanted = stable_rank(seen_spectrum(model))
        found = history["features_stable_rank_mean"]
        assert found == pytest.approx(3 * [wanted], rel=1e-5)
        measure = tracker.measures[0]
        assert list(tracker.recording.means(measure)) == list(
            plain.recording.means(measure)
        )
        assert tracker.recording.weights == plain.recording.weights
        assert tracker.recording.features == [NAME]

    def test_the_keys_are_there_from_the_first_epoch_on(self):
        tracker = RankTracker(features=True, every=lambda epoch: epoch == 3)
        history = fit(seeing_model(), tracker, epochs=4).history
        found = history["features_rank_mean"]
        assert np.isnan(found[:2]).all() and np.isfinite(found[2:]).all()

    def test_an_epoch_that_was_stopped(self):
        class Stop(keras.callbacks.Callback):
            def on_epoch_end(self, epoch, logs=None):
                self.model.stop_training = True

        model, tracker = seeing_model(), RankTracker(features=True, every=9)
        fit(model, tracker, Stop(), epochs=20, validation_data=(X[:9], Y[:9]))
        assert tracker.recording.epochs == [0, 1]
        assert tracker.recording.spectra(NAME)[1].shape == (48, 8)

    def test_a_second_fit_begins_without_them(self):
        model, tracker = seeing_model(), RankTracker(every=1, features=True)
        fit(model, tracker, epochs=1)
        model.evaluate(X[:9], Y[:9], callbacks=[tracker], verbose=0)
        fit(model, tracker, epochs=1)
        assert list(tracker.recording.spectra(NAME)) == [1]

    def test_rows_are_of_their_own_kind(self):
        tracker = RankTracker(every=1, features=True)
        fit(seeing_model(), tracker, epochs=1)
        rows = tracker.recording.rows("energy_rank")
        assert [(row["kind"], row["weight"]) for row in rows] == [
            *2 * [("weight", "first/kernel"), ("weight", "second/kernel")],
            ("features", NAME),
        ]
        assert rows[-1]["rows"] == 48 and rows[-1]["energy_rank"] > 1
        history = tracker.history[f"rank/{NAME}"]
        assert history[0] is None and history[1] > 1
        text = []
        tracker.summary(print_fn=text.append, line_length=120)
        assert f"{NAME}" in text[0] and "48 x 8" in text[0]

    def test_in_the_store_and_for_tensorboard(self, tmp_path):
        tracker = RankTracker(
            every=1, features=True, run_dir=tmp_path, tensorboard=True
        )
        model = seeing_model()
        fit(model, tracker, epochs=2)
        recording = open_run(tmp_path)
        assert recording.rows() == tracker.recording.rows()
        (file,) = tmp_path.glob("events*")
        for tag in (
            f"rank/{NAME}",
            "features_rank_mean",
            f"spectrum_log10/{NAME}",
        ):
            assert tag.encode() in file.read_bytes()
        # A fit that goes on without them, and with another measure.
        again = RankTracker("energy_rank", every=1, run_dir=tmp_path)
        fit(model, again, epochs=3, initial_epoch=2)
        recording = open_run(tmp_path)
        assert list(recording.spectra(NAME)) == [1, 2]
        for row in recording.rows():
            assert row["energy_rank"] > 0
        tracker = pickle.loads(pickle.dumps(copy.deepcopy(tracker)))
        assert tracker.recording.features == [NAME]

    def test_a_store_without_them_is_that_of_older_versions(self, tmp_path):
        fit(seeing_model(), RankTracker(every=1, run_dir=tmp_path), epochs=1)
        path = tmp_path / "records.sqlite"
        with contextlib.closing(sqlite3.connect(path)) as connection:
            names = {
                name
                for (name,) in connection.execute(
                    "SELECT name FROM sqlite_master WHERE type = 'table'"
                )
            }
        assert names == {"fits", "measurements", "spectra"}
        assert open_run(tmp_path).features == []
        # It may be gone on with, and then has them.
        tracker = RankTracker(every=1, run_dir=tmp_path, features=True)
        fit(seeing_model(), tracker, epochs=2, initial_epoch=1)
        assert list(open_run(tmp_path).spectra(NAME)) == [2]

    def test_a_model_without_such_a_layer(self):
        tracker = RankTracker(every=1, features=True)
        with pytest.warns(KerasLowrankWarning, match="has no `FeatureRank`"):
            history = fit(small_model(), tracker, epochs=1).history
        assert np.isnan(history["features_rank_mean"]).all()

    def test_features_that_are_not_finite_are_said(self):
        model, tracker = seeing_model(), RankTracker(every=1, features=True)
        bad = X.copy()
        bad[3, 2] = np.inf
        message = r"Features that are not finite after epoch 1: 'features/block"
        # Their gradients spoil the weights, of which is told as well.
        with (
            pytest.warns(KerasLowrankWarning, match="Weights that are not"),
            pytest.warns(KerasLowrankWarning, match=message),
        ):
            model.fit(bad, Y, verbose=0, callbacks=[tracker])
        record = tracker.recording.measurements[-1].features[0]
        assert math.isnan(record.values["rank"])
