"""`keras-lowrank inspect`: what it says, and what it does not need."""

import csv
import html.parser
import json
import os
import struct
import subprocess
import sys
import zipfile

import h5py
import keras
import numpy as np
import pytest

import keras_lowrank as kl
from keras_lowrank import inspect_file
from keras_lowrank import rank_report
from keras_lowrank.checkpoints import Condition
from keras_lowrank.checkpoints import violations
from keras_lowrank.cli import main

layers = keras.layers


def sequential():
    return keras.Sequential(
        [
            keras.Input((8, 8, 4)),
            layers.Conv2D(6, 3, groups=2, use_bias=False),
            layers.BatchNormalization(scale=False),
            layers.Conv2D(4, 1),
            layers.DepthwiseConv2D(3),
            layers.SeparableConv2D(5, 2),
            layers.PReLU(),
            layers.Conv2DTranspose(3, 2, name="up"),
            layers.Flatten(),
            layers.Dropout(0.5, seed=1),
            layers.Dense(7, name="dense_5"),
            layers.GroupNormalization(1),
            layers.Dense(2, dtype="bfloat16"),
        ]
    )


def functional():
    tokens = keras.Input((5,), dtype="int32")
    x = layers.Embedding(11, 8)(tokens)
    x = layers.MultiHeadAttention(2, 3)(x, x)
    x = layers.GroupQueryAttention(2, 4, 2, name="grouped")(x, x)
    x = layers.LayerNormalization()(x)
    x = layers.Bidirectional(layers.LSTM(3, return_sequences=True))(x)
    x = layers.TimeDistributed(layers.Dense(4))(x)
    x = layers.EinsumDense("abc,cde->abde", (None, 2, 3), bias_axes="de")(x)
    x = layers.Reshape((5, 6))(x)
    x = layers.RNN(
        [layers.GRUCell(3), layers.SimpleRNNCell(2)], return_sequences=True
    )(x)
    x = layers.SpectralNormalization(layers.Dense(4))(x)
    return keras.Model(tokens, layers.GRU(2)(x))


def nested():
    block = keras.Sequential([layers.Dense(4), layers.Dense(4)], name="block")
    inputs = keras.Input((4,))
    inner = keras.Model(inputs, layers.Dense(4)(block(inputs)))
    outer = keras.Input((4,))
    x = layers.Dense(4)(inner(outer))
    frozen = layers.Dense(4, name="frozen")
    frozen.trainable = False
    return keras.Model(outer, [frozen(x), layers.Dense(3)(x)])


def with_lora():
    model = keras.Sequential([keras.Input((6,)), layers.Dense(5)])
    model.layers[0].enable_lora(2)
    model.layers[0].lora_kernel_b.assign(np.ones((2, 5)))
    return model


def convolutional_lstm():
    return keras.Sequential(
        [keras.Input((2, 6, 3)), layers.ConvLSTM1D(4, 2), layers.Flatten()]
    )


def low_rank():
    return keras.Sequential(
        [
            keras.Input((3,), dtype="int32"),
            kl.LowRankEmbedding(9, 6, rank=2),
            kl.LowRankDense(5, rank=2),
            kl.LowRankDense(4, rank=3, use_bias=False, name="top"),
        ]
    )


MODELS = (
    sequential,
    functional,
    nested,
    with_lora,
    convolutional_lstm,
    low_rank,
)


@pytest.mark.parametrize("build", MODELS, ids=lambda f: f.__name__)
@pytest.mark.parametrize("views", [None, "split"])
def test_a_keras_file_reads_as_its_model(build, views, tmp_path):
    path = tmp_path / "model.keras"
    model = build()
    if build is sequential:
        model.compile("adam", "mse")
        model.optimizer.build(model.trainable_variables)  # saved, not shown
    model.save(path)
    loaded = rank_report(keras.saving.load_model(path), views=views)
    read = inspect_file(path, views=views, jobs=2)
    assert read.notes == loaded.notes[: len(read.notes)]
    keys = ("name", "layer", "status", "reason", "matrix_shape", "shape")
    keys += tuple(measure.name for measure in loaded.measures)

    def told(report):
        # What LoRA adds is in the kernel of the file.
        return [
            {key: row.get(key) for key in keys}
            for row in report.rows
            if "LoRA factor" not in str(row["reason"])
        ]

    def by_name(report):
        return {row["name"]: row for row in told(report)}

    assert by_name(read) == by_name(loaded)
    assert len(told(read)) == len(told(loaded))


