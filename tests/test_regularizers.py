"""Spectral regularizers: values, gradients, and where they are taken.

Gradients are compared with closed forms in NumPy, so that they are the same
on every backend.
"""

import functools
import json
import math

import keras
import numpy as np
import pytest
from keras import layers
from keras import ops

import keras_lowrank as kl
from keras_lowrank import linalg
from keras_lowrank import regularizers
from tests.autodiff import all_values_and_gradients
from tests.autodiff import float64
from tests.autodiff import value_and_gradients
from tests.planted import planted

BACKEND = keras.backend.backend()
JITTED = BACKEND != "torch"


# What each is by the singular values `s` of a matrix, and its derivatives.
def nuclear(s):
    return s.sum(), np.ones_like(s)


def schatten(p):
    def value_and_slope(s):
        norm = np.sum(s[s > 0] ** p) ** (1 / p)
        root = np.where(s > 0, s, 1.0)
        return norm, (root / (norm or 1.0)) ** (p - 1)

    return value_and_slope


def spectral(s):
    top = s > s[0] * (1 - 1e-6)
    return s[0], top / top.sum()


def stable(s):
    top = spectral(s)[1]
    value = np.sum(s**2) / s[0] ** 2
    return value, 2 * s / s[0] ** 2 - 2 * value / s[0] * top


def effective(s):
    p = s / s.sum()
    logarithm = np.log(np.where(p > 0, p, 1.0))
    value = np.exp(-np.sum(p * logarithm))
    return value, -value / s.sum() * (logarithm + np.sum(-p * logarithm))


def log_det(s):
    return np.sum(np.log1p((s / 0.5) ** 2)), 2 * s / (0.25 + s**2)


def participation(s):
    second, fourth = np.sum(s**2), np.sum(s**4)
    slope = 4 * s * second / fourth - 4 * s**3 * (second / fourth) ** 2
    return second**2 / fourth, slope


def squared(s):
    return np.sum(s**2), 2 * s


# Name: the regularizer with its options, and the closed form.
FAMILY = {
    "NuclearNorm": (kl.NuclearNorm, {}, nuclear),
    "SchattenNorm-0.5": (kl.SchattenNorm, {"p": 0.5}, schatten(0.5)),
    "SchattenNorm-2": (kl.SchattenNorm, {"p": 2}, schatten(2)),
    "SchattenNorm-3": (kl.SchattenNorm, {"p": 3}, schatten(3)),
    "SpectralNorm": (kl.SpectralNorm, {}, spectral),
    "StableRank": (kl.StableRank, {}, stable),
    "EffectiveRank": (kl.EffectiveRank, {}, effective),
    "LogDet": (kl.LogDet, {"epsilon": 0.5}, log_det),
    "MeasurePenalty": (
        kl.MeasurePenalty,
        {"measure": "participation_ratio"},
        participation,
    ),
}
BY_PRODUCTS = [
    name
    for name in FAMILY
    if name not in ("SchattenNorm-0.5", "EffectiveRank", "MeasurePenalty")
]
EVERY = {
    **FAMILY,
    "SquaredFrobeniusNorm": (kl.SquaredFrobeniusNorm, {}, squared),
}

STARTS = {
    "generic": np.array([2.0, 1.6, 1.1, 0.7, 0.3]),
    "identity": np.ones(5),
    "repeated": np.array([2.0, 2.0, 1.0, 1.0, 0.5]),
    "repeated deficient": np.array([2.0, 2.0, 0.5, 0.0, 0.0]),
    "rank two": np.array([2.0, 0.5, 0.0, 0.0, 0.0]),
    "rank one": np.array([3.0, 0.0, 0.0, 0.0, 0.0]),
    "vanishing": np.array([1.0, 0.5, 1e-2, 1e-8, 1e-20]),
    "tiny": 1e-18 * np.array([2.0, 2.0, 1.0, 0.5, 0.0]),
    "long tail": np.array([1.0, 1e-3, 2.1e-6, 1.3e-6, 5e-7]),
    "zero": np.zeros(5),
}


