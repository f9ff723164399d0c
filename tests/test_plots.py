import dataclasses
import itertools
import math

import numpy as np
import pytest

from keras_lowrank import Spectrum
from keras_lowrank import Window
from keras_lowrank import as_measures
from keras_lowrank import distance_to_rank
from keras_lowrank.plots import Line
from keras_lowrank.plots import Map
from keras_lowrank.plots import Panel
from keras_lowrank.plots import certificate_curve
from keras_lowrank.plots import certified_ranks
from keras_lowrank.plots import data
from keras_lowrank.plots import draw
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


def certified(weight, measured, rank, full=24, bound=None, vacuous=False):
    return {
        "weight": weight,
        "measured": measured,
        "certified": rank,
        "closed_form": bound,
        "full": full,
        "vacuous": vacuous,
    }


ROWS = [
    certified("first/kernel", 6, 12, bound=18.0),
    certified("conv/kernel", 30, 60, full=60, bound=1e4, vacuous=True),
    certified("dead/kernel", 0, 24, vacuous=True),
    certified("blown/up", math.nan, 24, bound=math.inf, vacuous=True),
]
WINDOW = Window.of_past(
    [1.0, 0.5, 0.4, 1e-9, 1e-12], [2, 2, 2, 2], 1, shape=(8, 10)
)


class TestCertifiedRanks:
    panel = certified_ranks(ROWS, tolerance=0.3)
    places = {
        line.mark or "full": list(
            zip(line.x.tolist(), line.y.tolist(), strict=True)
        )
        for line in panel.lines
    }

    def test_ranks_are_shares_of_the_largest_possible(self):
        assert self.places["measured"] == [(0.25, 0), (0.5, 1), (0, 2)]
        assert self.places["certified"] == [(0.5, 0)]
        assert self.places["full"] == [(1, -0.5), (1, 3.5)]

    def test_what_is_vacuous_is_no_certificate(self):
        assert self.places["vacuous"] == [(1, 1), (1, 2), (1, 3)]
        vacuous = [row["vacuous"] for row in ROWS]
        assert ["vacuous" in text for text in self.panel.remarks] == vacuous

    def test_bounds_above_are_drawn_at_the_edge_and_say_so(self):
        assert self.places["closed form"] == [(0.75, 0)]
        assert self.places["beyond"] == [(1, 1), (1, 3)]
        labels = {line.mark: line.label for line in self.panel.lines}
        assert labels["beyond"] == "Theorem 3.3, above min(m, n)"

    def test_rows_have_names_and_numbers(self):
        assert self.panel.rows == tuple(row["weight"] for row in ROWS)
        assert self.panel.remarks == (
            "6 of 24, certified 12",
            "30 of 60, vacuous",
            "collapsed, vacuous",
            "not finite, vacuous",
        )
        assert "epsilon_rank(tolerance=0.3)" in self.panel.caption


class TestCertificateCurve:
    spectrum = Spectrum(0.1 ** np.arange(8.0), (8, 10), resolution=2e-5)

    def lines(self, spectrum, window, tolerance=0.45):
        panel = certificate_curve(spectrum, window, tolerance, "dense/kernel")
        assert panel.log_y and panel.title == "Lemma 3.2 on dense/kernel"
        return {line.mark or line.label: line for line in panel.lines}

    def test_both_sides_of_the_lemma(self):
        lines = self.lines(self.spectrum, WINDOW)
        measured = lines["measured distance"]
        for rank, distance in zip(measured.x[:5], measured.y[:5], strict=True):
            assert distance == distance_to_rank(self.spectrum, rank)
        bound = lines["bound of Lemma 3.2"]
        assert bound.x.tolist() == [0, 2, 4]
        assert bound.y.tolist() == [1.0, 0.5, 0.4]
        assert lines["tolerance 0.45"].faint

    def test_distances_that_are_not_resolved_are_cut_off(self):
        measured = self.lines(self.spectrum, WINDOW)["measured distance"]
        assert measured.x.tolist() == list(range(6))
        floor = 2e-5 / np.linalg.norm(self.spectrum.values)
        assert measured.y[-1] == floor < measured.y[-2]

    def test_ranks_at_the_tolerance(self):
        lines = self.lines(self.spectrum, WINDOW)
        measured, certificate = lines["measured"], lines["certified"]
        assert (measured.x, measured.label) == ([1], "measured rank 1")
        assert (certificate.x, certificate.label) == ([4], "certified rank 4")
        assert measured.y == certificate.y == [0.45]

    @pytest.mark.parametrize("window", [None, WINDOW], ids=["none", "past"])
    def test_vacuous(self, window):
        lines = self.lines(self.spectrum, window, tolerance=1e-10)
        assert "certified" not in lines
        assert lines["vacuous"].x == [8]
        assert ("bound of Lemma 3.2" in lines) == (window is not None)

    @pytest.mark.parametrize("value", [0.0, math.nan], ids=["zero", "nan"])
    def test_what_is_no_matrix_of_a_rank(self, value):
        spectrum = Spectrum(np.full(8, value), (8, 10))
        lines = self.lines(spectrum, WINDOW)
        assert lines["measured distance"].y.size == 0
        assert ("measured" in lines) == (value == 0)


