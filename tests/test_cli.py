import json
import os
import subprocess
import sys

import keras
import numpy as np
import pytest

import keras_lowrank_cli
from keras_lowrank import __version__
from keras_lowrank import open_run
from keras_lowrank.cli import main

BACKEND = keras.backend.backend()


@pytest.fixture
def saved_model(tmp_path):
    model = keras.Sequential(
        [
            keras.Input((6,)),
            keras.layers.Dense(4, name="first"),
            keras.layers.Dense(3, name="last"),
        ]
    )
    model.save(tmp_path / "model.keras")
    return str(tmp_path / "model.keras")


class TestInspect:
    def test_a_table(self, saved_model, capsys):
        assert main(["inspect", saved_model]) == 0
        out = capsys.readouterr().out
        assert "first/kernel" in out and "6 x 4" in out
        assert "Skipped, bias: first/bias, last/bias" in out

    def test_json(self, saved_model, capsys):
        assert main(["inspect", saved_model, "--json"]) == 0
        report = json.loads(capsys.readouterr().out)
        assert len(report["rows"]) == 4

    def test_loaded_by_keras(self, saved_model, capsys):
        assert main(["inspect", saved_model, "--csv"]) == 0
        read = capsys.readouterr().out
        assert main(["inspect", saved_model, "--csv", "--load"]) == 0
        loaded = capsys.readouterr().out
        assert [line.split(",")[1] for line in loaded.splitlines()] == [
            line.split(",")[1] for line in read.splitlines()
        ]

    def test_no_such_file(self, capsys, tmp_path):
        assert main(["inspect", str(tmp_path / "none.keras")]) == 2
        error = capsys.readouterr().err
        assert error.startswith("keras-lowrank: ") and "none.keras" in error


