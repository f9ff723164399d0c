import json
import math

import numpy as np
import pytest

from keras_lowrank.experiments import ExperimentSpec
from keras_lowrank.experiments import read_specs
from keras_lowrank.experiments import sweep
from keras_lowrank.experiments.batches import epoch_order

pytestmark = pytest.mark.once


def spec(**changes):
    fields = {"network": "mlp", "data": "digits", "epochs": 10} | changes
    return ExperimentSpec(**fields)


class TestValue:
    def test_equal_specs_have_one_id_and_one_hash(self):
        one = spec(network={"name": "mlp", "width": 50, "depth": 3})
        two = spec(network={"depth": 3, "name": "mlp", "width": 50})
        assert one == two
        assert one.id == two.id
        assert hash(one) == hash(two)

    def test_numbers_that_are_equal_make_one_run(self):
        one = spec(learning_rate=1, milestones=[59, 99], weight_decay=0)
        two = spec(learning_rate=1.0, milestones=(59.0, 99), weight_decay=0.0)
        assert one == two
        assert one.id == two.id
        options = [{"name": "mlp", "rate": value} for value in (1, 1.0)]
        assert spec(network=options[0]).id == spec(network=options[1]).id

    @pytest.mark.parametrize(
        "change",
        [
            {"batch_size": 16},
            {"learning_rate": 0.2},
            {"weight_decay": 1e-4},
            {"decay_convention": "keras"},
            {"seed": 1},
            {"momentum": 0.9},
            {"precision": "float64"},
            {"every": 2},
            {"initial_rank": 3},
            {"initial_scale": 0.1},
            {"network": {"name": "mlp", "width": 7}},
        ],
        ids=lambda change: next(iter(change)),
    )
    def test_another_field_makes_another_run(self, change):
        assert spec(**change).id != spec().id

    def test_id_is_the_same_in_every_process_and_release(self):
        # Runs on users' disks are found by it.
        assert spec().id == "mlp-digits-cd29071c94b8"

    def test_id_of_a_file_is_a_name(self):
        assert spec(data="some/where/my.npz").id.startswith("mlp-my-")

    def test_replace_changes_the_stop(self):
        changed = spec().replace(decay_clock=2.0, weight_decay=1e-3)
        assert changed.stop == ("decay_clock", 2.0)
        assert changed.epochs is None
        assert spec().replace(seed=3).stop == ("epochs", 10)

    @pytest.mark.parametrize("form", ["json", "toml"])
    def test_text_and_back(self, form):
        original = spec(
            network={"name": "mlp", "depth": 3, "widths": [1, 2]},
            milestones=(3, 5.5),
            decay_coupling="coupled",
            measures=["stable_rank"],
            weights="hidden",
            initial_rank=2,
            initial_scale=0.5,
            every="log",
            learning_rate=0.1 + 0.2,
        )
        text = getattr(original, f"to_{form}")()
        assert getattr(ExperimentSpec, f"from_{form}")(text) == original


