"""Backends held against each other: where they part, and by which weight."""

import dataclasses
import importlib.util
import json
import pathlib
import sys

import keras
import numpy as np
import pytest

from keras_lowrank.cli import main
from keras_lowrank.experiments import ExperimentSpec
from keras_lowrank.experiments import compare
from keras_lowrank.experiments import run
from keras_lowrank.experiments.compare import side as side_module
from keras_lowrank.experiments.compare.divergence import FLOOR
from keras_lowrank.experiments.compare.divergence import MARGIN
from keras_lowrank.experiments.compare.divergence import Excess
from keras_lowrank.experiments.compare.divergence import allowed
from keras_lowrank.experiments.compare.divergence import find_divergences
from keras_lowrank.experiments.compare.divergence import group
from keras_lowrank.experiments.compare.moments import MAX_BYTES
from keras_lowrank.experiments.compare.moments import Moments
from keras_lowrank.experiments.compare.moments import choose_moments
from keras_lowrank.experiments.compare.processes import Sides
from keras_lowrank.experiments.compare.rounding import Rounding
from keras_lowrank.experiments.compare.side import Side
from keras_lowrank.experiments.compare.side import as_sides
from keras_lowrank.experiments.compare.snapshot import Snapshot
from keras_lowrank.experiments.compare.snapshot import differences
from keras_lowrank.experiments.compare.stepper import Stepper
from keras_lowrank.experiments.plan import Plan
from keras_lowrank.experiments.run import load_data
from keras_lowrank.experiments.training import build_model
from keras_lowrank.plots import Line
from keras_lowrank.plots import Panel
from keras_lowrank.plots import draw_panels
from keras_lowrank.tables import Column
from keras_lowrank.tables import Table
from tests import step_defects

BACKEND = keras.backend.backend()
ROOT = pathlib.Path(__file__).parent.parent
DEFECTS = "tests.step_defects"
PLANTED = f"{BACKEND}+{DEFECTS}:decay_of_normalization"

SPEC = ExperimentSpec(
    {"name": "mlp", "depth": 2, "width": 16},
    {
        "name": "teacher_student",
        "inputs": 12,
        "classes": 3,
        "train_samples": 150,
        "test_samples": 50,
    },
    batch_size=32,
    learning_rate=0.1,
    milestones=(2,),
    weight_decay=0.1,
    decay_convention="keras",
    decay_covers="kernel",
    epochs=3,
    measures=("rank", "stable_rank"),
)


def steps_of(stepper, count):
    for _ in range(count):
        loss = stepper.go()
    return stepper.read(loss)


@pytest.fixture(scope="module")
def traced():
    """A stepper, and its initial state to go back to."""
    spec = SPEC.replace(momentum=0.9, optimizer="torch_sgd", seed=1)
    stepper = Stepper(spec, load_data(spec.data))
    return stepper, stepper.read()


@pytest.fixture
def stepper(traced):
    stepper, initial = traced
    stepper.restore(initial.state, 0)
    return stepper


