import collections
import html
import html.parser
import json
import math

import keras
import numpy as np
import pytest
import rich.console

from keras_lowrank import numerical_rank
from keras_lowrank import stable_rank
from keras_lowrank.report import rank_report
from keras_lowrank.report.report import DEFAULT_MEASURES
from keras_lowrank.tables import Column
from keras_lowrank.tables import Table
from keras_lowrank.tables import number
from keras_lowrank.weights import weight_matrices
from tests.planted import planted

layers = keras.layers


@pytest.fixture
def model():
    """Heads, gates, groups, channels, biases and a layer that is unknown."""
    inputs = keras.Input((3, 4))
    x = layers.Dense(4, name="first")(inputs)
    x = layers.MultiHeadAttention(2, 2, name="attention")(x, x)
    x = layers.Conv1D(4, 2, groups=2, name="grouped")(x)
    x = layers.SeparableConv1D(4, 1, name="separable")(x)
    x = layers.LSTM(2, return_sequences=True, name="lstm")(x)
    x = Stack(name="unknown")(x)
    return keras.Model(inputs, layers.Dense(2, name="last")(x), name="small")


class Stack(layers.Layer):
    def build(self, input_shape):
        self.kernel = self.add_weight(shape=(3, 2, 2), name="kernel")

    def call(self, inputs):
        return inputs @ keras.ops.sum(self.kernel, axis=0)


def dense(matrix, dtype=None):
    """A layer with the kernel given."""
    matrix = np.asarray(matrix)
    layer = layers.Dense(matrix.shape[1], dtype=dtype, use_bias=False)
    layer.build((None, matrix.shape[0]))
    layer.kernel.assign(matrix)
    return layer


class TestRows:
    @pytest.mark.parametrize("views", [None, "split", "merged", "both"])
    def test_every_variable_has_its_row(self, model, views):
        report = rank_report(model, views=views)
        assert {row["index"] for row in report.rows} == set(
            range(len(model.weights))
        )
        indices = [row["index"] for row in report.rows]
        assert indices == sorted(indices)
        assert len(report.measured) + len(report.skipped) == len(report.rows)
        for row in report.rows:
            variable = model.weights[row["index"]]
            assert row["path"] == variable.path
            assert row["shape"] == tuple(variable.shape)
            assert row["dtype"] == "float32"
            assert row["trainable"] is True
            assert isinstance(row["layer"], str)
        if views == "merged":
            assert len(report.rows) == len(model.weights)

    def test_without_parts_there_is_one_row_per_variable(self):
        net = keras.Sequential([keras.Input((3,)), layers.Dense(4)])
        net.add(layers.BatchNormalization())
        assert len(rank_report(net).rows) == len(net.weights) == 6

    def test_numbers_are_those_of_the_matrices(self, model):
        report = rank_report(model, views="both")
        for matrix in weight_matrices(model, views="both"):
            row = report[matrix.name]
            spectrum = matrix.spectrum()
            assert row["matrix_shape"] == matrix.matrix_shape
            assert row["rank"] == numerical_rank(spectrum)
            assert row["stable_rank"] == stable_rank(spectrum)
            assert row["spectral_norm"] == spectrum.values[0]
            assert row["frobenius_norm"] == pytest.approx(
                np.linalg.norm(matrix.to_numpy())
            )
            assert set(DEFAULT_MEASURES) <= set(row)
            assert {type(row[name]) for name in DEFAULT_MEASURES} == {float}

    def test_it_changes_nothing(self, model):
        before = [keras.ops.convert_to_numpy(w) for w in model.weights]
        rank_report(model, views="both").render()
        for old, weight in zip(before, model.weights, strict=True):
            np.testing.assert_array_equal(old, weight)

    def test_skipped_by_reason(self, model):
        by_reason = rank_report(model).skipped_by_reason
        assert "first/bias" in by_reason["bias"]
        (unknown,) = (r for r in by_reason if r.startswith("unknown axes"))
        assert by_reason[unknown] == ["unknown/kernel"]
        assert sum(map(len, by_reason.values())) == len(
            rank_report(model).skipped
        )

    def test_a_layer_alone(self):
        layer = dense(np.eye(3))
        report = rank_report(layer)
        assert report["kernel"]["rank"] == 3
        assert report.title.startswith(f"Rank report of '{layer.name}': 1 of 1")

    def test_a_model_without_variables(self):
        net = keras.Sequential([keras.Input((3,)), layers.Flatten()])
        report = rank_report(net)
        assert report.rows == []
        assert "No matrix to measure." in report.render(60)
        assert json.loads(report.to_json())["rows"] == []
        assert len(report.to_frame()) == 0

    @pytest.mark.filterwarnings("ignore:`build..` was called on layer 'lazy'")
    def test_layers_not_built_are_told_of(self):
        class Lazy(keras.Model):
            def __init__(self):
                super().__init__()
                self.now = layers.Dense(2)
                self.later = layers.Dense(2, name="later")

            def call(self, inputs):
                return self.now(inputs)

        lazy = Lazy()
        lazy(np.ones((1, 3)))
        assert "Not built, so without variables yet: later" in (
            rank_report(lazy).render(100)
        )

    def test_notes_of_lora(self):
        layer = dense(np.eye(4))
        layer.enable_lora(1)
        report = rank_report(layer)
        assert report["kernel"]["note"] == "with LoRA"
        assert report["kernel"]["trainable"] is True
        assert "with LoRA" in report.render(100)
        assert "LoRA factor, part of the merged `kernel`" in report.render(200)

    def test_a_fitted_model(self):
        net = keras.Sequential([keras.Input((3,)), layers.Dense(2)])
        net.compile("sgd", "mse")
        x = np.ones((4, 3), "float32")
        net.fit(x, x[:, :2], verbose=0)
        report = rank_report(net)
        (matrix,) = weight_matrices(net)
        assert report["dense/kernel"]["stable_rank"] == stable_rank(
            matrix.spectrum()
        )


