import json
import os
import signal
import subprocess
import sys
import textwrap
import time

import keras
import numpy as np
import pytest

from keras_lowrank.cli import main
from keras_lowrank.experiments import ExperimentSpec
from keras_lowrank.experiments import find_run
from keras_lowrank.experiments import read_runs
from keras_lowrank.experiments import run
from keras_lowrank.experiments import run_all
from keras_lowrank.experiments import runs_table
from keras_lowrank.experiments import summary
from keras_lowrank.experiments import sweep
from keras_lowrank.experiments.checkpoint import read_checkpoint
from keras_lowrank.experiments.program import Program
from keras_lowrank.experiments.run import load_data
from keras_lowrank.experiments.runs import training
from keras_lowrank.experiments.training import build_model
from keras_lowrank.experiments.training import get_state
from keras_lowrank.experiments.vectorized import program_of

BACKEND = keras.backend.backend()
needs_jax = pytest.mark.skipif(
    BACKEND != "jax", reason="one program for many runs needs JAX"
)


def spec(**changes):
    fields = {
        "network": {"name": "mlp", "depth": 2, "width": 8},
        "data": {"name": "digits", "train_samples": 96, "test_samples": 96},
        "batch_size": 32,
        "learning_rate": 0.05,
        "milestones": (2,),
        "weight_decay": 1e-3,
        "epochs": 3,
    }
    return ExperimentSpec(**(fields | changes))


def spectra(run):
    return [
        [record.spectrum.values for record in item.records]
        for item in run.recording.measurements
    ]


def difference(one, two):
    """Largest distance of singular values, relative to the largest."""
    return max(
        np.abs(a - b).max() / a[0]
        for left, right in zip(spectra(one), spectra(two), strict=True)
        for a, b in zip(left, right, strict=True)
    )


MUON = {"optimizer": "muon"}


@pytest.fixture(scope="module")
def told():
    """What a report was told of the run `done`."""
    return []


@pytest.fixture(scope="module")
def done(tmp_path_factory, told):
    """A complete run that several tests look at."""
    folder = tmp_path_factory.mktemp("done")
    return run(spec(), folder, report=lambda *what: told.append(what))


