import io
import re

import keras
import numpy as np
import pytest
from matplotlib.image import imread
from tensorboard.backend.event_processing.event_accumulator import (
    EventAccumulator,
)

from keras_lowrank import RankTracker
from keras_lowrank import TheoryTracker
from keras_lowrank import WeightDecay
from keras_lowrank import epsilon_rank
from keras_lowrank import open_run
from keras_lowrank.callbacks.rank_tracker import DEFAULT_MEASURES
from keras_lowrank.cli import main
from keras_lowrank.experiments import ExperimentSpec
from keras_lowrank.experiments import find_run
from keras_lowrank.experiments import sweep
from keras_lowrank.experiments import write_events
from keras_lowrank.experiments.runs import begin
from keras_lowrank.images import png
from keras_lowrank.records import CertificateLog
from keras_lowrank.records import read_certificates
from keras_lowrank.records.spectrum_image import spectrum_image

X = np.random.default_rng(0).normal(size=(32, 6)).astype("float32")


def read(log_dir):
    everything = dict.fromkeys(["tensors", "scalars"], 0)
    events = EventAccumulator(str(log_dir), size_guidance=everything)
    return events.Reload()


def histograms(events, tag):
    """Rows of left end, right end and count, by step."""
    return {
        event.step: np.frombuffer(event.tensor_proto.tensor_content).reshape(
            [dim.size for dim in event.tensor_proto.tensor_shape.dim]
        )
        for event in events.Tensors(tag)
    }


def images(events, tag):
    """Width, height and PNG, by step."""
    found = {}
    for event in events.Tensors(tag):
        width, height, content = event.tensor_proto.string_val
        found[event.step] = int(width), int(height), content
    return found


def charts(events):
    """The layout of the tab of custom scalars, as TensorBoard reads it."""
    from tensorboardX.proto.layout_pb2 import Layout

    event = events.Tensors("custom_scalars__config__")[-1]
    layout = Layout.FromString(event.tensor_proto.string_val[0])
    return {
        category.title: {
            chart.title: list(chart.multiline.tag) for chart in category.chart
        }
        for category in layout.category
    }


def matched(events, expressions):
    """The scalars that TensorBoard draws for some regular expressions."""
    tags = events.Tags()["scalars"]
    return [tag for tag in tags if any(re.match(e, tag) for e in expressions)]


def fit(tracker, **arguments):
    keras.utils.set_random_seed(1)
    layers = [
        keras.layers.Dense(8, name="wide"),
        keras.layers.Dense(3, name="last"),
    ]
    model = keras.Sequential(layers)
    model.compile("sgd", "mse")
    arguments = {"epochs": 3, "verbose": 0} | arguments
    model.fit(X, X[:, :3], callbacks=[tracker], **arguments)
    return tracker


def test_scalars_are_the_recorded_numbers(tmp_path):
    tracker = fit(RankTracker(every=1, tensorboard=tmp_path))
    events = read(tmp_path)
    history = tracker.history
    for tag in ("rank/wide/kernel", "stable_rank/last/kernel", "rank_mean"):
        scalars = events.Scalars(tag)
        assert [event.step for event in scalars] == [0, 1, 2, 3]
        values = [event.value for event in scalars]
        assert values == pytest.approx(history[tag], rel=1e-6)
    losses = [event.value for event in events.Scalars("loss")]
    assert losses == pytest.approx(history["loss"][1:], rel=1e-6)


def test_spectra_are_histograms(tmp_path):
    tracker = fit(RankTracker(every=1, tensorboard=True, run_dir=tmp_path))
    events = read(tmp_path)
    buckets = histograms(events, "spectrum_log10/wide/kernel")[3]
    spectrum = tracker.recording.spectra("wide/kernel")[3]
    decades = np.log10(spectrum.values / spectrum.values[0])
    left, right, counts = buckets.T
    assert counts.sum() == len(decades)
    assert left[0] == decades[-1] and right[0] == -6.875 and right[-1] == 0
    np.testing.assert_array_equal(left[1:], right[:-1])
    for edge in (-1.0, -0.5, -0.25):
        assert counts[right <= edge].sum() == np.sum(decades < edge)
    said = events.SummaryMetadata("spectrum_log10/wide/kernel")
    assert "log10(sigma_i / sigma_1)" in said.summary_description


@pytest.mark.parametrize("stored", [True, False])
def test_a_resumed_fit_hides_what_it_trains_again(tmp_path, stored):
    settings = {"every": 1, "tensorboard": tmp_path / "events"}
    if stored:
        settings["run_dir"] = tmp_path / "run"
    fit(RankTracker(**settings), epochs=5)
    fit(RankTracker(**settings), initial_epoch=3, epochs=6)
    events = read(tmp_path / "events").Scalars("rank_mean")
    assert [event.step for event in events] == [0, 1, 2, 3, 4, 5, 6]