class TestRanks:
    VALUES = [1.0, 0.5, 0.1, 0.01, 0.002]

    def row(self, matrix, dtype=None):
        return rank_report(dense(matrix, dtype))["kernel"]

    def test_planted_values(self):
        values = [3.0, 1.0, 0.1, 1e-3, 0.0]
        row = self.row(planted(values, (7, 5)))
        assert row["rank"] == 3
        assert row["stable_rank"] == pytest.approx(10.01 / 9, rel=1e-5)
        assert row["spectral_norm"] == pytest.approx(3, rel=1e-6)
        assert row["energy_rank"] == 2

    def test_rank_10_product_of_float32(self):
        rng = np.random.default_rng(0)
        left, right = (
            rng.normal(size=size).astype("float32")
            for size in ((256, 10), (10, 128))
        )
        assert self.row(left @ right)["rank"] == 10

    @pytest.mark.parametrize("scale", [1e-3, 1e3, 2.0**-20])
    def test_scale_changes_no_rank(self, scale):
        matrix = planted(self.VALUES, (9, 5)).astype("float32")
        one, other = self.row(matrix), self.row(scale * matrix)
        for name in ("rank", "stable_rank", "effective_rank", "energy_rank"):
            assert other[name] == pytest.approx(one[name], rel=1e-5)
        for name in ("frobenius_norm", "spectral_norm"):
            assert other[name] == pytest.approx(scale * one[name], rel=1e-5)

    def test_neither_do_transposing_and_permuting(self):
        rng = np.random.default_rng(0)
        matrix = planted(self.VALUES, (9, 5)).astype("float32")
        one = self.row(matrix)
        for other in (
            matrix.T,
            rng.permutation(matrix),
            rng.permutation(matrix, axis=1),
        ):
            for name in DEFAULT_MEASURES:
                assert self.row(other)[name] == pytest.approx(
                    one[name], rel=1e-5
                )

    def test_a_convolution_measures_as_in_the_paper(self):
        layer = layers.Conv2D(6, 3, use_bias=False)
        layer.build((None, 8, 8, 4))
        row = rank_report(layer)["kernel"]
        kernel = keras.ops.convert_to_numpy(layer.kernel)
        # torch stores (out, in, k, k) and the paper's code views (out, -1).
        flattened = kernel.transpose(3, 2, 0, 1).reshape(6, -1)
        expected = self.row(flattened)
        for name in DEFAULT_MEASURES:
            assert row[name] == pytest.approx(expected[name], rel=1e-5)

    @pytest.mark.parametrize(
        "policy", ["bfloat16", "float16", "mixed_bfloat16", "float64"]
    )
    def test_precisions(self, policy):
        row = self.row(planted(self.VALUES, (9, 5)), policy)
        assert row["rank"] == (5 if policy != "bfloat16" else row["rank"])
        assert row["stable_rank"] == pytest.approx(1.26, rel=0.01)
        assert row["status"] == "measured"

    def test_zeros_are_a_collapse(self):
        report = rank_report(dense(np.zeros((4, 3))))
        row = report["kernel"]
        assert row["status"] == "collapsed"
        assert row["reason"] == "every entry is zero"
        assert {row[name] for name in DEFAULT_MEASURES} == {0}
        assert "collapsed: every entry is zero" in report.render(100)

    @pytest.mark.parametrize("bad", [math.nan, math.inf])
    def test_what_is_not_finite(self, bad):
        matrix = np.ones((4, 3))
        matrix[0, 0] = bad
        report = rank_report(dense(matrix))
        row = report["kernel"]
        assert row["status"] == "not finite"
        assert row["reason"].startswith("1 ")
        assert all(math.isnan(row[name]) for name in DEFAULT_MEASURES)
        assert "not finite: 1 " in report.render(100)
        assert "NaN" not in report.to_json().replace(row["reason"], "")
        assert json.loads(report.to_json())["rows"][0]["rank"] is None

    def test_one_entry_one_row_one_column(self):
        for shape in ((1, 1), (1, 5), (5, 1)):
            assert self.row(np.ones(shape))["rank"] == 1

    def test_an_empty_kernel(self):
        report = rank_report(dense(np.zeros((0, 3))), strict=True)
        assert report["kernel"]["status"] == "skipped"
        assert report["kernel"]["reason"] == "empty: no entries"