class TestRun:
    def test_what_it_leaves(self, done):
        assert done.run_dir.parts[-2:] == (spec().id, BACKEND)
        assert done.complete
        assert done.recording.epochs == [0, 1, 2, 3]
        assert done.recording.weights == ["hidden_0/kernel", "hidden_1/kernel"]
        last = done.recording.measurements[-1]
        assert last.step == 9
        assert last.batch_size == 32
        assert last.learning_rate == pytest.approx(0.01)
        for name in ("loss", "accuracy", "train_loss", "val_accuracy"):
            assert done.result["logs"][name] == pytest.approx(last.logs[name])
        assert done.result["steps"] == 9
        assert done.result["decay_clock"] == pytest.approx(
            -6 * np.log1p(-0.05e-3) - 3 * np.log1p(-0.01e-3)
        )
        assert not (done.run_dir / "checkpoint.npz").exists()
        saved = (done.run_dir / "spec.json").read_text()
        assert ExperimentSpec.from_json(saved) == spec()

    def test_it_trains_as_numpy_would(self, tmp_path):
        """One epoch of a linear network, by hand."""
        linear = spec(
            network={
                "name": "mlp",
                "depth": 1,
                "width": 5,
                "batch_norm": False,
                "activation": "leaky_relu",
                "conventions": "keras",
            },
            epochs=2,
            milestones=(1,),
            weight_decay=0.1,
            loss="mean_squared_error",
            data={"name": "digits", "train_samples": 100, "test_samples": 100},
        )
        data = load_data(linear.data)
        first, b1, second, b2 = (
            w.astype(np.float64)
            for w in build_model(linear, data).get_weights()
        )
        for epoch in range(2):
            rate = 0.05 * 0.2**epoch
            order = np.random.default_rng((0, epoch)).permutation(100)
            for start in range(0, 100, 32):
                chosen = order[start : start + 32]
                x = data.x_train[chosen].astype(np.float64)
                target = np.eye(10)[data.y_train[chosen]]
                before = x @ first + b1
                slope = np.where(before > 0, 1.0, 0.3)
                h = before * slope
                delta = 2 * (h @ second + b2 - target) / (len(x) * 10)
                back = (delta @ second.T) * slope
                gradients = [x.T @ back, back.sum(0), h.T @ delta, delta.sum(0)]
                first, b1, second, b2 = (
                    w * (1 - rate * 0.1) - rate * g
                    for w, g in zip(
                        (first, b1, second, b2), gradients, strict=True
                    )
                )
        ours = spectra(run(linear, tmp_path))[-1][0]
        theirs = np.linalg.svd(first, compute_uv=False)
        np.testing.assert_allclose(ours, theirs, rtol=1e-5)

    def test_a_complete_run_is_not_trained_again(self, done):
        before = (done.run_dir / "records.sqlite").stat().st_mtime_ns
        more = []
        folder = done.run_dir.parents[1]
        again = run(spec(), folder, report=lambda *what: more.append(what))
        assert again == done
        assert not more
        assert before == (done.run_dir / "records.sqlite").stat().st_mtime_ns

    def test_reports(self, done, told):
        assert [item[1:3] for item in told] == [(1, 3), (2, 3), (3, 3)]
        assert {"loss", "rank_mean", "val_loss"} <= set(told[0][3])

    def test_evaluated_and_measured_when_due(self, tmp_path):
        done = run(spec(every=2, epochs=5), tmp_path)
        assert done.recording.epochs == [0, 2, 4, 5]
        logs = [set(item.logs) for item in done.recording.measurements]
        assert all("val_loss" in keys for keys in logs[1:])

    @pytest.mark.parametrize(
        "change",
        [
            {"optimizer": {"name": "sgd", "nesterov": True}, "momentum": 0.5},
            MUON,
            {"precision": "mixed_bfloat16"},
            {"precision": "mixed_float16"},
            {"precision": "float64"},
            {"milestones": (), "weight_decay": 0.0},
        ],
        ids=range(6),
    )
    def test_settings(self, tmp_path, change):
        before = keras.config.dtype_policy().name
        done = run(spec(epochs=2, every=2, **change), tmp_path)
        assert np.isfinite(done.result["logs"]["loss"])
        assert keras.config.dtype_policy().name == before
        start, *_, end = spectra(done)
        assert not np.array_equal(start[0], end[0])

    def test_a_run_that_diverges_is_recorded(self, tmp_path):
        wild = spec(
            learning_rate=1e30,
            network={
                "name": "mlp",
                "depth": 1,
                "width": 4,
                "batch_norm": False,
            },
        )
        with pytest.warns(match="not finite"):
            done = run(wild, tmp_path)
        assert np.isnan(done.result["logs"]["rank_mean"])
        json.loads(
            (done.run_dir / "result.json").read_text(),
            parse_constant=lambda name: pytest.fail(f"{name} is no JSON"),
        )

    def test_errors(self, tmp_path):
        with pytest.raises(ValueError, match=r"one of mlp.*'mpl'"):
            run(spec(network="mpl"), tmp_path)
        with pytest.raises(ValueError, match=r"one of digits.*'digit'"):
            run(spec(data="digit"), tmp_path)
        with pytest.raises(ValueError, match=r"`optimizer` must be.*'sgdd'"):
            run(spec(optimizer="sgdd"), tmp_path)
        with pytest.raises(ValueError, match=r"options that it has.*'lr': 3"):
            run(spec(optimizer={"name": "sgd", "lr": 3}), tmp_path)
        with pytest.raises(ValueError, match=r"is not complete"):
            _ = find_run(spec(), tmp_path).result


class StopError(Exception):
    pass


