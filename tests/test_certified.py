"""Ranks without singular values, against those with them."""

import sys

import keras
import numpy as np
import pytest

from keras_lowrank import RankTracker
from keras_lowrank import inspect_file
from keras_lowrank import linalg
from keras_lowrank import rank_report
from keras_lowrank.checkpoints import Condition
from keras_lowrank.checkpoints import violations
from keras_lowrank.measures import numerical_rank
from keras_lowrank.measures import stable_rank
from tests.planted import families
from tests.planted import planted

pytestmark = pytest.mark.once


@pytest.mark.parametrize("shape", [(1, 1), (2, 5), (60, 60), (200, 40)])
@pytest.mark.parametrize("family", list(families(4)))
class TestAgainstTheSpectrum:
    @pytest.mark.parametrize("scale", [1.0, 1e-250, 1e250])
    def test_bands_hold_the_numbers(self, family, shape, scale):
        matrix = planted(families(min(shape))[family], shape) * scale
        found, exact = linalg.certified(matrix), linalg.spectrum(matrix, "svd")
        assert found.shape == exact.shape
        assert exact.values[0] in found.spectral_norm
        band = found.spectral_norm
        assert band.high - band.low < 1e-6 * exact.values[0]
        slack = 1e-12 * stable_rank(exact)
        assert found.stable_rank.low <= stable_rank(exact) + slack
        assert found.stable_rank.high >= stable_rank(exact) - slack

    @pytest.mark.parametrize("tolerance", [1e-1, 3.3e-3, 1e-3, 1.7e-4])
    @pytest.mark.parametrize("relative_to", ["frobenius", "spectral"])
    def test_counts(self, family, shape, tolerance, relative_to):
        matrix = planted(families(min(shape))[family], shape)
        matrix = matrix.astype(np.float32)
        exact = linalg.spectrum(matrix, "svd")
        norm = {
            "frobenius": np.linalg.norm(exact.values),
            "spectral": exact.values[0],
        }[relative_to]
        found = linalg.certified(matrix).numerical_rank(tolerance, relative_to)
        assert numerical_rank(exact, tolerance, relative_to) in found
        near = np.abs(exact.values / (tolerance * norm) - 1).min() < 1e-5
        assert near or found.certain


class TestEdges:
    def test_a_value_on_the_threshold_gives_a_band(self):
        matrix = planted(np.r_[np.ones(20), np.full(3, 1e-3)], (23, 30))
        found = linalg.certified(matrix).count_above(1e-3)
        assert (found.low, found.high) == (20, 23)
        assert not found.certain
        assert str(found) == "21.5 +- 2"

    def test_wide_and_blockwise(self, monkeypatch):
        matrix = planted(np.geomspace(1, 1e-4, 30), (30, 900))
        expected = linalg.certified(matrix).numerical_rank()
        monkeypatch.setattr(linalg.gram, "BLOCK_ENTRIES", 30 * 100)
        for one in (matrix, matrix.T):
            assert linalg.certified(one).numerical_rank() == expected

    def test_zero(self):
        found = linalg.certified(np.zeros((4, 3)))
        assert found.numerical_rank().value == found.stable_rank.value == 0
        assert found.shape == (4, 3)

    def test_not_finite(self):
        found = linalg.certified(np.array([[1.0, np.nan], [0.0, 2.0]]))
        assert found.reason == "1 NaN of 4 entries"
        assert np.isnan(found.numerical_rank().value)
        assert np.isnan(found.stable_rank.value)

    def test_a_start_that_misses_the_largest_is_noticed(self, monkeypatch):
        # As Lanczos would, if its start were orthogonal to the largest.
        monkeypatch.setattr(
            sys.modules["keras_lowrank.linalg.certified"],
            "_largest",
            lambda gram: (4.0, 0.0),
        )
        found = linalg.certified(np.diag([5.0, 2.0, 1.0]))
        assert 5.0 in found.spectral_norm

    def test_below_what_is_resolved(self):
        with pytest.raises(ValueError, match="resolves singular values above"):
            linalg.certified(np.eye(5)).count_above(1e-9)

    def test_wrong_dimensions(self):
        with pytest.raises(ValueError, match=r"shape=\(2, 2, 2\)"):
            linalg.certified(np.ones((2, 2, 2)))

    def test_without_scipy(self, monkeypatch):
        monkeypatch.setitem(sys.modules, "scipy.sparse.linalg", None)
        with pytest.raises(ImportError, match="needs SciPy"):
            linalg.certified(np.eye(5))


class TestReports:
    """Large matrices are certified, small ones exact, and it is said which."""

    @pytest.fixture
    def file(self, tmp_path, monkeypatch):
        module = sys.modules["keras_lowrank.linalg.certified"]
        monkeypatch.setattr(module, "CERTIFIED_ABOVE", 20)
        path = tmp_path / "weights.npz"
        large = planted(np.geomspace(1, 1e-5, 30), (30, 40))
        np.savez(path, large=large.astype("float32"), small=np.eye(3))
        return path

    def test_a_file(self, file):
        exact = inspect_file(file)
        report = inspect_file(file, method="certified")
        row = report["large"]
        assert row["rank"] == exact["large"]["rank"]
        assert row["bands"]["rank"] == f"{row['rank']:g}"
        assert row["stable_rank"] == pytest.approx(
            exact["large"]["stable_rank"], rel=1e-8
        )
        assert row["effective_rank"] is None
        assert row["bands"]["effective_rank"] == "needs all values"
        assert report["small"] == exact["small"]
        text = report.render(100)
        assert "certified: counts by inertia" in text
        assert "large: stable_rank" in text
        assert "certified" not in exact.render(100)
        report.to_json()

    def test_thresholds(self, file):
        report = inspect_file(file, method="certified")
        conditions = [
            Condition.parse("rank < 1000"),
            Condition.parse("effective_rank < 1"),
        ]
        found = violations(report.rows, conditions)
        assert "effective_rank needs all singular values" in found[0]
        assert "large: rank = " in found[1]

    def test_a_model(self, file):
        model = keras.Sequential(
            [keras.Input((50,)), keras.layers.Dense(30), keras.layers.Dense(4)]
        )
        exact = rank_report(model)
        report = rank_report(model, method="certified")
        assert report["dense/kernel"]["rank"] == exact["dense/kernel"]["rank"]
        assert report["dense/kernel"]["effective_rank"] is None
        assert report["dense_1/kernel"] == exact["dense_1/kernel"]

    def test_records_keep_whole_spectra(self):
        with pytest.raises(ValueError, match="Received: method='certified'"):
            RankTracker(method="certified")
        with pytest.raises(ValueError, match=r"'certified'.*Received"):
            inspect_file("weights.npz", method="exact")