@functools.cache  # so that JAX compiles each once
def make(name, strength=0.5, **options):
    regularizer, parameters, _ = EVERY[name]
    return regularizer(strength, **parameters, **options)


def start(name, shape=(5, 7)):
    if name == "identity":
        return np.eye(*shape, dtype="float32")
    return planted(STARTS[name], shape).astype("float32")


def expected(name, matrix, strength=0.5):
    """The penalty and its gradient, where small values count for nothing."""
    left, s, right = np.linalg.svd(matrix.astype(float), full_matrices=False)
    there = s > 1e-6 * s[0]
    if not there.any():
        return 0.0, np.zeros(matrix.shape)
    value, slope = EVERY[name][2](np.where(there, s, 0.0))
    return strength * value, strength * (left * slope * there) @ right


def check(name, matrix, value, gradient, tolerance=3e-6):
    """Compare a penalty and its gradient with the closed form."""
    wanted, slope = expected(name, matrix)
    assert value == pytest.approx(wanted, rel=1e-5)
    assert np.isfinite(gradient).all()
    # Of a measure that scaling does not change, most cancels.
    least = wanted / max(np.linalg.norm(matrix), 1e-30)
    close(gradient, slope, tolerance, least)


def check_one(penalty, name, matrix, tolerance=3e-6, **options):
    value, (gradient,) = value_and_gradients(penalty, matrix, **options)
    check(name, matrix, value, gradient, tolerance)


@functools.cache
def penalties(names, method):
    return [
        make(name, **({"method": method} if name in FAMILY else {}))
        for name in names
    ]


def gradients_of_all(names, *arrays, method="auto", product=False):
    """Values and gradients, compiled once for each shape."""
    functions = [
        penalty.of_product if product else penalty
        for penalty in penalties(tuple(names), method)
    ]
    found = all_values_and_gradients(functions, *arrays)
    return dict(zip(names, found, strict=True))


@functools.cache
def in_case(case, method="auto"):
    """The matrix of a case, and what every regularizer says of it."""
    names = BY_PRODUCTS if method == "newton_schulz" else EVERY
    tall = method == "newton_schulz" or "repeated" in case
    shape = (7, 5) if tall else (5, 7)
    matrix = start(case, shape)
    return matrix, gradients_of_all(names, matrix, method=method)


@functools.cache
def finite_differences():
    """Gradients in float64 along a direction, and differences of values."""
    matrix = planted(STARTS["generic"], (5, 7), seed=3)
    step = np.random.default_rng(0).normal(size=matrix.shape)
    with float64():
        here, above, below = (
            gradients_of_all(EVERY, matrix + size * step)
            for size in (0.0, 1e-6, -1e-6)
        )
    return {
        name: (
            value,
            np.sum(gradient * step),
            (above[name][0] - below[name][0]) / 2e-6,
        )
        for name, (value, (gradient,)) in here.items()
    }


@functools.cache
def of_products(zero=None):
    rng = np.random.default_rng(1)
    left, right = rng.normal(size=(9, 3)), rng.normal(size=(3, 6))
    left[:, 2] = left[:, 1]  # of rank two
    factors = [left.astype("float32"), right.astype("float32")]
    if zero is not None:
        factors[zero][:] = 0
    return *factors, gradients_of_all(EVERY, *factors, product=True)


def close(actual, wanted, tolerance=3e-6, least=0.0):
    scale = max(np.abs(wanted).max(), least, 1e-30)
    np.testing.assert_allclose(
        actual / scale, wanted / scale, rtol=0, atol=tolerance
    )


def number(tensor):
    return float(ops.convert_to_numpy(tensor))


