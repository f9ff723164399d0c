import itertools

import keras
import numpy as np
import pytest

from keras_lowrank import numerical_rank
from keras_lowrank import stable_rank
from keras_lowrank.baselines import initial_baseline
from keras_lowrank.baselines import initial_spectra
from keras_lowrank.weights import weight_matrices

LOOSE = {
    "rank": numerical_rank,
    "rank_at_5pct": lambda spectrum: numerical_rank(spectrum, 0.05),
}


def resnet_18():
    """Kernels of the matrices that the paper averages over."""
    shapes = [(3, 3, 3, 64)]
    shapes += [(3, 3, 64, 64)] * 4
    for width in (128, 256, 512):
        shapes += [(3, 3, width // 2, width)] + [(3, 3, width, width)] * 3
    return shapes


def vgg_16():
    widths = [3, 64, 64, 128, 128, 256, 256, 256, 512, 512, 512, 512, 512, 512]
    return [
        (3, 3, inputs, outputs)
        for inputs, outputs in itertools.pairwise(widths)
    ]


def average(shapes, measures=LOOSE, samples=1):
    """Mean over a network; equal shapes are drawn once."""
    each = {
        shape: initial_baseline(shape, "torch", measures, samples=samples)
        for shape in set(shapes)
    }
    return {
        name: float(np.mean([each[shape][name] for shape in shapes]))
        for name in measures
    }


class TestThePaper:
    """Untrained networks, section 2 of the notes on the paper."""

    @pytest.mark.slow
    def test_resnet_18(self):
        shapes = resnet_18()
        assert len(shapes) == 17
        found = average(shapes)
        assert found["rank"] == pytest.approx(227.5, abs=0.1)
        assert found["rank_at_5pct"] == pytest.approx(125.0, abs=1)

    @pytest.mark.slow
    def test_vgg_16(self):
        shapes = vgg_16()
        assert len(shapes) == 13
        most = np.mean(
            [min(27 if s[2] == 3 else 9 * s[2], s[3]) for s in shapes]
        )
        assert most == pytest.approx(322.08, abs=0.01)
        # Oblong matrices lose nothing to a threshold of 1e-3.
        found = average(shapes, {"rank": numerical_rank})
        assert found["rank"] == pytest.approx(most, abs=0.01)

    def test_mlp_10_100(self):
        shapes = [(3072, 100)] + [(100, 100)] * 9
        found = average(shapes, {"rank": numerical_rank}, samples=10)
        assert found["rank"] == pytest.approx(99.3, abs=0.4)

    def test_square_of_256(self):
        found = initial_baseline((256, 256), "torch", LOOSE, samples=5)
        assert found["rank"] == pytest.approx(253, abs=1)
        assert found["rank_at_5pct"] == pytest.approx(130, abs=2)

    @pytest.mark.parametrize("shape", [(40, 30), (3, 3, 16, 32), (5, 8, 4)])
    def test_torch_is_uniform_within_one_over_root_fan_in(self, shape):
        spectra = initial_spectra(shape, "torch", samples=8)
        fan_in = int(np.prod(shape[:-1]))
        variance = np.mean([np.mean(s.values**2) for s in spectra])
        # The mean square of singular values is that of the entries, times
        # the longer side.
        longer = max(fan_in, shape[-1])
        assert variance / longer == pytest.approx(1 / (3 * fan_in), rel=0.05)


class TestInitialSpectra:
    @pytest.mark.parametrize(
        ("shape", "matrix"),
        [
            ((7, 5), (7, 5)),
            ((3, 4, 5), (12, 5)),
            ((3, 3, 4, 5), (36, 5)),
            ((2, 2, 2, 3, 4), (24, 4)),
            ((1, 1), (1, 1)),
            ((np.int64(3), np.int32(2)), (3, 2)),
            ([3, 2], (3, 2)),
        ],
    )
    def test_shapes(self, shape, matrix):
        (spectrum,) = initial_spectra(shape, samples=1)
        assert spectrum.shape == matrix

    def test_of_a_layer(self):
        # What Keras draws for the layer itself, from the same seed.
        layer = keras.layers.Conv2D(
            8, 3, kernel_initializer=keras.initializers.GlorotUniform(seed=7)
        )
        layer.build((None, 9, 9, 4))
        (matrix,) = weight_matrices(layer)
        (spectrum,) = initial_spectra(matrix.shape, samples=1, seed=7)
        np.testing.assert_array_equal(spectrum.values, matrix.spectrum().values)

    @pytest.mark.parametrize(
        "initializer",
        [
            "glorot_uniform",
            "he_normal",
            "lecun_uniform",
            "random_normal",
            "truncated_normal",
            "orthogonal",
            keras.initializers.HeUniform(seed=3),
            {"class_name": "HeNormal", "config": {"seed": 5}},
            keras.initializers.RandomUniform,
        ],
    )
    def test_samples_differ_and_return(self, initializer):
        first, second = initial_spectra((6, 4), initializer, samples=2)
        again = initial_spectra((6, 4), initializer, samples=1)[0]
        np.testing.assert_array_equal(first.values, again.values)
        later = initial_spectra((6, 4), initializer, samples=1, seed=1)[0]
        np.testing.assert_array_equal(second.values, later.values)
        if initializer != "orthogonal":
            assert not np.allclose(first.values, second.values)

    def test_an_orthogonal_matrix_is_flat(self):
        (spectrum,) = initial_spectra((9, 5), "orthogonal", samples=1)
        np.testing.assert_allclose(spectrum.values, 1, atol=1e-6)

    @pytest.mark.parametrize(
        ("initializer", "rank"),
        [("zeros", 0), ("ones", 1), ("identity", 4)],
    )
    def test_initializers_without_chance(self, initializer, rank):
        found = initial_baseline((6, 4), initializer, ["rank"])
        assert found == {"rank": rank}

    def test_a_function(self):
        def stripes(shape, dtype=None):
            return keras.ops.tile(
                keras.ops.arange(shape[0], dtype=dtype)[:, None], (1, shape[1])
            )

        (spectrum,) = initial_spectra((4, 3), stripes, samples=1)
        np.testing.assert_allclose(
            spectrum.values, [np.sqrt(3 * 14), 0, 0], atol=1e-6
        )

    def test_global_seeds_are_neither_used_nor_changed(self):
        def following():
            return keras.ops.convert_to_numpy(keras.random.normal((3,)))

        keras.utils.set_random_seed(1)
        expected, host = following(), np.random.normal()
        keras.utils.set_random_seed(1)
        one = initial_spectra((5, 5), samples=1)[0].values
        np.testing.assert_array_equal(following(), expected)
        assert np.random.normal() == host
        two = initial_spectra((5, 5), samples=1)[0].values
        np.testing.assert_array_equal(one, two)

    @pytest.mark.parametrize(
        "shape", [(), (5,), (3, 0), (-3, 4), (None, 4), 5, "34", (2.5, 3), None]
    )
    def test_bad_shapes(self, shape):
        with pytest.raises(ValueError, match="`shape` must be the shape of a"):
            initial_spectra(shape)

    @pytest.mark.parametrize("samples", [0, -1, 1.5, "3", None])
    def test_bad_samples(self, samples):
        with pytest.raises(ValueError, match="`samples` must be a whole"):
            initial_spectra((3, 3), samples=samples)


class TestInitialBaseline:
    def test_it_is_the_mean_of_the_spectra(self):
        spectra = initial_spectra((20, 10), samples=4, seed=2)
        found = initial_baseline((20, 10), samples=4, seed=2)
        assert set(found) == {
            "rank",
            "stable_rank",
            "effective_rank",
            "energy_rank",
        }
        assert found["stable_rank"] == pytest.approx(
            np.mean([stable_rank(spectrum) for spectrum in spectra])
        )
        assert {type(value) for value in found.values()} == {float}

    def test_scale_changes_no_rank(self):
        small, large = (
            initial_baseline(
                (30, 20), keras.initializers.RandomNormal(stddev=scale)
            )
            for scale in (1e-3, 1.0)
        )
        assert small == pytest.approx(large, rel=1e-5)

    def test_unknown_measures(self):
        with pytest.raises(ValueError, match="Unknown measure 'rnak'"):
            initial_baseline((3, 3), measures="rnak")
