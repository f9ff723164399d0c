import math

import numpy as np
import pytest

from keras_lowrank import Spectrum
from keras_lowrank import as_measures
from keras_lowrank.plots import draw_panels
from keras_lowrank.plots import measure_curves
from keras_lowrank.plots import spectrum_overlay
from keras_lowrank.records import Measurement
from keras_lowrank.records import Record
from keras_lowrank.records import Recording
from keras_lowrank.records import measure_all

pytestmark = pytest.mark.once

MEASURES = as_measures(["stable_rank"])


def recording(*spectra):
    measurements = []
    for epoch, values in enumerate(spectra):
        records = []
        for name in ("first", "second"):
            spectrum = Spectrum(values, (len(values), 9))
            records.append(
                Record(name, spectrum, measure_all(MEASURES, spectrum))
            )
        measurements.append(Measurement(5 * epoch, None, tuple(records)))
    return Recording(MEASURES, {}, measurements)


RUNS = {
    "plain": recording([2.0, 1.0, 1.0], [2.0, 1.0, 1.0]),
    "decayed": recording([2.0, 1.0, 1.0], [3.0, 4e-4, 0.0]),
}


class TestData:
    def test_curves_are_means_over_the_weights(self):
        panel = measure_curves(RUNS, "stable_rank")
        assert [line.label for line in panel.lines] == ["plain", "decayed"]
        plain, decayed = panel.lines
        assert plain.x.tolist() == [0, 5] and plain.y.tolist() == [1.5, 1.5]
        assert decayed.y == pytest.approx([1.5, 1.0])
        assert panel.caption == "stable_rank()"

    def test_any_measure_can_be_drawn_afterwards(self):
        panel = measure_curves(RUNS, "rank")
        assert panel.lines[1].y.tolist() == [3.0, 1.0]
        assert "tolerance=0.001" in panel.caption

    def test_spectra_stand_beside_their_start_and_the_threshold(self):
        panel = spectrum_overlay(RUNS, "first", tolerance=0.01)
        labels = [line.label for line in panel.lines]
        assert labels == [
            "initialisation",
            "plain",
            "decayed",
            "rank counts above 0.01",
        ]
        start, plain, decayed, threshold = panel.lines
        expected = np.array([2, 1, 1]) / math.sqrt(6)
        np.testing.assert_allclose(start.y, expected)
        np.testing.assert_array_equal(start.y, plain.y)
        # Zero has no place on a logarithmic axis.
        np.testing.assert_allclose(decayed.y, [1.0, 4e-4 / 3], rtol=1e-6)
        assert decayed.x.tolist() == [1, 2]
        assert threshold.x.tolist() == [1, 3]
        assert threshold.y.tolist() == [0.01, 0.01]
        assert panel.log_y and start.faint and threshold.faint

    def test_a_spectrum_that_is_not_finite_is_left_out(self):
        broken = recording([2.0, 1.0], [math.nan, math.nan])
        panel = spectrum_overlay({"broken": broken}, "first")
        assert panel.lines[1].y.size == 0
        assert math.isnan(measure_curves({"b": broken}, "rank").lines[0].y[1])


class TestDrawing:
    def test_a_figure_shows_every_line(self, tmp_path):
        panels = [
            measure_curves(RUNS, "stable_rank"),
            spectrum_overlay(RUNS, "second"),
        ]
        figure = draw_panels(panels, title="Twins")
        for axes, panel in zip(figure.axes, panels, strict=True):
            drawn = axes.get_lines()
            assert len(drawn) == len(panel.lines)
            for line, wanted in zip(drawn, panel.lines, strict=True):
                np.testing.assert_array_equal(line.get_xdata(), wanted.x)
                np.testing.assert_array_equal(line.get_ydata(), wanted.y)
            assert axes.get_xlabel() == panel.x_label
        assert figure.axes[1].get_yscale() == "log"
        figure.savefig(tmp_path / "figure.png")
        assert (tmp_path / "figure.png").stat().st_size > 10_000

    def test_lines_differ_in_colour_and_in_style(self):
        runs = {f"run {index}": RUNS["plain"] for index in range(8)}
        figure = draw_panels([measure_curves(runs, "rank")])
        looks = {
            (line.get_color(), line.get_linestyle())
            for line in figure.axes[0].get_lines()
        }
        assert len(looks) == 6

    def test_pyplot_and_its_state_are_left_alone(self):
        from matplotlib import pyplot

        before = pyplot.get_fignums()
        draw_panels([measure_curves(RUNS, "rank")])
        assert pyplot.get_fignums() == before