class TestErrors:
    @pytest.mark.parametrize(
        "change, error, message",
        [
            ({"batch_size": 0}, ValueError, "`batch_size` must be 1 or more"),
            ({"batch_size": 1.5}, TypeError, "whole number.*batch_size=1.5"),
            ({"batch_size": True}, TypeError, "whole number"),
            ({"initial_rank": 0}, ValueError, "`initial_rank` must be 1 or"),
            ({"initial_scale": 0.0}, ValueError, "finite and larger than 0"),
            ({"learning_rate": 0}, ValueError, "larger than 0"),
            ({"learning_rate": math.nan}, ValueError, "finite"),
            ({"learning_rate": "0.1"}, TypeError, "a number"),
            ({"momentum": 1.0}, ValueError, "below 1"),
            ({"weight_decay": -1e-3}, ValueError, "0 or larger"),
            ({"decay_convention": "pytorch"}, ValueError, "'torch'"),
            ({"decay_coupling": "loose"}, ValueError, "'decoupled'"),
            ({"milestones": [3, 3]}, ValueError, "increasing"),
            ({"milestones": [0]}, ValueError, "above 0"),
            ({"milestones": 3}, TypeError, "list of numbers"),
            ({"milestones": ["3"]}, TypeError, "list of numbers"),
            ({"milestone_unit": "days"}, ValueError, "'epochs', 'steps'"),
            ({"loss": "hinge"}, ValueError, "'cross_entropy'"),
            ({"precision": "int8"}, ValueError, "'float32'"),
            ({"measures": ["rnk"]}, ValueError, "rnk"),
            ({"every": 0}, ValueError, "every=0"),
            ({"seed": -1}, ValueError, "0 or more"),
            ({"weights": 3}, TypeError, "a string"),
            ({"epochs": None}, ValueError, "give one of them.*none"),
            ({"steps": 3}, ValueError, "give one of them.*epochs, steps"),
            ({"network": 3}, TypeError, "`network` must be a name"),
            ({"network": {"depth": 3}}, ValueError, "needs a `name`"),
            ({"data": {"name": "x", "f": len}}, TypeError, "An option must be"),
        ],
        ids=lambda value: (
            "-".join(map(str, value)) if isinstance(value, dict) else None
        ),
    )
    def test_what_came_and_what_was_expected(self, change, error, message):
        with pytest.raises(error, match=message):
            spec(**change)

    def test_a_clock_needs_decay(self):
        with pytest.raises(ValueError, match="stands still"):
            spec(epochs=None, decay_clock=1.0)
        with pytest.raises(ValueError, match="stands still"):
            spec(milestones=[1.0], milestone_unit="decay_clock")

    def test_unknown_and_missing_fields(self):
        with pytest.raises(ValueError, match=r"no field .batchsize.*batch_siz"):
            ExperimentSpec.from_dict({"network": "mlp", "batchsize": 3})
        with pytest.raises(ValueError, match="needs data"):
            ExperimentSpec.from_dict({"network": "mlp", "epochs": 3})
        with pytest.raises(ValueError, match="no field 'lr'"):
            spec().replace(lr=0.1)


class TestPlan:
    def test_the_schedule_of_the_paper(self):
        plan = spec(
            batch_size=128,
            milestones=(59, 99, 199),
            epochs=500,
            weight_decay=4e-4,
        ).plan(50_000)
        assert plan.steps_per_epoch == 391  # the last batch has 80
        rates = plan.learning_rates()
        assert rates.shape == (500 * 391,)
        epochs = rates.reshape(500, 391)
        expected = [0.1] * 59 + [0.02] * 40 + [4e-3] * 100 + [8e-4] * 301
        np.testing.assert_allclose(epochs[:, 0], expected)
        np.testing.assert_allclose(epochs[:, -1], expected)
        # 74 epochs' worth of the first learning rate, and a little.
        worth = rates.sum() / 0.1 / 391
        assert worth == pytest.approx(59 + 8 + 4 + 2.408)
        clock = -np.log1p(-rates * 4e-4)
        assert plan.decay_clock() == pytest.approx(clock.sum(), rel=1e-12)
        assert plan.decay_clock(30_000) == pytest.approx(
            clock[:30_000].sum(), rel=1e-12
        )

    def test_a_part_of_the_learning_rates(self):
        plan = spec(milestones=(2,), epochs=4).plan(64)
        np.testing.assert_allclose(plan.learning_rates(3, 6), [0.1, 0.02, 0.02])

    def test_steps_are_rounded_up_to_epochs(self):
        stops = [
            spec(epochs=None, steps=steps, batch_size=10).plan(95).epochs
            for steps in (1, 10, 11, 20)
        ]
        assert stops == [1, 1, 2, 2]

    @pytest.mark.parametrize("clock", [0.01, 0.5, 3.0])
    @pytest.mark.parametrize("milestones", [(), (3,), (3, 9)])
    def test_the_clock_is_reached_and_not_by_much(self, clock, milestones):
        plan = spec(
            epochs=None,
            decay_clock=clock,
            weight_decay=0.05,
            milestones=milestones,
            batch_size=10,
        ).plan(100)
        assert plan.decay_clock() >= clock * (1 - 1e-9)
        if plan.epochs > 1:
            before = (plan.epochs - 1) * plan.steps_per_epoch
            assert plan.decay_clock(before) < clock

    def test_milestones_on_the_clock(self):
        plan = spec(
            epochs=None,
            decay_clock=3.0,
            milestones=(1.0, 2.0),
            milestone_unit="decay_clock",
            weight_decay=0.05,
        ).plan(1000)
        for step, clock in zip(plan.boundaries, (1.0, 2.0), strict=True):
            assert plan.decay_clock(step - 1) < clock
            assert plan.decay_clock(step) >= clock * (1 - 1e-9)

    def test_milestones_in_steps(self):
        plan = spec(milestones=(7,), milestone_unit="steps").plan(100)
        assert plan.boundaries == (7,)

    def test_conventions_turn_the_same_clock(self):
        clocks = [
            spec(weight_decay=rate, decay_convention=name)
            .plan(100)
            .decay_clock()
            for name, rate in (
                ("torch", 1e-3),
                ("keras", 1e-3),
                ("l2", 5e-4),
                ("paper_lambda", 5e-4),
            )
        ]
        assert clocks == pytest.approx([clocks[0]] * 4)

    def test_a_step_that_leaves_nothing(self):
        with pytest.raises(ValueError, match="must be below 1"):
            spec(epochs=None, decay_clock=1.0, weight_decay=20.0).plan(100)