def test_weights_alone_and_in_shards(tmp_path):
    model = functional()
    model.save(tmp_path / "m.keras")
    model.save_weights(tmp_path / "m.weights.h5")
    model.save_weights(tmp_path / "s.weights.json", max_shard_size=1e-6)
    assert len(list(tmp_path.glob("s_*.h5"))) > 1
    whole, alone, shards = (
        {row["name"]: row for row in inspect_file(tmp_path / name).rows}
        for name in ("m.keras", "m.weights.h5", "s.weights.json")
    )
    assert set(whole) == set(alone) == set(shards)
    for name, row in whole.items():
        for other in (alone[name], shards[name]):
            if name == "einsum_dense/kernel":  # whose equation is in no file
                assert other["reason"].startswith("unknown axes")
            else:
                same = {**row, "index": other["index"], "layer": other["layer"]}
                assert other == same
    with pytest.raises(ValueError, match=r"strict=True.*'einsum_dense/kernel'"):
        inspect_file(tmp_path / "m.weights.h5", strict=True)


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.wide = layers.Dense(5)
        self.blocks = [layers.Dense(4), layers.LayerNormalization()]
        self.end = layers.Dense(2, name="end")

    def call(self, inputs):
        x = self.wide(inputs)
        for block in self.blocks:
            x = block(x)
        return self.end(x)


def test_a_subclassed_model_by_the_names_in_its_file(tmp_path):
    model = Subclassed()
    model(np.ones((1, 3)))
    model.save(tmp_path / "m.keras")
    report = inspect_file(tmp_path / "m.keras")
    expected = rank_report(model)
    assert sorted(row["matrix_shape"] for row in report.measured) == sorted(
        row["matrix_shape"] for row in expected.measured
    )
    # No file tells the class of a layer whose name was given.
    for mine, theirs in (
        ("dense/kernel", "dense/kernel"),
        ("dense_1/kernel", "dense_1/kernel"),
        ("end/0", "end/kernel"),
    ):
        assert report[mine]["stable_rank"] == expected[theirs]["stable_rank"]


def test_a_convolution_of_low_rank_says_why_not(tmp_path):
    model = keras.Sequential([keras.Input((6, 6, 3))])
    model.add(kl.LowRankConv2D(4, 3, rank=2))
    model.save(tmp_path / "m.keras")
    report = inspect_file(tmp_path / "m.keras")
    assert not report.measured
    assert sum("measure the loaded" in r["reason"] for r in report.rows) == 2


def test_a_quantized_layer_says_why_not(tmp_path):
    model = keras.Sequential([keras.Input((6,)), layers.Dense(4)])
    model.quantize("int8")
    model.save(tmp_path / "m.keras")
    row = inspect_file(tmp_path / "m.keras")["dense/kernel"]
    assert row["reason"].startswith("int8 layer, which applies another matrix")


@pytest.fixture
def weights(tmp_path):
    path = tmp_path / "weights.npz"
    np.savez(
        path,
        wide=np.diag([3.0, 2.0, 1.0]),
        thin=np.outer(np.ones(4), np.ones(3)),
        zero=np.zeros((2, 2)),
        broken=np.full((2, 3), np.nan),
        bias=np.ones(3),
    )
    return str(path)


@pytest.mark.once
class TestArguments:
    def test_weights(self, weights):
        report = inspect_file(weights, ["rank"], weights="^wi|th")
        assert [row["name"] for row in report.measured] == ["wide", "thin"]
        assert report["zero"]["reason"] == "not selected by `weights`"
        with pytest.raises(ValueError, match=r"selects no matrix.*'wide'"):
            inspect_file(weights, weights="none")
        with pytest.raises(ValueError, match="no regular expression"):
            inspect_file(weights, weights="(")

    def test_status(self, weights):
        report = inspect_file(weights)
        assert report["zero"]["status"] == "collapsed"
        assert report["broken"]["reason"] == "6 NaN of 6 entries"
        assert report.title == (
            "Rank report of 'weights.npz': 4 of 5 tensors measured, 1 skipped"
        )

    @pytest.mark.parametrize(
        "arguments, match",
        [
            ({"jobs": 0}, "`jobs` must be an int >= 1"),
            ({"layout": "tf"}, r"`layout` must be one of .*Received: .*'tf'"),
            ({"method": "qr"}, "`method` must be one of"),
            ({"measures": ["rnk"]}, "Unknown measure 'rnk'"),
        ],
    )
    def test_errors(self, weights, arguments, match):
        with pytest.raises(ValueError, match=match):
            inspect_file(weights, **arguments)

    def test_progress_and_jobs(self, weights):
        told = []
        many = inspect_file(
            weights, jobs=3, progress=lambda *now: told.append(now)
        )
        assert told[:2] == [(0, 4, ""), (1, 4, "wide")]
        assert told[-1] == (4, 4, "broken")
        assert many.to_dict() == inspect_file(weights).to_dict()


