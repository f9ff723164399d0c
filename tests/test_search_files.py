"""Searches from a file: on disk, killed, on many workers, and what is left."""

import csv
import json
import math
import os
import re
import socket
import sqlite3
import subprocess
import sys
import time

import keras
import numpy as np
import pytest

from keras_lowrank.cli import main
from keras_lowrank.experiments import ExperimentSpec
from keras_lowrank.search import LowestRank
from keras_lowrank.search import ParetoFront
from keras_lowrank.search import SearchResults
from keras_lowrank.search import SearchSpace
from keras_lowrank.search import SearchSpec
from keras_lowrank.search import front_panel
from keras_lowrank.search import iso_rank_map
from keras_lowrank.search import ratio_panel
from keras_lowrank.search import read_search
from keras_lowrank.search import read_search_spec
from keras_lowrank.search import search
from keras_lowrank.search.outcome import Outcome
from keras_lowrank.search.settings import Settings
from keras_lowrank.search.specified import with_equal
from keras_lowrank.search.trials import Execution
from keras_lowrank.search.trials import Trial
from keras_lowrank.search.trials import read_trial
from keras_lowrank.search.trials import write_trial

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

BACKEND = keras.backend.backend()

TOML = """
network = {{ name = "mlp", depth = 2, width = 8 }}
data = {{ name = "digits", train_samples = 64, test_samples = 64 }}
learning_rate = 0.05
weight_decay = 1e-3
epochs = {epochs}

[search]
trials = {trials}
seeds = 2
{more}

[search.space]
batch_size = [16, 32]
weight_decay = {{ min = 1e-4, max = 1e-1 }}
network.width = [8, 9]
"""


def write_toml(directory, epochs=2, trials=2, more=""):
    path = directory / "asked.toml"
    path.write_text(TOML.format(epochs=epochs, trials=trials, more=more))
    return path


def epochs_of(results):
    """How often each epoch of each run was recorded, over all its fits."""
    counts = []
    for store in results.directory.glob("runs/*/*/records.sqlite"):
        with sqlite3.connect(store) as connection:
            counts += connection.execute(
                "SELECT count(*) FROM measurements GROUP BY epoch"
            ).fetchall()
    return [count for (count,) in counts]