def penalty_of(layer):
    """The only loss of a layer."""

    # Compiled, since JAX would compile operation after operation otherwise.
    def scaled(scale):
        (loss,) = layer.losses
        return scale * loss

    return value_and_gradients(scaled, np.float32(1))[0]


@pytest.mark.parametrize("name", EVERY)
class TestEveryRegularizer:
    @pytest.mark.parametrize("case", STARTS)
    def test_value_and_gradient_are_the_closed_form(self, name, case):
        if name == "LogDet" and case == "tiny":
            pytest.skip("smaller than epsilon, what float32 squares to zero")
        matrix, found = in_case(case)
        value, (gradient,) = found[name]
        # Directions of what is 1e-6 of the largest are known to 1e-4.
        tolerance = 1e-4 if case == "long tail" else 3e-6
        check(name, matrix, value, gradient, tolerance)

    def test_gradient_by_finite_differences_in_float64(self, name):
        value, along, difference = finite_differences()[name]
        assert along.dtype == np.float64
        assert along == pytest.approx(difference, rel=1e-7)
        matrix = planted(STARTS["generic"], (5, 7), seed=3)
        assert value == pytest.approx(expected(name, matrix)[0], rel=1e-12)

    @pytest.mark.parametrize("broken", [np.nan, np.inf])
    def test_a_kernel_that_is_not_finite_does_not_raise(self, name, broken):
        matrix = start("generic")
        matrix[1, 2] = broken
        assert not np.isfinite(gradients_of_all(EVERY, matrix)[name][0])

    def test_config(self, name):
        penalty = make(name, 0.25)
        config = json.loads(
            json.dumps(keras.saving.serialize_keras_object(penalty))
        )
        again = keras.regularizers.get(config)
        assert type(again) is type(penalty)
        assert again.get_config() == penalty.get_config()

    def test_product_is_the_matrix_that_it_makes(self, name):
        left, right, found = of_products()
        value, (by_left, by_right) = found[name]
        wanted, slope = expected(name, left.astype(float) @ right)
        assert value == pytest.approx(wanted, rel=1e-5)
        close(by_left, slope @ right.T, 1e-5)
        close(by_right, left.T @ slope, 1e-5)

    def test_product_of_what_is_not_finite(self, name):
        left, right = np.ones((9, 3), "f"), np.ones((3, 6), "f")
        left[0, 0] = np.nan
        found = gradients_of_all(EVERY, left, right, product=True)
        assert np.isnan(found[name][0])

    @pytest.mark.parametrize("zero", [0, 1])
    def test_product_with_a_factor_of_zeros(self, name, zero):
        value, gradients = of_products(zero)[-1][name]
        assert value == 0.0
        assert all(np.all(gradient == 0) for gradient in gradients)


@pytest.mark.parametrize("name", ["NuclearNorm", "LogDet"])
@pytest.mark.parametrize("case", ["generic", "repeated deficient", "zero"])
def test_svd_gives_the_same(name, case):
    check_one(make(name, method="svd"), name, start(case), 1e-5)


@pytest.mark.parametrize("name", ["StableRank"])
@pytest.mark.parametrize("shape", [(1, 5), (5, 1)])
def test_vectors_are_matrices_of_rank_one(name, shape):
    check_one(make(name), name, np.full(shape, 0.7, "float32"))


@pytest.mark.parametrize("name", ["NuclearNorm", "SquaredFrobeniusNorm"])
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_low_precision_kernels(name, dtype):
    # As under the policies "float16" and "bfloat16".
    kernel = keras.Variable(start("generic"), dtype=dtype)
    exact = ops.convert_to_numpy(ops.cast(kernel.value, "float32"))

    def scaled(scale):
        value = make(name)(kernel)
        assert keras.backend.standardize_dtype(value.dtype) == "float32"
        return scale * value

    value, _ = value_and_gradients(scaled, np.float32(1))
    assert value == pytest.approx(expected(name, exact)[0], rel=1e-5)