def test_every_mark_has_a_look_and_no_other_is_taken():
    assert {*draw._MARKS, "end"} == set(data.MARKS)  # of a line's colour
    with pytest.raises(ValueError, match=r"one of .*Received: mark='x'"):
        data.Line("some", np.ones(1), np.ones(1), mark="x")


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

    @pytest.mark.parametrize("count", [1, 30])
    def test_rows_do_not_overlap(self, count):
        names = [f"{'encoder/block/' * 4}{i}/kernel" for i in range(count)]
        rows = [
            certified(name, 6, 24 if i % 2 else 12, bound=1e4, vacuous=i % 2)
            for i, name in enumerate(names)
        ]
        figure = draw_panels([certified_ranks(rows, 0.1)])
        figure.draw_without_rendering()
        (axes,) = figure.axes
        assert axes.get_ylim()[0] > axes.get_ylim()[1]  # the first at the top
        ticks = axes.get_yticklabels()
        assert [tick.get_text() for tick in ticks] == names
        remarks = [text for text in axes.texts if " of 24, " in text.get_text()]
        for column in (ticks, remarks):
            assert len(column) == count
            boxes = [text.get_window_extent() for text in column]
            for upper, lower in itertools.pairwise(boxes):
                assert upper.y0 > lower.y1
            for box in boxes:
                assert 0 <= box.x0 and box.x1 <= figure.bbox.x1
        legend = axes.get_legend().get_window_extent()
        assert legend.y1 < axes.xaxis.label.get_window_extent().y0
        assert legend.y0 >= 0

    def test_the_curve_and_its_ranks(self):
        spectrum = TestCertificateCurve.spectrum
        panel = certificate_curve(spectrum, WINDOW, 0.45)
        (axes,) = draw_panels([panel]).axes
        looks = {
            line.get_label(): (line.get_color(), line.get_marker())
            for line in axes.get_lines()
        }
        distance, bound = (
            looks[name][0]
            for name in ("measured distance", "bound of Lemma 3.2")
        )
        assert looks["measured rank 1"] == (distance, "o")
        assert looks["certified rank 4"] == (bound, "D")

    def test_pyplot_and_its_state_are_left_alone(self):
        from matplotlib import pyplot

        before = pyplot.get_fignums()
        draw_panels([measure_curves(RUNS, "rank")])
        assert pyplot.get_fignums() == before


HEIGHTS = np.array([0.5, 0.25, 1.0])
SIZES = np.array([8.0, 16.0, 32.0])


def panel_of(*lines, **settings):
    return Panel("Means", "batch size", "rank", lines, **settings)


class TestErrorBars:
    line = Line(
        "runs",
        SIZES,
        HEIGHTS,
        low=HEIGHTS - np.array([0.25, math.nan, 0.5]),
        high=HEIGHTS + np.array([0.125, math.nan, 0.25]),
    )

    def test_bars_end_where_they_should(self):
        (axes,) = draw_panels([panel_of(self.line)]).axes
        (container,) = axes.containers
        curve, _, (bars,) = container
        np.testing.assert_array_equal(curve.get_ydata(), HEIGHTS)
        first, _, last = bars.get_segments()
        assert first.tolist() == [[8, 0.25], [8, 0.625]]
        assert last.tolist() == [[32, 0.5], [32, 1.25]]
        (text,) = axes.get_legend().get_texts()
        assert text.get_text() == "runs"

    def test_the_look_is_that_of_the_line(self):
        plain = Line("runs", SIZES, HEIGHTS)
        colours = [
            draw_panels([panel_of(line)]).axes[0].get_lines()[0].get_color()
            for line in (self.line, plain)
        ]
        assert colours[0] == colours[1]

    def test_the_axis_starts_at_zero_unless_something_is_below(self):
        below = Line("d", SIZES, HEIGHTS, low=HEIGHTS - 0.5, high=HEIGHTS + 0.5)
        bottoms = [
            draw_panels([panel_of(line)]).axes[0].get_ylim()[0]
            for line in (self.line, below)
        ]
        assert bottoms[0] == 0 and bottoms[1] < -0.25

    @pytest.mark.parametrize(
        ("low", "high"),
        [(HEIGHTS, None), (None, HEIGHTS), (HEIGHTS[:2], HEIGHTS)],
        ids=["low", "high", "short"],
    )
    def test_shapes_must_fit(self, low, high):
        with pytest.raises(ValueError, match=r"shape of `y`, \(3,\).*'runs'"):
            Line("runs", SIZES, HEIGHTS, low=low, high=high)

    @pytest.mark.parametrize(
        ("low", "high"),
        [(HEIGHTS + 0.1, HEIGHTS + 0.1), (HEIGHTS - 0.1, HEIGHTS - 0.1)],
        ids=["low", "high"],
    )
    def test_lengths_are_no_ends(self, low, high):
        with pytest.raises(ValueError, match="ends, not lengths"):
            Line("runs", SIZES, HEIGHTS, low=low, high=high)


