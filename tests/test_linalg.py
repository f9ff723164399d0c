import keras
import numpy as np
import pytest
import scipy.linalg
import threadpoolctl
from hypothesis import given
from hypothesis import strategies as st
from keras import ops

from keras_lowrank import linalg
from keras_lowrank.measures import numerical_rank
from tests.planted import families
from tests.planted import planted

SHAPES = [
    (1, 1),
    (1, 7),
    (7, 1),
    (5, 5),
    (16, 100),
    (100, 16),
    (64, 576),
    (300, 300),
]
NAMES = list(families(4))


def oracle(matrix):
    """SciPy's singular values of exactly the entries that are stored."""
    return scipy.linalg.svdvals(np.asarray(matrix, np.float64))


def assert_right(spectrum, matrix, relative=1e-8, above=1e-4):
    expected = oracle(matrix)
    assert spectrum.values.dtype == np.float64
    assert spectrum.values.shape == expected.shape
    assert spectrum.shape == np.shape(matrix)
    large = expected > above * expected[0]
    np.testing.assert_allclose(
        spectrum.values[large], expected[large], rtol=relative
    )
    np.testing.assert_allclose(
        spectrum.values, expected, atol=2e-7 * expected[0]
    )


@pytest.mark.once
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("family", NAMES)
class TestPlantedSpectra:
    def test_float32_values_are_right(self, family, shape):
        values = families(min(shape))[family]
        matrix = planted(values, shape).astype(np.float32)
        assert_right(linalg.spectrum(matrix), matrix)

    def test_float64_values_are_right_to_the_last_digits(self, family, shape):
        matrix = planted(families(min(shape))[family], shape)
        found = linalg.spectrum(matrix)
        expected = oracle(matrix)
        np.testing.assert_allclose(
            found.values, expected, atol=1e-13 * expected[0]
        )

    @pytest.mark.parametrize("tolerance", [1e-3, 1e-4, 1e-6])
    def test_counts_are_exact(self, family, shape, tolerance):
        matrix = planted(families(min(shape))[family], shape)
        matrix = matrix.astype(np.float32)
        expected = oracle(matrix)
        if np.any(np.abs(expected / (tolerance * expected[0]) - 1) < 1e-5):
            # The first value of a family may fall on the threshold itself.
            expected = expected * (1 + 1e-5)
        count = np.sum(expected > tolerance * expected[0])
        found = linalg.spectrum(matrix)
        assert numerical_rank(found, tolerance, "spectral") == count