@pytest.mark.once
def test_a_search_from_a_shell_and_more_of_it(tmp_path, capsys):
    out = tmp_path / "out"
    path = write_toml(tmp_path)
    assert main(["search", str(path), "--out", str(out)]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "the default: batch_size 32, weight_decay 0.001" in said
    assert "2/2 trial 1:" in said
    assert re.search(r"(Best is trial|No trial)", said)
    results = read_search(out)
    assert [trial.id for trial in results.trials] == ["0", "1", "default"]
    assert {trial.status for trial in results.trials} == {"complete"}
    # What is left for others says the same.
    with open(out / "trials.csv", newline="") as file:
        rows = {row["trial"]: row for row in csv.DictReader(file)}
    for trial in results.trials:
        row = rows[trial.id]
        assert int(row["batch_size"]) == trial.values["batch_size"]
        interval = trial.interval("rank_mean")
        assert float(row["rank_mean"]) == interval.mean
        assert float(row["rank_mean_low"]) == pytest.approx(
            interval.low, nan_ok=True
        )
    with open(out / "epochs.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 3 * 2 * 3  # trials, seeds, epochs with the start
    assert (out / "search.png").stat().st_size > 10_000
    sessions = list((out / "tensorboard").glob("trial_*/seed_*/*tfevents*"))
    assert len(sessions) == 3 * 2
    # More trials go on from there, and nothing is trained twice.
    arguments = ["search", str(path), "--out", str(out), "--trials", "3"]
    assert main(arguments) == 0
    assert "3/3 trial 2:" in capsys.readouterr().out
    assert len(read_search(out).complete) == 4
    assert set(epochs_of(results)) == {1}
    # Another search is not mixed into this one.
    path = write_toml(tmp_path, epochs=3)
    assert main(["search", str(path), "--out", str(out)]) == 1
    assert "holds a search with another `about`" in capsys.readouterr().err


@pytest.mark.once  # every tuner runs on every backend in `test_search`
@pytest.mark.parametrize(
    "more",
    [
        'method = "grid"\nobjective = "pareto_front"',
        'method = "hyperband"\nobjective = { name = "best_accuracy", '
        "rank_budget = 9 }",
        'method = "bayesian"\nequal = "steps"',
        'method = "optuna"\nobjective = "pareto_front"\nequal = "decay_clock"',
        'method = "optuna"\nprune = true',
    ],
    ids=["grid", "hyperband", "bayesian", "optuna", "prune"],
)
def test_every_method(tmp_path, more):
    if "grid" in more:
        more += "\ntrials = 2"
    text = TOML.format(epochs=2, trials=2, more=more)
    if "grid" in more or "hyperband" in more:
        text = text.replace("trials = 2\n", "", 1)
    path = tmp_path / "asked.toml"
    path.write_text(text)
    asked = read_search_spec(path)
    results = search(asked, tmp_path / "out")
    assert len(results.complete) == len(results.trials) >= 3
    for trial in results.trials:
        end = trial.executions[0].recording.measurements[-1]
        assert end.batch_size == trial.values["batch_size"]
        per_epoch = 64 // end.batch_size
        if asked.equal == "steps":
            assert end.step == 4  # of the default
        elif asked.equal == "decay_clock":
            tick = -math.log1p(-0.05 * trial.values["weight_decay"])
            target = 4 * -math.log1p(-0.05 * 1e-3)
            steps = math.ceil(target / tick * (1 - 1e-9))
            assert end.step == math.ceil(steps / per_epoch) * per_epoch
    again = search(asked, tmp_path / "out")
    assert len(again.trials) == len(results.trials)
    assert set(epochs_of(results)) == {1}


def start(path, out, *more, **environment):
    return subprocess.Popen(
        [
            *(sys.executable, "-m", "keras_lowrank_cli", "search"),
            *(str(path), "--out", str(out), "--checkpoint-seconds", "0"),
            *more,
        ],
        env=os.environ
        | {
            "KERAS_BACKEND": BACKEND,
            "TF_CPP_MIN_LOG_LEVEL": "3",
            "PYTHONWARNINGS": "ignore",
        }
        | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def wait_for(happened, process, seconds=120):
    began = time.monotonic()
    while not happened():
        if process.poll() is not None or time.monotonic() - began > seconds:
            raise AssertionError(process.communicate(timeout=60)[0])
        time.sleep(0.02)


def recorded_epochs(out, trial):
    """Epochs of the runs that a trial has begun, as its directory says."""
    found = 0
    for path in out.glob("runs/*/*/spec.json"):
        if json.loads(path.read_text())["batch_size"] not in (16, 32):
            continue
        store = path.with_name("records.sqlite")
        if store.exists():
            try:
                with sqlite3.connect(store) as connection:
                    found += connection.execute(
                        "SELECT count(*) FROM measurements"
                    ).fetchone()[0]
            except sqlite3.OperationalError:
                continue  # it is being made
    return found


@pytest.mark.once  # that a run itself goes on is tested on every backend
@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="needs SIGKILL")
@pytest.mark.parametrize("workers", [1, 2])
def test_killed_at_any_moment_it_goes_on(tmp_path, workers):
    out = tmp_path / "out"
    path = write_toml(tmp_path, epochs=40)
    process = start(path, out, "--workers", str(workers))
    # In the middle of a trial, whatever its place.
    wait_for(lambda: (out / "trial_0" / "executions.json").exists(), process)
    before = recorded_epochs(out, "0")
    wait_for(lambda: recorded_epochs(out, "0") > before + 10, process)
    process.kill()
    process.wait()
    results = read_search(out)
    assert any(trial.status == "running" for trial in results.trials)
    ended = {
        trial.id: trial for trial in results.trials if trial.status != "running"
    }
    results = search(read_search_spec(path), out)
    assert [trial.id for trial in results.trials] == ["0", "1", "default"]
    assert {trial.status for trial in results.trials} == {"complete"}
    for trial in results.trials:
        for execution in trial.executions:
            assert execution.recording.epochs == list(range(41))
        # What had ended is what it was.
        if trial.id in ended:
            assert trial == ended[trial.id]
    # An epoch is run again only if it was after the last checkpoint.
    counts = epochs_of(results)
    assert sum(count > 1 for count in counts) <= 3 * len(results.trials)


@pytest.mark.once
@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="needs SIGKILL")
def test_a_chief_and_two_workers_of_which_one_is_killed(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    out = tmp_path / "out"
    path = write_toml(tmp_path, epochs=60, trials=4)
    processes = {
        name: start(
            path,
            out,
            *("--lease-seconds", "3"),
            KERASTUNER_TUNER_ID=name,
            KERASTUNER_ORACLE_IP="127.0.0.1",
            KERASTUNER_ORACLE_PORT=port,
        )
        for name in ("chief", "left", "right")
    }

    def of_left():
        """The trial that the worker on the left has now."""
        try:
            told = json.loads((out / "oracle.json").read_text())
        except FileNotFoundError:
            return None
        return told["ongoing_trials"].get("left")

    try:
        wait_for(of_left, processes["left"])
        trial = of_left()
        directory = out / f"trial_{trial}"
        wait_for((directory / "executions.json").exists, processes["left"])
        processes["left"].kill()
        for name in ("right", "chief"):
            said, _ = processes[name].communicate(timeout=240)
            assert processes[name].returncode == 0, said
    finally:
        for process in processes.values():
            process.kill()
    results = read_search(out)
    assert len(results.complete) == len(results.trials) == 5
    # It lost its trial to the other, and nothing was tried twice.
    assert results[trial].status == "complete"
    seen = [json.dumps(dict(trial.values)) for trial in results.trials]
    assert len(set(seen)) == len(seen)
    states = [
        json.loads(path.read_text())["status"]
        for path in out.glob("trial_*/trial.json")
    ]
    assert states == ["COMPLETED"] * 4


def test_a_default_that_does_not_train_is_said_at_once(tmp_path):
    spec = ExperimentSpec(
        {"name": "mlp", "depth": 2, "width": 8},
        {"name": "digits", "train_samples": 64, "test_samples": 64},
        learning_rate=1e30,
        epochs=1,
    )
    asked = SearchSpec(spec, {"batch_size": [16, 32]}, trials=1, seeds=1)
    with (
        pytest.warns(match="not finite"),
        pytest.raises(RuntimeError, match="The default diverged: "),
    ):
        search(asked, tmp_path)


@pytest.mark.once
class TestFiles:
    def test_a_file_is_what_it_says(self, tmp_path):
        asked = read_search_spec(write_toml(tmp_path, more="last = 2"))
        assert asked.space == SearchSpace(
            {
                "batch_size": [16, 32],
                "weight_decay": {"min": 1e-4, "max": 1e-1},
                "network.width": [8, 9],
            }
        )
        assert (asked.trials, asked.seeds, asked.last) == (2, (0, 1), 2)
        assert asked.spec.epochs == 2 and asked.objective is None

    @pytest.mark.parametrize(
        "more, message",
        [
            ('method = "annealing"', "must be one of"),
            ('equal = "seconds"', "must be one of"),
            ("seeds = 0", "number of seeds from 1 on"),
            ("seeds = [1, 1]", "different whole numbers"),
            ("trials = 0", "must be 1 or more"),
            ("budget = 3", "has no 'budget'"),
            ('objective = "rank"', "is one of"),
            ("prune = true", 'is for the method "optuna"'),
            ('method = "hyperband"\nequal = "steps"', "its epochs"),
            (
                'method = "optuna"\nprune = true\nobjective = "pareto_front"',
                "prunes by one number",
            ),
        ],
        ids=range(10),
    )
    def test_what_is_no_search_says_so(self, tmp_path, more, message):
        text = TOML.format(epochs=2, trials=2, more=more)
        for name in ("seeds", "trials"):
            if f"{name} =" in more:
                text = text.replace(f"{name} = 2\n", "", 1)
        path = tmp_path / "asked.toml"
        path.write_text(text)
        with pytest.raises((TypeError, ValueError), match=message):
            read_search_spec(path)

    def test_a_field_that_is_none_says_so(self, tmp_path):
        path = tmp_path / "asked.toml"
        path.write_text(TOML.format(epochs=2, trials=2, more="") + "size = [1]")
        with pytest.raises(ValueError, match="no field 'size'"):
            read_search_spec(path)
        path.write_text('network = "mlp"\ndata = "digits"\nepochs = 1')
        with pytest.raises(ValueError, match="no table `search`"):
            read_search_spec(path)
        with pytest.raises(FileNotFoundError):
            read_search_spec(tmp_path / "other.toml")
        with pytest.raises(FileNotFoundError, match="no search in"):
            read_search(tmp_path)

    def test_equal_ends_where_the_default_does(self):
        spec = ExperimentSpec(
            "mlp",
            "digits",
            batch_size=32,
            weight_decay=0.01,
            milestones=(4, 6),
            epochs=10,
        )
        plan = spec.plan(1000)
        for what in ("steps", "decay_clock"):
            equal = with_equal(spec, what, 1000)
            assert equal.plan(1000) == plan
            half = equal.replace(batch_size=16).plan(1000)
            assert half.steps == pytest.approx(plan.steps, abs=63)
            assert half.boundaries == plan.boundaries
        stronger = equal.replace(weight_decay=0.02).plan(1000)
        assert stronger.decay_clock() == pytest.approx(
            plan.decay_clock(), rel=0.1
        )
        assert stronger.steps == pytest.approx(plan.steps / 2, rel=0.1)
        with pytest.raises(ValueError, match="clock the others follow"):
            with_equal(spec.replace(weight_decay=0.0), "decay_clock", 1000)


def execution(seed, accuracy, rank, status="complete", reason=""):
    metrics = {
        "val_accuracy": accuracy,
        "rank_mean": rank,
        "full_rank_mean": 100.0,
        "size": 10 * rank,
    }
    return Execution(seed, Outcome(status, reason, metrics))


def results_of(tmp_path, points, objective=None):
    """Results without a training: values, and accuracy and rank by seed."""
    trials = [
        Trial(
            name,
            {"batch_size": 16, "learning_rate": 0.1, "weight_decay": decay},
            (0, 1, 2),
            tuple(
                execution(seed, accuracy + 0.01 * seed, rank + seed)
                for seed in (0, 1, 2)
            ),
        )
        for name, decay, accuracy, rank in points
    ]
    settings = Settings(
        SearchSpace(weight_decay=[1e-3, 1e-2]),
        objective or LowestRank(0.9),
        (0, 1, 2),
        1,
    )
    return SearchResults(tmp_path, settings, tuple(trials))


POINTS = [
    ("0", 1e-3, 0.93, 40.0),
    ("1", 1e-2, 0.91, 20.0),
    ("2", 2e-2, 0.90, 30.0),
    ("3", 4e-2, 0.50, 5.0),
    ("default", 1e-3, 0.90, 60.0),
]


@pytest.mark.once
class TestResults:
    def test_the_best_keeps_the_floor(self, tmp_path):
        results = results_of(tmp_path, POINTS)
        assert [trial.id for trial in results.best(5)] == [
            *("1", "2", "0", "default", "3")
        ]
        lines = results.against_default()
        assert "trial 1" in lines[0] and "dominates the default" in lines[1]
        # Seed by seed the gain is the same: paired, it is certain.
        gains = results.dominates(results["1"], results["default"])
        assert gains["rank_mean"].mean == 40
        assert gains["rank_mean"].low == pytest.approx(40)
        assert gains["val_accuracy"].mean == pytest.approx(0.01)

    def test_the_front_and_what_it_dominates(self, tmp_path):
        results = results_of(tmp_path, POINTS, ParetoFront())
        assert [trial.id for trial in results.pareto()] == ["3", "1", "0"]
        # Means over the seeds: accuracies + 0.01, ranks + 1. Slabs by hand.
        volume = results.hypervolume({"val_accuracy": 0.0, "rank_mean": 100.0})
        by_hand = 0.51 * 94 + (0.92 - 0.51) * 79 + (0.94 - 0.92) * 59
        assert volume == pytest.approx(by_hand)
        with pytest.raises(ValueError, match="Missing: rank_mean"):
            results.hypervolume({"val_accuracy": 0.0})

    def test_trials_come_back_from_disk(self, tmp_path):
        trial = Trial(
            "7",
            {"batch_size": 16, "optimizer": "sgd"},
            (0, 1, 2),
            (
                execution(0, math.nan, 3.0, "diverged", "loss is nan"),
                execution(1, 0.5, 4.0),
            ),
        )
        write_trial(tmp_path / "trial_7", trial)
        again = read_trial(tmp_path / "trial_7")
        assert again.values == trial.values
        assert again.status == "running"
        assert again.executions[0].outcome.reason == "loss is nan"
        assert math.isnan(again.executions[0].outcome.metrics["val_accuracy"])
        assert again.executions[1] == trial.executions[1]
        assert read_trial(tmp_path) is None

    def test_status_is_that_of_the_worst_seed(self):
        trial = Trial("0", {}, (0, 1), (execution(0, 0.9, 3.0),))
        assert (trial.status, trial.score(LowestRank(0.5))) == ("running", 2.0)
        bad = trial.with_execution(execution(1, 0.9, 3.0, "collapsed", "zero"))
        assert (bad.status, bad.reason) == ("collapsed", "zero")
        assert bad.score(LowestRank(0.5)) == 2.0
        mended = bad.with_execution(execution(1, 0.9, 3.0))
        assert mended.status == "complete"
        assert mended.score(LowestRank(0.5)) == 0.03

    def test_plots_are_of_the_means_with_their_intervals(self, tmp_path):
        results = results_of(tmp_path, POINTS)
        (front, tried, default) = front_panel(results).lines
        np.testing.assert_allclose(front.x, [0.51, 0.92, 0.94])
        np.testing.assert_allclose(front.y, [6, 21, 41])
        assert len(tried.x) == 4 and default.y == [61]
        # Student's t for three seeds: 4.303 * 1 / sqrt(3).
        np.testing.assert_allclose(front.high - front.y, 2.484, atol=1e-3)
        (line,) = ratio_panel(results).lines
        np.testing.assert_allclose(line.x[:2], [4e3, 8e3])
        found = iso_rank_map(results)
        np.testing.assert_allclose(found.x[:2], [1e-4, 1e-3])
        assert found.y[0] == 16 and found.values[1] == 21
        with pytest.raises(ValueError, match="number of every"):
            iso_rank_map(results, x="momentum")
