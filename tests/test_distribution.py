"""The same numbers on several devices and in several processes as on one."""

import contextlib
import json
import os
import pathlib
import socket
import subprocess
import sys
import tempfile
import time

import keras
import numpy as np
import pytest

from keras_lowrank import RankTracker
from keras_lowrank import TheoryTracker
from keras_lowrank import open_run
from keras_lowrank import processes
from keras_lowrank import weight_matrices
from keras_lowrank.callbacks import run_info
from tests import distributed

ROOT = pathlib.Path(distributed.__file__).parent.parent
BACKEND = keras.backend.backend()
on_jax = pytest.mark.skipif(BACKEND != "jax", reason="of JAX alone")
on_torch = pytest.mark.skipif(BACKEND != "torch", reason="of torch alone")
on_tensorflow = pytest.mark.skipif(
    BACKEND != "tensorflow", reason="of TensorFlow alone"
)


def run(engine, processes=1, directory=None, **environment):
    """What `tests.distributed` prints for an engine, of each process."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with contextlib.ExitStack() as stack:
        started = []
        for index in range(processes):
            # Files, since a pipe that nobody reads would hold a process up.
            out, err = (
                stack.enter_context(tempfile.TemporaryFile("w+"))
                for _ in range(2)
            )
            command = [
                sys.executable,
                "-m",
                "tests.distributed",
                engine,
                f"--index={index}",
                f"--port={port}",
                f"--directory={directory}",
            ]
            process = subprocess.Popen(
                command,
                cwd=ROOT,
                env=os.environ | environment,
                stdout=out,
                stderr=err,
            )
            stack.callback(process.wait)
            stack.callback(process.kill)
            started.append((process, out, err))
        # One that has failed would be waited for by the others for long.
        until, failed = time.monotonic() + 240, False
        while any(one.poll() is None for one, _, _ in started):
            failed = any(one.poll() for one, _, _ in started)
            if failed or time.monotonic() > until:
                break
            time.sleep(0.05)
        results = []
        for index, (process, out, err) in enumerate(started):
            out.seek(0), err.seek(0)
            if process.poll() is None and failed:
                continue
            assert process.poll() == 0, (
                f"process {index} of '{engine}' ended with {process.poll()}:\n"
                f"{err.read()[-3000:]}"
            )
            results.append(json.loads(out.read().splitlines()[-1]))
    return results


def assert_same(actual, expected, what, shares=False):
    """Spectra to 1e-6 of the largest value, and what follows from them.

    Where each process has the features of its own `shares` of the data, these
    are not compared.
    """
    exact = ["epochs", "batch_size", "updates", "certified", "rank_mean"]
    if not shares:
        exact.append("samples")
        assert expected["samples"] == 3 * [64]
        for one, other in zip(
            actual["features"], expected["features"], strict=True
        ):
            np.testing.assert_allclose(one, other, rtol=0, atol=1e-5 * other[0])
    for key in exact:
        assert actual[key] == expected[key], f"{what}: {key}"
    for key in ("weight_decay", "decays"):
        np.testing.assert_allclose(actual[key], expected[key], rtol=1e-6)
    for epoch, (found, wanted) in enumerate(
        zip(actual["spectra"], expected["spectra"], strict=True)
    ):
        for one, other in zip(found, wanted, strict=True):
            np.testing.assert_allclose(
                one,
                other,
                rtol=0,
                atol=1e-6 * other[0],
                err_msg=f"{what} {epoch}",
            )
    for one, other in zip(
        actual["remainders"], expected["remainders"], strict=True
    ):
        np.testing.assert_allclose(one, other, rtol=1e-5, err_msg=what)


def assert_says_something(result):
    """That the lemma excludes some rank, or nothing would be compared."""
    full = [24, 36, 3]
    assert any(
        rank < full[index % 3] for index, rank in enumerate(result["certified"])
    )


class TestOnJax:
    @on_jax
    def test_devices(self):
        (results,) = run(
            "jax_devices",
            XLA_FLAGS="--xla_force_host_platform_device_count=4",
        )
        for coupling in distributed.COUPLINGS:
            expected = results[f"{coupling}, one device"]
            assert_says_something(expected)
            for name in ("data", "model"):
                what = f"{coupling}, {name}"
                assert_same(results[what], expected, what)
        # The momentum lies as its kernel does, also after measuring.
        layouts = results["coupled, model"]["layouts"]
        sharded = ["PartitionSpec(None, 'model')", "PartitionSpec('model',)"]
        kernels = [*sharded, *sharded, "PartitionSpec('model', None)"]
        short = [one.replace("PartitionSpec", "P") for one in kernels]
        for variables in (layouts[:6], layouts[-6:]):
            found = [one.replace("PartitionSpec", "P") for one in variables]
            assert found[:5] == short
        assert_weights_same(*results["switched"])
        assert results["traces"] == 1
        assert results["most_copies"] == 1

    @on_jax
    @pytest.mark.slow
    def test_processes(self, tmp_path):
        first, second = run(
            "jax_processes",
            processes=2,
            directory=tmp_path,
            XLA_FLAGS="--xla_force_host_platform_device_count=2",
        )
        _, expected = distributed.fit()
        for name in ("data", "model"):
            assert_same(first[name], expected, name)
            assert second[name]["rank_mean"] == first[name]["rank_mean"]
            assert second[name]["spectra"] == first[name]["spectra"]
        assert first["start"] == second["start"]
        for one, other in zip(
            first["start"], expected["spectra"][0], strict=True
        ):
            np.testing.assert_allclose(one, other, rtol=1e-12)
        # One store, of the first process, which goes on in it; the logs of
        # both are the same though only the first can read it.
        resumed, other = first["model"]["resumed"], second["model"]["resumed"]
        assert resumed["epochs"] == [0, 1, 2, 3, 4, 6]
        assert resumed["rank_mean"] == other["rank_mean"]
        recording = open_run(tmp_path / "model")
        assert recording.info["fits"] == 2
        assert recording.info["processes"] == 2
        assert recording.epochs == resumed["epochs"]


def assert_weights_same(expected, *others):
    """On several devices the weights are those of one, but for rounding."""
    for weights in others:
        for one, other in zip(expected, weights, strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-4)


class TestOnTensorFlow:
    @on_tensorflow
    def test_replicas(self):
        (results,) = run("tensorflow_mirrored")
        for coupling in distributed.COUPLINGS:
            expected = results[f"{coupling}, one device"]
            assert_says_something(expected)
            what = f"{coupling}, replicas"
            assert_same(results[what], expected, what)
        assert_weights_same(*results["switched"])


class TestOnTorch:
    @on_torch
    def test_processes(self, tmp_path):
        first, second = run("torch_processes", 2, tmp_path)
        for coupling in distributed.COUPLINGS:
            _, expected = distributed.fit(coupling=coupling)
            assert_says_something(expected)
            loop = first[f"{coupling}, loop"]
            assert_same(loop, expected, f"{coupling}, loop")
            # The gradient is of this process alone, and waits for no other.
            assert max(loop["gradient_ranks"]) <= distributed.BATCH // 2
            assert loop["measured"] == [
                "first/kernel",
                "second/kernel",
                "last/kernel",
            ]
            if coupling == "coupled":
                assert_same(first["coupled, fit"], expected, "fit", True)
                assert first["coupled, fit"]["samples"] == 3 * [32]
            # What early stopping in each process would look at.
            other = second[f"{coupling}, loop"]
            assert other["rank_mean"] == loop["rank_mean"]
            assert other["spectra"] == loop["spectra"]
            # Two processes, one store and one file of events.
            recording = open_run(tmp_path / coupling)
            assert recording.info["fits"] == 1
            assert recording.epochs == loop["epochs"]
            assert len(list((tmp_path / coupling).glob("events*"))) == 1


class TestWhoIsWho:
    def test_alone(self):
        assert processes.process_index() == 0
        assert processes.process_count() == 1
        assert processes.is_chief()
        assert processes.batches_per_update() == 1

    @on_tensorflow
    @pytest.mark.parametrize(
        ("kind", "number", "index"),
        [("chief", 0, 0), ("worker", 1, 2), ("evaluator", 0, 3)],
        ids=["chief", "worker", "evaluator"],
    )
    def test_a_cluster_of_tensorflow(self, monkeypatch, kind, number, index):
        cluster = {
            "chief": ["a:1"],
            "worker": ["b:1", "c:1"],
            "evaluator": ["d:1"],
            "ps": ["e:1"],
        }
        monkeypatch.setenv(
            "TF_CONFIG",
            json.dumps(
                {"cluster": cluster, "task": {"type": kind, "index": number}}
            ),
        )
        assert processes.process_index() == index
        assert processes.process_count() == 3
        assert processes.is_chief() == (index == 0)

    @on_torch
    def test_two_processes_of_torch(self, monkeypatch, tmp_path):
        # The second of two, so nothing is written; `fit` sees half a batch.
        monkeypatch.setitem(processes._PLACES, "torch", lambda: (1, 2))
        tracker = RankTracker(
            every=1, run_dir=tmp_path / "run", tensorboard=True
        )
        model = distributed.make_model("coupled")
        x, y = distributed.make_data()
        model.fit(x, y, batch_size=2, verbose=0, callbacks=[tracker])
        assert not (tmp_path / "run").exists()
        assert tracker.recording.epochs == [0, 1]
        assert tracker.recording.measurements[-1].batch_size == 4


@pytest.mark.once
class TestALoopOfOnesOwn:
    def test_says_its_batch_size(self):
        model = distributed.make_model("coupled")
        callbacks = distributed.make_callbacks()
        every = keras.callbacks.CallbackList(
            callbacks, model=model, epochs=1, steps=16, batch_size=4
        )
        every.on_train_begin()
        every.on_epoch_begin(0)
        every.on_epoch_end(0, {})
        every.on_train_end()
        tracker, theory, _ = callbacks
        assert tracker.recording.measurements[-1].batch_size == 4
        # As where somebody else's optimizer makes the updates.
        verdicts = [row["verdict"] for row in theory.table().rows]
        assert verdicts[:2] == 2 * ["vacuous: the optimizer made no update"]

    def test_needs_an_optimizer_to_watch(self):
        model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
        every = keras.callbacks.CallbackList([TheoryTracker()], model=model)
        with pytest.raises(ValueError, match="is not compiled"):
            every.on_train_begin()

    def test_of_a_wrapper_the_model_is_asked_for(self):
        with pytest.raises(TypeError, match="give the `module`"):
            weight_matrices(object())


def test_processes_are_recorded():
    model = distributed.make_model("coupled")
    info = run_info(model, RankTracker(every=1).recorder, 1)
    assert info["processes"] == 1


EXAMPLES = {
    "jax": "jax_devices.py",
    "tensorflow": "tensorflow_replicas.py",
    "torch": "torch_processes.py",
}


@pytest.mark.slow
def test_the_example_runs(tmp_path):
    path = ROOT / "examples" / "distributed" / EXAMPLES[BACKEND]
    ended = subprocess.run(
        [sys.executable, path, "--smoke", f"--run-dir={tmp_path}"],
        capture_output=True,
        text=True,
        timeout=240,
        env=os.environ | {"COLUMNS": "100"},
    )
    assert ended.returncode == 0, ended.stderr[-3000:]
    assert ended.stdout.count("hidden_1/kernel") == 1
    recording = open_run(tmp_path)
    assert recording.epochs == [0, 1]
    assert recording.info["fits"] == 1
