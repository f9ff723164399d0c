import copy
import pickle

import keras
import numpy as np
import pytest
from keras import layers

from keras_lowrank import TheoryTracker
from keras_lowrank import TorchSGD
from keras_lowrank import WeightDecay
from keras_lowrank import distance_to_rank
from keras_lowrank import epsilon_rank
from keras_lowrank import weight_matrices
from keras_lowrank.experiments import Batches
from keras_lowrank.experiments.models import SeededUniform
from keras_lowrank.theory import memory

SAMPLES = 40


def dense(units, fan_in, seed, **options):
    start = SeededUniform(fan_in**-0.5, (seed,))
    return layers.Dense(units, kernel_initializer=start, **options)


def make_model():
    return keras.Sequential(
        [
            keras.Input((24,)),
            dense(40, 24, 1, activation="relu", name="first"),
            dense(30, 40, 2, activation="relu", name="second"),
            dense(3, 30, 3, name="last"),
        ]
    )


def make_data():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(SAMPLES, 24)).astype("float32")
    return x, np.tanh(x @ rng.normal(size=(24, 3))).astype("float32")


def fit(optimizer, tracker, model=None, callbacks=(), **options):
    model = model or make_model()
    if not model.compiled:
        model.compile(optimizer, "mse")
    x, y = make_data()
    settings = {"batch_size": 2, "epochs": 2, "verbose": 0, "shuffle": False}
    settings |= options
    history = model.fit(x, y, callbacks=[tracker, *callbacks], **settings)
    return model, history


class Witness(keras.callbacks.Callback):
    """The weights after every step, and the velocity that goes with them."""

    def on_train_begin(self, logs=None):
        self.states = []

    def on_train_batch_end(self, batch, logs=None):
        model = self.model
        kernel = model.get_layer("second").kernel
        optimizer = model.optimizer
        optimizer = getattr(optimizer, "inner_optimizer", optimizer)
        slots = getattr(optimizer, "velocities", None)
        slots = slots or getattr(optimizer, "momentums", [])
        weights = keras.ops.convert_to_numpy(kernel).astype(np.float64)
        velocity = np.zeros_like(weights)
        if slots:
            slot = slots[optimizer._get_variable_index(kernel)]
            velocity = keras.ops.convert_to_numpy(slot).astype(np.float64)
        self.states.append((weights, velocity))


DECAY = 0.4
OPTIMIZERS = {
    "plain": (
        lambda rate: WeightDecay(DECAY, convention="torch").wrap(
            keras.optimizers.SGD(rate)
        ),
        {},
    ),
    "keras_own": (
        lambda rate: keras.optimizers.SGD(rate, weight_decay=DECAY),
        {},
    ),
    "torch": (
        lambda rate: WeightDecay(DECAY, convention="torch").wrap(
            TorchSGD(rate, momentum=0.5)
        ),
        {"momentum": 0.5, "kind": "torch"},
    ),
    "torch_decoupled": (
        lambda rate: WeightDecay(DECAY).wrap(TorchSGD(rate, momentum=0.5)),
        {"momentum": 0.5, "kind": "torch_decoupled"},
    ),
    "keras_coupled": (
        lambda rate: WeightDecay(DECAY / 2, convention="l2").wrap(
            keras.optimizers.SGD(rate, momentum=0.5, nesterov=True)
        ),
        {"momentum": 0.5, "kind": "keras_coupled", "nesterov": True},
    ),
    "keras_decoupled": (
        lambda rate: keras.optimizers.SGD(
            rate, momentum=0.5, weight_decay=DECAY
        ),
        {"momentum": 0.5, "kind": "keras_decoupled"},
    ),
}


