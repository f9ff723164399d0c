"""Figures and the page of recorded runs, from stores on disk."""

import dataclasses
import html.parser
import json
import re
import sys

import numpy as np
import pytest

from keras_lowrank import Spectrum
from keras_lowrank import as_measures
from keras_lowrank.cli import main
from keras_lowrank.experiments import ExperimentSpec
from keras_lowrank.experiments.found import found_runs
from keras_lowrank.pages import gallery
from keras_lowrank.pages import run_page
from keras_lowrank.pages import story
from keras_lowrank.pages.findings import findings
from keras_lowrank.pages.viewer import spectra_data
from keras_lowrank.plots import certified_curves
from keras_lowrank.plots import clock_curves
from keras_lowrank.plots import compressibility_curves
from keras_lowrank.plots import final_map
from keras_lowrank.plots import final_values
from keras_lowrank.plots import norm_ratio_curves
from keras_lowrank.plots import rank_and_metric
from keras_lowrank.plots import spectrum_over_time
from keras_lowrank.plots import weight_curves
from keras_lowrank.plots.heat import edges
from keras_lowrank.records import CertificateLog
from keras_lowrank.records import Measurement
from keras_lowrank.records import Record
from keras_lowrank.records import Store
from keras_lowrank.records import find_runs
from keras_lowrank.records import measure_all
from keras_lowrank.records import read_certificates

pytestmark = pytest.mark.once

MEASURES = as_measures(["rank", "stable_rank"])
STEPS = 10  # an epoch


def moments(tail, epochs=(0, 2, 4)):
    """Two matrices, of which the second decays towards a small tail."""
    for index, epoch in enumerate(epochs):
        records = []
        for name, last in (("first", 1.0), ("<last>", tail**index)):
            spectrum = Spectrum([2.0, 1.0, last], (3, 9), resolution=2e-7)
            values = measure_all(MEASURES, spectrum)
            records.append(Record(name, spectrum, values))
        yield Measurement(
            epoch,
            step=STEPS * epoch,
            records=tuple(records),
            logs={"val_accuracy": 0.5 + 0.1 * index, "loss": 1.0}
            if epoch
            else {},
            learning_rate=0.1,
            batch_size=8,
            steps_per_epoch=STEPS,
        )


def certify(run_dir):
    """Certificates of two epochs: vacuous, then of one matrix of two."""
    log = CertificateLog(run_dir)
    names = ("first", "<last>")
    log.start(0.1, dict.fromkeys(names, (3, 9)), dict.fromkeys(names, 1))
    for epoch in (1, 2):
        rows = [
            {
                "weight": name,
                "certified": 2 if name == "first" and epoch == 2 else 3,
                "full": 3,
                "steps": 1,
                "remainder": 0.05,
                "vacuous": name == "<last>" or epoch == 1,
                "verdict": "",
            }
            for name in names
        ]
        log.write(epoch, rows)
    log.finish([row | {"measured": 1, "closed_form": None} for row in rows])


