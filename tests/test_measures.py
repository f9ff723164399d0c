import functools
import itertools
import math

import keras
import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings
from hypothesis import strategies as st

from keras_lowrank import MEASURES
from keras_lowrank import Measure
from keras_lowrank import Spectrum
from keras_lowrank import as_measure
from keras_lowrank import as_measures
from keras_lowrank import linalg
from keras_lowrank import measures as m
from tests.planted import planted

RANKS = [
    functools.partial(m.numerical_rank, relative_to="spectral"),
    m.stable_rank,
    m.effective_rank,
    m.participation_ratio,
    functools.partial(m.energy_rank, energy=1.0),
]
NORMS = [m.nuclear_norm, m.frobenius_norm, m.spectral_norm, m.schatten_norm]
RATIOS = [m.condition_number, m.spectral_gap, m.marchenko_pastur_count]

derandomized = settings(derandomize=True, deadline=None, max_examples=100)


def name(function):
    return getattr(function, "func", function).__name__


def spectrum(matrix):
    return linalg.spectrum(np.asarray(matrix, np.float64))


def of(*values):
    return Spectrum(list(values), shape=(len(values), len(values) + 1))


def positive_values(smallest=1e-4, max_size=12):
    return st.lists(
        st.floats(smallest, 1.0), min_size=1, max_size=max_size
    ).map(lambda values: sorted(values, reverse=True))


@pytest.mark.once
@pytest.mark.parametrize("rank", RANKS, ids=name)
class TestEveryRank:
    def test_identity_has_full_rank(self, rank):
        assert rank(spectrum(np.eye(6))) == pytest.approx(6.0)

    def test_outer_product_has_rank_one(self, rank):
        outer = np.outer(np.arange(1, 5), np.arange(1, 8)).astype(np.float32)
        assert rank(linalg.spectrum(outer)) == pytest.approx(1.0, abs=1e-6)

    @pytest.mark.parametrize("size", [0, 1, 4])
    def test_zero_has_rank_zero(self, rank, size):
        assert rank(spectrum(np.zeros((size, 4)))) == 0.0

    def test_one_by_one(self, rank):
        assert rank(of(1e-20)) == pytest.approx(1.0)

    @derandomized
    @given(values=positive_values(), exponent=st.integers(-60, 60))
    def test_rescaling_changes_nothing(self, rank, values, exponent):
        scaled = [value * 2.0**exponent for value in values]
        assert rank(of(*scaled)) == pytest.approx(rank(of(*values)), rel=1e-12)

    @derandomized
    @given(values=positive_values(max_size=6), seed=st.integers(0, 9))
    def test_orthogonal_maps_and_permutations_change_nothing(
        self, rank, values, seed
    ):
        rng = np.random.default_rng(seed)
        matrix = planted(values, (len(values), 8), seed)
        rotation, _ = np.linalg.qr(rng.normal(size=(8, 8)))
        expected = rank(of(*values))
        # Values may sit on the threshold of a count; none moves by 1e-3.
        for view in (
            matrix @ rotation,
            matrix[:, rng.permutation(8)],
            matrix[rng.permutation(len(values))],
            matrix.T,
        ):
            if rank is RANKS[0] or rank is RANKS[-1]:
                assert abs(rank(spectrum(view)) - expected) <= sum(
                    abs(value / values[0] / 1e-3 - 1) < 1e-6 for value in values
                )
            else:
                assert rank(spectrum(view)) == pytest.approx(expected, rel=1e-9)


@pytest.mark.once
class TestOrderLaw:
    @derandomized
    @given(values=positive_values(smallest=0.0))
    def test_soft_ranks_are_ordered(self, values):
        found = of(*values)
        chain = [
            m.stable_rank(found),
            m.participation_ratio(found),
            m.effective_rank(found),
            np.count_nonzero(found.values),
        ]
        for low, high in itertools.pairwise(chain):
            assert low <= high * (1 + 1e-12)

    @given(size=st.integers(1, 40))
    @derandomized
    def test_all_equal_when_flat(self, size):
        for rank in RANKS:
            assert rank(of(*[3.0] * size)) == pytest.approx(size)


@pytest.mark.once
@pytest.mark.parametrize("norm", NORMS, ids=name)
class TestEveryNorm:
    def test_zero(self, norm):
        assert norm(spectrum(np.zeros((3, 4)))) == 0.0
        assert norm(spectrum(np.zeros((0, 4)))) == 0.0

    def test_homogeneous(self, norm):
        small, large = of(3.0, 2.0, 0.5), of(6.0, 4.0, 1.0)
        assert norm(large) == pytest.approx(2 * norm(small))

    @pytest.mark.parametrize("scale", [1e-200, 1e200])
    def test_neither_under_nor_overflows(self, norm, scale):
        expected = scale * norm(of(3.0, 2.0))
        assert norm(of(3 * scale, 2 * scale)) == pytest.approx(expected)


