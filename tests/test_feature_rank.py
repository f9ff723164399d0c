"""FeatureRank against NumPy on the features all together."""

import copy
import functools
import math
import pickle

import keras
import numpy as np
import pytest

from keras_lowrank import FeatureRank
from keras_lowrank import Spectrum
from keras_lowrank import as_measures
from keras_lowrank import linalg
from keras_lowrank import numerical_rank
from keras_lowrank import rank_report
from keras_lowrank import weight_matrices
from keras_lowrank.layers import moments

BACKEND = keras.backend.backend()
MEASURES = ("effective_rank", "stable_rank", "energy_rank")
X = np.random.default_rng(0).normal(size=(60, 6)).astype("float32")
Y = X[:, :1]


def expected(features, centered=False, measures=MEASURES):
    """Measures of the matrix of all features, by a float64 SVD."""
    matrix = np.asarray(features, float).reshape(-1, np.shape(features)[-1])
    if centered:
        matrix = matrix - np.mean(matrix, axis=0)
    values = np.linalg.svd(matrix, compute_uv=False)
    # A float64 SVD does not give exact zeros.
    spectrum = Spectrum(
        np.where(values > 1e-9 * values[0], values, 0), matrix.shape
    )
    return [measure(spectrum) for measure in as_measures(measures)]


def values(layer):
    return list(layer.result().values())


def make_model(measures=MEASURES, rate=0.0, **compile_arguments):
    """A network that `fit` leaves as it is, so that features are known."""
    keras.utils.set_random_seed(3)
    model = keras.Sequential(
        [
            keras.Input((6,)),
            keras.layers.Dense(8, activation="relu", name="first"),
            FeatureRank(measures, name="seen"),
            keras.layers.Dense(1, name="last"),
        ]
    )
    model.compile(keras.optimizers.SGD(rate), "mse", **compile_arguments)
    return model


def features(model, x):
    kernel, bias = model.get_layer("first").get_weights()
    return np.maximum(x @ kernel + bias, 0)


def batches(kind):
    """Twenty batches of features of one kind."""
    rng = np.random.default_rng(1)
    mixing = rng.normal(size=(4, 12))
    for _ in range(20):
        batch = rng.normal(size=(30, 12))
        if kind == "dead units":
            batch[:, ::2] = 0.0
        elif kind == "low rank":
            # Whole numbers, or float32 would give them a full rank.
            batch = np.round(8 * batch[:, :4]) @ np.round(8 * mixing)
        elif kind == "large mean":
            batch += 1000.0
        elif kind == "tiny":
            batch *= 1e-12
        yield batch.astype("float32")


class TestAgainstNumPy:
    @pytest.mark.parametrize("centered", [False, True])
    @pytest.mark.parametrize(
        "kind", ["plain", "dead units", "low rank", "large mean", "tiny"]
    )
    def test_one_pass_is_as_good_as_all_at_once(self, kind, centered):
        layer = FeatureRank(centered=centered)
        for batch in batches(kind):
            layer(batch)
        whole = np.concatenate(list(batches(kind)))
        assert values(layer) == pytest.approx(
            expected(whole, centered), rel=1e-6
        )
        assert layer.spectrum().shape == whole.shape

    def test_many_small_steps_do_not_blur(self):
        # In float32 sums the small value would be off by a tenth.
        layer = FeatureRank(measures="effective_rank")
        batch = np.diag([1.0, 1e-3]).astype("float32") + np.float32(0.1)
        for _ in range(300):
            layer(batch)
        found = layer.spectrum().values
        batch = batch.astype(float)
        wanted = math.sqrt(300) * np.linalg.svd(batch, compute_uv=False)
        np.testing.assert_allclose(found, wanted, rtol=1e-9)

    def test_more_samples_than_float32_can_count(self):
        layer = FeatureRank()
        layer(X[:1])
        count = layer.moments.variables[2]
        zero = np.zeros(count.shape)
        zero[(0,) * zero.ndim] = 2.0**24
        count.assign(zero)
        layer(X[:1])
        assert layer.moments.samples == 2**24 + 1

    def test_features_of_half_precision_are_summed_in_double(self):
        layer = FeatureRank()
        half = (300 * X).astype("float16")  # whose squares are not finite
        layer(half)
        assert values(layer) == pytest.approx(expected(half), rel=1e-6)

    def test_fewer_samples_than_features(self):
        layer = FeatureRank()
        layer(X[:2])
        assert layer.spectrum().values.shape == (2,)
        assert values(layer) == pytest.approx(expected(X[:2]), rel=1e-6)

    def test_one_sample_has_rank_one(self):
        layer = FeatureRank()
        layer(X[:1])
        assert values(layer) == [1.0, 1.0, 1.0]

    @pytest.mark.parametrize("centered", [False, True])
    def test_features_that_are_all_zero_have_rank_0(self, centered):
        layer = FeatureRank(centered=centered)
        layer(np.zeros((5, 3)))
        assert values(layer) == [0.0, 0.0, 0.0]

    def test_features_that_are_all_equal_vary_in_no_direction(self):
        layer = FeatureRank(centered=True)
        for count in (3, 7, 11):
            layer(np.tile(X[:1] / 3, (count, 1)))
        assert values(layer) == [0.0, 0.0, 0.0]

    @pytest.mark.parametrize("bad", [np.nan, np.inf])
    def test_features_that_are_not_finite_are_nan_until_the_reset(self, bad):
        layer = FeatureRank()
        layer(np.full((2, 3), bad, "float32"))
        assert np.isnan(values(layer)).all()
        assert "NaN, infinite" in layer.spectrum().reason
        layer.reset_state()
        layer(np.eye(3))
        assert values(layer)[0] == pytest.approx(3.0)

    def test_nothing_seen_is_not_rank_0(self):
        layer = FeatureRank()
        assert layer.spectrum() is None and np.isnan(values(layer)).all()
        layer(X)
        layer.reset_state()
        assert layer.spectrum() is None and np.isnan(values(layer)).all()


