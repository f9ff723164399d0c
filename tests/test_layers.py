"""Low-rank layers: what the full layers do, with fewer weights."""

import copy

import keras
import numpy as np
import pytest
from keras import layers
from keras import ops

import keras_lowrank as kl
from keras_lowrank.layers import LowRankConv1D
from keras_lowrank.layers import LowRankConv2D
from keras_lowrank.layers import LowRankDense
from keras_lowrank.layers import LowRankEinsumDense
from keras_lowrank.layers import LowRankEmbedding

BACKEND = keras.backend.backend()


def einsum(equation, output_shape, bias_axes=None):
    return lambda: layers.EinsumDense(
        equation, output_shape, bias_axes=bias_axes
    )


# Name: the low-rank layer, the full one, an input shape, options.
CASES = {
    "dense": (LowRankDense, lambda: layers.Dense(6, "relu"), (3, 10), {}),
    "dense of sequences": (
        LowRankDense,
        lambda: layers.Dense(6),
        (3, 4, 9),
        {},
    ),
    "embedding": (
        LowRankEmbedding,
        lambda: layers.Embedding(20, 6),
        (3, 4),
        {},
    ),
    "conv1d causal": (
        LowRankConv1D,
        lambda: layers.Conv1D(5, 3, padding="causal", dilation_rate=2),
        (2, 9, 4),
        {},
    ),
    "einsum heads": (
        LowRankEinsumDense,
        einsum("abc,cde->abde", (None, 3, 4), "de"),
        (2, 5, 6),
        {},
    ),
    "einsum output": (
        LowRankEinsumDense,
        einsum("abcd,cde->abe", (None, 4), "e"),
        (2, 5, 3, 6),
        {},
    ),
    "einsum ellipsis": (
        LowRankEinsumDense,
        einsum("...x,xy->...y", 7, "y"),
        (2, 5, 6),
        {},
    ),
    "einsum ellipsis behind": (
        LowRankEinsumDense,
        einsum("ab...,bc->ac...", 7),
        (2, 5, 6),
        {},
    ),
    "einsum blocks": (
        LowRankEinsumDense,
        einsum("abc,bcd->abd", (5, 4), "d"),
        (3, 5, 6),
        {},
    ),
    "einsum rank letter taken": (
        LowRankEinsumDense,
        einsum("abr,rs->abs", (None, 4), "s"),
        (3, 5, 6),
        {},
    ),
}
for scheme in ("channel", "spatial"):
    for name, options in {
        "plain": {},
        "strides": {"strides": 2, "padding": "same"},
        "oblong strides": {"strides": (1, 2)},
        "dilated": {"dilation_rate": (2, 1), "activation": "tanh"},
        "no bias": {"use_bias": False, "padding": "same"},
    }.items():
        CASES[f"conv2d {scheme} {name}"] = (
            LowRankConv2D,
            lambda options=options: layers.Conv2D(5, (3, 2), **options),
            (2, 9, 8, 3),
            {"scheme": scheme},
        )


def inputs(shape, low_rank):
    rng = np.random.default_rng(0)
    if low_rank is LowRankEmbedding:
        return rng.integers(0, 20, shape)
    return rng.normal(size=shape).astype("float32")


def filled(full, x):
    """A layer built for `x`, with random weights."""
    full(x)
    rng = np.random.default_rng(1)
    for variable in full.weights:
        variable.assign(0.3 * rng.normal(size=variable.shape))
    return full


def full_rank(low_rank, full, options):
    probe = low_rank.from_layer(full, 1, **options)
    how = probe.factorization(probe.kernel_shape)
    shape = how.matrix(np.zeros(probe.kernel_shape)).shape
    return min(shape[-2:])