@pytest.mark.parametrize("name", BY_PRODUCTS)
@pytest.mark.parametrize(
    "case", sorted(set(STARTS) - {"vanishing", "long tail", "tiny"})
)
def test_by_products_to_the_stated_accuracy(name, case):
    matrix, found = in_case(case, "newton_schulz")
    value, (gradient,) = found[name]
    check(name, matrix, value, gradient, 3e-4)


@pytest.mark.parametrize("name", ["StableRank"])
def test_product_by_products(name):
    rng = np.random.default_rng(1)
    left = rng.normal(size=(9, 3)).astype("float32")
    right = rng.normal(size=(3, 6)).astype("float32")
    penalty = make(name, method="newton_schulz")
    value, (by_left, _) = value_and_gradients(penalty.of_product, left, right)
    wanted, slope = expected(name, left @ right)
    assert value == pytest.approx(wanted, rel=1e-5)
    close(by_left, slope @ right.T, 3e-4)


def test_spectral_norm_is_the_schatten_norm_at_infinity():
    for method in ("gram", "newton_schulz"):
        penalty = kl.SchattenNorm(0.5, p=math.inf, method=method)
        check_one(penalty, "SpectralNorm", start("repeated"), 3e-4)
        config = json.loads(json.dumps(penalty.get_config()))
        assert kl.SchattenNorm.from_config(config).p == math.inf


def test_values_next_to_zero_have_part_of_a_slope_by_products():
    # What lies between nothing and the resolution depends on no rounding.
    matrix = planted([1.0, 0.5, 0.1, 1e-4, 1e-5], (5, 7)).astype("float32")
    left, _, right = np.linalg.svd(matrix, full_matrices=False)
    penalty = kl.NuclearNorm(1.0, method="newton_schulz")
    _, (factor,) = value_and_gradients(penalty, matrix)
    slopes = np.diag(left.T @ factor @ right.T)
    np.testing.assert_allclose(slopes[:3], 1.0, atol=1e-5)
    assert 0.1 < slopes[3] < 0.9 and 0.01 < slopes[4] < 0.1