def test_a_spectrum_that_is_not_finite_is_no_histogram(tmp_path):
    class Spoil(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            if epoch == 1:
                kernel = self.model.get_layer("wide").kernel
                kernel.assign(np.full(kernel.shape, np.nan))

    keras.utils.set_random_seed(1)
    model = keras.Sequential([keras.layers.Dense(8, name="wide")])
    model.compile("sgd", "mse")
    tracker = RankTracker(every=1, tensorboard=tmp_path)
    with pytest.warns(UserWarning, match="not finite"):
        model.fit(
            X,
            np.tile(X, 2)[:, :8],
            epochs=3,
            verbose=0,
            callbacks=[tracker, Spoil()],
        )
    events = read(tmp_path)
    assert set(histograms(events, "spectrum_log10/wide/kernel")) == {0, 1}
    assert np.isnan(events.Scalars("rank/wide/kernel")[-1].value)


class TestImages:
    def test_they_are_drawn_as_measurements_double_and_at_the_end(
        self, tmp_path
    ):
        tracker = fit(RankTracker(every=1, tensorboard=tmp_path), epochs=5)
        events = read(tmp_path)
        drawn = images(events, "spectrum_over_time/wide/kernel")
        # Epochs 0 and 1 are two measurements, 0 to 3 four, and the end six.
        assert list(drawn) == [1, 3, 5]
        width, height, content = drawn[5]
        expected = spectrum_image(tracker.recording.spectra("wide/kernel"))
        assert (height, width) == expected.shape
        picture = imread(io.BytesIO(content), "png")
        assert picture.shape[:2] == expected.shape
        # The largest value of all columns is bright, white is around them.
        assert picture[10, 60, :3] == pytest.approx(
            (253 / 255, 231 / 255, 37 / 255)
        )
        assert picture[0, 0, :3].tolist() == [1, 1, 1]
        said = events.SummaryMetadata("spectrum_over_time/wide/kernel")
        assert "log10(sigma_i / sigma_1)" in said.summary_description

    @pytest.mark.parametrize("stored", [True, False])
    def test_a_resumed_fit_draws_all_of_the_run(self, tmp_path, stored):
        settings = {"every": 1, "tensorboard": tmp_path / "events"}
        if stored:
            settings["run_dir"] = tmp_path / "run"
        fit(RankTracker(**settings), epochs=2)
        tracker = RankTracker(**settings)
        fit(tracker, initial_epoch=2, epochs=4)
        tag = "spectrum_over_time/last/kernel"
        _, _, content = images(read(tmp_path / "events"), tag)[4]
        spectra = tracker.recording.spectra("last/kernel")
        # What was kept in memory only went with the first tracker.
        assert list(spectra) == ([0, 1, 2, 3, 4] if stored else [2, 3, 4])
        assert content == png(spectrum_image(spectra))


class TestLayout:
    def test_it_opens_on_what_is_recorded(self, tmp_path):
        x = X[:8]
        fit(
            RankTracker(every=2, tensorboard=tmp_path),
            validation_data=(x, x[:, :3]),
        )
        events = read(tmp_path)
        layout = charts(events)
        assert list(layout) == ["Means", "Training", "Ranks"]
        assert list(layout["Ranks"]) == list(DEFAULT_MEASURES)
        drawn = matched(events, layout["Ranks"]["rank"])
        assert drawn == ["rank/wide/kernel", "rank/last/kernel"]
        assert list(layout["Training"]) == ["loss", "learning_rate"]
        assert set(matched(events, layout["Training"]["loss"])) == {
            "loss",
            "val_loss",
        }
        assert matched(events, layout["Means"]["rank_mean"]) == ["rank_mean"]
        shown = [
            chart for charts in layout.values() for chart in charts.values()
        ]
        assert all(matched(events, chart) for chart in shown)

    def test_names_of_parts_stay_as_they_are(self, tmp_path):
        keras.utils.set_random_seed(0)
        model = keras.Sequential(
            [
                keras.Input((4, 4, 4)),
                keras.layers.Conv2D(6, 2, groups=2, name="grouped"),
                keras.layers.GlobalAveragePooling2D(),
            ]
        )
        model.compile("sgd", "mse")
        tracker = RankTracker(every=1, tensorboard=tmp_path)
        x = np.ones((4, 4, 4, 4))
        model.fit(x, np.ones((4, 6)), verbose=0, callbacks=[tracker])
        names = tracker.recording.weights
        assert any("[" in name for name in names)
        tags = read(tmp_path).Tags()
        for kind, tag in (
            ("scalars", "rank/{}"),
            ("tensors", "spectrum_log10/{}"),
            ("tensors", "spectrum_over_time/{}"),
        ):
            assert {tag.format(name) for name in names} <= set(tags[kind])


def record_with_theory(run_dir, **settings):
    """A run of which one matrix is certified, and one cannot be."""
    keras.utils.set_random_seed(1)
    layers = [
        keras.Input((6, 4)),
        keras.layers.Conv1D(5, 2, name="conv"),
        keras.layers.Flatten(),
        keras.layers.Dense(24, name="only"),
    ]
    model = keras.Sequential(layers)
    decay = WeightDecay(8.0, convention="torch")
    model.compile(decay.wrap(keras.optimizers.SGD(0.02)), "mse")
    theory = TheoryTracker(0.5, run_dir=run_dir, **settings)
    tracker = RankTracker(every=1, run_dir=run_dir, tensorboard=True)
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(60, 6, 4)), rng.normal(size=(60, 24)) * 30
    options = {"batch_size": 1, "epochs": 2, "verbose": 0}
    model.fit(x, y, callbacks=[tracker, theory], **options)
    return tracker, theory