class TestWindow:
    @pytest.mark.parametrize("name", OPTIMIZERS)
    def test_it_is_that_of_the_weights_step_by_step(self, name):
        make, settings = OPTIMIZERS[name]
        schedule = keras.optimizers.schedules.PiecewiseConstantDecay(
            [29, 35], [0.1, 0.05, 0.02]
        )
        tracker, witness = TheoryTracker(0.5), Witness()
        fit(make(schedule), tracker, callbacks=[witness])
        window = tracker.windows["second/kernel"]
        # 30 columns, batches of 2: fourteen steps leave rank to exclude.
        assert window.back.tolist() == list(range(15))
        rates = [0.1] * 30 + [0.05] * 6 + [0.02] * 4
        p, q = memory(rates, DECAY, **settings)
        states = witness.states[::-1]
        past = [
            np.linalg.norm(p[n] * states[n][0] + q[n] * states[n][1])
            for n in range(15)
        ]
        np.testing.assert_allclose(
            window.remainders, np.array(past) / past[0], rtol=2e-5
        )
        assert window.budgets.tolist() == [2 * n for n in range(15)]

    def test_the_lemma(self):
        make, _ = OPTIMIZERS["plain"]
        tracker = TheoryTracker(0.9)
        model, _ = fit(make(0.1), tracker, epochs=4)
        for matrix in weight_matrices(model, weights="first|second"):
            window = tracker.windows[matrix.name]
            spectrum = matrix.spectrum()
            for remainder, budget in zip(
                window.remainders, window.budgets, strict=True
            ):
                distance = distance_to_rank(spectrum, int(budget))
                assert distance <= remainder * (1 + 1e-5)

    def test_across_epochs_and_with_every_step_written(self):
        """A memory longer than an epoch."""
        make, settings = OPTIMIZERS["torch"]
        tracker, witness = TheoryTracker(0.5), Witness()
        fit(
            make(0.1),
            tracker,
            callbacks=[witness],
            batch_size=1,
            epochs=3,
            steps_per_epoch=12,
        )
        window = tracker.windows["second/kernel"]
        assert window.back.max() == 29
        p, q = memory([0.1] * 29, DECAY, **settings)
        states = witness.states[::-1]
        past = [
            np.linalg.norm(p[n] * states[n][0] + q[n] * states[n][1])
            for n in range(30)
        ]
        np.testing.assert_allclose(
            window.remainders, np.array(past) / past[0], rtol=2e-5
        )

    def test_a_schedule_of_the_decay(self):
        def rate(step):
            return keras.ops.where(step < 30, 0.4, 0.1)

        optimizer = WeightDecay(rate, convention="torch").wrap(
            keras.optimizers.SGD(0.1)
        )
        tracker, witness = TheoryTracker(0.5), Witness()
        fit(optimizer, tracker, callbacks=[witness])
        left = np.cumprod([0.99] * 10 + [0.96] * 4)
        norms = [np.linalg.norm(w) for w, _ in witness.states[::-1]]
        expected = [1.0] + [
            left[n - 1] * norms[n] / norms[0] for n in range(1, 15)
        ]
        window = tracker.windows["second/kernel"]
        np.testing.assert_allclose(window.remainders, expected, rtol=2e-5)

    def test_gradient_accumulation(self):
        optimizer = WeightDecay(DECAY, convention="torch").wrap(
            keras.optimizers.SGD(0.1, gradient_accumulation_steps=2)
        )
        tracker = TheoryTracker(0.5)
        fit(optimizer, tracker, batch_size=1)
        window = tracker.windows["second/kernel"]
        assert window.budgets.tolist() == [2 * n for n in range(15)]
        assert window.remainders[0] == 1
        assert len(set(window.remainders.round(6))) == 15

    def test_a_data_set_that_says_its_batch_size(self):
        make, _ = OPTIMIZERS["plain"]
        model = make_model()
        model.compile(make(0.1), "mse")
        tracker = TheoryTracker(0.5)
        batches = Batches(*make_data(), batch_size=2)
        batches.fit(model, [tracker], verbose=0)
        assert tracker.windows["second/kernel"].back.max() == 14


def fit_to_certify():
    """A network of which one matrix is certified, and a convolution is not."""
    model = keras.Sequential(
        [
            keras.Input((6, 4)),
            layers.Conv1D(5, 2, name="conv"),
            layers.Flatten(),
            dense(24, 25, 1, name="only"),
        ]
    )
    rng = np.random.default_rng(0)
    x = rng.normal(size=(60, 6, 4)).astype("float32")
    y = rng.normal(size=(60, 24)).astype("float32") * 30
    optimizer = WeightDecay(8.0, convention="torch").wrap(
        keras.optimizers.SGD(0.02)
    )
    model.compile(optimizer, "mse")
    tracker = TheoryTracker(0.5)
    model.fit(x, y, batch_size=1, epochs=2, verbose=0, callbacks=[tracker])
    return model, tracker