class TestShapes:
    def test_all_axes_but_the_last_are_samples(self):
        maps = np.random.default_rng(2).normal(size=(3, 4, 5, 6))
        layer = FeatureRank()
        layer(maps)
        assert layer.moments.samples == 60
        assert values(layer) == pytest.approx(expected(maps), rel=1e-6)
        first = FeatureRank(axis=1)
        first(np.moveaxis(maps, -1, 1))
        assert values(first) == pytest.approx(values(layer), rel=1e-9)

    def test_the_state_does_not_grow(self):
        layer = FeatureRank()
        for count in (2, 200):
            layer(np.ones((count, 3)))
            assert sum(np.prod(one.shape) for one in layer.variables) in (
                13,
                moments.PARTS * 13,
            )

    def test_padding_does_not_count(self):
        sequences = np.random.default_rng(2).normal(size=(4, 5, 3))
        mask = np.arange(5) < np.array([[1], [5], [0], [3]])
        sequences[~mask] = np.nan
        layer = FeatureRank()
        out = layer(sequences, mask=mask)
        assert out.shape == (4, 5, 3)
        assert layer.moments.samples == 9
        assert values(layer) == pytest.approx(
            expected(sequences[mask]), rel=1e-6
        )

    def test_a_mask_of_whole_samples(self):
        maps = np.random.default_rng(2).normal(size=(4, 2, 2, 3))
        mask = np.array([True, False, True, True])
        layer = FeatureRank()
        layer(maps, mask=mask)
        assert layer.moments.samples == 12
        assert values(layer) == pytest.approx(expected(maps[mask]), rel=1e-6)

    def test_the_mask_of_an_embedding_arrives_and_goes_on(self):
        model = keras.Sequential(
            [
                keras.Input((5,), dtype="int32"),
                keras.layers.Embedding(9, 4, mask_zero=True),
                FeatureRank(name="seen"),
                keras.layers.LSTM(2),
            ]
        )
        model.compile("sgd", "mse")
        tokens = np.random.default_rng(0).integers(0, 9, size=(8, 5))
        model.fit(tokens, np.zeros((8, 2)), verbose=0)
        assert model.get_layer("seen").moments.samples == np.sum(tokens > 0)
        without = keras.Sequential([model.layers[0], model.layers[2]])
        np.testing.assert_allclose(
            model.predict(tokens, verbose=0),
            without.predict(tokens, verbose=0),
            rtol=1e-6,
        )

    def test_a_mask_of_another_shape(self):
        layer = FeatureRank(name="seen")
        message = r"`mask` must .* shape \(2, 4\) for samples of shape \(2, 3\)"
        with pytest.raises(ValueError, match=message):
            layer(np.ones((2, 3, 5)), mask=np.ones((2, 4), bool))

    @pytest.mark.parametrize(
        ("shape", "axis"), [((None,), -1), ((None, 3), 0), ((None, 3), 2)]
    )
    def test_inputs_without_samples_or_features(self, shape, axis):
        message = rf"features on axis {axis}. Received: input_shape=\(None"
        with pytest.raises(ValueError, match=message):
            FeatureRank(axis=axis).build(shape)

    def test_features_of_unknown_length(self):
        message = (
            r"input_shape=\(None, 7, None\) for layer 'seen', where axis -1"
        )
        with pytest.raises(ValueError, match=message):
            FeatureRank(name="seen").build((None, 7, None))

    def test_features_of_another_length(self):
        layer = FeatureRank(name="seen")
        layer(np.ones((2, 3)))
        with pytest.raises(ValueError, match="expected axis -1"):
            layer(np.ones((2, 6)))