class TestTheory:
    def test_certified_beside_measured(self, tmp_path):
        run_dir = tmp_path / "run"
        tracker, theory = record_with_theory(run_dir, tensorboard=True)
        live = read(run_dir / "theory")
        (row,) = [
            row for row in theory.table().rows if row["weight"] == "only/kernel"
        ]
        assert row["certified"] < 24
        certified = live.Scalars("certified_rank/only/kernel")
        assert certified[-1].step == 2
        assert certified[-1].value == row["certified"]
        (measured,) = live.Scalars("epsilon_rank/only/kernel")
        assert (measured.step, measured.value) == (2, row["measured"])
        # The run beside it is not hidden by what a second file purges.
        assert len(read(run_dir).Scalars("rank_mean")) == 3
        chart = charts(live)["Theorem"]["only/kernel"]
        assert matched(live, chart) == [
            "certified_rank/only/kernel",
            "epsilon_rank/only/kernel",
        ]

        certificates = read_certificates(run_dir)
        write_events(open_run(run_dir), tmp_path / "out", certificates)
        events = read(tmp_path / "out")
        values = [e.value for e in events.Scalars("certified_rank/only/kernel")]
        assert values == [e.value for e in certified]
        spectra = tracker.recording.spectra("only/kernel")
        assert [
            (event.step, event.value)
            for event in events.Scalars("epsilon_rank/only/kernel")
        ] == [(n, epsilon_rank(item, 0.5)) for n, item in spectra.items()]
        assert "Theorem" in charts(events)
        # The rest is what the tracker wrote while it trained.
        written = read(run_dir)
        for tag in ("rank/only/kernel", "loss", "stable_rank_mean"):
            assert [
                (e.step, e.value, e.wall_time) for e in events.Scalars(tag)
            ] == [(e.step, e.value, e.wall_time) for e in written.Scalars(tag)]
        tag = "spectrum_over_time/only/kernel"
        assert images(events, tag)[2] == images(written, tag)[2]

    def test_the_file_of_certificates(self, tmp_path):
        _, theory = record_with_theory(tmp_path)
        found = read_certificates(tmp_path)
        assert found.tolerance == 0.5 and found.epochs == [1, 2]
        assert found.weights == ["conv/kernel", "only/kernel"]
        assert found.shapes["only/kernel"] == (25, 24)
        assert found.uses == {"conv/kernel": 5, "only/kernel": 1}
        assert [
            (row["epoch"], row["weight"], row["certified"], row["vacuous"])
            for row in found.rows
        ] == [
            (row["epoch"], row["weight"], row["certified_rank"], row["vacuous"])
            for row in theory.history
        ]
        assert found.final == theory.table().rows
        assert found.rows[-1]["verdict"] == found.final[-1]["verdict"]
        assert not list(tmp_path.glob("theory/*"))