@pytest.mark.once
class TestHardCases:
    @pytest.mark.slow
    @pytest.mark.parametrize("shape", [(1024, 4096), (4096, 1024)], ids=str)
    @pytest.mark.parametrize("family", ["half flat, long tail", "power law"])
    def test_large_matrices(self, family, shape):
        values = families(min(shape))[family]
        matrix = planted(values, shape).astype(np.float32)
        assert_right(linalg.spectrum(matrix), matrix)

    @pytest.mark.parametrize("scale", [1e-20, 1e-8, 1.0, 1e8, 1e15])
    @pytest.mark.parametrize("family", NAMES)
    def test_scale_changes_nothing_but_the_scale(self, family, scale):
        matrix = planted(families(24)[family], (24, 60)) * scale
        assert_right(
            linalg.spectrum(matrix.astype(np.float32)),
            matrix.astype(np.float32),
        )

    @pytest.mark.parametrize("scale", [1e-300, 1e-200, 1e200, 1e300])
    def test_float64_scales_beyond_what_a_square_can_hold(self, scale):
        matrix = planted(families(24)["power law"], (24, 60))
        for method in linalg.METHODS:
            np.testing.assert_allclose(
                linalg.spectrum(matrix * scale, method).values,
                oracle(matrix) * scale,
                rtol=1e-9,
            )

    def test_the_gram_route_alone_would_be_off_by_more_than_1e_8(self):
        # The family that made the fallback necessary.
        tail = np.geomspace(1e-2, 1.2e-4, 256)
        matrix = planted(np.r_[np.ones(256), tail], (512, 512))
        matrix = matrix.astype(np.float32)
        expected = oracle(matrix)
        gram = linalg.spectrum(matrix, "gram").values
        auto = linalg.spectrum(matrix, "auto").values
        assert np.max(np.abs(gram / expected - 1)) > 1e-8
        np.testing.assert_allclose(auto, expected, rtol=1e-10)

    @pytest.mark.parametrize("size", [100, 130, 513])
    @pytest.mark.parametrize("smallest", [1.2e-4, 5e-4, 1.1e-3, 1.6e-3])
    def test_auto_keeps_its_promise_wherever_the_tail_ends(
        self, size, smallest
    ):
        half = size // 4
        values = np.r_[np.ones(half), np.geomspace(1e-2, smallest, size - half)]
        matrix = planted(values, (size, size), seed=2).astype(np.float32)
        np.testing.assert_allclose(
            linalg.spectrum(matrix).values, oracle(matrix), rtol=1e-8
        )

    @pytest.mark.parametrize(
        ("rows", "small"), [(200, 1), (200, 5), (900, 5), (900, 90)]
    )
    def test_a_tail_is_refined_without_an_svd(self, rows, small, monkeypatch):
        tail = np.geomspace(9e-4, 1.05e-4, small)
        values = np.r_[np.geomspace(1, 3e-3, 200 - small), tail]
        matrix = planted(values, (rows, 200), seed=3).astype(np.float32)
        expected = oracle(matrix)
        monkeypatch.setattr(np.linalg, "svd", None)
        for turned in (matrix, matrix.T, 2.0**-60 * matrix):
            found = linalg.spectrum(turned).values
            scale = found[0] / expected[0]
            np.testing.assert_allclose(found, scale * expected, rtol=1e-10)

    @pytest.mark.parametrize("share", [1 / 128, 1 / 8])
    def test_larger_sides_are_worth_more_iterations(self, share, monkeypatch):
        # Twelve spare values reach no further than twice the tail's largest.
        spare, tail = np.geomspace(2.45, 1.3, 14), np.geomspace(1.2, 0.8, 6)
        values = np.r_[np.linspace(1000, 3, 180), spare, tail] / 1000
        matrix = planted(values, (220, 200)).astype(np.float32)
        expected = oracle(matrix)
        monkeypatch.setattr(linalg.refine, "ITERATIONS_PER_ROW", share)
        calls = []
        svd = np.linalg.svd
        monkeypatch.setattr(
            np.linalg, "svd", lambda *a, **k: calls.append(a) or svd(*a, **k)
        )
        found = linalg.spectrum(matrix).values
        np.testing.assert_allclose(found, expected, rtol=1e-8)
        assert bool(calls) == (share == 1 / 128)

    def test_small_squares_are_decomposed_once(self, monkeypatch):
        matrix = planted(np.geomspace(1, 3e-4, 40), (50, 40))
        matrix = matrix.astype(np.float32)
        expected = oracle(matrix)
        monkeypatch.setattr(np.linalg, "eigvalsh", None)
        found = linalg.spectrum(matrix)
        np.testing.assert_allclose(found.values, expected, rtol=1e-12)
        # No finer than the entries, which are of float32.
        assert found.resolution == pytest.approx(1e-7 * found.values[0])

    @pytest.mark.parametrize("basis", ["random", "of large values", "none"])
    def test_a_wrong_basis_is_noticed(self, basis, monkeypatch):
        values = np.r_[np.geomspace(1, 3e-3, 195), np.geomspace(9e-4, 2e-4, 5)]
        matrix = planted(values, (200, 200)).astype(np.float32)
        largest = np.linalg.svd(matrix)[2][:5].T
        random = np.linalg.qr(np.random.default_rng(0).normal(size=(200, 5)))[0]
        bases = {"random": random, "of large values": largest, "none": None}
        monkeypatch.setattr(
            linalg.refine, "_inverse_iteration", lambda *_: bases[basis]
        )
        np.testing.assert_allclose(
            linalg.spectrum(matrix).values, oracle(matrix), rtol=1e-8
        )

    @pytest.mark.parametrize("family", NAMES)
    def test_a_block_of_rows_at_a_time_gives_the_same(
        self, family, monkeypatch
    ):
        matrix = planted(families(60)[family], (700, 60)).astype(np.float32)
        whole = linalg.spectrum(matrix)
        monkeypatch.setattr(linalg.gram, "BLOCK_ENTRIES", 60 * 90)
        assert len(list(linalg.gram.row_blocks(matrix))) == 8
        assert_right(linalg.spectrum(matrix), matrix)
        np.testing.assert_allclose(
            linalg.spectrum(matrix).values[whole.resolved],
            whole.values[whole.resolved],
            atol=1e-9 * whole.values[0],
        )

    def test_values_below_resolution_are_marked(self):
        values = np.r_[np.geomspace(1, 1e-6, 7), 1e-9, 1e-9]
        matrix = planted(values, (9, 40)).astype(np.float32)
        found = linalg.spectrum(matrix)
        assert found.resolved.tolist() == [True] * 7 + [False] * 2
        assert found.resolution == pytest.approx(1e-7 * found.values[0])

    def test_svd_resolves_what_gram_does_not(self):
        matrix = planted(np.geomspace(1, 1e-12, 13), (13, 40))
        found = linalg.spectrum(matrix, "svd")
        assert found.resolved.all()
        assert numerical_rank(found, 3e-11, "spectral") == 11
        with pytest.raises(ValueError, match="below the resolution"):
            numerical_rank(linalg.spectrum(matrix, "gram"), 3e-11, "spectral")

    def test_rank_of_a_float32_product(self):
        rng = np.random.default_rng(0)
        product = rng.normal(size=(256, 10)) @ rng.normal(size=(10, 128))
        found = linalg.spectrum(product.astype(np.float32))
        assert numerical_rank(found) == 10
        assert numerical_rank(found, 1e-4, "spectral") == 10
        assert numerical_rank(found, 1e-6, "spectral") == 10

    def test_orientation_does_not_matter(self):
        matrix = planted(families(20)["power law"], (20, 50))
        for method in ("gram", "svd"):
            wide, tall = (
                linalg.spectrum(view, method) for view in (matrix, matrix.T)
            )
            np.testing.assert_allclose(wide.values, tall.values, rtol=1e-10)
            assert wide.shape == tall.shape[::-1]