class TestTable:
    def test_a_certificate_that_holds(self):
        optimizer = WeightDecay(8.0, convention="torch").wrap(
            keras.optimizers.SGD(0.05)
        )
        model = keras.Sequential(
            [keras.Input((24,)), dense(60, 24, 1, name="only")]
        )
        rng = np.random.default_rng(0)
        x = rng.normal(size=(60, 24)).astype("float32")
        y = rng.normal(size=(60, 60)).astype("float32") * 30
        model.compile(optimizer, "mse")
        tracker = TheoryTracker(0.5)
        history = model.fit(
            x, y, batch_size=1, epochs=2, verbose=0, callbacks=[tracker]
        )
        (row,) = tracker.table().rows
        assert row["certified"] < row["full"] == 24
        assert row["measured"] <= row["certified"]
        assert "holds, by the last" in row["verdict"]
        matrix = weight_matrices(model)["only/kernel"]
        assert row["measured"] == epsilon_rank(matrix.spectrum(), 0.5)
        logs = history.history["certified_rank_mean"]
        assert logs[-1] == row["certified"]
        assert [item["epoch"] for item in tracker.history] == [1, 2]
        text = tracker.table().render(line_length=150)
        assert "Certified" in text and "epsilon_rank(tolerance=0.5)" in text

    @pytest.mark.parametrize(
        "optimizer, verdict",
        [
            (lambda: "adam", "updates of Adam are not of the gradients' rank"),
            (lambda: keras.optimizers.SGD(0.1), "it does not decay"),
            (
                lambda: keras.optimizers.SGD(
                    0.1, weight_decay=0.1, clipvalue=1.0
                ),
                "`clipvalue` changes the rank",
            ),
            (
                lambda: keras.optimizers.SGD(
                    0.1, weight_decay=0.1, use_ema=True
                ),
                "`use_ema` overwrites",
            ),
            (
                lambda: keras.optimizers.SGD(1e-4, weight_decay=1e-4),
                "the decay is lost in rounding",
            ),
            (
                lambda: keras.optimizers.SGD(0.01, weight_decay=0.01),
                "too much of the past is left",
            ),
        ],
        ids=["adam", "none", "clip", "ema", "rounding", "past"],
    )
    def test_vacuous_and_why(self, optimizer, verdict):
        tracker = TheoryTracker(0.1)
        fit(optimizer(), tracker)
        rows = {row["weight"]: row for row in tracker.table().rows}
        row = rows["second/kernel"]
        assert row["certified"] == row["full"] == 30
        assert row["verdict"].startswith("vacuous: ")
        assert verdict in row["verdict"]

    def test_convolutions_are_vacuous_and_cost_nothing(self):
        model = keras.Sequential(
            [
                keras.Input((8, 8, 3)),
                layers.Conv2D(16, 3, name="conv"),
                layers.GlobalAveragePooling2D(),
            ]
        )
        model.compile(keras.optimizers.SGD(0.1, weight_decay=0.1), "mse")
        count = len(model.optimizer.variables)
        tracker = TheoryTracker(0.1)

        class Count(keras.callbacks.Callback):
            def on_epoch_end(self, epoch, logs=None):
                self.count = len(self.model.optimizer.variables)

        counting = Count()
        model.optimizer.build(model.trainable_variables)
        count = len(model.optimizer.variables)
        model.fit(
            np.ones((8, 8, 8, 3)),
            np.ones((8, 16)),
            batch_size=4,
            verbose=0,
            callbacks=[tracker, counting],
        )
        assert counting.count == count
        (row,) = tracker.table().rows
        assert row["uses"] == 36
        assert "one step may have any rank" in row["verdict"]

    def test_frozen_weights(self):
        model = make_model()
        model.get_layer("first").trainable = False
        tracker = TheoryTracker(0.5)
        fit(keras.optimizers.SGD(0.1, weight_decay=0.1), tracker, model)
        rows = {row["weight"]: row for row in tracker.table().rows}
        assert rows["first/kernel"]["verdict"] == "vacuous: it is not trained"
        assert set(tracker.windows) == {"second/kernel", "last/kernel"}

    def test_a_norm_that_is_lost(self):
        """Its square is below the least float32."""
        model = make_model()
        kernel = model.get_layer("second").kernel
        kernel.assign(1e-30 * np.ones(kernel.shape))
        model.get_layer("last").kernel.assign(np.zeros((30, 3)))
        model.get_layer("last").trainable = False
        tracker = TheoryTracker(0.1)
        fit(keras.optimizers.SGD(0.1, weight_decay=0.1), tracker, model)
        rows = {row["weight"]: row for row in tracker.table().rows}
        verdict = rows["second/kernel"]["verdict"]
        assert verdict.startswith("vacuous: its norm is too small")

    def test_stopped_by_a_callback_that_comes_after(self):
        class Stop(keras.callbacks.Callback):
            def on_epoch_end(self, epoch, logs=None):
                self.model.stop_training = True

        tracker = TheoryTracker(0.5)
        model, _ = fit(
            OPTIMIZERS["plain"][0](0.1), tracker, callbacks=[Stop()], epochs=9
        )
        assert {item["epoch"] for item in tracker.history} == {1}
        matrices = weight_matrices(model)
        measured = [row["measured"] for row in tracker.table().rows]
        assert measured == [epsilon_rank(m.spectrum(), 0.5) for m in matrices]

    def test_a_matrix_that_is_nan(self):
        tracker, model = TheoryTracker(), make_model()
        kernel = model.get_layer("second").kernel
        kernel.assign(kernel * np.nan)
        fit(OPTIMIZERS["plain"][0](0.1), tracker, model, epochs=1)
        verdict = tracker.table().rows[1]["verdict"]
        assert verdict.startswith("vacuous: its norm is too small")