class TestStepper:
    def test_makes_the_steps_of_run(self, tmp_path, stepper):
        done = run(stepper.spec, tmp_path)
        last = done.recording.measurements[-1]
        assert stepper.plan.steps == last.step == 15
        end = steps_of(stepper, stepper.plan.steps)
        for record in last.records:
            np.testing.assert_allclose(
                end.spectra[record.weight],
                record.spectrum.values,
                rtol=1e-5,
                atol=1e-6,
            )
        assert 0 < done.result["cost"]["epoch_seconds"] < done.result["seconds"]

    def test_goes_on_from_a_state(self, tmp_path, stepper):
        steps_of(stepper, 8).save(tmp_path / "state.npz")
        expected = steps_of(stepper, 4)
        state = Snapshot.load(tmp_path / "state.npz").state
        stepper.restore(state, 8)
        actual = steps_of(stepper, 4)
        assert list(actual.state) == list(expected.state)
        for name, value in expected.state.items():
            np.testing.assert_array_equal(actual.state[name], value, name)
        assert actual.loss == expected.loss

    def test_errors_have_the_size_of_rounding(self, traced, stepper):
        expected = steps_of(stepper, 2)
        sizes = []
        for units in (0, 1, 64):
            stepper.restore(traced[1].state, 0)
            for _ in range(2):
                loss = Rounding(stepper, seed=0, units=units).go()
            found = differences(stepper.read(loss), expected)
            assert stepper.step == 2 and found["optimizer/iteration"] == 0
            sizes.append(found["hidden_1/kernel"])
        # The uniform error of the stored weights alone is 1 / sqrt(3) units.
        unit = 2.0**-23
        assert sizes[0] == 0
        assert 0.4 * unit < sizes[1] < 10 * unit
        assert 0.4 * 64 * unit < sizes[2]

    def test_errors_of_computing_reach_the_weights_by_the_gradient(
        self, traced, stepper
    ):
        expected = steps_of(stepper, 1)
        stepper.restore(traced[1].state, 0)
        coarse = Rounding(stepper, seed=0, units=1)
        coarse.eps = 0.1
        found = differences(stepper.read(coarse.go()), expected)
        # The weights of the step were off by 0.1 / sqrt(3); it moves them by
        # less than a tenth, and the error of its gradient is a share of that.
        assert 1e-4 < found["hidden_1/kernel"] < 0.02

    def test_a_change_is_made(self):
        data = load_data(SPEC.data)
        with pytest.raises(TypeError, match="must return a compiled"):
            build_model(SPEC, data, change=step_defects.no_model)
        model = build_model(
            SPEC, data, change=step_defects.decay_of_normalization
        )
        optimizer, gamma = model.optimizer, model.layers[3].gamma
        assert gamma.name == "gamma" and optimizer.decays(gamma)
        plain = build_model(SPEC, data)
        assert not plain.optimizer.decays(plain.layers[3].gamma)


@pytest.mark.once
class TestDifferences:
    def snapshot(self, **state):
        state = {k: np.asarray(v, "float32") for k, v in state.items()}
        spectra = {"m": np.array([4.0, 2.0])}
        return Snapshot(state, spectra, 2.0)

    def test_by_hand(self):
        a = self.snapshot(w=[3.0, 4.0], b=[0.0, 0.5])
        b = self.snapshot(w=[3.0, 3.0], b=[0.0, 0.0])
        b.spectra["m"] = np.array([5.0, 4.0])
        b = Snapshot(b.state, b.spectra, 4.0)
        found = differences(a, b)
        assert found["w"] == pytest.approx(1 / np.sqrt(18))
        assert found["b"] == 0.5  # nothing to divide by
        assert found["spectrum of m"] == pytest.approx(2 / 5)
        assert found["loss"] == 0.5
        assert found["all weights"] == pytest.approx(np.sqrt(1.25 / 18))

    def test_relative_to_a_third(self):
        a, b = self.snapshot(w=[3.0]), self.snapshot(w=[1.0])
        c = self.snapshot(w=[8.0])
        assert differences(a, b, c)["w"] == 0.25

    def test_what_is_not_finite(self):
        a = self.snapshot(w=[np.nan, 1.0])
        assert differences(a, a)["w"] == 0
        assert differences(a, self.snapshot(w=[1.0, 1.0]))["w"] == np.inf

    def test_what_only_one_side_has_is_left_out(self):
        a = self.snapshot(w=[1.0], **{"optimizer/m": [1.0]})
        found = differences(a, self.snapshot(w=[1.0]))
        assert "optimizer/m" not in found and found["all weights"] == 0

    def test_a_file_gives_it_back(self, tmp_path):
        a = self.snapshot(**{"w/x": [1.0, 2.0], "b": []})
        a.save(tmp_path / "a.npz")
        b = Snapshot.load(tmp_path / "a.npz")
        assert b.loss == 2.0 and list(b.state) == ["w/x", "b"]
        assert b.state["w/x"].dtype == np.float32
        assert set(differences(a, b).values()) == {0.0}


