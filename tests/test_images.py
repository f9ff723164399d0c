import io

import numpy as np
import pytest
from matplotlib import colormaps
from matplotlib.image import imread

from keras_lowrank import Spectrum
from keras_lowrank.images import BLACK
from keras_lowrank.images import TEXT_HEIGHT
from keras_lowrank.images import WHITE
from keras_lowrank.images import number_pixels
from keras_lowrank.images import png
from keras_lowrank.images import viridis
from keras_lowrank.records.spectrum_image import spectrum_image

pytestmark = pytest.mark.once


def read(pixels):
    return imread(io.BytesIO(png(pixels)), format="png")[..., :3]


class TestPng:
    def test_colours_are_those_of_matplotlib(self):
        values = np.linspace(-7, 0, 60).reshape(5, 12)
        colours = read(viridis(values, -7, 0))
        assert colours.shape == (5, 12, 3)
        expected = colormaps["viridis"]((values + 7) / 7)[..., :3]
        # A line through nine of its colours.
        assert np.abs(colours - expected).max() < 0.08

    def test_what_is_out_of_range_and_what_is_missing(self):
        values = np.array([[-np.inf, -8.0, -7.0, 0.0, 3.0, np.nan]])
        pixels = viridis(values, -7, 0)[0]
        assert pixels[:3].tolist() == [0, 0, 0]
        assert pixels[3] == pixels[4] == BLACK - 1
        assert pixels[5] == WHITE
        assert read(pixels[None])[0, 5].tolist() == [1, 1, 1]

    def test_numbers(self):
        assert number_pixels(7).shape == (TEXT_HEIGHT, 9)
        drawn = read(number_pixels(-10))[..., 0] < 0.5
        points = drawn[::3, ::3]
        assert ["".join("#" if p else "." for p in row) for row in points] == [
            ".....#..###",
            "....##..#.#",
            "###..#..#.#",
            ".....#..#.#",
            "....###.###",
        ]


def spectra_of(columns):
    return {
        10 * place: Spectrum(np.array(values), (len(values), 9))
        for place, values in enumerate(columns)
    }


class TestSpectrumImage:
    def heat(self, image, rows, columns):
        """What is drawn of each value, without the axes."""
        part = image[8 : 8 + 256, 52 : 52 + 310]
        down = 256 * (2 * np.arange(rows) + 1) // (2 * rows)
        across = 310 * (2 * np.arange(columns) + 1) // (2 * columns)
        return part[np.ix_(down, across)]

    def test_columns_are_epochs_and_rows_values(self):
        image = spectrum_image(
            spectra_of([[2.0, 2.0, 2.0], [5.0, 0.5, 5e-7], [3.0, 0.0, 0.0]])
        )
        bright = BLACK - 1
        assert self.heat(image, 3, 3).tolist() == [
            [bright, bright, bright],
            [bright, round(bright * 6 / 7), 0],
            [bright, 0, 0],
        ]

    def test_what_has_no_logarithm_is_white(self):
        broken = Spectrum(np.full(2, np.nan), (2, 9), reason="not finite")
        spectra = spectra_of([[2.0, 1.0], [0.0, 0.0], [1.0]])
        image = spectrum_image(spectra | {30: broken})
        heat = self.heat(image, 2, 4)
        assert (heat[:, 1] == WHITE).all() and (heat[:, 3] == WHITE).all()
        assert heat[0, 2] == BLACK - 1 and heat[1, 2] == WHITE

    def test_long_recordings_keep_their_ends(self):
        values = np.logspace(0, -7, 700)  # more than there are pixels
        spectra = {n: Spectrum(values, (700, 800)) for n in range(600)}
        spectra[599] = Spectrum(np.ones(700), (700, 800))
        image = spectrum_image(spectra)
        heat = image[8 : 8 + 256, 52 : 52 + 310]
        assert (heat[:, -1] == BLACK - 1).all()
        assert heat[0, 0] == BLACK - 1 and heat[-1, 0] == 0
        assert (np.diff(heat[:, 0].astype(int)) <= 0).all()

    @pytest.mark.parametrize("count", [1, 2, 150, 500])
    def test_some_epochs_are_marked(self, count):
        image = spectrum_image(spectra_of([[1.0, 0.5]] * count))
        marks = np.flatnonzero(image[8 + 256] == BLACK) - 52
        assert len(marks) == min(count, 5)
        ends = 310 / count / 2, 310 - 310 / count / 2
        assert marks[[0, -1]] == pytest.approx(ends, abs=1)