class TestPlot:
    def test_the_table_as_a_picture(self, tmp_path):
        _, tracker = fit_to_certify()
        conv, only = tracker.table().rows
        assert conv["vacuous"] and not only["vacuous"]
        figure = tracker.plot()
        (axes,) = figure.axes
        names = [tick.get_text() for tick in axes.get_yticklabels()]
        assert names == ["conv/kernel", "only/kernel"]
        drawn = {line.get_label(): line for line in axes.get_lines()}
        assert drawn["vacuous: nothing certified"].get_ydata() == [0]
        certified = drawn["certified"]
        assert certified.get_ydata() == [1]
        assert certified.get_xdata() == [only["certified"] / 24]
        figure.savefig(tmp_path / "certificates.png")
        assert (tmp_path / "certificates.png").stat().st_size > 10_000

    def test_the_lemma_on_one_matrix(self):
        model, tracker = fit_to_certify()
        spectrum = weight_matrices(model)["only/kernel"].spectrum()
        np.testing.assert_array_equal(
            tracker.spectra["only/kernel"].values, spectrum.values
        )
        (axes,) = tracker.plot("only/kernel").axes
        drawn = {line.get_label(): line for line in axes.get_lines()}
        bound = drawn["bound of Lemma 3.2"]
        window = tracker.windows["only/kernel"]
        assert bound.get_xdata().tolist() == window.budgets.tolist()
        measured = drawn["measured distance"]
        above = dict(zip(*bound.get_data(), strict=True))
        for rank, distance in zip(*measured.get_data(), strict=True):
            assert distance <= above.get(rank, 1.0) * (1 + 1e-5)
        rank = tracker.table().rows[1]["certified"]
        assert f"certified rank {rank}" in drawn

    def test_a_matrix_without_a_window(self):
        _, tracker = fit_to_certify()
        (axes,) = tracker.plot("conv/kernel").axes
        labels = [line.get_label() for line in axes.get_lines()]
        assert "vacuous: nothing certified" in labels
        assert "bound of Lemma 3.2" not in labels

    def test_before_fit(self):
        with pytest.raises(ValueError, match=r"nothing to draw.*Give it to"):
            TheoryTracker().plot()

    def test_an_unknown_name(self):
        _, tracker = fit_to_certify()
        with pytest.raises(ValueError, match=r"'only'.*Names: .*only/kernel"):
            tracker.plot("only")