class TestInKernels:
    def test_convolution_is_read_as_it_is_measured(self):
        layer = layers.Conv2D(4, 3, kernel_regularizer=kl.NuclearNorm(0.1))
        layer.build((None, 8, 8, 2))
        found = kl.weight_matrices(layer)[0].spectrum()
        assert penalty_of(layer) == pytest.approx(
            0.1 * kl.nuclear_norm(found), rel=1e-5
        )

    @pytest.mark.parametrize("method", ["auto", "newton_schulz"])
    def test_axes_and_blocks_as_a_matricization_says(self, method):
        how = kl.Matricization(rows=(1,), columns=(2,), blocks=(0,))
        penalty = kl.StableRank(0.5, method=method, matricization=how)
        kernel = np.random.default_rng(0).normal(size=(3, 4, 5)).astype("f")
        value, (gradient,) = value_and_gradients(penalty, kernel)
        found = linalg.spectrum(how.matrix(kernel))
        assert value == pytest.approx(0.5 * kl.stable_rank(found), rel=1e-5)
        whole = np.zeros((12, 15))
        for block in range(3):
            place = np.s_[4 * block : 4 * block + 4, 5 * block : 5 * block + 5]
            whole[place] = kernel[block]
        slope = expected("StableRank", whole)[1]
        close(gradient[2], slope[8:, 10:], 1e-4)
        again = keras.regularizers.get(
            json.loads(json.dumps(keras.regularizers.serialize(penalty)))
        )
        assert again.matricization == how

    def test_heads(self):
        equation = "abc,cde->abde"
        how = kl.Matricization(rows=(0,), columns=(1, 2))
        layer = layers.EinsumDense(
            equation,
            (None, 3, 4),
            kernel_regularizer=kl.SpectralNorm(1.0, matricization=how),
        )
        layer.build((None, 2, 6))
        found = kl.weight_matrices(layer)[0].spectrum()
        assert penalty_of(layer) == pytest.approx(found.values[0])

    def test_embedding_and_shared_layer_count_once(self):
        penalty = kl.LogDet(0.1)
        table = layers.Embedding(7, 3, embeddings_regularizer=penalty)
        x = keras.Input((2,), dtype="int32")
        y = keras.Input((2,), dtype="int32")
        model = keras.Model([x, y], [table(x), table(y)])
        found = kl.weight_matrices(model)[0].spectrum()
        wanted = 0.1 * kl.log_det(found)
        assert penalty_of(model) == pytest.approx(wanted, rel=1e-5)

    @pytest.mark.parametrize(
        "layer",
        [
            lambda r: kl.LowRankDense(6, 2, kernel_regularizer=r),
            lambda r: kl.LowRankEmbedding(9, 6, 2, embeddings_regularizer=r),
            lambda r: kl.LowRankConv2D(6, 3, 2, kernel_regularizer=r),
            lambda r: kl.LowRankConv2D(
                6, 3, 2, scheme="spatial", kernel_regularizer=r
            ),
            lambda r: kl.LowRankEinsumDense(
                "abc,bcd->abd", (5, 4), 2, kernel_regularizer=r
            ),
            lambda r: kl.LowRankEinsumDense(
                "abc,cde->abde", (None, 3, 4), 2, kernel_regularizer=r
            ),
        ],
        ids=["dense", "embedding", "conv", "spatial", "blocks", "heads"],
    )
    def test_low_rank_layers_are_read_as_they_are_measured(self, layer):
        layer = layer(kl.NuclearNorm(0.5))
        shape = {"LowRankConv2D": (None, 8, 8, 3)}.get(
            type(layer).__name__, (None, 5, 6)
        )
        layer.build(shape)
        matrices = kl.weight_matrices(layer, views="merged")
        found = matrices[0].spectrum()
        assert penalty_of(layer) == pytest.approx(
            0.5 * kl.nuclear_norm(found), rel=1e-5
        )

    def test_no_product_is_formed_where_factors_are_read(self, monkeypatch):
        layer = kl.LowRankEinsumDense(
            "abc,cde->abde",
            (None, 3, 4),
            2,
            kernel_regularizer=kl.StableRank(0.5),
        )
        layer.build((None, 5, 6))
        monkeypatch.setattr(type(layer), "_multiply", None)
        assert penalty_of(layer) > 0
        other = kl.Matricization(rows=(0, 1), columns=(2,))
        layer.kernel_regularizer = kl.StableRank(0.5, matricization=other)
        with pytest.raises(TypeError, match="NoneType"):
            penalty_of(layer)

    def test_saved_with_the_model(self, tmp_path):
        penalties = [make(name, 0.01) for name in EVERY]
        model = keras.Sequential([keras.Input((4,))])
        for penalty in penalties:
            model.add(layers.Dense(4, kernel_regularizer=penalty))
        model.add(kl.LowRankDense(3, 2, kernel_regularizer=penalties[0]))
        model.save(tmp_path / "model.keras")
        again = keras.models.load_model(tmp_path / "model.keras")
        configs = [layer.get_config() for layer in model.layers]
        assert [layer.get_config() for layer in again.layers] == configs


def fitted(penalty, kernel, dtype=None, **options):
    """A kernel after one step of SGD on the penalty alone."""
    layer = layers.Dense(
        kernel.shape[1],
        use_bias=False,
        kernel_regularizer=penalty,
        dtype=dtype,
    )
    model = keras.Sequential([keras.Input(kernel.shape[:1]), layer])
    layer.kernel.assign(kernel)
    model.compile(keras.optimizers.SGD(0.1), "mse", **options)
    x = np.zeros((2, kernel.shape[0]), "float32")
    model.fit(x, np.zeros((2, kernel.shape[1])), epochs=1, verbose=0)
    return ops.convert_to_numpy(ops.cast(layer.kernel.value, "float32"))