@pytest.mark.parametrize("case", CASES)
class TestEveryLayer:
    def make(self, case):
        low_rank, make, shape, options = CASES[case]
        x = inputs(shape, low_rank)
        return low_rank, filled(make(), x), x, options

    def test_full_rank_is_the_full_layer(self, case):
        low_rank, full, x, options = self.make(case)
        rank = full_rank(low_rank, full, options)
        factored = low_rank.from_layer(full, rank, **options)
        expected = ops.convert_to_numpy(full(x))
        actual = ops.convert_to_numpy(factored(x))
        assert actual.shape == expected.shape
        error = np.abs(actual - expected).max() / np.abs(expected).max()
        assert error < 1e-5
        shape = factored.compute_output_shape(x.shape)
        assert tuple(shape) == tuple(full.compute_output_shape(x.shape))
        with pytest.raises(ValueError, match=rf"rank={rank + 1} for layer|"):
            low_rank.from_layer(full, rank + 1, **options)

    def test_truncation_error_is_that_of_the_discarded_values(self, case):
        low_rank, full, _, options = self.make(case)
        rank = max(1, full_rank(low_rank, full, options) // 2)
        factored = low_rank.from_layer(full, rank, **options)
        kernel = ops.convert_to_numpy(getattr(full, low_rank.kernel_name))
        matrix = factored.factorization(kernel.shape).matrix(kernel)
        values = np.linalg.svd(matrix.astype("float64"), compute_uv=False)
        expected = np.linalg.norm(values[..., rank:])
        actual = np.linalg.norm(ops.convert_to_numpy(factored.kernel) - kernel)
        assert actual == pytest.approx(expected, rel=1e-5)

    def test_measured_as_the_product(self, case):
        low_rank, full, _, options = self.make(case)
        rank = max(1, full_rank(low_rank, full, options) // 2)
        factored = low_rank.from_layer(full, rank, **options)
        kernel = getattr(full, low_rank.kernel_name)
        kernel.assign(ops.convert_to_numpy(factored.kernel))
        expected = kl.weight_matrices(full)
        actual = kl.weight_matrices(factored)
        assert actual.names == expected.names
        for one, other in zip(actual, expected, strict=True):
            assert one.matrix_shape == other.matrix_shape
            assert one.shape == other.shape
            values = one.spectrum().values
            assert len(values) <= min(one.matrix_shape)
            reference = other.spectrum("svd").values
            np.testing.assert_allclose(
                values, reference[: len(values)], atol=1e-6 * reference[0]
            )
            np.testing.assert_allclose(
                one.to_numpy(), other.to_numpy(), atol=1e-6
            )
        reasons = [weight.reason for weight in actual.skipped]
        name = low_rank.kernel_name
        assert f"factor of `{name}`, measured as a product" in reasons

    def test_config_and_file(self, case, tmp_path):
        low_rank, full, x, options = self.make(case)
        factored = low_rank.from_layer(full, 2, **options)
        assert factored.name == full.name
        dtype = "int32" if low_rank is LowRankEmbedding else None
        model = keras.Sequential(
            [keras.Input(x.shape[1:], dtype=dtype), factored]
        )
        expected = model.predict(x, verbose=0)
        model.save(tmp_path / "model.keras")
        loaded = keras.models.load_model(tmp_path / "model.keras")
        np.testing.assert_array_equal(loaded.predict(x, verbose=0), expected)
        assert loaded.layers[0].get_config() == factored.get_config()

    def test_trains_from_scratch(self, case):
        low_rank, full, x, options = self.make(case)
        config = low_rank.from_layer(full, 2, **options).get_config()
        layer = low_rank.from_config(config)
        dtype = "int32" if low_rank is LowRankEmbedding else None
        model = keras.Sequential([keras.Input(x.shape[1:], dtype=dtype), layer])
        model.compile(keras.optimizers.SGD(0.1), "mse")
        before = [ops.convert_to_numpy(w) for w in model.trainable_weights]
        y = np.zeros_like(model.predict(x, verbose=0)) + 1
        history = model.fit(x, y, epochs=5, verbose=0).history["loss"]
        assert history[-1] < history[0]
        for old, variable in zip(before, model.trainable_weights, strict=True):
            assert np.any(old != ops.convert_to_numpy(variable)), variable.path


@pytest.mark.parametrize("case", ["dense", "conv2d spatial plain", "embedding"])
def test_spectral_initialization_is_the_best_of_a_full_draw(case):
    low_rank, make, shape, options = CASES[case]
    full = make()
    name = f"{low_rank.kernel_name}_initializer"
    config = full.get_config() | {name: keras.initializers.HeNormal(seed=3)}
    full = type(full).from_config(config)
    full.build(shape)
    expected = low_rank.from_layer(full, 2, **options)
    config = expected.get_config() | {name: keras.initializers.HeNormal(seed=3)}
    layer = low_rank.from_config(config)
    layer.build(shape)
    for one, other in zip(layer.weights, expected.weights, strict=True):
        np.testing.assert_allclose(
            ops.convert_to_numpy(one), ops.convert_to_numpy(other), atol=1e-6
        )
    kernels = [w for w in layer.weights if w.name == "kernel"]
    norms = [np.linalg.norm(ops.convert_to_numpy(w)) for w in kernels]
    assert max(norms) == pytest.approx(min(norms), rel=1e-5)


def test_fans_of_an_einsum_are_those_of_keras():
    def initializer():
        return keras.initializers.GlorotUniform(seed=1)

    equation, shape = "abcd,cde->abe", (None, 5)
    full = layers.EinsumDense(equation, shape, kernel_initializer=initializer())
    full.build((2, 5, 3, 6))
    layer = LowRankEinsumDense(
        equation, shape, rank=5, kernel_initializer=initializer()
    )
    layer.build((2, 5, 3, 6))
    np.testing.assert_allclose(
        ops.convert_to_numpy(layer.kernel),
        ops.convert_to_numpy(full.kernel),
        atol=1e-6,
    )


class TestRegularizers:
    @pytest.mark.parametrize(
        "case", ["dense", "conv2d spatial plain", "einsum blocks"]
    )
    def test_l2_is_that_of_the_product(self, case):
        low_rank, make, shape, options = CASES[case]
        full = filled(make(), inputs(shape, low_rank))
        full.kernel.regularizer = full.kernel_regularizer = None
        config = full.get_config() | {
            "kernel_regularizer": keras.regularizers.L2(0.1)
        }
        twin = type(full).from_config(config)
        twin.build(shape)
        twin.set_weights(full.get_weights())
        layer = low_rank.from_layer(twin, 2, **options)
        kernel = ops.convert_to_numpy(layer.kernel)
        expected = 0.1 * np.sum(np.square(kernel))
        # Once for each variable, however often the layer is called.
        assert len(layer.losses) == 1
        actual = ops.convert_to_numpy(layer.losses[0])
        assert actual == pytest.approx(expected, rel=1e-5)

    def test_others_see_the_product(self):
        layer = LowRankDense(4, 2, kernel_regularizer=Largest(0.5))
        layer.build((None, 5))
        expected = 0.5 * np.abs(ops.convert_to_numpy(layer.kernel)).max()
        actual = ops.convert_to_numpy(layer.losses[0])
        assert actual == pytest.approx(expected)

    def test_shrinks_the_product_in_fit(self):
        layer = LowRankDense(
            4, 2, use_bias=False, kernel_regularizer=keras.regularizers.L2(0.1)
        )
        model = keras.Sequential([keras.Input((5,)), layer])
        model.compile(keras.optimizers.SGD(0.5), "mse")
        before = ops.convert_to_numpy(layer.kernel)
        x = np.zeros((4, 5), "float32")
        model.fit(x, np.zeros((4, 4)), epochs=1, verbose=0)
        left = ops.convert_to_numpy(layer.reduce.kernel)
        after = ops.convert_to_numpy(layer.kernel)
        assert np.linalg.norm(after) < np.linalg.norm(before)
        assert np.isfinite(left).all()


@keras.saving.register_keras_serializable(package="tests")
class Largest(keras.Regularizer):
    def __init__(self, rate):
        self.rate = rate

    def __call__(self, x):
        return self.rate * ops.max(ops.abs(x))

    def get_config(self):
        return {"rate": self.rate}


class TestKerasFeatures:
    def model(self):
        return keras.Sequential(
            [
                keras.Input((32,)),
                LowRankDense(64, 8, "relu", name="hidden"),
                LowRankDense(3, 2, name="head"),
            ]
        )

    @pytest.mark.parametrize("mode", ["int8", "int4", "float8"])
    def test_quantization_acts_on_the_factors_and_is_saved(
        self, mode, tmp_path
    ):
        model = self.model()
        x = inputs((8, 32), LowRankDense)
        plain = model.predict(x, verbose=0)
        model.quantize(mode)
        quantized = model.predict(x, verbose=0)
        assert 0 < np.abs(quantized - plain).max() < 0.3 * np.abs(plain).max()
        model.save(tmp_path / "quantized.keras")
        loaded = keras.models.load_model(tmp_path / "quantized.keras")
        np.testing.assert_array_equal(loaded.predict(x, verbose=0), quantized)
        matrices = kl.weight_matrices(loaded)
        assert matrices.names == ["hidden/kernel", "head/kernel"]
        assert matrices[0].note == f"rank 8 {mode}"
        assert np.isfinite(matrices[0].spectrum().values).all()

    def test_lora_trains_the_factors_and_keeps_the_rank(self, tmp_path):
        model = self.model()
        model.compile("sgd", "mse")
        model.get_layer("hidden").enable_lora(2)
        model.get_layer("head").trainable = False
        assert len(model.trainable_weights) == 5
        x = inputs((8, 32), LowRankDense)
        before = model.predict(x, verbose=0)
        model.fit(x, np.ones((8, 3)), epochs=2, verbose=0)
        after = model.predict(x, verbose=0)
        assert np.abs(after - before).max() > 1e-4
        matrix = kl.weight_matrices(model)["hidden/kernel"]
        assert matrix.note == "rank 8 with LoRA"
        assert kl.numerical_rank(matrix.spectrum()) == 8
        model.save(tmp_path / "lora.keras")
        loaded = keras.models.load_model(tmp_path / "lora.keras")
        np.testing.assert_allclose(
            loaded.predict(x, verbose=0), after, atol=1e-6
        )
        assert loaded.get_layer("hidden").lora_enabled

    def test_lora_of_the_rank_itself_is_refused(self):
        model = self.model()
        with pytest.raises(ValueError, match="rank=8 for layer 'hidden'"):
            model.get_layer("hidden").enable_lora(8)

    @pytest.mark.parametrize(
        "policy", ["mixed_float16", "mixed_bfloat16", "bfloat16", "float64"]
    )
    def test_dtype_policies(self, policy):
        layer = LowRankDense(6, 2, dtype=policy)
        out = layer(np.ones((2, 5), "float32"))
        policy = keras.dtype_policies.get(policy)
        if BACKEND == "jax" and policy.name == "float64":
            return  # float32 there, unless x64 is on, as in all of Keras
        dtype = keras.backend.standardize_dtype(out.dtype)
        assert dtype == policy.compute_dtype
        stored = keras.backend.standardize_dtype(layer.weights[0].dtype)
        assert stored == policy.variable_dtype

    def test_masks_pass(self):
        tokens = np.array([[1, 2, 0], [3, 0, 0]])
        table = LowRankEmbedding(9, 4, 2, mask_zero=True)
        dense = LowRankDense(5, 2)
        recurrent = layers.GRU(3)
        masked = recurrent(dense(table(tokens)))
        by_hand = recurrent(dense(table(tokens)), mask=tokens != 0)
        np.testing.assert_allclose(
            ops.convert_to_numpy(masked), ops.convert_to_numpy(by_hand)
        )

    def test_built_by_the_first_step_of_a_subclassed_model(self):
        class Model(keras.Model):
            def __init__(self):
                super().__init__()
                self.hidden = LowRankDense(16, 4, "relu")
                self.head = LowRankDense(3, 2)

            def call(self, x):
                return self.head(self.hidden(x))

        model = Model()
        model.compile("sgd", "mse")
        model.fit(np.ones((8, 10)), np.ones((8, 3)), epochs=1, verbose=0)
        assert kl.weight_matrices(model).names == [
            "low_rank_dense/kernel",
            "low_rank_dense_1/kernel",
        ]

    def test_copies(self):
        model = self.model()
        x = inputs((8, 32), LowRankDense)
        clone = keras.models.clone_model(model)
        clone.set_weights(model.get_weights())
        expected = model.predict(x, verbose=0)
        np.testing.assert_allclose(
            clone.predict(x, verbose=0), expected, atol=1e-6
        )
        np.testing.assert_allclose(
            copy.deepcopy(model).predict(x, verbose=0), expected, atol=1e-6
        )

    def test_tracker_and_report(self):
        model = self.model()
        model.compile(keras.optimizers.SGD(0.1), "mse")
        tracker = kl.RankTracker(every=1)
        x = inputs((8, 32), LowRankDense)
        model.fit(x, np.ones((8, 3)), epochs=1, verbose=0, callbacks=[tracker])
        assert tracker.history["rank/hidden/kernel"] == [8, 8]
        row = kl.rank_report(model)["hidden/kernel"]
        assert row["matrix_shape"] == (32, 64)
        assert row["note"] == "rank 8"

    def test_heads_one_by_one(self):
        layer = LowRankEinsumDense("abc,cde->abde", (None, 3, 4), rank=2)
        layer.build((2, 5, 6))
        matrices = kl.weight_matrices(layer, views={"heads": "split"})
        assert matrices.names == [f"kernel[head_{i}]" for i in range(3)]
        kernel = ops.convert_to_numpy(layer.kernel)
        np.testing.assert_allclose(
            matrices[1].to_numpy(), kernel[:, 1], atol=1e-6
        )


class TestErrors:
    @pytest.mark.parametrize("rank", [0, 2.5, True, "4"], ids=repr)
    def test_rank(self, rank):
        with pytest.raises(ValueError, match=f"Received: rank={rank!r}"):
            LowRankDense(4, rank)

    def test_rank_above_the_matrix(self):
        layer = LowRankDense(4, 5, name="wide")
        with pytest.raises(
            ValueError, match=r"rank=5 for layer 'wide'.*\(10, 4\).*rank=4"
        ):
            layer.build((None, 10))

    def test_scheme(self):
        with pytest.raises(ValueError, match="scheme='spatial'"):
            LowRankConv1D(4, 3, 2, scheme="spatial")

    @pytest.mark.parametrize("equation", ["ab,b->ab", "abc,bd->ad"])
    def test_equations_without_a_matrix(self, equation):
        with pytest.raises(ValueError, match=f"equation='{equation}'"):
            LowRankEinsumDense(equation, (4,), 2)

    def test_from_another_layer(self):
        layer = layers.Conv2D(3, 3)
        with pytest.raises(TypeError, match="which is a Conv2D"):
            LowRankDense.from_layer(layer, 2)

    def test_from_a_layer_without_weights(self):
        with pytest.raises(ValueError, match="not built: call it"):
            LowRankDense.from_layer(layers.Dense(3), 2)

    def test_from_a_quantized_layer(self):
        layer = layers.Dense(4)
        layer.build((None, 8))
        layer.quantize("int8")
        with pytest.raises(ValueError, match="quantized to int8: factor it"):
            LowRankDense.from_layer(layer, 2)

    def test_from_groups_and_constraints(self):
        layer = layers.Conv2D(4, 3, groups=2)
        layer.build((None, 8, 8, 4))
        with pytest.raises(ValueError, match="has groups"):
            LowRankConv2D.from_layer(layer, 2)
        layer = layers.Dense(4, kernel_constraint="non_neg")
        layer.build((None, 8))
        with pytest.raises(ValueError, match="kernel constraint"):
            LowRankDense.from_layer(layer, 2)


def test_lora_is_merged_first():
    full = layers.Dense(6)
    full.build((None, 8))
    full.enable_lora(2)
    full.lora_kernel_b.assign(np.ones((2, 6)))
    layer = LowRankDense.from_layer(full, 6)
    x = inputs((3, 8), LowRankDense)
    np.testing.assert_allclose(
        ops.convert_to_numpy(layer(x)), ops.convert_to_numpy(full(x)), atol=1e-5
    )
    assert not layer.lora_enabled


def test_second_moments_of_the_inputs():
    rng = np.random.default_rng(0)
    x = (rng.normal(size=(200, 8)) * np.geomspace(0.01, 3, 8)).astype("float32")
    full = filled(layers.Dense(6), x)
    errors = [
        np.linalg.norm(
            ops.convert_to_numpy(
                LowRankDense.from_layer(full, 3, moment)(x) - full(x)
            )
        )
        for moment in (None, x.T @ x / len(x))
    ]
    assert errors[1] < 0.8 * errors[0]