class TestCitizenship:
    def optimizer(self):
        return OPTIMIZERS["torch"][0](0.1)

    def test_the_optimizer_is_left_as_it_was(self):
        model = make_model()
        model.compile(self.optimizer(), "mse")
        model.optimizer.build(model.trainable_variables)
        before = [v.path for v in model.optimizer.variables]
        fit(None, TheoryTracker(0.5), model)
        assert [v.path for v in model.optimizer.variables] == before
        inner = model.optimizer.inner_optimizer
        assert "apply" not in vars(inner)
        assert "save_own_variables" not in vars(inner)
        fit(None, keras.callbacks.Callback(), model)

    def test_it_changes_nothing_of_the_training(self):
        states = []
        for callback in (TheoryTracker(0.5), keras.callbacks.Callback()):
            model, _ = fit(self.optimizer(), callback)
            states.append(model.get_weights())
        for one, two in zip(*states, strict=True):
            np.testing.assert_allclose(one, two, rtol=1e-5, atol=1e-7)

    def test_again_and_after_an_interruption(self):
        model = make_model()
        model.compile(self.optimizer(), "mse")

        class Interrupt(keras.callbacks.Callback):
            def on_epoch_end(self, epoch, logs=None):
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            fit(None, TheoryTracker(0.5), model, [Interrupt()])
        tracker, witness = TheoryTracker(0.5), Witness()
        fit(None, tracker, model, [witness])
        window = tracker.windows["second/kernel"]
        assert window.back.max() == 14
        norms = [np.linalg.norm(weights) for weights, _ in witness.states]
        assert norms[-1] == pytest.approx(
            np.linalg.norm(weight_matrices(model)["second/kernel"].to_numpy())
        )
        assert len(model.optimizer.variables) == len(
            {v.path for v in model.optimizer.variables}
        )

    def test_a_checkpoint_made_meanwhile_is_an_ordinary_one(self, tmp_path):
        path = tmp_path / "model.keras"

        class Save(keras.callbacks.Callback):
            def on_epoch_end(self, epoch, logs=None):
                self.model.save(path)

        model, _ = fit(self.optimizer(), TheoryTracker(0.5), callbacks=[Save()])
        loaded = keras.saving.load_model(path)
        ours, theirs = (
            [keras.ops.convert_to_numpy(v) for v in m.optimizer.variables]
            for m in (model, loaded)
        )
        assert len(ours) == len(theirs)
        for one, two in zip(ours, theirs, strict=True):
            np.testing.assert_array_equal(one, two)

    def test_asynchronous_dispatch_stays_on(self):
        """A hook for batches would switch it off."""
        hooks = ("on_train_batch_end", "on_batch_end", "on_train_batch_begin")
        for hook in hooks:
            ours = getattr(TheoryTracker, hook)
            assert ours is getattr(keras.callbacks.Callback, hook)

    def test_copies(self):
        tracker = TheoryTracker(0.5)
        fit(self.optimizer(), tracker)
        for twin in (
            copy.deepcopy(tracker),
            pickle.loads(pickle.dumps(tracker)),
        ):
            assert repr(twin.history) == repr(tracker.history)
            assert twin.table().render() == tracker.table().render()

    def test_mixed_float16(self):
        before = keras.config.dtype_policy()
        keras.config.set_dtype_policy("mixed_float16")
        try:
            tracker = TheoryTracker(0.5)
            fit(OPTIMIZERS["plain"][0](0.1), tracker)
        finally:
            keras.config.set_dtype_policy(before)
        assert tracker.windows["second/kernel"].back.max() == 14

    def test_what_it_cannot_know_it_says(self):
        model = make_model()
        model.compile(self.optimizer(), "mse")
        x, y = make_data()

        def batches():
            yield from ((x[i : i + 2], y[i : i + 2]) for i in range(0, 40, 2))

        tracker = TheoryTracker(0.5)
        with pytest.warns(match="does not know the batch size"):
            model.fit(batches(), verbose=0, callbacks=[tracker])
        assert "batch size is not known" in tracker.table().rows[0]["verdict"]

    @pytest.mark.parametrize("tolerance", [0, 1, -0.1])
    def test_tolerance(self, tolerance):
        with pytest.raises(ValueError, match=f"Received: .*{tolerance}"):
            TheoryTracker(tolerance)