class TestLogarithmicAxis:
    def ticks(self, places, **settings):
        line = Line("runs", np.array(places), np.ones(len(places)))
        figure = draw_panels([panel_of(line, **settings)])
        figure.draw_without_rendering()
        (axes,) = figure.axes
        return axes, [text.get_text() for text in axes.get_xticklabels()]

    def test_is_asked_for(self):
        assert self.ticks(SIZES)[0].get_xscale() == "linear"
        assert self.ticks(SIZES, log_x=True)[0].get_xscale() == "log"

    def test_a_few_values_are_the_ticks(self):
        axes, texts = self.ticks([8, 16, 16, 1024], log_x=True)
        assert texts == ["8", "16", "1024"]
        assert axes.get_xticks().tolist() == [8, 16, 1024]
        assert not len(axes.xaxis.get_minorticklocs())
        rates = [0.0001, 0.0032, 0.05, 2.0]
        _, texts = self.ticks(rates, log_x=True)
        assert texts == ["1e-4", "3.2e-3", "0.05", "2"]

    @pytest.mark.parametrize(
        "places", [np.logspace(0, 4, 30), [1.0, 1.01, 100.0], [0.0, 1.0], []]
    )
    def test_others_are_left_to_matplotlib(self, places):
        _, texts = self.ticks(places, log_x=True)
        assert "1.01" not in texts and len(texts) < 12


def grid_map(exponent=1.0, **settings):
    """A map of `size ** exponent * decay` over a grid, in decades."""
    x, y = (a.ravel() for a in np.meshgrid(SIZES, [1e-3, 1e-2, 1e-1]))
    values = np.log10(x) * exponent + np.log10(y)
    arguments = {"log_x": True, "log_y": True} | settings
    return Map("Rank", "batch size", "decay", "rank", x, y, values, **arguments)


def iso_lines(axes):
    """Level and path, in the coordinates of the data, of each iso-line."""
    (contours,) = (c for c in axes.collections if hasattr(c, "levels"))
    to_data = contours.get_transform() - axes.transData
    return [
        (level, to_data.transform(path.vertices))
        for level, path in zip(
            contours.levels, contours.get_paths(), strict=True
        )
    ]


def has_iso_lines(axes):
    return any(hasattr(c, "levels") for c in axes.collections)


class TestMap:
    def test_places_are_averaged_and_the_caption_says_so(self):
        drawn = Map(
            "Rank",
            "batch size",
            "decay",
            "rank",
            x=[8, 8 * (1 + 1e-14), 16, 8, 16],
            y=[0.1, 0.1, 0.1, 0.1, 0.2],
            values=[1.0, 3.0, 4.0, 8.0, 5.0],
            labels=("a", "b", "c", "a", "d"),
            log_x=True,
            caption="rank()",
        ).averaged()
        assert drawn.x.tolist() == [8, 16, 16]
        assert drawn.y.tolist() == [0.1, 0.1, 0.2]
        assert drawn.values.tolist() == [4.0, 4.0, 5.0]
        assert drawn.labels == ("a, b", "c", "d")
        assert drawn.caption == "rank(); means of up to 3 points"

    def test_what_is_not_finite_is_left_out_and_counted(self):
        x = [1.0, 0.0, -1.0, math.inf, 2.0, 3.0]
        values = [1.0, 2.0, 3.0, 4.0, math.nan, 6.0]
        settings = {"x": x, "y": np.ones(6), "values": values}
        drawn = Map("", "x", "y", "v", **settings, log_x=True).averaged()
        assert drawn.x.tolist() == [1.0, 3.0]
        assert drawn.caption == "left out as not finite: 4 of 6"
        drawn = Map("", "x", "y", "v", **settings).averaged()
        assert drawn.x.tolist() == [-1.0, 0.0, 1.0, 3.0]

    def test_what_is_drawn_already_stays_as_it_is(self):
        once = grid_map().averaged()
        again = once.averaged()
        np.testing.assert_array_equal(once.values, again.values)
        assert once.caption == again.caption == ""

    def test_shapes_must_fit(self):
        with pytest.raises(ValueError, match=r"shapes \(2,\), \(3,\) and"):
            Map("", "x", "y", "v", [1, 2], [1, 2, 3], [1, 2])
        with pytest.raises(ValueError, match=r"shapes \(1, 2\), "):
            Map("", "x", "y", "v", [[1, 2]], [[1, 2]], [[1, 2]])
        with pytest.raises(ValueError, match="1 labels for 2 points"):
            Map("", "x", "y", "v", [1, 2], [1, 2], [1, 2], ("a",))