@pytest.mark.once
class TestAgainstNumPy:
    matrix = np.random.default_rng(3).normal(size=(7, 12))

    @pytest.mark.parametrize(
        ("measure", "order"),
        [
            (m.nuclear_norm, "nuc"),
            (m.frobenius_norm, "fro"),
            (m.spectral_norm, 2),
        ],
        ids=["nuclear", "frobenius", "spectral"],
    )
    def test_norms(self, measure, order):
        expected = np.linalg.norm(self.matrix, order)
        assert measure(spectrum(self.matrix)) == pytest.approx(expected)

    def test_condition_number(self):
        expected = np.linalg.cond(self.matrix)
        found = m.condition_number(spectrum(self.matrix))
        assert found == pytest.approx(expected)

    def test_numerical_rank(self):
        planted_ = planted([4, 2, 1, 0.1, 0.01, 0.0, 0.0], (7, 9))
        for tolerance in (0.5, 0.05, 0.005):
            expected = np.linalg.matrix_rank(planted_, rtol=tolerance)
            found = spectrum(planted_)
            assert m.numerical_rank(found, tolerance, "spectral") == expected


@pytest.mark.once
class TestByHand:
    def test_effective_rank_takes_singular_values_not_squares(self):
        weights = np.array([4, 2, 1, 1]) / 8
        expected = math.exp(-np.sum(weights * np.log(weights)))
        assert m.effective_rank(of(4.0, 2.0, 1.0, 1.0)) == pytest.approx(
            expected
        )

    def test_participation_ratio_takes_squares(self):
        expected = (16 + 4 + 1) ** 2 / (256 + 16 + 1)
        found = m.participation_ratio(of(4.0, 2.0, 1.0))
        assert found == pytest.approx(expected)

    @pytest.mark.parametrize(
        ("relative_to", "count"),
        [("spectral", 3), ("frobenius", 2), ("absolute", 4)],
    )
    def test_numerical_rank_says_relative_to_what(self, relative_to, count):
        # The spectral norm is 4, the Frobenius norm 5.02.
        found = of(4.0, 3.0, 0.41, 0.11)
        assert m.numerical_rank(found, 0.1, relative_to) == count

    def test_equal_to_the_threshold_does_not_count(self):
        assert m.numerical_rank(of(1.0, 0.5), 0.5, "absolute") == 1

    @pytest.mark.parametrize(
        ("energy", "count"), [(0.5, 1), (0.8, 1), (0.81, 2), (0.99, 3), (1, 3)]
    )
    def test_energy_rank(self, energy, count):
        # Energies 0.8, 0.16, 0.04.
        values = np.sqrt([0.8, 0.16, 0.04])
        assert m.energy_rank(of(*values), energy) == count

    def test_spectral_gap(self):
        found = of(4.0, 3.0, 1.0)
        assert m.spectral_gap(found) == 0.25
        assert m.spectral_gap(found, index=2) == 0.5
        assert m.spectral_gap(found, index=3) == 0.25
        assert m.spectral_gap(found, index=4) == 0.0

    def test_condition_number_below_resolution_is_infinite(self):
        assert m.condition_number(Spectrum([1.0, 1e-9], (2, 2), 1e-7)) == np.inf
        assert m.condition_number(of(1.0, 0.0)) == np.inf
        assert m.condition_number(of(0.0, 0.0)) == 0.0

    def test_schatten(self):
        found = of(4.0, 2.0, 1.0)
        assert m.schatten_norm(found, 0.5) == pytest.approx((3 + 2**0.5) ** 2)
        assert m.schatten_norm(found, float("inf")) == 4.0

    @pytest.mark.parametrize("shape", [(80, 80), (60, 240), (240, 60)], ids=str)
    @pytest.mark.parametrize("spikes", [0, 1, 5])
    def test_marchenko_pastur_counts_the_spikes(self, shape, spikes):
        rng = np.random.default_rng(7)
        matrix = 0.3 * rng.normal(size=shape)
        strengths = np.zeros(min(shape))
        strengths[:spikes] = 0.3 * 60
        found = spectrum(matrix + planted(strengths, shape))
        # The largest value of noise fluctuates about the edge.
        estimated = m.marchenko_pastur_count(found)
        assert spikes <= estimated <= spikes + 1
        assert (
            spikes <= m.marchenko_pastur_count(found, scale=0.3) <= spikes + 1
        )
        assert m.marchenko_pastur_count(found, scale=0.31) == spikes


@pytest.mark.once
@pytest.mark.parametrize("measure", MEASURES.values(), ids=list(MEASURES))
class TestEveryMeasure:
    def test_nan_stays_nan(self, measure):
        broken = Spectrum([math.nan] * 3, (3, 3), reason="1 NaN of 9 entries")
        assert math.isnan(measure(broken))

    def test_zero_is_zero(self, measure):
        assert measure(of(0.0, 0.0, 0.0)) == 0.0

    def test_found_by_name_and_by_function(self, measure):
        assert as_measure(measure.name) is measure
        assert as_measure(measure.function) is measure

    def test_definition_is_the_call(self, measure):
        call = measure.definition.replace("(", "(found, ", 1)
        found = of(3.0, 2.0, 0.5)
        assert float(eval(f"m.{call}")) == measure(found)