class TestInFit:
    @pytest.mark.parametrize("dtype", ["mixed_float16", "mixed_bfloat16"])
    def test_mixed_precision(self, dtype):
        matrix = start("repeated deficient")
        after = fitted(kl.NuclearNorm(0.5), matrix, dtype)
        wanted = matrix - 0.1 * expected("NuclearNorm", matrix)[1]
        np.testing.assert_allclose(after, wanted, atol=1e-5)

    @pytest.mark.skipif(not JITTED, reason="torch.compile needs a compiler")
    def test_jit_compile(self, monkeypatch):
        if BACKEND == "tensorflow":
            monkeypatch.setattr(linalg, "tensor_spectrum", None)
        matrix = start("repeated deficient")
        after = fitted(kl.NuclearNorm(0.5), matrix, jit_compile=True)
        wanted = matrix - 0.1 * expected("NuclearNorm", matrix)[1]
        np.testing.assert_allclose(after, wanted, atol=1e-5)

    def test_nuclear_norm_of_a_low_rank_layer_falls(self):
        layer = kl.LowRankDense(
            6, 3, use_bias=False, kernel_regularizer=kl.NuclearNorm(0.5)
        )
        model = keras.Sequential([keras.Input((5,)), layer])
        model.compile(keras.optimizers.SGD(0.1), "mse")
        before = kl.nuclear_norm(kl.weight_matrices(model)[0].spectrum())
        x = np.zeros((4, 5), "float32")
        model.fit(x, np.zeros((4, 6)), epochs=2, verbose=0)
        after = kl.nuclear_norm(kl.weight_matrices(model)[0].spectrum())
        assert after < before


@pytest.mark.skipif(BACKEND != "tensorflow", reason="XLA of TensorFlow")
@pytest.mark.parametrize("name", FAMILY)
def test_compiled_by_xla(name):
    matrix = start("repeated deficient")
    if name in BY_PRODUCTS:
        check_one(make(name), name, matrix, 3e-4, jit=True)
        return
    with pytest.raises(ValueError, match="jit_compile=False"):
        value_and_gradients(make(name), matrix, jit=True)


@pytest.mark.skipif(BACKEND != "tensorflow", reason="XLA of TensorFlow")
class TestInsideXLA:
    def operations(self, penalty, jit_compile, inner=False):
        import tensorflow as tf

        def step(kernel):
            return tf.function(penalty)(kernel) if inner else penalty(kernel)

        traced = tf.function(step, jit_compile=jit_compile)
        graph = traced.get_concrete_function(
            tf.TensorSpec((6, 5), tf.float32)
        ).graph
        found = {node.op for node in graph.as_graph_def().node}
        for function in graph.as_graph_def().library.function:
            found |= {node.op for node in function.node_def}
        return found & {"Svd", "SelfAdjointEigV2", "Qr"}

    @pytest.mark.parametrize("inner", [False, True])
    @pytest.mark.parametrize("name", BY_PRODUCTS)
    def test_no_decomposition_in_the_graph(self, name, inner):
        assert not self.operations(make(name), True, inner)
        exact = name in ("SchattenNorm-2", "LogDet")  # without anywhere
        assert bool(self.operations(make(name), False, inner)) != exact
        assert bool(self.operations(make(name), None, inner)) != exact

    def test_not_for_a_product_either(self):
        def penalty(kernel):
            return kl.NuclearNorm(0.5).of_product(kernel, ops.transpose(kernel))

        assert not self.operations(penalty, True)
        assert self.operations(penalty, False) == {"Qr", "SelfAdjointEigV2"}

    @pytest.mark.parametrize("method", ["gram", "svd"])
    def test_asked_for_it_says_what_to_do(self, method):
        penalty = kl.NuclearNorm(0.5, method=method)
        with pytest.raises(ValueError, match='method="newton_schulz"'):
            self.operations(penalty, True)
        with pytest.raises(ValueError, match="jit_compile=False"):
            self.operations(
                lambda kernel: penalty.of_product(kernel, kernel[:5]), True
            )