class TestDrawingMaps:
    def test_points_lie_at_their_places_in_the_colour_of_their_value(self):
        panel = grid_map(labels=tuple("abcdefghi"))
        axes, scale = draw_panels([panel]).axes
        points = axes.collections[0]
        drawn = panel.averaged()
        np.testing.assert_array_equal(
            points.get_offsets(), np.stack([drawn.x, drawn.y], axis=1)
        )
        np.testing.assert_array_equal(points.get_array(), drawn.values)
        assert points.get_cmap().name == "viridis"
        assert scale.get_ylabel() == "rank"
        assert (axes.get_xscale(), axes.get_yscale()) == ("log", "log")
        assert {text.get_text() for text in axes.texts} >= set("abcdefghi")

    @pytest.mark.parametrize("exponent", [1.0, -0.5])
    def test_iso_lines_are_straight_where_the_logarithm_is_linear(
        self, exponent
    ):
        """A power law is linear in logarithms, so this is exact."""
        axes, _ = draw_panels([grid_map(exponent)]).axes
        lines = iso_lines(axes)
        assert len(lines) >= 3
        for level, path in lines:
            x, y = np.log10(path).T
            assert len(x) >= 2
            np.testing.assert_allclose(exponent * x + y, level, atol=1e-9)

    def test_iso_lines_end_with_the_points(self):
        triangle = Map(
            "", "x", "y", "v", [0.0, 1.0, 0.0], [0.0, 0.0, 1.0], [0, 5.0, 9.0]
        )
        axes, _ = draw_panels([triangle]).axes
        for _, path in iso_lines(axes):
            assert np.all(path >= -1e-9) and np.all(path.sum(1) <= 1 + 1e-9)

    def test_iso_lines_move_no_axis(self):
        limits = []
        for values in (grid_map().values, np.ones(9)):
            panel = dataclasses.replace(grid_map(), values=values)
            axes, _ = draw_panels([panel]).axes
            limits.append((axes.get_xlim(), axes.get_ylim()))
            assert has_iso_lines(axes) == (np.ptp(values) > 0)
        assert limits[0] == limits[1]

    @pytest.mark.parametrize(
        "x", [[], [1], [1, 10], [1, 1, 1], [1, 10, 100, 1e4]], ids=len
    )
    def test_points_on_a_line_have_no_iso_lines(self, x, tmp_path):
        x = np.array(x, float)
        values = np.arange(len(x))
        panel = Map("", "x", "y", "v", x, 2 * x, values, log_x=True, log_y=True)
        figure = draw_panels([panel])
        figure.savefig(tmp_path / "map.png")
        assert not has_iso_lines(figure.axes[0])
        drawn = sum(len(c.get_offsets()) for c in figure.axes[0].collections)
        assert drawn == len(set(x.tolist()))

    def test_beside_lines(self, tmp_path):
        lines = panel_of(TestErrorBars.line, log_x=True)
        broken = dataclasses.replace(
            grid_map(), values=np.where(np.arange(9) == 4, np.nan, 1.5)
        )
        figure = draw_panels([lines, grid_map(), broken], title="Both")
        figure.savefig(tmp_path / "both.png")
        titles = [axes.get_title() for axes in figure.axes]
        assert titles[:3] == ["Means", "Rank", "Rank"]
        (caption,) = (text.get_text() for text in figure.axes[2].texts)
        assert caption == "left out as not finite: 1 of 9"