@pytest.mark.once
class TestEdges:
    @pytest.mark.parametrize("shape", [(3, 5), (1, 1), (5, 1)], ids=str)
    def test_zero(self, shape):
        found = linalg.spectrum(np.zeros(shape, np.float32))
        assert not found.values.any() and found.finite
        assert found.resolution == 0.0

    @pytest.mark.parametrize("shape", [(0, 5), (5, 0), (0, 0)], ids=str)
    def test_empty(self, shape):
        found = linalg.spectrum(np.zeros(shape, np.float32))
        assert found.values.shape == (0,) and found.shape == shape

    @pytest.mark.parametrize("method", linalg.METHODS)
    @pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
    def test_non_finite_is_said_not_raised(self, bad, method):
        matrix = np.ones((3, 4), np.float32)
        matrix[1, 2] = bad
        found = linalg.spectrum(matrix, method)
        assert np.isnan(found.values).all() and not found.finite
        assert "1 NaN" in found.reason or "1 infinite" in found.reason
        assert "of 12 entries" in found.reason

    def test_blocks_are_the_block_diagonal_matrix(self):
        blocks = np.random.default_rng(0).normal(size=(3, 4, 6))
        found = linalg.spectrum(blocks)
        assert found.shape == (12, 18)
        expected = oracle(scipy.linalg.block_diag(*blocks))
        np.testing.assert_allclose(found.values, expected, rtol=1e-12)

    def test_wrong_dimensions(self):
        with pytest.raises(ValueError, match=r"Received: shape=\(4,\)"):
            linalg.spectrum(np.ones(4))

    def test_unknown_method(self):
        with pytest.raises(ValueError, match="Received: method='fast'"):
            linalg.spectrum(np.ones((2, 2)), "fast")
        with pytest.raises(ValueError, match="Received: method='fast'"):
            list(linalg.spectra([np.ones((2, 2))], "fast"))

    def test_complex_is_refused(self):
        with pytest.raises(TypeError, match="complex64"):
            linalg.spectrum(np.ones((2, 2), np.complex64))

    @pytest.mark.parametrize("workers", [1, 2, 3])
    def test_many_matrices_come_back_in_order(self, workers):
        matrices = [np.full((2, size), float(size)) for size in range(1, 9)]
        found = linalg.spectra(iter(matrices), workers=workers)
        for matrix, spectrum in zip(matrices, found, strict=True):
            np.testing.assert_allclose(
                spectrum.values, oracle(matrix), atol=1e-14
            )

    def test_matrices_are_read_lazily(self):
        read = []

        def matrices():
            for index in range(10):
                read.append(index)
                yield np.ones((2, 2))

        next(iter(linalg.spectra(matrices())))
        assert read == [0]

    def test_threads_of_blas_are_given_back(self):
        threads = [one.num_threads for one in linalg.host._blas()]
        linalg.spectrum(np.ones((4, 4)))
        list(linalg.spectra([np.ones((4, 4))] * 3, workers=2))
        assert threads == [one.num_threads for one in linalg.host._blas()]

    def test_threads_that_overlap_give_them_back_once(self):
        blas = linalg.host._blas()
        with threadpoolctl.threadpool_limits(2, user_api="blas"):
            first = linalg.host.single_threaded_blas()
            second = linalg.host.single_threaded_blas()
            first.__enter__()
            second.__enter__()
            first.__exit__(None, None, None)
            assert {one.num_threads for one in blas} == {1}
            second.__exit__(None, None, None)
            assert {one.num_threads for one in blas} == {2}