def write(run_dir, tail=1e-2, rate=0.5, spec=None, **info):
    decay = {
        "variables": [
            {"name": "first", "role": "kernel", "rate": rate},
            {"name": "<last>", "role": "kernel", "rate": rate},
        ],
        "warnings": [],
    }
    store = Store(run_dir)
    store.start_fit(0, MEASURES, {"weight_decay": decay} | info)
    for moment in moments(tail):
        store.write(moment)
    store.close()
    if spec is not None:
        (run_dir / "spec.json").write_text(spec.to_json())
    return run_dir


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Two runs of a `fit`, below one directory."""
    above = tmp_path_factory.mktemp("runs")
    certify(above / "decayed")
    write(above / "plain", tail=1.0, rate=0.0)
    write(above / "decayed", backend="jax")
    return found_runs([above])


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    """Experiments that differ in their decay, two of them in the seed."""
    above = tmp_path_factory.mktemp("sweep")
    spec = ExperimentSpec(
        network={"name": "mlp", "depth": 2, "width": 3},
        data="digits",
        batch_size=8,
        epochs=4,
    )
    for decay, seed, tail in ((0.0, 0, 1.0), (0.01, 0, 1e-2), (0.01, 1, 1e-1)):
        one = spec.replace(weight_decay=decay, seed=seed)
        write(above / one.id / "jax", tail=tail, spec=one)
    return found_runs([above])


class TestFinding:
    def test_names_are_what_paths_do_not_share(self, tmp_path):
        for name in ("a/x", "a/y", "b/x"):
            write(tmp_path / name)
        found = find_runs([tmp_path])
        assert list(found) == ["a/x", "a/y", "b/x"]
        assert found["a/y"] == tmp_path / "a" / "y"
        store = tmp_path / "a" / "x" / "records.sqlite"
        assert list(find_runs([store])) == ["x"]
        both = find_runs([tmp_path / "a" / "y", tmp_path / "a" / "x"])
        assert list(both) == ["y", "x"]

    def test_a_run_above_others_keeps_its_name(self, tmp_path):
        write(tmp_path / "run")
        write(tmp_path / "run" / "fine-tuned")
        found = find_runs([tmp_path / "run", tmp_path / "run" / "fine-tuned"])
        assert list(found) == ["run", "fine-tuned"]

    def test_nothing_there(self, tmp_path):
        with pytest.raises(FileNotFoundError, match="no recorded run at or"):
            found_runs([tmp_path])

    def test_nothing_measured(self, tmp_path):
        Store(tmp_path).close()
        with pytest.raises(ValueError, match="Nothing was measured"):
            found_runs([tmp_path])

    def test_experiments_are_named_by_what_differs(self, swept):
        assert sorted(run.name for run in swept) == [
            "weight_decay 0, seed 0",
            "weight_decay 0.01, seed 0",
            "weight_decay 0.01, seed 1",
        ]

    def test_the_clock_of_a_fit(self, runs):
        clocks = {run.name: run.clock for run in runs}
        tick = -np.log1p(-0.1 * 0.5)
        expected = tick * STEPS * np.array([0, 2, 4])
        np.testing.assert_allclose(clocks["decayed"], expected)
        np.testing.assert_array_equal(clocks["plain"], 0)

    def test_the_clock_of_an_experiment_is_that_of_its_spec(self, swept):
        (run,) = [run for run in swept if run.name.endswith("0.01, seed 1")]
        plan = run.spec.plan(STEPS * run.spec.batch_size)
        expected = [plan.decay_clock(STEPS * epoch) for epoch in (0, 2, 4)]
        np.testing.assert_allclose(run.clock, expected)

    def test_no_clock_where_matrices_decay_differently(self, tmp_path):
        variables = [
            {"name": "first", "rate": 0.1},
            {"name": "<last>", "rate": 0},
        ]
        decay = {"variables": variables, "warnings": []}
        write(tmp_path, weight_decay=decay)
        assert found_runs([tmp_path])[0].clock is None


class TestPanels:
    def test_each_weight_has_a_line(self, runs):
        decayed = runs[0].recording
        panel = weight_curves(decayed, "rank")
        first, last = panel.lines
        assert (first.label, last.label) == ("first", "<last>")
        assert first.y.tolist() == [3, 3, 3]
        assert last.y.tolist() == [3, 3, 2]
        assert (first.shade, last.shade) == (0.0, 1.0)
        with pytest.raises(ValueError, match="Recorded: first, <last>"):
            weight_curves(decayed, "rank", ["second"])

    def test_final_values_are_means_of_seeds(self, swept):
        points = [(run.spec.weight_decay, run.recording) for run in swept]
        first, last, mean = final_values(points, "rank", "decay").lines
        assert first.x.tolist() == [0.0, 0.01] and first.y.tolist() == [3, 3]
        assert last.y.tolist() == [3, 2.5]
        assert last.low.tolist() == [3, 2] and last.high.tolist() == [3, 3]
        assert mean.y.tolist() == [3, 2.75]

    def test_a_final_map_is_over_two_hyperparameters(self, swept):
        run = swept[0].recording
        points = [(8, 0.1, run), (8, 0.01, run), (256, 0.1, run)]
        drawn = final_map(points, "rank", "batch size", "rate")
        assert drawn.x.tolist() == [8, 8, 256] and drawn.log_x
        assert drawn.y.tolist() == [0.1, 0.01, 0.1] and not drawn.log_y
        assert drawn.values.tolist() == [3, 3, 3]
        with pytest.raises(ValueError, match="triples of two numbers"):
            final_map([], "rank", "batch size", "rate")

    def test_rank_and_metric(self, runs):
        panel = rank_and_metric({"one": runs[0].recording}, "rank")
        path, end = panel.lines
        assert (path.label, end.label) == ("on the way", "one")
        assert path.x.tolist() == pytest.approx([0.6, 0.7])
        assert path.y.tolist() == [3, 2.5]
        assert (end.x.tolist(), end.y.tolist()) == ([path.x[-1]], [2.5])
        with pytest.raises(ValueError, match="Logged: loss, val_accuracy"):
            rank_and_metric({"one": runs[0].recording}, "rank", "auc")

    def test_norm_ratios_beside_decay(self, runs):
        run = runs[0]
        ratios, decay = norm_ratio_curves(run.recording, run.clock).lines
        last = np.sqrt(5 + 1e-4) / np.sqrt(6)
        np.testing.assert_allclose(ratios.low[0], last)
        np.testing.assert_allclose(ratios.high, 1)
        np.testing.assert_allclose(decay.y, (1 - 0.1 * 0.5) ** (2 * STEPS))

    def test_runs_without_decay_have_no_place_on_its_clock(self, runs):
        pairs = {run.name: (run.clock, run.recording) for run in runs}
        (line,) = clock_curves(pairs, "rank").lines
        assert line.label == "decayed" and line.y.tolist() == [3, 2.5]

    def test_certificates_by_epoch(self, tmp_path):
        certify(tmp_path)
        certificates = read_certificates(tmp_path)
        first = certified_curves(certificates, "first")
        found = {line.mark: (*line.x, *line.y) for line in first.lines}
        assert found == {
            "certified": (2, 2),
            "vacuous": (1, 3),
            "measured": (2, 1),
        }
        marks = [
            line.mark for line in certified_curves(certificates, "<last>").lines
        ]
        assert marks == ["vacuous", "measured"]

    def test_compressibility(self):
        spectrum = Spectrum([2.0, 1.0, 1.0, 0.0], (8, 8))
        panel = compressibility_curves({"one": spectrum})
        (line,) = panel.lines
        assert line.x.tolist() == [16 / 64, 32 / 64]
        np.testing.assert_allclose(line.y, np.sqrt([2 / 6, 1 / 6]))

    def test_spectrum_over_time(self, runs):
        heat = spectrum_over_time(runs[0].recording, "<last>")
        assert heat.values.shape == (3, 3)
        expected = np.log10([[1] * 3, [0.5] * 3, [0.5, 5e-3, 5e-5]])
        np.testing.assert_allclose(heat.values, expected)
        np.testing.assert_array_equal(edges(heat.x), [-1, 1, 3, 5])


class TestGallery:
    def test_what_runs_allow(self, runs, swept):
        kinds = [picture.kind for picture in gallery(runs)]
        expected = "ranks weights spectra time time norms accuracy theory"
        assert kinds == [*expected.split(), "compressibility"]
        assert {"final", "collapse"} <= {p.kind for p in gallery(swept)}

    def test_what_they_do_not_allow_is_said_when_asked_for(self, runs):
        with pytest.raises(ValueError, match="two runs with a known weight"):
            list(gallery(runs, ["collapse"]))
        with pytest.raises(ValueError, match="two experiments that differ"):
            list(gallery(runs, ["final"]))
        with pytest.raises(ValueError, match="out of ranks, weights"):
            list(gallery(runs, ["rank"]))
        with pytest.raises(ValueError, match="selects no matrix"):
            list(gallery(runs, weights="third"))
        with pytest.raises(ValueError, match="no regular expression"):
            list(gallery(runs, weights="("))

    def test_contours_are_over_the_two_numbers_that_differ(self, swept):
        with pytest.raises(ValueError, match="2 fields, and the runs differ"):
            list(gallery(swept, ["contours"]))
        with pytest.raises(ValueError, match="and `against` names 2"):
            list(gallery(swept, ["final"], against="weight_decay, epochs"))
        with pytest.raises(ValueError, match="no spec has numbers 'data'"):
            list(gallery(swept, ["contours"], against="data,epochs"))
        varied = [
            dataclasses.replace(run, spec=run.spec.replace(batch_size=size))
            for size in (8, 32)
            for run in swept
        ]
        (picture,) = gallery(varied, ["contours"], ["rank"])
        (drawn,) = picture.panels
        assert {drawn.x_label, drawn.y_label} == {"batch size", "weight decay"}
        assert len(drawn.averaged().values) == 4
        picture.draw().draw_without_rendering()

    def test_without_matplotlib_it_says_what_to_install(
        self, runs, monkeypatch
    ):
        monkeypatch.setitem(sys.modules, "matplotlib", None)
        monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
        with pytest.raises(ImportError, match=r"keras-lowrank\[plots\]"):
            run_page(runs)

    def test_every_figure_can_be_drawn(self, swept):
        for picture in gallery(swept[:2], weights="last"):
            figure = picture.draw()
            assert len(figure.axes) >= len(picture.panels)
            figure.draw_without_rendering()


class Links(html.parser.HTMLParser):
    """Collects what a page would load, and its tags."""

    def __init__(self, page):
        super().__init__()
        self.loaded, self.tags = [], []
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        values = dict(attributes)
        self.loaded += [values[k] for k in ("src", "href") if k in values]


@pytest.fixture(scope="module")
def page(runs):
    return run_page(runs, "command <x>")


class TestPage:
    def test_it_needs_no_other_file(self, page):
        links = Links(page)
        assert links.loaded
        assert all(re.match("#|data:image/", one) for one in links.loaded)
        assert links.tags.count("img") == 9 and "svg" in links.tags

    def test_names_are_no_markup(self, page):
        assert "<last>" not in page and "&lt;last&gt;" in page
        assert "command &lt;x&gt;" in page

    def test_the_same_runs_give_the_same_figures(self, runs):
        first, again = (next(gallery(runs)) for _ in "12")
        assert story.figure_part(first) == story.figure_part(again)

    def test_data_of_the_slider(self, runs):
        data = spectra_data(runs)
        assert json.loads(json.dumps(data))["weights"] == ["first", "<last>"]
        decayed, plain = data["runs"]
        assert (decayed["name"], plain["name"]) == ("decayed", "plain")
        assert decayed["epochs"] == [0, 2, 4]
        end = decayed["spectra"]["<last>"][4]
        assert (end["rank"], end["full"], end["at"]) == (2, 3, [1, 2, 3])
        np.testing.assert_allclose(
            end["values"], np.array([2, 1, 1e-4]) / np.sqrt(5), rtol=1e-3
        )

    def test_long_runs_are_thinned(self, tmp_path):
        store = Store(tmp_path)
        store.start_fit(0, MEASURES, {})
        for moment in moments(0.9, range(200)):
            store.write(moment)
        store.close()
        (run,) = spectra_data(found_runs([tmp_path]))["runs"]
        assert len(run["epochs"]) == 60
        assert (run["epochs"][0], run["epochs"][-1]) == (0, 199)


class TestFindings:
    def test_a_run_that_is_fine(self, tmp_path):
        (run,) = found_runs([write(tmp_path, tail=0.5)])
        assert list(findings(run)) == []
        assert "Nothing is amiss" in "".join(story.warning_parts([run]))

    def test_no_decay(self, runs):
        (message,) = findings(runs[1])
        assert message.startswith("Nothing decays the weight matrices")

    def test_what_else_may_be_amiss(self, tmp_path):
        variables = [
            {"name": "first", "rate": 0.1},
            {"name": "<last>", "rate": 0},
        ]
        decay = {"variables": variables, "warnings": ["Too much <b>."]}
        write(tmp_path, tail=0.0, weight_decay=decay, fit={"epochs": 9})
        (run,) = found_runs([tmp_path])
        found = list(findings(run))
        assert "1 of 2 weight matrices do not decay: <last>." in found
        assert "Too much <b>." in found
        assert any(text.startswith("Singular values below") for text in found)
        assert any("was to have 9 epochs" in text for text in found)
        assert "Too much &lt;b&gt;" in "".join(story.warning_parts([run]))


class TestCommands:
    def test_plot(self, runs, tmp_path, capsys):
        above = str(runs[0].run_dir.parent)
        out = ["--out", str(tmp_path), "--format", "svg"]
        assert main(["plot", above, "--kinds", "ranks,time", *out]) == 0
        files = sorted(path.name for path in tmp_path.iterdir())
        assert files == ["ranks.svg", "time.svg", "time_2.svg"]
        assert "Falling lines" in capsys.readouterr().out
        assert main(["plot", above, "--kinds", "final", *out]) == 1
        assert "no figure 'final'" in capsys.readouterr().err

    def test_report(self, swept, tmp_path, capsys):
        above = str(swept[0].run_dir.parent.parent)
        path = tmp_path / "new" / "page.html"
        assert main(["report", above, "--out", str(path)]) == 0
        assert "3 runs" in capsys.readouterr().out
        page = path.read_text()
        assert f"keras-lowrank report {above}" in page
        assert "weight_decay 0.01, seed 1" in page