class TestDeadChannels:
    def model(self):
        net = keras.Sequential(
            [
                keras.Input((40,)),
                layers.Dense(100, name="first"),
                layers.BatchNormalization(name="norm"),
                layers.Dense(3, name="last"),
            ]
        )
        kernel = np.random.default_rng(0).normal(size=(40, 100))
        kernel[:, 30:] = 0
        net.get_layer("first").kernel.assign(kernel)
        return net

    def test_a_rank_of_30_is_told_from_70_dead_channels(self):
        report = rank_report(self.model())
        assert report["first/kernel"]["rank"] == 30
        assert report["first/kernel"]["dead"] == "70 of 100 outputs"
        assert report["last/kernel"]["dead"] is None
        text = report.render(130)
        assert "dead: 70 of 100 outputs" in text
        assert "dead_channels(threshold=1e-06)" in text
        assert "70 of 100 outputs" in report._repr_html_()
        row = json.loads(report.to_json())["rows"][0]
        assert row["dead"] == "70 of 100 outputs"

    def test_those_that_a_normalization_silences(self):
        net = self.model()
        net.get_layer("norm").gamma.assign(np.arange(100) % 2)
        report = rank_report(net)
        assert report["first/kernel"]["dead"] == "85 of 100 outputs"

    def test_nothing_is_said_where_all_live(self, model):
        report = rank_report(model, views="both")
        assert {row["dead"] for row in report.measured} == {None}
        assert "dead" not in report.render(200) + report._repr_html_()

    @pytest.mark.parametrize("value", [0, math.nan], ids=["zero", "nan"])
    def test_what_collapsed_or_is_not_finite_says_that(self, value):
        report = rank_report(dense(np.full((4, 3), value)))
        assert report["kernel"]["dead"] is None
        assert "dead" not in report.render(100)