class TestIdentity:
    @pytest.mark.parametrize(
        "dtype", ["float16", "bfloat16", "float32", "int32", "bool"]
    )
    @pytest.mark.parametrize("policy", ["float32", "mixed_float16"])
    def test_the_dtype_stays(self, dtype, policy):
        layer = FeatureRank(dtype=policy)
        inputs = keras.ops.cast(np.eye(3), dtype)
        outputs = layer(inputs)
        assert keras.backend.standardize_dtype(outputs.dtype) == dtype
        assert values(layer)[0] == pytest.approx(3.0)
        symbol = FeatureRank()(keras.Input((3,), dtype=dtype))
        assert symbol.dtype == dtype

    def test_training_goes_as_without_it(self):
        weights = []
        for with_it in (True, False):
            model = make_model(rate=0.1)
            if not with_it:
                layers = [model.layers[0], model.layers[2]]
                model = keras.Sequential([keras.Input((6,)), *layers])
                model.compile(keras.optimizers.SGD(0.1), "mse")
            model.fit(X, Y, epochs=2, shuffle=False, verbose=0)
            weights.append(model.get_weights())
        for one, other in zip(*weights, strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-6, atol=1e-7)

    def test_it_has_no_weights_and_is_no_matrix(self):
        model = make_model()
        layer = model.get_layer("seen")
        assert layer.weights == [] and layer.count_params() == 0
        names = [matrix.name for matrix in weight_matrices(model)]
        assert names == ["first/kernel", "last/kernel"]
        assert len(rank_report(model).measured) == 2


SETTINGS = {
    "plain": {},
    "eager": {"run_eagerly": True},
    "not compiled": {"jit_compile": False},
}
if BACKEND != "torch":  # which allows one step, and compiles for minutes
    SETTINGS |= {
        "several steps": {"steps_per_execution": 4},
        "compiled": {"jit_compile": True},
    }