class TestOnTheBackend:
    @pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
    def test_upcast_is_exact(self, dtype):
        kernel = np.random.default_rng(1).normal(size=(12, 30))
        variable = keras.Variable(kernel, dtype=dtype)
        stored = ops.convert_to_numpy(ops.cast(variable, "float32"))
        expected = linalg.spectrum(stored).values
        for value in (variable, variable.value):
            np.testing.assert_array_equal(
                linalg.spectrum(value).values, expected
            )
        assert_right(linalg.spectrum(variable), stored)

    def test_numbers_are_those_of_numpy_to_the_last_bit(self):
        # Whatever the backend: hence the backends agree with one another.
        kernel = planted(families(24)["power law"], (24, 60))
        kernel = kernel.astype(np.float32)
        variable = keras.Variable(kernel)
        np.testing.assert_array_equal(
            linalg.spectrum(variable).values, linalg.spectrum(kernel).values
        )

    def test_a_copy_is_taken(self):
        variable = keras.Variable(np.eye(3, dtype="float32"))
        array = linalg.host_array(variable)
        variable.assign(2 * np.eye(3))
        np.testing.assert_array_equal(array, np.eye(3))

    def test_global_settings_stay(self):
        linalg.spectrum(keras.Variable(np.eye(3, dtype="float32")))
        assert keras.config.floatx() == "float32"
        assert keras.backend.standardize_dtype(ops.ones(2).dtype) == "float32"


@pytest.mark.once
class TestProducts:
    @given(
        sizes=st.tuples(*[st.integers(1, 12)] * 3), seed=st.integers(0, 1000)
    )
    def test_spectrum_is_that_of_the_matrix_they_make(self, sizes, seed):
        rows, inner, columns = sizes
        rng = np.random.default_rng(seed)
        left = rng.normal(size=(rows, inner))
        right = rng.normal(size=(inner, columns))
        spectrum = linalg.spectrum(linalg.Product(left, right))
        expected = np.linalg.svd(left @ right, compute_uv=False)
        assert spectrum.shape == (rows, columns)
        assert len(spectrum.values) == min(rows, inner, columns)
        kept = expected[: len(spectrum.values)]
        np.testing.assert_allclose(spectrum.values, kept, atol=1e-12)
        assert np.all(expected[len(kept) :] <= spectrum.resolution + 1e-12)

    def test_large_factors_of_a_small_product_say_what_they_resolve(self):
        # (1e8, 1) times its near null vector: only rounding is left.
        left = np.array([[1e8, 1.0]])
        right = np.array([[1.0], [-1e8]])
        spectrum = linalg.spectrum(linalg.Product(left, right))
        assert spectrum.values[0] <= spectrum.resolution

    def test_blocks(self):
        rng = np.random.default_rng(0)
        product = linalg.Product(
            rng.normal(size=(3, 4, 2)), rng.normal(size=(3, 2, 5))
        )
        whole = scipy.linalg.block_diag(*product.to_numpy())
        expected = np.linalg.svd(whole, compute_uv=False)[:6]
        spectrum = linalg.spectrum(product)
        assert spectrum.shape == whole.shape
        np.testing.assert_allclose(spectrum.values, expected, rtol=1e-12)

    def test_not_finite(self):
        product = linalg.Product(np.array([[np.nan, 1.0]]), np.ones((2, 3)))
        spectrum = linalg.spectrum(product)
        assert spectrum.reason == "1 NaN of 2 entries of a factor"
        assert np.isnan(spectrum.values).all()

    def test_threads_take_them_too(self):
        rng = np.random.default_rng(0)
        products = [
            linalg.Product(rng.normal(size=(6, 2)), rng.normal(size=(2, 4)))
            for _ in range(3)
        ]
        for one, other in zip(
            linalg.spectra(products),
            linalg.spectra(products, workers=2),
            strict=True,
        ):
            np.testing.assert_array_equal(one.values, other.values)

    def test_factors_that_do_not_fit(self):
        with pytest.raises(ValueError, match=r"\(2, 3\) and \(2, 4\)"):
            linalg.Product(np.ones((2, 3)), np.ones((2, 4)))