def stop_after(epochs):
    def report(spec, epoch, all_epochs, logs):
        if epoch == epochs:
            raise StopError

    return report


class TestResume:
    @pytest.mark.parametrize(
        "change",
        [
            {},
            {"optimizer": "torch_sgd", "momentum": 0.9},
            {"optimizer": "adam", "learning_rate": 1e-3},
            {
                "network": {
                    "name": "vit",
                    "depth": 1,
                    "width": 8,
                    "mlp_width": 8,
                    "heads": 2,
                    "patch": 8,
                },
                "data": "IMAGES",
            },
        ],
        ids=["sgd", "momentum", "adam", "dropout"],
    )
    def test_to_the_last_bit(self, tmp_path, change):
        if change.get("data") == "IMAGES":
            rng = np.random.default_rng(0)
            path = str(tmp_path / "images.npz")
            x = rng.integers(0, 256, (100, 16, 16, 3), dtype=np.uint8)
            y = rng.integers(0, 3, 100)
            np.savez(path, x_train=x, y_train=y, x_test=x, y_test=y)
            change = change | {"data": path}
        chosen = spec(epochs=5, **change)
        whole = run(chosen, tmp_path / "whole")
        for epoch in (1, 3):
            with pytest.raises(StopError):
                run(
                    chosen,
                    tmp_path / "parts",
                    report=stop_after(epoch),
                    checkpoint_seconds=0,
                )
        parts = run(chosen, tmp_path / "parts")
        assert difference(whole, parts) == 0
        assert parts.recording.epochs == whole.recording.epochs
        one, two = (dict(item.result["logs"]) for item in (whole, parts))
        assert one == two

    def test_of_other_data_is_refused(self, tmp_path):
        path = str(tmp_path / "mine.npz")
        x = np.random.default_rng(0).normal(size=(40, 6))
        content = {"y_train": np.arange(40) % 3, "y_test": np.arange(40) % 3}
        np.savez(path, x_train=x, x_test=x, **content)
        chosen = spec(data=path)
        with pytest.raises(StopError):
            run(chosen, tmp_path, stop_after(1), checkpoint_seconds=0)
        np.savez(path, x_train=x + 1, x_test=x, **content)
        with pytest.raises(ValueError, match=r"of another data\..*put back"):
            run(chosen, tmp_path)

    def test_of_a_damaged_checkpoint_is_refused(self, tmp_path):
        with pytest.raises(StopError):
            run(spec(), tmp_path, stop_after(1), checkpoint_seconds=0)
        this = find_run(spec(), tmp_path)
        (this.run_dir / "checkpoint.npz").write_bytes(b"half")
        with pytest.raises(ValueError, match=r"cannot be read.*Move it away"):
            run(spec(), tmp_path)

    def test_two_processes_do_not_train_one_run(self, tmp_path):
        this = find_run(spec(), tmp_path)
        with (
            training(this),
            pytest.raises(BlockingIOError, match="Another process trains"),
        ):
            run(spec(), tmp_path)
        assert run(spec(), tmp_path).complete


KILLED = """
    import sys
    from keras_lowrank.experiments import ExperimentSpec, run_all, sweep

    specs = sweep(ExperimentSpec.from_json(sys.argv[1]), seed=[0, 1])
    print("begin", flush=True)
    run_all(specs, sys.argv[2], workers=1, checkpoint_seconds=0)
"""