class TestAsMetrics:
    @pytest.mark.parametrize("setting", SETTINGS)
    def test_training_and_validation_do_not_mix(self, setting):
        model = make_model(**SETTINGS[setting])
        history = model.fit(
            X[:48],
            Y[:48],
            batch_size=7,
            epochs=2,
            validation_data=(X[48:], Y[48:]),
            verbose=0,
        ).history
        for prefix, x in (("", X[:48]), ("val_", X[48:])):
            wanted = expected(features(model, x))
            for measure, value in zip(MEASURES, wanted, strict=True):
                found = history[f"{prefix}seen_{measure}"]
                assert found == pytest.approx(2 * [value], rel=1e-6)

    def test_evaluate(self):
        model = make_model()
        model.fit(X, Y, verbose=0)
        found = model.evaluate(X[:9], Y[:9], return_dict=True, verbose=0)
        wanted = expected(features(model, X[:9]))
        for measure, value in zip(MEASURES, wanted, strict=True):
            assert found[f"seen_{measure}"] == pytest.approx(value, rel=1e-6)
        names = model.metrics_names
        assert names == ["loss", *(f"seen_{measure}" for measure in MEASURES)]
        in_order = [found[name] for name in names]
        assert model.evaluate(X[:9], Y[:9], verbose=0) == in_order

    def test_a_step_costs_no_eigenvalues(self, monkeypatch):
        calls = []
        compute = linalg.gram_spectrum

        def counted(*arguments):
            calls.append(arguments)
            return compute(*arguments)

        monkeypatch.setattr(linalg, "gram_spectrum", counted)
        model = make_model(run_eagerly=True)
        model.fit(
            X, Y, batch_size=6, epochs=2, validation_data=(X, Y), verbose=0
        )
        assert len(calls) == 4  # one for each epoch and each evaluation

    def test_within_a_step_they_are_nan(self):
        class Steps(keras.callbacks.Callback):
            seen = []

            def on_train_batch_end(self, batch, logs=None):
                self.seen.append(logs["seen_effective_rank"])

        steps, model = Steps(), make_model()
        model.fit(X, Y, batch_size=20, callbacks=[steps], verbose=0)
        assert len(steps.seen) == 3 and np.isnan(steps.seen).all()
        found = model.train_on_batch(X, Y, return_dict=True)
        assert math.isnan(found["seen_stable_rank"])
        layer = model.get_layer("seen")
        wanted = expected(features(model, X))
        assert values(layer) == pytest.approx(wanted, rel=1e-6)
        model.test_on_batch(X[:9], Y[:9])
        wanted = expected(features(model, X[:9]))
        assert values(layer) == pytest.approx(wanted, rel=1e-6)
        found = model.get_metrics_result()["seen_effective_rank"]
        assert float(found) == pytest.approx(wanted[0], rel=1e-6)

    def test_metrics_of_ones_own_making(self):
        class Own(keras.Sequential):
            def compute_metrics(self, *arguments, **options):
                # As Keras' guides write it: metrics one by one.
                super().compute_metrics(*arguments, **options)
                return {metric.name: metric.result() for metric in self.metrics}

        model = Own(make_model().layers)
        model.compile("sgd", "mse")
        found = model.evaluate(X, Y, return_dict=True, verbose=0)
        wanted = expected(features(model, X))[0]
        assert found["seen_effective_rank"] == pytest.approx(wanted, rel=1e-6)

    def test_early_stopping_sees_them(self):
        model = make_model()
        stop = keras.callbacks.EarlyStopping("val_seen_stable_rank", mode="max")
        history = model.fit(
            X, Y, epochs=9, validation_split=0.5, callbacks=[stop], verbose=0
        )
        assert len(history.epoch) == 2

    def test_the_reset_of_the_metric_is_that_of_the_layer(self):
        layer = FeatureRank()
        layer(X)
        layer.metrics[1].reset_state()
        assert layer.moments.samples == 0
        layer(X[:9])
        found = [float(metric.result()) for metric in layer.metrics]
        assert found == pytest.approx(expected(X[:9]), rel=1e-6)

    def test_gradient_accumulation(self):
        model = make_model()
        optimizer = keras.optimizers.SGD(0.0, gradient_accumulation_steps=2)
        model.compile(optimizer, "mse")
        model.fit(X, Y, batch_size=10, epochs=2, verbose=0)
        assert model.get_layer("seen").moments.samples == 60

    @pytest.mark.parametrize("whole", [True, False])
    def test_frozen_it_measures_on(self, whole):
        model = make_model()
        (model if whole else model.get_layer("seen")).trainable = False
        model.compile("sgd", "mse")
        found = model.evaluate(X, Y, return_dict=True, verbose=0)
        wanted = expected(features(model, X))[0]
        assert found["seen_effective_rank"] == pytest.approx(wanted, rel=1e-6)