@pytest.mark.once
class TestTruncation:
    @pytest.mark.parametrize("shape", [(8, 5), (5, 8), (5, 5)], ids=str)
    @pytest.mark.parametrize("rank", [1, 3, 5])
    def test_error_is_that_of_the_discarded_values(self, shape, rank):
        matrix = planted([5.0, 3.0, 1.0, 0.1, 0.01], shape, seed=rank)
        matrix = matrix.astype("float32")
        values = np.linalg.svd(matrix.astype("float64"), compute_uv=False)
        product = linalg.truncate(matrix, rank)
        error = np.linalg.norm(product.to_numpy() - matrix)
        discarded = np.linalg.norm(values[rank:])
        assert error == pytest.approx(discarded, rel=1e-9, abs=1e-12)
        assert np.linalg.norm(product.left) == pytest.approx(
            np.linalg.norm(product.right)
        )

    def test_second_moments_make_the_error_of_outputs_smallest(self):
        rng = np.random.default_rng(0)
        inputs = rng.normal(size=(300, 12)) * np.geomspace(0.01, 3, 12)
        matrix = rng.normal(size=(12, 9))
        moment = inputs.T @ inputs / len(inputs)
        values, vectors = np.linalg.eigh(moment)
        root = vectors * np.sqrt(values) @ vectors.T
        best = np.linalg.svd(root @ matrix, compute_uv=False)
        for rank in (1, 4, 9):
            product = linalg.truncate(matrix, rank, moment)
            error = inputs @ (product.to_numpy() - matrix)
            rms = np.linalg.norm(error) / len(inputs) ** 0.5
            discarded = np.linalg.norm(best[rank:])
            assert rms == pytest.approx(discarded, rel=1e-4, abs=1e-6)

    def test_inputs_that_never_occur_cost_nothing_where_they_can(self):
        # Half of the input never occurs; the data alone would not say what to
        # do with it, and the largest directions are kept.
        moment = np.diag([1.0, 1.0, 0.0, 0.0])
        matrix = np.diag([2.0, 1.0, 8.0, 0.5])
        product = linalg.truncate(matrix, 3, moment)
        np.testing.assert_allclose(
            product.to_numpy(), np.diag([2.0, 1.0, 8.0, 0.0]), atol=1e-5
        )

    def test_absent_directions_can_be_trained(self):
        product = linalg.truncate(np.diag([4.0, 0.0, 0.0]), rank=2)
        assert not product.left[:, 1].any()
        assert np.linalg.norm(product.right[1]) == pytest.approx(1.0)

    def test_blocks_are_truncated_one_by_one(self):
        blocks = np.random.default_rng(0).normal(size=(3, 5, 4))
        product = linalg.truncate(blocks, 2)
        assert product.left.shape == (3, 5, 2)
        one = linalg.truncate(blocks[1], 2).to_numpy()
        np.testing.assert_allclose(product.to_numpy()[1], one)

    @pytest.mark.parametrize("rank", [0, 4, -1])
    def test_rank_out_of_range(self, rank):
        with pytest.raises(
            ValueError, match=rf"rank={rank} for shape \(3, 4\)"
        ):
            linalg.truncate(np.ones((3, 4)), rank)

    def test_not_finite(self):
        with pytest.raises(ValueError, match="1 infinite of 4 entries"):
            linalg.truncate(np.array([[1.0, np.inf], [0.0, 1.0]]), 1)

    def test_moments_of_another_shape(self):
        with pytest.raises(ValueError, match=r"\(3, 3\).*shape=\(4, 4\)"):
            linalg.truncate(np.ones((3, 4)), 1, np.eye(4))