@pytest.mark.once
class TestConditions:
    @pytest.mark.parametrize(
        "text, value, holds",
        [
            ("rank<2", 1, True),
            (" rank <= 2 ", 2, True),
            ("rank > 1e3", 2, False),
            ("rank >= 2", 2, True),
            ("rank == 2", 3, False),
            ("rank != 2", 3, True),
        ],
    )
    def test_each_sign(self, text, value, holds):
        assert Condition.parse(text).holds(value) is holds

    @pytest.mark.parametrize(
        "text",
        ["rank", "rank < ", "rank ~ 2", "rnk < 2", "rank < nan", "2<rank"],
    )
    def test_what_is_none(self, text):
        with pytest.raises(ValueError, match="MEASURE OP NUMBER") as caught:
            Condition.parse(text)
        assert repr(text) in str(caught.value)

    def test_every_kind_of_row(self, weights):
        conditions = [Condition.parse("rank_ratio < 0.5")]
        measures = [condition.measure for condition in conditions]
        report = inspect_file(weights, measures)
        assert violations(report.rows, []) == []
        assert violations(report.rows, conditions) == [
            "thin: rank_ratio = 0.333333, fails if rank_ratio < 0.5",
            "zero: rank_ratio = 0, fails if rank_ratio < 0.5 (collapsed)",
            "broken: not finite, 6 NaN of 6 entries",
        ]


@pytest.mark.once
class TestCommand:
    def test_thresholds_decide_the_status(self, weights, capsys):
        condition = ["--fail-if", "stable_rank < 1.2"]
        assert main(["inspect", weights]) == 0
        assert main(["inspect", weights, *condition]) == 1
        errors = capsys.readouterr().err.splitlines()
        assert errors == [
            "keras-lowrank: thin: stable_rank = 1, fails if stable_rank < 1.2",
            "keras-lowrank: zero: stable_rank = 0, fails if stable_rank < 1.2 "
            "(collapsed)",
            "keras-lowrank: broken: not finite, 6 NaN of 6 entries",
        ]
        chosen = ["--weights", "wide", *condition]
        assert main(["inspect", weights, *chosen]) == 0
        assert main(["inspect", weights, *chosen, "--fail-if", "rank<9"]) == 1

    @pytest.mark.parametrize(
        "arguments, match",
        [
            (["--fail-if", "rank"], "MEASURE OP NUMBER"),
            (["--weights", "none"], "selects no matrix"),
            (["--measures", "rnk"], "Unknown measure"),
            (["--jobs", "0"], "`jobs` must be"),
            (["--load", "--jobs", "2"], "Leave them out"),
            (["--output", "/none/x"], "No such file"),
        ],
    )
    def test_mistakes_are_status_2(self, weights, capsys, arguments, match):
        assert main(["inspect", weights, *arguments]) == 2
        error = capsys.readouterr().err
        assert error.startswith("keras-lowrank: ") and match in error

    def test_a_backend_needs_a_model(self, weights, capsys):
        backend = keras.backend.backend()
        assert main(["inspect", weights, "--backend", backend]) == 2
        assert "read without a backend" in capsys.readouterr().err

    def test_forms(self, weights, capsys, tmp_path):
        chosen = ["--measures", "rank, stable_rank"]
        assert main(["inspect", weights, "--json", *chosen]) == 0
        rows = json.loads(capsys.readouterr().out)["rows"]
        assert rows[1]["matrix_shape"] == [4, 3] and rows[1]["rank"] == 1
        assert main(["inspect", weights, "--csv", *chosen]) == 0
        table = list(csv.DictReader(capsys.readouterr().out.splitlines()))
        assert table[1]["matrix_shape"] == "4 x 3"
        assert float(table[1]["stable_rank"]) == pytest.approx(1)
        assert [row["name"] for row in table] == [row["name"] for row in rows]
        out = tmp_path / "report.html"
        assert main(["inspect", weights, "--html", "-o", str(out)]) == 0
        assert capsys.readouterr().out == ""
        page = out.read_text()
        html.parser.HTMLParser().feed(page)
        assert page.startswith("<!doctype html>") and "<td>thin</td>" in page