@pytest.mark.parametrize("measure", MEASURES.values(), ids=list(MEASURES))
class TestOnTensors:
    """The same formulas serve regularizers, on the backend's own tensors."""

    @pytest.mark.parametrize(
        "values", [[3.0, 2.0, 0.5], [0.0, 0.0, 0.0], [1.0, 1.0, 1.0]]
    )
    def test_tensors_give_the_same_numbers(self, measure, values):
        tensor = keras.ops.convert_to_tensor(values, "float32")
        found = measure(Spectrum(tensor, (3, 4)))
        expected = measure(Spectrum(values, (3, 4)))
        if np.isinf(expected):
            assert np.isinf(found)
        else:
            assert found == pytest.approx(expected, rel=1e-5)


@pytest.mark.once
class TestNaming:
    def test_a_function_is_a_measure(self):
        def tail(spectrum):
            return spectrum.values[-1]

        measure = as_measure(tail)
        assert measure.name == "tail" and measure(of(2.0, 1.0)) == 1.0
        assert measure.definition == "tail()"

    def test_a_partial_keeps_its_parameters(self):
        loose = functools.partial(m.numerical_rank, tolerance=0.5)
        measure = as_measure(loose)
        assert measure.name == "rank"
        assert measure.definition == (
            "numerical_rank(tolerance=0.5, relative_to='frobenius')"
        )

    def test_a_dict_names_measures(self):
        loose = functools.partial(m.numerical_rank, tolerance=0.5)
        chosen = as_measures({"strict": "rank", "loose": loose})
        assert [measure.name for measure in chosen] == ["strict", "loose"]
        found = of(1.0, 0.1)
        assert [measure(found) for measure in chosen] == [2.0, 1.0]

    def test_numerical_rank_is_another_name_of_rank(self):
        assert as_measure("numerical_rank").name == "rank"

    def test_two_of_one_name_are_refused(self):
        loose = functools.partial(m.numerical_rank, tolerance=0.5)
        with pytest.raises(ValueError, match="Two measures are named 'rank'"):
            as_measures(["rank", loose])

    def test_unknown_name(self):
        with pytest.raises(ValueError, match="Unknown measure 'stabel_rank'"):
            as_measure("stabel_rank")

    @pytest.mark.parametrize("wrong", [3, None, float, object()])
    def test_wrong_type(self, wrong):
        with pytest.raises(TypeError, match="A measure is a name"):
            as_measure(wrong)

    def test_parameters_are_part_of_a_measure(self):
        measure = Measure("p3", m.schatten_norm, {"p": 3})
        assert measure(of(1.0, 1.0)) == pytest.approx(2 ** (1 / 3))


@pytest.mark.once
class TestBadInput:
    @pytest.mark.parametrize(
        ("call", "message"),
        [
            (lambda s: m.numerical_rank(s, -1), "must not be negative"),
            (lambda s: m.numerical_rank(s, 1, "fro"), "relative_to='fro'"),
            (lambda s: m.energy_rank(s, 0), "energy=0"),
            (lambda s: m.energy_rank(s, 99), "energy=99"),
            (lambda s: m.schatten_norm(s, 0), "p=0"),
            (lambda s: m.spectral_gap(s, 0), "index=0"),
            (lambda s: m.spectral_gap(s, 1.5), "index=1.5"),
            (lambda s: m.marchenko_pastur_count(s, -2), "scale=-2"),
        ],
    )
    def test_parameters_out_of_range(self, call, message):
        with pytest.raises(ValueError, match=message):
            call(of(2.0, 1.0))

    def test_threshold_below_resolution(self):
        found = Spectrum([1.0, 0.5], (2, 2), resolution=1e-7)
        with pytest.raises(ValueError, match='method="svd"'):
            m.numerical_rank(found, 1e-9)


@pytest.mark.once
class TestSpectrum:
    @pytest.mark.parametrize("values", [[1.0, 2.0], [1.0, -1.0]])
    def test_values_out_of_order(self, values):
        with pytest.raises(ValueError, match="largest first"):
            Spectrum(values, (2, 2))

    @pytest.mark.parametrize("shape", [(3,), (2, 2, 2), (-1, 2)])
    def test_shape_must_be_that_of_a_matrix(self, shape):
        with pytest.raises(ValueError, match="Received: shape="):
            Spectrum([], shape)

    def test_more_values_than_a_matrix_has(self):
        with pytest.raises(ValueError, match="at most min"):
            Spectrum([3.0, 2.0, 1.0], (2, 5))

    def test_repr_says_what_it_is(self):
        assert "3 x 5 matrix: [2. 1.]" in repr(Spectrum([2.0, 1.0], (3, 5)))
        broken = Spectrum([math.nan], (1, 1), reason="1 NaN of 1 entries")
        assert "1 NaN of 1 entries" in repr(broken)