# What a run goes on to is tested bit by bit on every backend, in `TestResume`;
# this is about files.
@pytest.mark.once
@pytest.mark.slow
def test_killed_and_run_again(tmp_path):
    """`kill -9` at random moments, then the same weights to the last bit."""
    chosen = spec(epochs=150, every=10)
    specs = sweep(chosen, seed=[0, 1])
    whole = run_all(specs, tmp_path / "whole", workers=1)

    def last_epochs():
        checkpoints = [
            read_checkpoint(find_run(item, tmp_path / "killed").run_dir)
            for item in specs
        ]
        return [item.epoch if item else None for item in checkpoints]

    script = textwrap.dedent(KILLED)
    command = [sys.executable, "-c", script, chosen.to_json()]
    resumed = set()
    for moment in (0.0, 0.1, 0.3):
        process = subprocess.Popen(
            [*command, str(tmp_path / "killed")],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=os.environ | {"KERAS_BACKEND": BACKEND},
        )
        assert process.stdout.readline() == "begin\n"
        before = last_epochs()
        while last_epochs() == before and process.poll() is None:
            time.sleep(0.01)
        time.sleep(moment)
        process.send_signal(signal.SIGKILL)
        process.wait()
        resumed |= {epoch for epoch in last_epochs() if epoch}
    parts = run_all(specs, tmp_path / "killed", workers=1)
    assert resumed  # there was something to go on from
    for one, two in zip(whole, parts, strict=True):
        assert difference(one, two) == 0


@needs_jax
class TestVectorized:
    SPECS = sweep(spec(), weight_decay=[0.0, 1e-3], seed=[0, 1]) + sweep(
        spec(), learning_rate=[0.02], milestones=[(), (1, 2)]
    )

    def test_as_single_runs(self, tmp_path):
        together = run_all(self.SPECS, tmp_path / "together")
        for item, other in zip(self.SPECS, together, strict=True):
            alone = run(item, tmp_path / "alone")
            assert difference(alone, other) < 1e-5
            pairs = zip(
                alone.recording.measurements,
                other.recording.measurements,
                strict=True,
            )
            for left, right in pairs:
                for name in ("epoch", "step", "batch_size", "steps_per_epoch"):
                    assert getattr(left, name) == getattr(right, name)
                assert left.learning_rate == right.learning_rate
                assert dict(left.logs) == pytest.approx(
                    dict(right.logs), rel=1e-5
                )
            ours, theirs = alone.result, other.result
            assert ours["logs"] == pytest.approx(theirs["logs"], rel=1e-5)
            assert {k: ours[k] for k in ("epochs", "steps", "decay_clock")} == {
                k: theirs[k] for k in ("epochs", "steps", "decay_clock")
            }
            assert set(alone.recording.info) == set(other.recording.info)

    @pytest.mark.parametrize(
        "change",
        [
            {"optimizer": "torch_sgd", "momentum": 0.9},
            {"optimizer": "adam", "learning_rate": 1e-3},
            {"loss": "mean_squared_error"},
            {"data": {"name": "digits", "train_samples": 100}},
            {"data": {"name": "digits", "train_samples": 20}},
            {"decay_convention": "paper_lambda", "decay_covers": "kernels"},
            {"optimizer": "muon", "decay_convention": "keras"},
        ],
        ids=range(7),
    )
    def test_settings(self, tmp_path, change):
        base = spec(every=3, **change)
        specs = sweep(base, weight_decay=[0.01, 0.02])
        together = run_all(specs, tmp_path / "together", vectorize=True)
        alone = run_all(specs, tmp_path / "alone", vectorize=False, workers=1)
        for one, two in zip(together, alone, strict=True):
            assert difference(one, two) < 1e-5

    def test_stepped_together_as_on_a_gpu(self, tmp_path, monkeypatch):
        import jax

        specs = sweep(spec(), weight_decay=[0.01, 0.02], seed=[0, 1])
        after_another = run_all(specs, tmp_path / "one", vectorize=True)
        monkeypatch.setattr(
            Program, "_each_run", lambda self, function: jax.vmap(function)
        )
        together = run_all(specs, tmp_path / "two", vectorize=True)
        for one, two in zip(after_another, together, strict=True):
            assert difference(one, two) < 1e-5

    def test_starts_share_a_program(self, tmp_path):
        base = spec()
        specs = [
            base,
            base.replace(initial_rank=2),
            base.replace(initial_scale=0.1),
        ]
        assert len({program_of(item, 96) for item in specs}) == 1
        together = run_all(specs, tmp_path / "together", vectorize=True)
        alone = run_all(specs, tmp_path / "alone", vectorize=False, workers=1)
        for one, two in zip(together, alone, strict=True):
            assert difference(one, two) < 1e-5

    def test_resumed_together_alone_and_back(self, tmp_path):
        specs = sweep(spec(epochs=6), seed=[0, 1, 2])
        whole = run_all(specs, tmp_path / "whole")
        with pytest.raises(StopError):
            run_all(
                specs, tmp_path / "parts", stop_after(2), checkpoint_seconds=0
            )
        with pytest.raises(StopError):
            run(specs[0], tmp_path / "parts", stop_after(4), 0.0)
        # Two go on together, one alone, from where it is.
        parts = run_all(specs, tmp_path / "parts", checkpoint_seconds=0)
        for one, two in zip(whole, parts, strict=True):
            assert difference(one, two) < 1e-5
            assert two.recording.epochs == list(range(7))

    def test_networks_with_convolutions(self, tmp_path):
        rng = np.random.default_rng(0)
        path = str(tmp_path / "images.npz")
        x = rng.integers(0, 256, (40, 8, 8, 3), dtype=np.uint8)
        y = rng.integers(0, 3, 40)
        np.savez(path, x_train=x, y_train=y, x_test=x, y_test=y)
        network = {"name": "convnet", "depth": 1, "width": 4}
        specs = sweep(spec(data=path, network=network, epochs=2), seed=[0, 1])
        together = run_all(specs, tmp_path / "a", vectorize=True)
        alone = run_all(specs, tmp_path / "b", workers=1)
        for one, two in zip(together, alone, strict=True):
            assert difference(one, two) < 1e-5