def run(*arguments, **environment):
    clean = {k: v for k, v in os.environ.items() if k != "KERAS_BACKEND"}
    return subprocess.run(
        [sys.executable, *arguments],
        capture_output=True,
        text=True,
        env=clean | environment,
    )


@pytest.mark.once
def test_no_backend_is_imported(tmp_path):
    sequential().save(tmp_path / "m.keras")
    script = (
        "import sys, keras_lowrank_cli\n"
        f"sys.argv = ['', 'inspect', {str(tmp_path / 'm.keras')!r}]\n"
        "status = keras_lowrank_cli.main()\n"
        "names = ('keras', 'jax', 'torch', 'tensorflow', 'safetensors')\n"
        "print([n for n in names if n in sys.modules], status)"
    )
    done = run("-c", script)
    # Once of the child that reads the file, once of the parent.
    assert done.stdout.splitlines().count("[] 0") == 2, done.stderr
    assert "conv2d/kernel" in done.stdout and "dense/kernel" in done.stdout


@pytest.mark.once
@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
def test_a_crash_of_a_library_is_an_error():
    script = (
        "import os, signal, sys, keras_lowrank_cli as command\n"
        "command.without_keras()\n"
        "from keras_lowrank import cli\n"
        "crash = lambda options: os.kill(os.getpid(), signal.SIGSEGV)\n"
        "cli.execute = crash\n"
        "sys.argv = ['', 'inspect', 'x.keras']\n"
        "sys.exit(command.main())"
    )
    done = run("-c", script)
    assert done.returncode == 2
    assert "ended by signal 11 (Segmentation fault)" in done.stderr


@pytest.mark.once
@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
def test_a_library_that_does_not_come_back_is_an_error(tmp_path):
    sequential().save(tmp_path / "m.keras")
    script = (
        "import sys, keras_lowrank_cli as command\n"
        "prepare = command.without_keras\n"
        "def busy(*_):\n"
        "    while True: pass\n"
        "def patched():\n"
        "    prepare()\n"
        "    from keras_lowrank.checkpoints import hdf5\n"
        "    from keras_lowrank.cli import inspect\n"
        "    hdf5.h5py.File = busy\n"
        "    inspect.SECONDS_TO_OPEN = 1\n"
        "command.without_keras = patched\n"
        f"sys.argv = ['', 'inspect', {str(tmp_path / 'm.keras')!r}]\n"
        "sys.exit(command.main())"
    )
    done = run("-c", script)
    assert done.returncode == 2, done.stderr
    assert "ended by signal 24 (CPU time limit exceeded)" in done.stderr


@pytest.mark.once
@pytest.mark.parametrize("form", ["safetensors", "npz", "keras"])
def test_a_file_larger_than_memory(tmp_path, form):
    # Wide matrices: many bytes, whose spectra are soon computed.
    path = tmp_path / f"big.{form}"
    count, shape = 20, (16, 1 << 18)
    matrix = np.resize(np.float32([1, 2, 3, 5, 7]), shape)
    if form == "safetensors":
        header = {
            f"w{i}": {
                "dtype": "F32",
                "shape": shape,
                "data_offsets": [i * matrix.nbytes, (i + 1) * matrix.nbytes],
            }
            for i in range(count)
        }
        text = json.dumps(header).encode()
        with open(path, "wb") as file:
            file.write(struct.pack("<Q", len(text)) + text)
            for _ in range(count):
                file.write(matrix.data)
    elif form == "npz":
        np.savez(path, **{f"w{i}": matrix for i in range(count)})
    else:
        with h5py.File(tmp_path / "weights", "w") as file:
            for i in range(count):
                file[f"layers/dense_{i}/vars/0"] = matrix
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("config.json", "{}")
            archive.write(tmp_path / "weights", "model.weights.h5")
        (tmp_path / "weights").unlink()
    size = path.stat().st_size
    limit = 300_000_000
    assert size > limit
    script = (
        "import resource, sys, keras_lowrank_cli\n"
        f"resource.setrlimit(resource.RLIMIT_AS, ({limit}, {limit}))\n"
        f"sys.argv = ['', 'inspect', {str(path)!r}, '--csv']\n"
        "sys.exit(keras_lowrank_cli.main())"
    )
    done = run("-c", script, OPENBLAS_NUM_THREADS="1", OMP_NUM_THREADS="1")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("measured") == count
    path.unlink()