class TestWhatCounts:
    def test_not_predict(self):
        model = make_model()
        model.fit(X, Y, verbose=0)
        layer = model.get_layer("seen")
        before = values(layer)
        model.predict(X, verbose=0)
        model.predict_on_batch(X[:3])
        assert values(layer) == before and layer.moments.samples == 60

    def test_not_export(self, tmp_path):
        model = make_model()
        model.fit(X, Y, verbose=0)
        form = "torch" if BACKEND == "torch" else "tf_saved_model"
        path = tmp_path / ("model.pt2" if BACKEND == "torch" else "model")
        model.export(path, format=form, verbose=False)
        assert model.get_layer("seen").moments.samples == 60

    def test_calls_by_hand(self):
        model = make_model()
        for training in (None, True, False):
            model(X[:5], training=training)
        assert model.get_layer("seen").moments.samples == 15

    def test_not_symbols(self):
        layer = FeatureRank()
        layer(keras.Input((6,)))
        assert layer.moments.samples == 0

    def test_every_call_of_a_shared_layer(self):
        shared = FeatureRank(name="shared")
        inputs = keras.Input((6,))
        first = shared(inputs)
        outputs = shared(keras.layers.Dense(6)(first))
        model = keras.Model(inputs, outputs)
        model.compile(keras.optimizers.SGD(0.0), "mse")
        model.fit(X, X, epochs=2, verbose=0)
        both = np.concatenate([X, model.predict(X, verbose=0)])
        assert shared.moments.samples == 120
        assert values(shared) == pytest.approx(expected(both), rel=1e-6)

    def test_at_any_depth(self):
        class Block(keras.layers.Layer):
            def __init__(self):
                super().__init__()
                self.seen = FeatureRank(name="deep")

            def call(self, x):
                return self.seen(x)

        inner = keras.Sequential([FeatureRank(name="inner"), Block()])
        model = keras.Sequential([inner, keras.layers.Dense(1)])
        model.compile("sgd", "mse")
        history = model.fit(X, Y, epochs=2, verbose=0).history
        wanted = expected(X)[0]
        for name in ("inner", "deep"):
            found = history[f"{name}_effective_rank"]
            assert found == pytest.approx(2 * [wanted], rel=1e-6)

    def test_a_call_without_state(self):
        model = make_model()
        layer = model.get_layer("seen")
        state = [one.value for one in model.non_trainable_variables]
        for _ in range(2):
            _, state = model.stateless_call(
                [one.value for one in model.trainable_variables], state, X
            )
        assert layer.moments.samples == 0
        pairs = zip(model.non_trainable_variables, state, strict=True)
        for variable, value in pairs:
            variable.assign(value)
        wanted = expected(features(model, X))
        assert layer.moments.samples == 120
        assert values(layer) == pytest.approx(wanted, rel=1e-6)


@keras.saving.register_keras_serializable(package="tests")
def largest(spectrum, times=1):
    return times * spectrum.values[0]


class TestSaving:
    measures = {
        "five_percent": functools.partial(numerical_rank, tolerance=0.05),
        "largest": functools.partial(largest, times=2),
        "stable_rank": "stable_rank",
    }

    def test_keras_file(self, tmp_path):
        model = make_model(self.measures)
        model.fit(X, Y, verbose=0)
        model.save(tmp_path / "model.keras")
        loaded = keras.saving.load_model(
            tmp_path / "model.keras", safe_mode=True
        )
        layer = loaded.get_layer("seen")
        assert layer.measures == model.get_layer("seen").measures
        assert layer.moments.samples == 0
        found = loaded.evaluate(X, Y, return_dict=True, verbose=0)
        assert found == model.evaluate(X, Y, return_dict=True, verbose=0)
        assert found["seen_largest"] == pytest.approx(
            2 * np.linalg.norm(features(model, X), 2), rel=1e-6
        )

    def test_weights_go_into_a_model_that_has_seen_other_features(
        self, tmp_path
    ):
        model, other = make_model(rate=0.1), make_model()
        model.fit(X, Y, verbose=0)
        model.save_weights(tmp_path / "model.weights.h5")
        other.evaluate(X[:9], Y[:9], verbose=0)
        other.load_weights(tmp_path / "model.weights.h5")
        assert other.get_layer("seen").moments.samples == 9
        for one, two in zip(
            model.get_weights(), other.get_weights(), strict=True
        ):
            np.testing.assert_array_equal(one, two)

    @pytest.mark.parametrize(
        "how",
        [
            keras.models.clone_model,
            copy.deepcopy,
            lambda model: pickle.loads(pickle.dumps(model)),
        ],
        ids=["clone", "deepcopy", "pickle"],
    )
    def test_a_copy_counts_for_itself(self, how):
        model = make_model()
        model.fit(X, Y, verbose=0)
        twin = how(model)
        twin.compile("sgd", "mse")
        twin.evaluate(X[:9], Y[:9], verbose=0)
        assert twin.get_layer("seen").moments.samples == 9
        assert model.get_layer("seen").moments.samples == 60

    def test_config(self):
        layer = FeatureRank("rank", centered=True, axis=1, name="seen")
        config = layer.get_config()
        assert config["measures"] == ["rank"]
        twin = FeatureRank.from_config(config)
        assert twin.get_config() == config

    def test_unknown_measure(self):
        with pytest.raises(ValueError, match="Unknown measure 'rnak'"):
            FeatureRank("rnak")