@pytest.mark.skipif(BACKEND == "jax", reason="JAX can")
def test_vectorize_where_it_is_not_possible(tmp_path):
    with pytest.raises(ValueError, match=f"JAX backend.*{BACKEND}"):
        run_all([spec()], tmp_path, vectorize=True)


class TestProcesses:
    def test_as_in_this_process(self, tmp_path):
        specs = sweep(spec(), seed=[0, 1])
        told = []
        there = run_all(
            specs,
            tmp_path / "there",
            report=lambda *what: told.append(what[:3]),
            vectorize=False,
            workers=2,
            keep_model=True,
        )
        here = run_all(specs, tmp_path / "here", vectorize=False, workers=1)
        for one, two in zip(there, here, strict=True):
            assert difference(one, two) < 1e-5
            assert one.load_model().count_params() == 746
        assert sorted((item.seed, epoch) for item, epoch, _ in told) == [
            (seed, epoch) for seed in (0, 1) for epoch in (1, 2, 3)
        ]

    @pytest.mark.once
    def test_one_that_fails_says_why(self, tmp_path):
        specs = sweep(spec(optimizer="sgdd"), seed=[0, 1])
        with pytest.raises(RuntimeError, match=r"status 1(.|\n)*'sgdd'"):
            run_all(specs, tmp_path, vectorize=False, workers=2)

    def test_workers(self, tmp_path):
        with pytest.raises(ValueError, match="`workers` must be 1 or more"):
            run_all([spec()], tmp_path, workers=0)