class TestArguments:
    def test_measures(self, model):
        def tail(spectrum):
            return spectrum.values[-1]

        report = rank_report(model, measures={"mine": tail, "r": "rank"})
        row = report["first/kernel"]
        assert {"mine", "r"} <= set(row) and "stable_rank" not in row
        assert "mine: tail()" in report.notes
        (only,) = rank_report(model, measures="stable_rank").measures
        assert only.name == "stable_rank"

    def test_no_measure_at_all(self, model):
        report = rank_report(model, measures=[])
        assert "first/kernel" in report.render(80)
        assert report["first/kernel"]["matrix_shape"] == (4, 4)

    def test_weights(self, model):
        report = rank_report(model, weights="first")
        assert [row["name"] for row in report.measured] == ["first/kernel"]
        assert len(report.rows) >= len(model.weights)
        left_out = report.skipped_by_reason["not selected by `weights`"]
        assert "last/kernel" in left_out

    def test_strict(self, model):
        with pytest.raises(ValueError, match="'unknown/kernel' of shape"):
            rank_report(model, strict=True)

    def test_method(self, model):
        one, other = (
            rank_report(model, method=method) for method in ("gram", "svd")
        )
        for a, b in zip(one.measured, other.measured, strict=True):
            assert a["rank"] == pytest.approx(b["rank"])
            assert a["spectral_norm"] == pytest.approx(b["spectral_norm"])

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"measures": "rnak"}, "Unknown measure 'rnak'"),
            ({"weights": "none"}, "selects no matrix"),
            ({"views": {"head": "split"}}, "knows the kinds"),
            ({"method": "fast"}, "method='fast'"),
        ],
    )
    def test_bad_values(self, model, arguments, message):
        with pytest.raises(ValueError, match=message):
            rank_report(model, **arguments)

    def test_an_unbuilt_model(self):
        with pytest.raises(ValueError, match="is not built"):
            rank_report(keras.Sequential([layers.Dense(1)]))

    def test_what_is_no_model(self):
        with pytest.raises(TypeError, match="must be a Keras model or layer"):
            rank_report("model.keras")

    def test_missing_names(self, model):
        report = rank_report(model)
        with pytest.raises(KeyError, match=r"No row is named 'first'.*kernel"):
            report["first"]