class TestDemo:
    @pytest.mark.slow
    def test_ranks_fall_with_decay_and_accuracy_does_not(
        self, tmp_path, capsys
    ):
        # Fewer epochs than the demo's own 150, for the same picture.
        arguments = ["demo", "--epochs", "40", "--out", str(tmp_path / "out")]
        assert main(arguments) == 0
        out = capsys.readouterr().out
        without = open_run(tmp_path / "out" / "without-decay")
        with_decay = open_run(tmp_path / "out" / "with-decay")
        start, plain, decayed = (
            item.mean("stable_rank")
            for item in (
                without.measurements[0],
                without.measurements[-1],
                with_decay.measurements[-1],
            )
        )
        assert plain > 0.8 * start
        assert decayed < 0.6 * plain
        accuracies = [
            run.measurements[-1].logs["val_accuracy"]
            for run in (without, with_decay)
        ]
        assert min(accuracies) > 0.95
        assert abs(accuracies[0] - accuracies[1]) < 0.02
        # The twins start from the same weights.
        for one, other in zip(
            without.measurements[0].records,
            with_decay.measurements[0].records,
            strict=True,
        ):
            np.testing.assert_array_equal(
                one.spectrum.values, other.spectrum.values
            )
        for shown in (
            f"on {BACKEND}",
            "hidden_4/kernel",
            f"{decayed:.2f}",
            "ranks.png",
            "tensorboard",
        ):
            assert shown in out
        assert (tmp_path / "out" / "ranks.png").stat().st_size > 20_000
        events = list((tmp_path / "out" / "with-decay").glob("events*"))
        assert len(events) == 1

    @pytest.mark.once
    def test_the_next_free_directory(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        for number in (1, 2):
            assert main(["demo", "--epochs", "1"]) == 0
            assert (tmp_path / f"runs/demo-{number}" / "ranks.png").exists()

    def test_bad_epochs(self, capsys):
        assert main(["demo", "--epochs", "0"]) == 1
        assert "Received: 0" in capsys.readouterr().err


class TestBackend:
    def test_one_that_keras_does_not_run_on(self, capsys):
        other = "torch" if BACKEND != "torch" else "jax"
        assert main(["demo", "--backend", other]) == 1
        assert f"KERAS_BACKEND={other}" in capsys.readouterr().err

    def run(self, *arguments, **environment):
        clean = {k: v for k, v in os.environ.items() if k != "KERAS_BACKEND"}
        return subprocess.run(
            [sys.executable, keras_lowrank_cli.__file__, *arguments],
            capture_output=True,
            text=True,
            env=clean | {"TF_CPP_MIN_LOG_LEVEL": "3"} | environment,
        )

    @pytest.mark.once
    def test_the_command_chooses_before_keras_is_imported(
        self, tmp_path, saved_model
    ):
        # Keras' own choice is another; a custom layer tells what it ran on.
        other = "torch" if BACKEND != "torch" else "jax"
        out = str(tmp_path / "out")
        done = self.run(
            "demo",
            f"--backend={BACKEND}",
            "--epochs=1",
            f"--out={out}",
            KERAS_BACKEND=other,
        )
        assert done.returncode == 0, done.stderr
        assert f"on {BACKEND}" in " ".join(done.stdout.split())
        info = open_run(tmp_path / "out" / "with-decay").info
        assert info["backend"] == BACKEND

    @pytest.mark.once
    def test_version_and_help(self):
        assert self.run("--version").stdout.strip() == __version__
        done = self.run("demo", "--help")
        assert done.returncode == 0 and "--backend" in done.stdout

    @pytest.mark.once
    @pytest.mark.parametrize(
        "arguments", [["--help"], ["plot", "--help"], ["dmeo"], []]
    )
    def test_help_and_slips_do_not_wait_for_keras(self, arguments):
        script = (
            "import atexit, sys, keras_lowrank_cli\n"
            "atexit.register(lambda: print('keras' in sys.modules))\n"
            f"sys.argv = ['', *{arguments!r}]\n"
            "keras_lowrank_cli.main()"
        )
        done = subprocess.run(
            [sys.executable, "-c", script], capture_output=True, text=True
        )
        assert done.returncode in (0, 2) and done.stdout.endswith("False\n")

    @pytest.mark.once
    @pytest.mark.parametrize("name", ["numpy", "jx"])
    def test_no_such_backend(self, name):
        done = self.run("demo", "--backend", name)
        assert done.returncode == 2
        assert "invalid choice" in done.stderr


@pytest.mark.once
class TestChoice:
    @pytest.fixture(autouse=True)
    def environment(self, monkeypatch, tmp_path):
        self.installed = {"jax", "torch"}
        monkeypatch.setattr(
            keras_lowrank_cli.importlib.util,
            "find_spec",
            lambda name: name if name in self.installed else None,
        )
        monkeypatch.setenv("KERAS_HOME", str(tmp_path))
        monkeypatch.setenv("KERAS_BACKEND", "")
        self.config = tmp_path / "keras.json"

    def chosen(self, name=None):
        keras_lowrank_cli.choose_backend(name)
        return os.environ["KERAS_BACKEND"]

    def test_by_name(self):
        assert self.chosen("torch") == "torch"

    def test_one_that_is_installed_where_keras_would_fail(self):
        assert self.chosen() == "jax"
        self.config.write_text('{"backend": "tensorflow"}')
        os.environ["KERAS_BACKEND"] = ""
        assert self.chosen() == "jax"

    def test_keras_own_choice_where_it_is_installed(self):
        self.config.write_text('{"backend": "torch"}')
        assert self.chosen() == ""
        os.environ["KERAS_BACKEND"] = "torch"
        assert self.chosen() == "torch"

    def test_a_backend_we_do_not_know_is_left_to_keras(self):
        os.environ["KERAS_BACKEND"] = "openvino"
        assert self.chosen() == "openvino"

    def test_not_installed(self):
        with pytest.raises(ValueError, match=r"choose one of: jax, torch"):
            self.chosen("tensorflow")

    def test_none_installed(self):
        self.installed = set()
        with pytest.raises(ValueError, match="No backend of Keras"):
            self.chosen()