class TestKeptModel:
    def score(self, this):
        data = load_data(this.spec.data)
        model = this.load_model()
        values = model.evaluate(
            data.x_test, data.y_test, verbose=0, return_dict=True
        )
        return model, values["loss"]

    @pytest.mark.parametrize(
        "vectorize", [False, pytest.param(True, marks=needs_jax)]
    )
    def test_is_the_network_at_the_end(self, tmp_path, vectorize):
        specs = sweep(spec(), seed=[0, 1])
        for this in run_all(
            specs, tmp_path, vectorize=vectorize, workers=1, keep_model=True
        ):
            model, loss = self.score(this)
            assert loss == pytest.approx(
                this.result["logs"]["val_loss"], rel=1e-4
            )
            assert int(model.optimizer.iterations) == 9
            assert float(model.optimizer.learning_rate) == pytest.approx(0.01)
            names = {path.name for path in this.run_dir.iterdir()}
            assert not [name for name in names if ".part" in name]

    def test_resumed_run_keeps_it(self, tmp_path):
        with pytest.raises(StopError):
            run(spec(), tmp_path, stop_after(2), 0.0, keep_model=True)
        this = find_run(spec(), tmp_path)
        with pytest.raises(FileNotFoundError, match="no model yet"):
            this.load_model()
        run(spec(), tmp_path, keep_model=True)
        _, loss = self.score(this)
        assert loss == pytest.approx(this.result["logs"]["val_loss"], rel=1e-4)

    def test_where_none_was_kept(self, done):
        with pytest.raises(FileNotFoundError, match="Give `keep_model=True`"):
            done.load_model()


class TestReading:
    @pytest.mark.once
    def test_runs_and_their_table(self, tmp_path):
        specs = sweep(spec(), weight_decay=[0.0, 1e-3])
        run_all(specs, tmp_path)
        with pytest.raises(StopError):
            run(spec(seed=5), tmp_path, stop_after(1))
        found = read_runs(tmp_path)
        assert {item.spec for item in found} == {*specs, spec(seed=5)}
        assert sum(item.complete for item in found) == 2
        rows = runs_table(found, measures="stable_rank")
        assert {row["weight_decay"] for row in rows} == {0.0, 1e-3}
        row = rows[0]
        assert row["network"] == "mlp" and row["network.depth"] == 2
        last = find_run(specs[0], tmp_path).recording.measurements[-1]
        first = next(row for row in rows if row["weight_decay"] == 0)
        assert first["stable_rank_mean"] == pytest.approx(
            last.mean("stable_rank")
        )
        text = summary(found).render()
        assert "weight_decay 0.001" in text and "numerical_rank(" in text

    def test_no_directory(self, tmp_path):
        with pytest.raises(FileNotFoundError, match="no directory"):
            read_runs(tmp_path / "none")


class TestCommand:
    @pytest.fixture
    def file(self, tmp_path):
        path = tmp_path / "sweep.json"
        sweep = {"weight_decay": [0.0, 1e-3]}
        path.write_text(json.dumps(spec().to_dict() | {"sweep": sweep}))
        return str(path)

    def test_run(self, tmp_path, file, capsys):
        out = str(tmp_path / "out")
        assert main(["run", file, "--out", out, "--workers", "1"]) == 0
        said = capsys.readouterr().out
        assert "weight_decay 0.001: epoch 3/3" in said
        assert "Complete runs" in said
        assert len(read_runs(out)) == 2

    def test_json(self, tmp_path, file, capsys):
        out = str(tmp_path / "out")
        arguments = ["run", file, "--out", out, "--workers", "1", "--json"]
        assert main(arguments) == 0
        lines = capsys.readouterr().out.splitlines()
        told = [json.loads(line) for line in lines]
        assert len(told) == 6
        assert told[-1]["epoch"] == 3 and "rank_mean" in told[-1]["logs"]

    def test_errors(self, tmp_path, capsys):
        assert main(["run", str(tmp_path / "none.toml")]) == 1
        assert "no file" in capsys.readouterr().err
        bad = tmp_path / "bad.toml"
        bad.write_text('network = "mlp"\ndata = "digits"\nepoch = 3')
        assert main(["run", str(bad)]) == 1
        assert "no field 'epoch'" in capsys.readouterr().err


def test_states_of_runs_are_copies():
    model = build_model(spec(), load_data(spec().data))
    state = get_state(model)
    before = [value.copy() for value in state]
    for variable in model.trainable_variables:
        variable.assign(keras.ops.zeros_like(variable.value))
    for value, kept in zip(state, before, strict=True):
        np.testing.assert_array_equal(value, kept)