class TestForms:
    @pytest.mark.parametrize("views", [None, "both"])
    def test_json(self, model, views):
        report = rank_report(model, views=views)

        def refuse(token):
            raise AssertionError(f"JSON knows no {token}")

        found = json.loads(report.to_json(), parse_constant=refuse)
        assert found["title"] == report.title
        assert len(found["rows"]) == len(report.rows)
        by_name = {row["name"]: row for row in found["rows"]}
        row = by_name["first/kernel"]
        assert row["matrix_shape"] == [4, 4] and row["shape"] == [4, 4]
        assert row["rank"] == report["first/kernel"]["rank"]
        assert by_name["first/bias"]["reason"] == "bias"

    def test_frame(self, model):
        pytest.importorskip("pandas")
        report = rank_report(model)
        frame = report.to_frame()
        assert list(frame.name) == [row["name"] for row in report.rows]
        assert {"index", "path", "layer", "status", "rank"} <= set(frame)
        measured = frame[frame.status == "measured"]
        assert len(measured) == len(report.measured)
        assert measured["rank"].notna().all()
        assert frame[frame.status == "skipped"]["rank"].isna().all()

    def test_html_is_escaped_and_balanced(self):
        net = keras.Sequential(
            [keras.Input((2,)), layers.Dense(2, name="<b>&'")], name="a<b"
        )
        text = rank_report(net)._repr_html_()
        assert "<b>" not in text and html.escape("<b>&'") in text
        open_tags = []

        class Check(html.parser.HTMLParser):
            def handle_starttag(self, tag, attributes):
                open_tags.append(tag)

            def handle_endtag(self, tag):
                assert open_tags.pop() == tag

        Check().feed(text)
        assert not open_tags
        assert text.count("<tr>") == 3

    def test_repr_is_one_line(self, model):
        report = rank_report(model)
        assert repr(report) == f"<RankReport: {report.title}, 22 rows>"
        assert str(report) == report.render()

    def test_print(self, model, capsys):
        report = rank_report(model)
        report.print(line_length=90)
        assert capsys.readouterr().out == report.render(90) + "\n"
        lines = []
        report.print(90, print_fn=lines.append)
        assert lines == [report.render(90)]
        assert capsys.readouterr().out == ""

    def test_rich_prints_what_print_prints(self, model):
        report = rank_report(model)
        console = rich.console.Console(width=70, record=True, file=Sink())
        console.print(report)
        printed = [line.rstrip() for line in console.export_text().splitlines()]
        expected = [line.rstrip() for line in report.render(70).splitlines()]
        assert printed == expected

    @pytest.mark.parametrize("width", [40, 41, 53, 60, 79, 80, 100, 133, 200])
    @pytest.mark.parametrize("views", [None, "both"])
    def test_no_line_is_too_long_and_nothing_is_lost(self, model, width, views):
        report = rank_report(model, views=views)
        text = report.render(width)
        assert max(map(len, text.splitlines())) <= width
        squeezed = "".join(text.split())
        for row in report.rows:
            assert row["name"] in squeezed
        for reason in report.skipped_by_reason:
            assert "".join(reason.split()) in squeezed
        for row in report.measured:
            assert f"{row['rank']:.0f}" in text
        for measure in report.measures:
            assert measure.name in squeezed

    @pytest.mark.parametrize("width", [40, 64, 100, 200])
    def test_long_names_and_shapes(self, width):
        deep = keras.Sequential(
            [
                keras.Input((5, 2)),
                layers.Bidirectional(layers.LSTM(3, name="x" * 50)),
            ],
            name="y" * 90,
        )
        report = rank_report(deep, measures=list(DEFAULT_MEASURES))
        lines = report.render(width).splitlines()
        assert max(map(len, lines)) <= width
        everything = "".join("".join(lines).split())
        for row in report.rows:
            assert row["name"] in everything

    def test_numbers_stand_beside_their_names_where_there_is_room(self, model):
        report = rank_report(model, measures=["rank"])
        (line,) = (
            line
            for line in report.render(120).splitlines()
            if line.startswith("last/kernel")
        )
        assert line.split() == ["last/kernel", "2", "x", "2", "2"]

    def test_measures_left_out_are_named(self, model):
        text = rank_report(model).render(40)
        assert "Too wide to show:" in text
        assert "Too wide to show:" not in rank_report(model).render(160)

    def test_title(self, model):
        report = rank_report(model)
        measured = {row["index"] for row in report.measured}
        assert report.title == (
            f"Rank report of 'small': {len(measured)} of "
            f"{len(model.weights)} variables measured as "
            f"{len(report.measured)} matrices, "
            f"{len(model.weights) - len(measured)} skipped"
        )

    def test_definitions_are_printed(self, model):
        text = rank_report(model).render(120)
        assert (
            "rank: numerical_rank(tolerance=0.001, relative_to='frobenius')"
            in text
        )


class Sink:
    def write(self, text):
        return len(text)

    def flush(self):
        pass


class TestNarrowTables:
    table = Table(
        "Runs",
        [
            Column("run", "Run"),
            Column("train", "Train accuracy", number()),
            Column("rank", "Stable\nrank", number()),
            Column("why", "Reason", justify="left"),
        ],
        [
            {"run": f"decay {n}", "train": 0.97, "rank": 9.5, "why": "so " * 12}
            for n in range(2)
        ],
        ["a note"],
    )

    @pytest.mark.parametrize("width", [30, 45, 60, 200])
    def test_nothing_is_lost_or_too_wide(self, width):
        text = self.table.render(width)
        assert max(map(len, text.splitlines())) <= width
        assert text.startswith("Runs") and text.endswith("a note")
        words = collections.Counter(text.split())
        assert words["so"] == 24 and words["0.97"] == 2 and words["9.5"] == 2

    def test_what_fits_is_one_block(self):
        assert self.table.render(200).count("Run ") == 1

    def test_headings_break_before_columns_do(self):
        lines = self.table.render(54).splitlines()
        assert [line.split() for line in lines[2:4]] == [
            ["Train", "Stable"],
            ["Run", "accuracy", "rank", "Reason"],
        ]

    def test_columns_go_on_below_beside_the_first(self):
        text = self.table.render(30)
        assert text.count("decay 0") == text.count("decay 1") > 1
        assert text.count("Runs") == text.count("a note") == 1

    def test_of_no_rows_and_no_columns(self):
        assert Table("Empty", [], []).render(20) == "Empty"
        assert "Run" in Table("Empty", self.table.columns, []).render(20)
