"""The examples that are programs run, and say what their data say."""

import importlib
import importlib.util
import pathlib
import sys

import pytest

pd = pytest.importorskip("pandas")

EXAMPLES = pathlib.Path(__file__).parent.parent / "examples"
COMPRESSIBILITY = EXAMPLES / "compressibility"
# What a run of each has to print, in whatever order.
SAID = {
    "image_classifier": [
        "conv_2/kernel",
        "Dead channels",
        "keras-lowrank report",
    ],
    "text_transformer": ["block_0_attention/query/kernel[head_1]"],
    "custom_training_loop": ["epoch 2: loss", "hidden_1/kernel"],
    "tuner_search": ["Trials, the best first"],
    "compress_model": ["small.keras", "parameters in place of"],
}


@pytest.fixture
def example(monkeypatch):
    """A function that imports a program of the example, as Python runs it."""
    monkeypatch.syspath_prepend(COMPRESSIBILITY)
    before = set(sys.modules)
    yield importlib.import_module
    for name in {"run", "summarize"} - before:
        sys.modules.pop(name, None)


def run_smoke(name, directory, monkeypatch, capsys):
    """Run an example as a user would, but in this process."""
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    program = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(program)
    monkeypatch.chdir(directory)
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setattr(sys, "argv", [name, "--smoke"])
    program.main()
    return capsys.readouterr().out


@pytest.mark.parametrize("name", SAID)
def test_smoke(name, tmp_path, monkeypatch, capsys):
    told = run_smoke(name, tmp_path, monkeypatch, capsys)
    assert [words for words in SAID[name] if words not in told] == []


@pytest.mark.once
def test_several_backends_smoke(tmp_path, monkeypatch, capsys):
    told = run_smoke("several_backends", tmp_path, monkeypatch, capsys)
    assert "report.html" in told


def test_compressibility_smoke(example, tmp_path, monkeypatch, capsys):
    program = example("run")
    monkeypatch.setenv("COLUMNS", "100")
    program.main(["--smoke", "--out", str(tmp_path)])
    told = capsys.readouterr().out
    assert "one epoch: fewest parameters" in " ".join(told.split())
    points = pd.read_csv(tmp_path / "points.csv")
    assert len(points) == 8  # two decays, energies and stages
    whole = points[points["energy"] == 1]
    assert set(whole["parameters"]) == {1274}
    assert set(whole["ranks"]) == {"all all"}
    # Whole networks are those that were trained, on data held out of training.
    for row in whole[~whole["fine_tuned"]].to_dict("records"):
        (path,) = tmp_path.glob(f"runs/{row['run']}/*/result.json")
        logs = pd.read_json(path)["logs"]
        assert row["val_accuracy"] == pytest.approx(logs["val_accuracy"])
    tuned = whole[whole["fine_tuned"]]["val_accuracy"].to_numpy()
    assert (tuned != whole[~whole["fine_tuned"]]["val_accuracy"]).all()
    assert (points[points["energy"] == 0.5]["parameters"] < 1274).all()
    for name in ("report.md", "figure.png"):
        assert (tmp_path / name).stat().st_size > 0

    def again(*args):
        raise AssertionError("a point that was there was made again")

    monkeypatch.setattr(program, "truncated", again)
    program.main(["--smoke", "--out", str(tmp_path)])
    assert pd.read_csv(tmp_path / "points.csv").equals(points)


def made_points():
    """Three decays, two seeds: 0.1 is most accurate, 0.2 most compressible."""
    sizes = {1.0: 1000, 0.9: 500, 0.5: 100}
    accuracies = {  # of the energies, truncated and fine-tuned
        0.0: {1.0: (0.900, 0.900), 0.9: (0.896, 0.897), 0.5: (0.2, 0.5)},
        0.1: {1.0: (0.950, 0.940), 0.9: (0.940, 0.946), 0.5: (0.3, 0.8)},
        0.2: {1.0: (0.948, 0.948), 0.9: (0.947, 0.947), 0.5: (0.4, 0.946)},
    }
    return pd.DataFrame(
        {
            "weight_decay": decay,
            "seed": seed,
            "energy": energy,
            "fine_tuned": bool(stage),
            "parameters": sizes[energy] * (1 if decay else 2 - (energy == 1)),
            # The mean over seeds is what was asked for.
            "val_accuracy": accuracy + (0.01 if seed else -0.01),
            "test_accuracy": accuracy - 0.02 + (0.01 if seed else -0.01),
        }
        for decay, levels in accuracies.items()
        for energy, stages in levels.items()
        for stage, accuracy in enumerate(stages)
        for seed in (1, 0)
    )


@pytest.mark.once
class TestSummary:
    def test_roles(self, example):
        roles = example("summarize").roles(made_points())
        assert roles == {
            "no decay": 0.0,
            "most accurate": 0.1,
            "most compressible": 0.2,
        }

    def test_choices_are_blind_to_test_data(self, example):
        points = made_points()
        flipped = points.assign(test_accuracy=1 - points["test_accuracy"])
        roles = example("summarize").roles
        assert roles(points) == roles(flipped)

    def rows(self, example, *which):
        table = example("summarize").table(made_points(), *which)
        return {row["weight_decay"]: row for row in table.rows}, table.notes

    def test_against_itself(self, example):
        rows, notes = self.rows(example, False, None)
        assert rows[0.0]["energy"] == 0.9
        assert rows[0.0]["fewer"].mean == 1  # two factors for one kernel
        assert rows[0.0]["lost"].mean == pytest.approx(0.4)
        assert rows[0.1]["energy"] == 1
        assert rows[0.2]["energy"] == 0.9
        assert rows[0.2]["fewer"].mean == 2
        assert notes[1].startswith("Weight decay 0.2: 2 ± 0 times fewer")

    def test_against_the_most_accurate(self, example):
        rows, notes = self.rows(example, True, 0.1)
        assert "energy" not in rows[0.0]
        assert rows[0.0]["accuracy"].mean == pytest.approx(88)
        assert rows[0.1]["parameters"].mean == 500
        assert rows[0.2]["parameters"].mean == 100
        assert rows[0.2]["lost"].mean == pytest.approx(0.4)
        assert notes[0] == "Weight decay 0 has no such network."

    def test_each_seed_chooses_its_own_energy(self, example):
        points = made_points()
        worse = points["seed"].eq(1) & points["energy"].eq(0.9)
        worse &= points["weight_decay"].eq(0.2)
        points.loc[worse, "val_accuracy"] -= 0.02
        sizes = example("summarize").alone(points, False, None)
        assert sizes[0.0].to_dict() == {0: 1000, 1: 1000}
        assert sizes[0.2].to_dict() == {0: 500, 1: 1000}
        # Seed by seed, the network of the most accurate decay sets the floor.
        sizes = example("summarize").alone(points, True, 0.1)
        assert 0.0 not in sizes
        assert sizes[0.2].to_dict() == {0: 100, 1: 100}

    def test_figure_has_the_three(self, example):
        before, after = example("summarize").panels(made_points())
        assert [line.label for line in before.lines][:3] == [
            "weight decay 0",
            "weight decay 0.1",
            "weight decay 0.2",
        ]
        line = after.lines[2]
        assert line.x.tolist() == [100, 500, 1000]
        assert line.y == pytest.approx([0.074, 0.073, 0.072])
        assert line.high == pytest.approx(line.y + 0.01)
        assert before.lines[3].y == pytest.approx([0.075, 0.075])