@pytest.mark.once
class TestMoments:
    plan = Plan(64, 8, 50, (200,), (0.1, 0.02), 0.0)

    def test_dense_then_sparse_to_the_end_asked_for(self):
        leg = choose_moments(self.plan, 100, 1000).legs[0]
        assert leg[:16] == tuple(range(1, 17))
        assert leg[-1] == 100 and len(leg) < 45

    def test_both_sides_of_a_new_learning_rate(self):
        legs = choose_moments(self.plan, 100, 1000).legs
        assert legs[199] == (200, 201) and legs[200] == (201, 202)
        assert max(max(leg) for leg in legs.values()) == self.plan.steps

    @pytest.mark.parametrize("states", [1, 5, 12, 30])
    def test_large_states_are_few(self, states):
        moments = choose_moments(self.plan, 100, MAX_BYTES // states)
        assert len(moments.of_reference) <= max(4, states + 1)
        assert moments.legs[0][0] == 1

    def test_one_step(self):
        plan = Plan(8, 8, 1, (), (0.1,), 0.0)
        assert choose_moments(plan, 100, 1000).legs == {0: (1,)}

    def test_as_plain_values(self):
        moments = choose_moments(self.plan, 100, 1000)
        values = json.loads(json.dumps(moments.to_list()))
        assert Moments.from_list(values) == moments


LAYERS = {
    "a/kernel": "Dense",
    "b/kernel": "Dense",
    "n/gamma": "BatchNormalization",
    "optimizer/a_kernel_momentum": "optimizer",
    "optimizer/b_kernel_momentum": "optimizer",
}


@pytest.mark.once
class TestDivergences:
    def found(self, **changed):
        """Three sides; `changed` says what of which is not 1e-7."""
        names = [*LAYERS, "spectrum of a/kernel", "loss", "all weights"]
        moments = [(0, 1), (0, 2), (1, 2), (1, 3)]
        band = {m: dict.fromkeys(names, 1e-6) for m in moments}
        pairs = {
            pair: {m: dict.fromkeys(names, 1e-7) for m in moments}
            for pair in (("jax", "torch"), ("jax", "tf"), ("torch", "tf"))
        }
        for side, values in changed.items():
            for (moment, name), value in values.items():
                for pair in pairs:
                    if side in pair:
                        pairs[pair][moment][name] = value
        return find_divergences(pairs, band, LAYERS)

    def test_none(self):
        assert self.found() == []

    def test_first_step_and_largest_ratio_first(self):
        (found,) = self.found(
            tf={
                ((0, 2), "a/kernel"): 1e-4,
                ((0, 2), "n/gamma"): 1e-3,
                ((0, 2), "loss"): 1.0,
                ((0, 2), "optimizer/a_kernel_momentum"): 1e-2,
                ((1, 3), "b/kernel"): 1e-1,
            }
        )
        assert (found.side, found.start, found.step) == ("tf", 0, 2)
        names = [item.name for item in found.excesses]
        assert names == [
            "n/gamma",
            "a/kernel",
            "optimizer/a_kernel_momentum",
            "loss",
        ]
        assert found.excesses[0].ratio == pytest.approx(1000)
        assert found.odd == "tf"
        assert found.single_step == ()  # of no step from an equal state

    def test_a_leg_that_starts_later_says_more(self):
        (found,) = self.found(
            tf={
                ((0, 2), "a/kernel"): 1e-4,
                ((1, 2), "n/gamma"): 1e-3,
                ((1, 2), "a/kernel"): 1e-5,
                ((1, 2), "b/kernel"): 1e-5,
            }
        )
        assert (found.start, found.step) == (1, 2)
        assert found.single_step == ("n/gamma", "kernel of every Dense (2)")
        text = found.describe()
        assert "tf leaves at step 2, from the state of the reference" in text
        assert "n/gamma differs by 0.001, 1e+03 times" in text

    def test_the_reference_may_be_the_odd_one(self):
        found = self.found(jax={((0, 1), "a/kernel"): 1e-2})
        assert [item.side for item in found] == ["torch", "tf"]
        assert {item.odd for item in found} == {"jax"}

    def test_nobody_is_odd_where_all_differ(self):
        wrong = {((0, 1), "a/kernel"): 1e-2}
        found = self.found(jax=wrong, torch=wrong)
        assert {item.odd for item in found} == {None}

    def test_groups(self):
        assert group(["optimizer/b_kernel_momentum", "a/kernel"], LAYERS) == [
            "optimizer/b_kernel_momentum (1 of 2: momentum of a weight, kept "
            "by the optimizer)",
            "a/kernel (1 of 2: kernel of a Dense)",
        ]

    def test_what_is_allowed(self):
        shadows = {(0, 1): {"w": 1e-5, "b": 0.0}}
        expected = {(0, 1): {"w": 1e-6, "b": 0.0}}
        band = {"w": MARGIN * 1e-5, "b": FLOOR}
        assert allowed(shadows, expected) == {(0, 1): band}
        tolerant = allowed(shadows, expected, tolerance=1e-3)
        assert tolerant == {(0, 1): {"w": 1e-3, "b": 1e-3}}
        # A variable that is rounding and nothing else differs by anything.
        expected[0, 1]["w"] = 0.2
        assert allowed(shadows, expected)[0, 1]["w"] == np.inf
        assert Excess("w", 5.0, np.inf).ratio == 0


@pytest.mark.once
class TestSides:
    def test_a_backend_and_a_change(self, tmp_path):
        side = Side.of("jax+layers.mine:install")
        assert (side.backend, side.change) == ("jax", "layers.mine:install")
        assert side.label == "jax+layers.mine:install"
        # Changed runs never lie where those of the spec alone do.
        assert side.run(SPEC, tmp_path) != Side("jax").run(SPEC, tmp_path)

    @pytest.mark.parametrize("text", ["mlx", "", "jax+", "jax+a.b", "jax:a"])
    def test_of_another_form(self, text):
        with pytest.raises(ValueError, match="Received: "):
            Side.of(text)

    def test_at_least_two_each_once(self):
        for few in (["jax"], "jax,jax", []):
            with pytest.raises(ValueError, match="needs two backends"):
                as_sides(few)
        assert len(as_sides("jax,jax+a:b")) == 2

    @pytest.mark.parametrize("change", ["nowhere:f", "json:nothing"])
    def test_no_such_change(self, change):
        with pytest.raises(ValueError, match="cannot be had"):
            Side("jax", change).load_change()

    @pytest.mark.parametrize(
        "wrong", [{"steps": 0}, {"steps": 1.5}, {"tolerance": -1.0}]
    )
    def test_bad_arguments(self, wrong, tmp_path):
        with pytest.raises(ValueError, match="Received: "):
            compare(SPEC, "jax,torch", tmp_path, **wrong)

    def test_not_enough_installed(self, tmp_path, monkeypatch):
        hide(monkeypatch, "torch")
        with pytest.raises(ValueError, match="of which jax can run"):
            compare(SPEC, "jax,torch", tmp_path)

    def test_one_experiment_at_a_time(self, tmp_path, capsys):
        path = tmp_path / "spec.toml"
        path.write_text(SPEC.to_toml() + "\n[sweep]\nseed = [0, 1]\n")
        assert main(["compare", str(path)]) == 1
        assert "holds 2" in capsys.readouterr().err


def hide(monkeypatch, backend):
    def find_spec(name):
        return None if name == backend else importlib.util.find_spec(name)

    monkeypatch.setattr(
        side_module, "importlib", type("importlib", (), {"util": find_spec})
    )
    find_spec.find_spec = find_spec


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """One backend against itself with a defect in its step."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)  # where `tests` is
        out = tmp_path_factory.mktemp("compare")
        yield compare(SPEC, [BACKEND, PLANTED], out, steps=10)


@pytest.mark.slow
@pytest.mark.once
class TestPlantedDefect:
    def test_it_is_found_and_named(self, found):
        assert not found.agrees
        (divergence,) = found.divergences
        assert divergence.side == PLANTED
        assert divergence.odd is None  # of two, which is wrong?
        assert (divergence.start, divergence.step) == (0, 1)
        assert divergence.excesses[0].name.endswith("/gamma")
        assert divergence.excesses[0].difference == pytest.approx(0.01, 0.2)
        # Beta begins at 0 and shows it later; the kernels never do.
        assert sorted(divergence.single_step) == [
            "beta of every BatchNormalization (2)",
            "gamma of every BatchNormalization (2)",
        ]

    def test_what_has_no_defect_gives_the_same_bits(self, found):
        first = found.differences[BACKEND, PLANTED][0, 1]
        assert first["hidden_0/kernel"] == first["loss"] == 0

    def test_the_report(self, found, tmp_path):
        files = found.save(tmp_path)
        assert {path.name for path in tmp_path.iterdir()} == {
            "figure.png",
            "report.html",
            "report.json",
            "report.md",
        }
        for form in ("md", "html"):
            text = files[form].read_text()
            assert "gamma of every BatchNormalization (2)" in text
            assert "Step by step" in text and "Epoch by epoch" in text
        assert "data:image/png;base64," in text
        assert "leaves at step 1: normalization_" in found.render(120)
        report = json.loads(files["json"].read_text())
        assert report["agrees"] is False
        row = report["differences"][f"{BACKEND} - {PLANTED}"][
            report["moments"].index([0, 1, True])
        ]
        gamma = row[report["names"].index("normalization_0/gamma")]
        assert gamma == pytest.approx(0.01, 0.2)
        assert [row["epoch"] for row in report["epochs"]] == [0, 1, 2, 3]
        for side in (BACKEND, PLANTED):
            cost = report["sides"][side]["result"]["cost"]
            assert cost["epoch_seconds"] > 0
            assert 2**25 < cost["peak_bytes"] < 2**36
            assert 0 < cost["measuring_share"] < 1
            assert report["sides"][side]["versions"][BACKEND]
            assert report["epochs"][3][f"train_loss {side}"] > 0

    @pytest.mark.parametrize(
        "changes, status",
        [
            ({}, 2),
            ({"divergences": ()}, 0),
            ({"divergences": (), "failed": {"torch": "out of memory"}}, 1),
        ],
        ids=["differs", "agrees", "failed"],
    )
    def test_exit_status(
        self, found, tmp_path, monkeypatch, capsys, changes, status
    ):
        (tmp_path / "spec.toml").write_text(SPEC.to_toml())
        monkeypatch.setattr(
            sys.modules["keras_lowrank.experiments.compare"],
            "compare",
            lambda *given, **more: dataclasses.replace(found, **changes),
        )
        arguments = ["compare", str(tmp_path / "spec.toml")]
        assert main([*arguments, "--out", str(tmp_path)]) == status
        said = capsys.readouterr().out
        assert ("out of memory" in said) == (status == 1)


@pytest.mark.once
@pytest.mark.slow
def test_all_backends_agree_and_one_with_a_defect_does_not(
    tmp_path, capsys, monkeypatch
):
    monkeypatch.chdir(ROOT)
    for name in ("jax", "torch", "tensorflow"):
        if importlib.util.find_spec(name) is None:
            pytest.skip(f"{name} is not installed")
    path, out = tmp_path / "spec.toml", tmp_path / "out"
    path.write_text(SPEC.to_toml())
    arguments = ["compare", str(path), "--out", str(out), "--steps", "5"]
    assert main(arguments) == 0
    said = capsys.readouterr().out
    assert "torch and tensorflow agree with jax" in said
    assert "torch: train 100%" in said
    assert " ".join(arguments) in (out / "report.md").read_text()

    # Again: one differs, one fails, one is not there, one is complete.
    hide(monkeypatch, "tensorflow")
    late = f"torch+{DEFECTS}:late_learning_rate"
    sides = f"jax,{late},jax+{DEFECTS}:fails,tensorflow"
    assert main([*arguments, "--backends", sides]) == 2
    said = capsys.readouterr().out
    assert "tensorflow is not installed" in said
    assert f"jax+{DEFECTS}:fails failed" in said
    assert "ArithmeticError: a planted failure" in said
    assert "jax: train" not in said
    # Five steps an epoch, and a new rate after two epochs.
    (found,) = json.loads((out / "report.json").read_text())["divergences"]
    assert (found["side"], found["start"], found["step"]) == (late, 10, 11)


@pytest.mark.once
def test_one_that_comes_to_its_end_is_not_enough(tmp_path, monkeypatch):
    monkeypatch.setattr(
        sys.modules["keras_lowrank.experiments.compare.compare"],
        "train_sides",
        lambda *given: Sides([Side("jax")], [], {"torch": "out of memory"}),
    )
    with pytest.raises(RuntimeError, match="torch: out of memory"):
        compare(SPEC, "jax,torch", tmp_path)


@pytest.mark.once
class TestForms:
    def test_markdown(self):
        table = Table(
            "A | B",
            [Column("a"), Column("b", "Two\nlines", "{:.1f}".format)],
            [{"a": "x_1*", "b": 2.0}, {"a": "<y>"}],
            ["rank = f(*)"],
        )
        assert table.to_markdown().splitlines() == [
            r"**A \| B**",
            "",
            "| a | Two lines |",
            "| --- | ---: |",
            r"| x\_1\* | 2.0 |",
            r"| \<y> |  |",
            "",
            r"rank = f(\*)",
        ]

    def test_an_axis_may_be_logarithmic(self):
        line = Line("one", np.array([1, 10, 100]), np.array([1.0, 2.0, 3.0]))
        for log_x, scale in ((True, "log"), (False, "linear")):
            panel = Panel("title", "x", "y", (line,), log_x=log_x)
            (axes,) = draw_panels([panel]).axes
            assert axes.get_xscale() == scale