class TestSweep:
    def test_every_combination_the_last_fastest(self):
        specs = sweep(spec(), seed=[0, 1], **{"network.width": [5, 6]})
        assert [
            (item.seed, item.network.keywords["width"]) for item in specs
        ] == [(0, 5), (0, 6), (1, 5), (1, 6)]

    def test_of_nothing_is_the_spec(self):
        assert sweep(spec()) == [spec()]

    def test_errors(self):
        with pytest.raises(TypeError, match=r"must be a list.*Use \[3\]"):
            sweep(spec(), seed=3)
        with pytest.raises(ValueError, match="no field 'sead'"):
            sweep(spec(), sead=[3])


class TestFiles:
    TOML = """
        data = "digits"
        epochs = 3
        [network]
        name = "mlp"
        width = 20
        [sweep]
        weight_decay = [0.0, 1e-3]
        seed = [0, 1]
        "network.depth" = [2]
    """

    def test_toml_and_json(self, tmp_path):
        (tmp_path / "a.toml").write_text(self.TOML)
        specs = read_specs(tmp_path / "a.toml")
        assert len(specs) == 4
        assert specs[1].seed == 1
        assert specs[0].network.keywords == {"width": 20, "depth": 2}
        (tmp_path / "a.json").write_text(specs[3].to_json())
        assert read_specs(tmp_path / "a.json") == specs[3:]

    def test_errors(self, tmp_path):
        with pytest.raises(FileNotFoundError, match=r"no file.*none\.toml"):
            read_specs(tmp_path / "none.toml")
        with pytest.raises(ValueError, match=r"`\.toml` or a `\.json`"):
            read_specs(tmp_path / "a.yaml")
        (tmp_path / "b.toml").write_text("a = ")
        with pytest.raises(ValueError, match=r"b\.toml' is not valid"):
            read_specs(tmp_path / "b.toml")
        (tmp_path / "b.json").write_text(json.dumps([1]))
        with pytest.raises(ValueError, match="must hold the fields"):
            read_specs(tmp_path / "b.json")


class TestOrder:
    def test_it_is_pinned(self):
        # A release that draws another order would not resume old runs.
        assert epoch_order(8, 0, 0).tolist() == [2, 4, 3, 6, 5, 0, 1, 7]
        assert epoch_order(8, 5, 17).tolist() == [1, 3, 0, 5, 2, 4, 7, 6]

    def test_a_permutation_that_changes_with_epoch_and_seed(self):
        orders = [
            epoch_order(100, seed, e) for seed, e in ((0, 0), (0, 1), (1, 0))
        ]
        for order in orders:
            assert sorted(order) == list(range(100))
        assert len({tuple(order) for order in orders}) == 3