class TestMistakes:
    @pytest.mark.parametrize("strength", [-0.1, math.nan, math.inf])
    @pytest.mark.parametrize("name", ["NuclearNorm", "SquaredFrobeniusNorm"])
    def test_strength_out_of_range(self, name, strength):
        with pytest.raises(ValueError, match="0 or larger"):
            make(name, strength)

    @pytest.mark.parametrize("strength", ["0.1", None, True])
    def test_strength_is_no_number(self, strength):
        with pytest.raises(TypeError, match="must be a number"):
            kl.NuclearNorm(strength)

    def test_unknown_method(self):
        with pytest.raises(ValueError, match="method='eigh'"):
            kl.NuclearNorm(0.1, method="eigh")

    @pytest.mark.parametrize("name", ["SchattenNorm-0.5", "EffectiveRank"])
    def test_no_form_of_products(self, name):
        penalty = make(name, method="newton_schulz")
        with pytest.raises(ValueError, match="no form of matrix products"):
            penalty(ops.ones((3, 3)))

    @pytest.mark.parametrize("p", [0, -1, math.nan, "2"])
    def test_order_out_of_range(self, p):
        with pytest.raises(ValueError, match="`p` must be"):
            kl.SchattenNorm(0.1, p=p)

    def test_epsilon_out_of_range(self):
        with pytest.raises(ValueError, match="epsilon=0"):
            kl.LogDet(0.1, epsilon=0)

    def test_measures_that_count_have_no_slope(self):
        with pytest.raises(ValueError, match="counts singular values"):
            kl.MeasurePenalty(0.1, "rank")

    def test_bias(self):
        with pytest.raises(ValueError, match="two axes or more"):
            kl.NuclearNorm(0.1)(ops.ones((3,)))

    def test_axes(self):
        with pytest.raises(TypeError, match="must be a `Matricization`"):
            kl.NuclearNorm(0.1, matricization=(0,))
        how = kl.Matricization(rows=(0,), columns=(1,))
        with pytest.raises(ValueError, match="name every axis"):
            kl.NuclearNorm(0.1, matricization=how)(ops.ones((3, 3, 3)))


@keras.saving.register_keras_serializable(package="tests")
def root_norm(spectrum, power=0.5):
    return spectrum.xp.sum(spectrum.xp.power(spectrum.values, power))


def test_a_measure_of_ones_own():
    measure = kl.Measure("roots", root_norm, {"power": 0.5})
    penalty = kl.MeasurePenalty(0.5, measure)
    matrix = start("rank two")
    value, (gradient,) = value_and_gradients(penalty, matrix)
    # The slope of the root is infinite at zero, where it is not asked for.
    assert value == pytest.approx(0.5 * np.sum(STARTS["rank two"] ** 0.5))
    left, _, right = np.linalg.svd(matrix.astype(float), full_matrices=False)
    slope = 0.25 * np.array([2**-0.5, 0.5**-0.5])
    close(gradient, (left[:, :2] * slope) @ right[:2], 1e-5)
    again = keras.regularizers.get(keras.regularizers.serialize(penalty))
    assert again.get_config() == penalty.get_config()


def test_the_paper_s_penalty_is_l2():
    matrix = ops.convert_to_tensor(start("generic"))
    ours = kl.SquaredFrobeniusNorm(0.1)(matrix)
    assert number(ours) == number(keras.regularizers.L2(0.1)(matrix))


def test_definition_is_that_of_the_reports():
    for name in FAMILY:
        measure = make(name).measure
        assert kl.MEASURES[measure.name].function is measure.function
    assert regularizers.METHODS[1:3] == linalg.METHODS[1:3]