@pytest.mark.once
class TestCertificates:
    def log(self, run_dir, first_epoch, epochs, tolerance=0.1):
        log = CertificateLog(run_dir)
        log.start(tolerance, {"a": (4, 3)}, {"a": None}, first_epoch)
        for epoch in epochs:
            row = {"weight": "a", "certified": 10 * first_epoch + epoch}
            log.write(epoch, [row | {"remainder": np.nan}])
        return log

    def test_a_resumed_fit_goes_on(self, tmp_path):
        self.log(tmp_path, 0, [1, 2, 3]).finish([{"measured": np.nan}])
        self.log(tmp_path, 2, [3, 4])
        found = read_certificates(tmp_path)
        assert found.epochs == [1, 2, 3, 4] and found.final == []
        assert [row["certified"] for row in found.rows] == [1, 2, 23, 24]
        assert np.isnan(found.rows[0]["remainder"])
        self.log(tmp_path, 3, [4], tolerance=0.2)
        assert read_certificates(tmp_path).epochs == [4]
        self.log(tmp_path, 0, [1], tolerance=0.2)
        assert read_certificates(tmp_path).epochs == [1]

    def test_what_a_kill_leaves(self, tmp_path):
        self.log(tmp_path, 0, [1, 2])
        path = tmp_path / "theory.jsonl"
        whole = path.read_bytes()
        starts = [0, *(m.end() for m in re.finditer(b"\n", whole))]
        for cut in range(len(whole)):
            path.write_bytes(whole[:cut])
            found = read_certificates(tmp_path)
            lines = whole[: cut + 1].count(b"\n")
            assert (found is not None) == (lines > 0), cut
            if found is not None:
                assert found.epochs == [1, 2][: lines - 1]
        # A later fit begins on a line of its own.
        path.write_bytes(whole[: starts[2] + 9])
        self.log(tmp_path, 1, [2, 3])
        assert read_certificates(tmp_path).epochs == [1, 2, 3]

    def test_what_cannot_be_written_is_tried_again(self, tmp_path):
        log = self.log(tmp_path, 0, [1])
        path = log.path
        log.path = tmp_path / "none" / "theory.jsonl"
        with pytest.raises(OSError):
            log.write(2, [{"weight": "a"}])
        log.path = path
        log.write(3, [{"weight": "a"}])
        assert read_certificates(tmp_path).epochs == [1, 2, 3]

    def test_other_files(self, tmp_path):
        assert read_certificates(tmp_path) is None
        path = tmp_path / "theory.jsonl"
        path.write_text("weights, ranks\n")
        with pytest.raises(ValueError, match=r"line 1.*weights.*another"):
            read_certificates(tmp_path)
        path.write_text('{"fit": {"format": 9}}\n')
        with pytest.raises(ValueError, match=r"format 9.*up to 1.*Upgrade"):
            read_certificates(tmp_path)


@pytest.mark.once
class TestCommand:
    def test_a_sweep(self, tmp_path, capsys):
        """Names say what differs, and so do the columns of HParams."""
        from tensorboardX.proto.plugin_hparams_pb2 import HParamsPluginData

        spec = ExperimentSpec("mlp", "digits", epochs=1)
        specs = sweep(spec, weight_decay=[0.5, 0.0], seed=[0, 1])
        for spec in specs:
            run = find_run(spec, tmp_path / "runs")
            begin(run)
            fit(RankTracker(every=1, run_dir=run.run_dir))
        out = tmp_path / "out"
        words = ["tensorboard", str(tmp_path / "runs"), "--out", str(out)]
        assert main(words) == 0
        assert f"tensorboard --logdir {out}" in capsys.readouterr().out
        names = {path.name for path in out.iterdir() if path.is_dir()}
        assert names == {
            f"weight_decay {rate}, seed {seed}"
            for rate in ("0", "0.5")
            for seed in (0, 1)
        }

        def plugin(where, kind):
            metadata = read(where).SummaryMetadata(f"_hparams_/{kind}")
            content = metadata.plugin_data.content
            return getattr(HParamsPluginData.FromString(content), kind)

        experiment = plugin(out, "experiment")
        columns = {
            info.name: list(info.domain_discrete.values)
            for info in experiment.hparam_infos
        }
        assert {
            name: [value.number_value for value in values]
            for name, values in columns.items()
        } == {"weight_decay": [0.0, 0.5]}
        tags = [info.name.tag for info in experiment.metric_infos]
        run_dir = out / "weight_decay 0.5, seed 1"
        assert tags == [f"{name}_mean" for name in DEFAULT_MEASURES] + ["loss"]
        assert set(tags) <= set(read(run_dir).Tags()["scalars"])
        start = plugin(run_dir, "session_start_info")
        values = {key: v.number_value for key, v in start.hparams.items()}
        assert values == {"weight_decay": 0.5}
        assert start.group_name == "weight_decay 0.5"

        assert main(words) == 1
        error = capsys.readouterr().err
        assert "event files in" in error and "Choose another" in error

    def test_runs_of_ones_own_keep_their_names(self, tmp_path, capsys):
        for name in "first", "second":
            fit(RankTracker(every=1, run_dir=tmp_path / "runs" / name))
        out = tmp_path / "out"
        assert (
            main(["tensorboard", str(tmp_path / "runs"), "--out", str(out)])
            == 0
        )
        assert sorted(path.name for path in out.iterdir()) == [
            "first",
            "second",
        ]
        assert "Ranks" in charts(read(out / "first"))
