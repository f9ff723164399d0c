"""Plans, compressed models, and the proof of what they cost and gained."""

import dataclasses
import itertools
import json

import keras
import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings
from hypothesis import strategies as st
from keras import layers

import keras_lowrank as kl
from keras_lowrank import linalg
from keras_lowrank.cli import main
from keras_lowrank.compress import verify
from keras_lowrank.compress.allocate import allocate
from keras_lowrank.compress.data import batches
from keras_lowrank.compress.latency import Latency
from keras_lowrank.compress.layer_plan import LayerPlan
from keras_lowrank.compress.scores import change
from keras_lowrank.compress.scores import correct
from keras_lowrank.compress.scores import sample_scores
from keras_lowrank.experiments.data import load
from tests.planted import planted

VALUES = np.array([4.0, 2.0, 1.0, 0.5, 0.25, 0.125, 0.0, 0.0])


def mlp(values=VALUES, compiled=False):
    """A network whose first kernel has these singular values."""
    model = keras.Sequential(
        [
            keras.Input((16,)),
            layers.Dense(8, activation="relu", name="hidden"),
            layers.Dense(3, name="head"),
        ],
        name="mlp",
    )
    model.layers[0].kernel.assign(planted(values, (16, 8)))
    if compiled:
        model.compile("sgd", "mse")
    return model


def convnet():
    return keras.Sequential(
        [
            keras.Input((12, 10, 4)),
            layers.Conv2D(
                8, (3, 5), strides=(1, 2), padding="same", name="conv"
            ),
            layers.BatchNormalization(),
            layers.DepthwiseConv2D(3, name="depthwise"),
            layers.Conv2D(8, 3, groups=2, name="grouped"),
            layers.Flatten(),
            layers.Dense(24, name="hidden"),
            layers.Dense(3, name="head"),
        ],
        name="convnet",
    )


def slightly_above_two(spectrum):
    return 2.2


class TestCriteria:
    @pytest.mark.parametrize(
        ("criterion", "rank"),
        [
            ({"energy": 0.75}, 1),  # 16 of 21.33
            ({"energy": 0.9}, 2),
            ({"energy": 1.0}, None),
            ({"tolerance": 0.4999}, 1),  # sqrt(5.328 / 21.328) = 0.49981
            ({"tolerance": 0.4997}, 2),
            ({"rank": 4}, 4),
            ({"rank": "stable_rank"}, 2),  # 1.33
            ({"rank": slightly_above_two}, 3),
            ({"rank": {"hidden": 2}}, 2),
        ],
        ids=range(9),
    )
    def test_rank_of_a_planted_spectrum(self, criterion, rank):
        plan = kl.compression_plan(mlp(), **criterion)
        assert plan["hidden"].rank == rank
        if rank is None:
            assert "does not pay" in plan["hidden"].reason
        else:
            tail = np.sqrt(np.sum(VALUES[rank:] ** 2) / np.sum(VALUES**2))
            assert plan["hidden"].error == pytest.approx(tail, rel=1e-6)

    def test_error_is_that_of_the_kernel(self):
        model = mlp()
        plan = kl.compression_plan(model, rank={"hidden": 3})
        small = kl.compress(model, plan)
        full, low = (
            kl.weight_matrices(one)["hidden/kernel"].to_numpy()
            for one in (model, small)
        )
        lost = np.linalg.norm(full.astype(float) - low)
        discarded = np.sqrt(np.sum(VALUES[3:] ** 2))
        assert lost == pytest.approx(discarded, rel=1e-6)
        assert plan["hidden"].error * np.linalg.norm(full) == pytest.approx(
            lost, rel=1e-6
        )

    @pytest.mark.parametrize("share", [0.35, 0.9])
    def test_budgets_are_kept_and_used(self, share):
        model = convnet()
        plan = kl.compression_plan(model, parameters=share)
        budget = share * model.count_params()
        assert plan.parameters_after <= budget
        # Another rank anywhere would break it, or have no use.
        for layer in plan.compressed:
            more = layer.parameters_per_rank
            if layer.rank < layer.largest_paying_rank:
                assert plan.parameters_after + more > budget
        assert kl.compress(model, plan).count_params() == plan.parameters_after
        by_flops = kl.compression_plan(model, flops=share, scheme="auto")
        assert by_flops.flops_after <= share * by_flops.flops
        count = int(share * by_flops.flops)
        again = kl.compression_plan(model, flops=count, scheme="auto")
        assert again.flops_after <= count

    def test_floor_of_accuracy(self):
        model = mlp()
        rng = np.random.default_rng(0)
        x = rng.normal(size=(200, 16)).astype("float32")
        y = model.predict(x, verbose=0).argmax(-1)
        plan = kl.compression_plan(model, accuracy=0.9, data=(x, y))
        score = sample_scores(kl.compress(model, plan), (x, y)).mean()
        assert 0.9 <= score
        assert f"({score:.4f}; 1.0000 before)" in plan.criterion
        assert plan.parameters_after < plan.parameters
        with pytest.raises(ValueError, match="reach the floor"):
            kl.compression_plan(model, accuracy=0.9, data=(x, 1 - y))

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({}, "one criterion"),
            ({"energy": 0.9, "rank": 3}, "one criterion"),
            ({"energy": 0.0}, r"`energy` must be in \(0, 1\]"),
            ({"tolerance": 1.0}, r"`tolerance` must be in \[0, 1\)"),
            ({"rank": 0}, "`rank` must be 1 or more"),
            ({"rank": "rnak"}, "Unknown measure"),
            ({"rank": {"hiden": 3}}, "No layer of the plan is named"),
            ({"rank": {"hidden": 9}}, "from 1 to 8"),
            ({"parameters": 1.5}, "`parameters` must be a share"),
            ({"parameters": 0.05}, "The budget cannot be kept"),
            ({"flops": True}, "`flops` must be a share"),
            ({"accuracy": 0.9}, "belong together"),
            ({"energy": 0.9, "scheme": "tucker"}, "`scheme` must be one of"),
            ({"energy": 0.9, "layers": "nowhere"}, "selects none"),
        ],
        ids=str,
    )
    def test_mistakes(self, arguments, message):
        with pytest.raises((ValueError, KeyError), match=message):
            kl.compression_plan(mlp(), **arguments)


class TestWhatStays:
    def test_reasons(self):
        inputs = keras.Input((6, 5))
        x = layers.LSTM(4, return_sequences=True, name="lstm")(inputs)
        x = layers.Dense(9, kernel_constraint="non_neg", name="limited")(x)
        x = layers.SpectralNormalization(
            layers.Dense(9, name="inner"), name="normalized"
        )(x)
        x = kl.LowRankDense(9, 2, name="low")(x)
        x = layers.Dense(9, kernel_initializer="zeros", name="empty")(x)
        x = layers.Dense(9, name="broken")(x)
        model = keras.Model(inputs, layers.Dense(2, name="head")(x))
        model.get_layer("broken").kernel.assign(np.full((9, 9), np.nan))
        plan = kl.compression_plan(model, rank=1, layers=["(?!head)", "lstm"])
        reasons = {layer.name: layer.reason for layer in plan.layers}
        assert "has no low-rank form" in reasons["lstm/lstm_cell"]
        assert "constraint" in reasons["limited"]
        assert "another layer's as well" in reasons["normalized/inner"]
        assert reasons["low"] == "has low rank already: 2"
        assert "zero" in reasons["empty"]
        assert "not finite: 81 NaN" in reasons["broken"]
        assert [layer.name for layer in plan.compressed] == ["head"]

    def test_quantized_and_grouped(self):
        model = convnet()
        model.get_layer("hidden").quantize("int8")
        plan = kl.compression_plan(model, rank=1)
        assert "quantized to int8" in plan["hidden"].reason
        assert "groups" in plan["grouped"].reason
        with pytest.raises(ValueError, match="stays as it is: has groups"):
            plan.with_rank("grouped", 1)

    def test_equations_without_a_matrix(self):
        inputs = keras.Input((4, 5))
        x = layers.EinsumDense("abc,cd->ad", 6, name="summed")(inputs)
        model = keras.Model(inputs, layers.Dense(6, name="head")(x))
        data = np.ones((3, 4, 5))
        plan = kl.compression_plan(model, rank=1, calibration=data)
        assert "needs an axis that is summed over" in plan["summed"].reason
        assert [layer.name for layer in plan.compressed] == ["head"]

    def test_tied_kernels(self):
        first, second = (layers.Dense(5, name=name) for name in "ab")
        model = keras.Sequential([keras.Input((5,)), first, second])
        second._trainable_variables[0] = first.kernel
        plan = kl.compression_plan(model, rank=1)
        assert not plan.compressed


class TestFlops:
    def test_by_hand(self):
        plan = kl.compression_plan(convnet(), rank=2)
        conv, grouped = plan["conv"], plan["grouped"]
        places = 12 * 5
        assert conv.flops == 2 * places * (3 * 5 * 4) * 8
        assert conv.flops_after == 2 * places * 2 * (3 * 5 * 4 + 8)
        assert grouped.flops == 2 * (8 * 1) * (9 * 4 * 8)
        assert plan["hidden"].flops == 2 * (8 * 8) * 24

    def test_spatial(self):
        plan = kl.compression_plan(
            convnet(), rank=2, scheme="spatial", layers="conv"
        )
        conv = plan["conv"]
        assert conv.matrix_shape == (3 * 4, 5 * 8)
        # Vertical windows over the whole width of 10, horizontal ones at 5.
        assert conv.flops_after == 2 * 12 * 2 * (10 * 3 * 4 + 5 * 5 * 8)

    def test_layers_that_are_called_often(self):
        inputs = keras.Input((7,), dtype="int32")
        x = layers.Embedding(11, 6, name="table")(inputs)
        shared = layers.Dense(6, name="shared")
        x = shared(shared(x))
        model = keras.Model(inputs, x)
        plan = kl.compression_plan(model, rank=2)
        assert plan["table"].flops == 0
        assert plan["table"].flops_after == 2 * 7 * 2 * 6
        assert plan["shared"].flops == 2 * (2 * 7) * 36

    def test_unknown_shapes_are_asked_for(self):
        model = keras.Sequential(
            [keras.Input((None, 8)), layers.Dense(8, name="hidden")]
        )
        plan = kl.compression_plan(model, rank=1)
        assert plan.flops is None
        assert any("FLOPs are not counted" in note for note in plan.notes)
        with pytest.raises(ValueError, match="FLOPs of no layer are known"):
            kl.compression_plan(model, flops=0.5)
        known = kl.compression_plan(model, rank=1, x=np.ones((1, 5, 8)))
        assert known.flops == 2 * 5 * 64


class TestPlan:
    def test_edited_and_saved(self, tmp_path):
        plan = kl.compression_plan(mlp(), rank=3)
        edited = plan.with_rank("hidden", 2).without("head")
        assert plan["hidden"].rank == 3
        assert edited["hidden"].rank == 2
        assert edited["head"].reason == "left out"
        assert edited.criterion == "rank 3, edited"
        path = tmp_path / "plan.json"
        edited.save(path)
        loaded = kl.CompressionPlan.load(path)
        assert loaded.layers == edited.layers
        assert loaded.render() == edited.render()
        # Ranks may be edited in the file.
        config = json.loads(path.read_text())
        config["layers"][0]["rank"] = 1
        assert kl.CompressionPlan.from_config(config)["hidden"].rank == 1
        config["layers"][0]["rank"] = 99
        with pytest.raises(ValueError, match="from 1 to 8"):
            kl.CompressionPlan.from_config(config)

    def test_no_plan(self, tmp_path):
        (tmp_path / "plan.json").write_text("{}")
        with pytest.raises(ValueError, match="of format 1"):
            kl.CompressionPlan.load(tmp_path / "plan.json")
        (tmp_path / "plan.json").write_text("rank 3")
        with pytest.raises(ValueError, match="holds no plan"):
            kl.CompressionPlan.load(tmp_path / "plan.json")

    def test_printed(self):
        plan = kl.compression_plan(mlp(), rank={"hidden": 3})
        text = plan.render(80)
        assert "1 of 2 layers, 163 -> 107 parameters\n(1.52x" in text
        assert "3 of 8" in text
        assert "as it is: head: no rank was given" in text

    def test_a_rank_that_does_not_pay_is_refused(self):
        layer = kl.compression_plan(mlp(), rank=3)["hidden"]
        assert layer.largest_paying_rank == 5  # 5 * 24 < 128 <= 6 * 24
        assert layer.with_rank(5).rank == 5
        refused = layer.with_rank(6)
        assert refused.rank is None
        assert refused.reason == (
            "rank 6 does not pay: 144 weights in place of 128"
        )


@pytest.mark.once
class TestAllocation:
    SHAPES = ((6, 8), (5, 5), (9, 4))

    def forms(self, seed):
        rng = np.random.default_rng(seed)
        return [
            [
                LayerPlan(
                    str(index),
                    "Dense",
                    shape,
                    shape,
                    values=tuple(
                        np.sort(rng.exponential(size=min(shape)) ** 3)[::-1]
                    ),
                    parameters=shape[0] * shape[1],
                )
            ]
            for index, shape in enumerate(self.SHAPES)
        ]

    @given(seed=st.integers(0, 1000), share=st.floats(0.4, 1.0))
    @settings(max_examples=40, deadline=None)
    def test_as_good_as_every_choice(self, seed, share):
        forms = self.forms(seed)
        budget = share * sum(form[0].parameters for form in forms)
        found = allocate(forms, budget, "parameters")

        def total(layers):
            return -sum(np.log(1 - layer.error**2) for layer in layers)

        assert sum(one.parameters_after for one in found) <= budget
        best = np.inf
        choices = (
            [form[0].kept("")]
            + [
                form[0].with_rank(rank)
                for rank in range(1, form[0].largest_paying_rank + 1)
            ]
            for form in forms
        )
        fits = [
            layers
            for layers in itertools.product(*choices)
            if sum(one.parameters_after for one in layers) <= budget
        ]
        best = min(map(total, fits))
        # Optimal but for the last step, which is at most one of a hull.
        slack = max(
            layer.rank is not None
            and total([layer])
            - total([layer.with_rank(min(layer.rank + 1, layer.full_rank))])
            for layer in found
        )
        assert best - 1e-12 <= total(found) <= best + slack + 1e-12

    def test_flat_layers_share_alike(self):
        ((form,),) = [self.forms(0)[1]]
        flat = dataclasses.replace(form, values=(1.0,) * 5, parameters=200)
        found = allocate([[flat], [flat], [flat]], 90.0, "parameters")
        assert [layer.rank for layer in found] == [3, 3, 3]

    def test_the_larger_of_two_forms_is_not_taken_for_its_name(self):
        (form,) = self.forms(0)[0]
        cheap = dataclasses.replace(form, scheme="spatial", values=(1.0, 1e-9))
        (found,) = allocate([[form, cheap]], 20.0, "parameters")
        assert found.scheme == "spatial"


class TestCompress:
    def test_the_original_stays(self):
        model = mlp(compiled=True)
        before, kept = model.get_weights(), list(model.layers)
        small = kl.compress(model, kl.compression_plan(model, rank=2))
        assert model.layers == kept
        for old, new in zip(before, model.get_weights(), strict=True):
            np.testing.assert_array_equal(old, new)
        assert not {id(w) for w in small.weights} & set(map(id, model.weights))
        assert small.compiled
        x = np.ones((4, 16), "float32")
        small.fit(x, np.ones((4, 3)), verbose=0)

    def test_compiled_alike(self):
        model = mlp()
        rate = keras.optimizers.schedules.ExponentialDecay(0.1, 10, 0.5)
        model.compile(
            kl.WeightDecay(0.1).wrap(keras.optimizers.SGD(rate)),
            lambda y, z: keras.ops.mean(keras.ops.square(y - z), -1),
            metrics=[keras.metrics.MeanAbsoluteError(name="mae")],
        )
        x, y = np.ones((8, 16)), np.zeros((8, 3))
        model.fit(x, y, verbose=0)
        small = kl.compress(model, kl.compression_plan(model, rank=3))
        logs = small.fit(x, y, verbose=0, epochs=2).history
        assert set(logs) == {"loss", "mae"}
        assert small.optimizer is not model.optimizer
        counts = [
            int(keras.ops.convert_to_numpy(one.optimizer.iterations))
            for one in (model, small)
        ]
        assert counts == [1, 2]
        assert small.optimizer.policy == model.optimizer.policy

    def test_a_compile_of_ones_own_is_left_to_its_owner(self):
        class Own(keras.Sequential):
            def compile(self, rate):
                super().compile(keras.optimizers.SGD(rate), "mse")

        def clone(model):
            copy = Own([keras.Input((16,)), layers.Dense(8, name="hidden")])
            copy.set_weights(model.get_weights())
            return copy

        model = clone(_other("hidden", 8))
        model.compile(0.1)
        plan = kl.compression_plan(model, rank=2)
        with pytest.warns(kl.KerasLowrankWarning, match="`compile` of its own"):
            small = kl.compress(model, plan, clone=clone)
        assert not small.compiled

    def test_biases_and_other_layers_are_carried(self):
        model = convnet()
        for weight in model.weights:
            if "bias" in weight.path or "moving" in weight.path:
                weight.assign(weight + 0.5)
        plan = kl.compression_plan(model, rank={"hidden": 1})
        small = kl.compress(model, plan)
        for name in ("conv", "batch_normalization", "head"):
            old = next(x for x in model.layers if x.name.startswith(name))
            new = next(x for x in small.layers if x.name.startswith(name))
            for one, other in zip(old.weights, new.weights, strict=True):
                np.testing.assert_array_equal(one, other)
        np.testing.assert_array_equal(
            small.get_layer("hidden").bias, model.get_layer("hidden").bias
        )

    def test_subclassed_by_a_clone(self, tmp_path):
        class Mine(keras.Model):
            def __init__(self, width):
                super().__init__()
                self.width = width
                self.hidden = layers.Dense(width, name="hidden")

            def call(self, x):
                return self.hidden(x)

            def get_config(self):
                raise NotImplementedError

        def make():
            model = Mine(8)
            model(np.zeros((1, 16), "float32"))
            return model

        def clone(model):
            copy = make()
            copy.set_weights(model.get_weights())
            return copy

        model = make()
        plan = kl.compression_plan(model, rank=2, x=np.zeros((1, 16)))
        with pytest.raises(ValueError, match="`clone=`"):
            kl.compress(model, plan)
        small = kl.compress(model, plan, clone=clone)
        assert isinstance(small, Mine)
        assert isinstance(model.hidden, layers.Dense)
        # The documented way to another process.
        plan.save(tmp_path / "plan.json")
        small.save_weights(tmp_path / "small.weights.h5")
        again = kl.compress(
            make(), kl.CompressionPlan.load(tmp_path / "plan.json"), clone=clone
        )
        again.load_weights(tmp_path / "small.weights.h5")
        x = np.ones((2, 16), "float32")
        np.testing.assert_array_equal(
            again.predict(x, verbose=0), small.predict(x, verbose=0)
        )
        with pytest.raises(ValueError, match="weights of its own"):
            kl.compress(model, plan, clone=lambda model: model)

    def test_plan_of_another_model(self):
        plan = kl.compression_plan(mlp(), rank=2)
        with pytest.raises(ValueError, match="a model with no such layer"):
            kl.compress(convnet().layers[0] and _other("hide", 8), plan)
        with pytest.raises(ValueError, match=r"kernel of shape \(16, 9\)"):
            kl.compress(_other("hidden", 9), plan)
        with pytest.raises(TypeError, match="must be a `CompressionPlan`"):
            kl.compress(mlp(), {"hidden": 2})

    def test_lora_is_merged_first(self):
        model = mlp()
        model.layers[0].enable_lora(2)
        model.layers[0].lora_kernel_b.assign(np.ones((2, 8)))
        x = np.random.default_rng(0).normal(size=(4, 16)).astype("float32")
        plan = kl.compression_plan(model, rank={"hidden": 5})
        plan = plan.with_rank("hidden", 5)
        small = kl.compress(model, plan)
        kernel = kl.weight_matrices(model)["hidden/kernel"].to_numpy()
        expected = linalg.truncate(kernel, 5).to_numpy()
        found = kl.weight_matrices(small)["hidden/kernel"].to_numpy()
        np.testing.assert_allclose(found, expected, atol=1e-5)
        assert small.predict(x, verbose=0).shape == (4, 3)


def _other(name, units):
    return keras.Sequential(
        [keras.Input((16,)), layers.Dense(units, name=name)]
    )


class TestCalibration:
    def anisotropic(self, count, shape, seed=0):
        rng = np.random.default_rng(seed)
        scale = np.geomspace(1, 0.01, shape[-1])
        return (rng.normal(size=(count, *shape)) * scale).astype("float32")

    @pytest.mark.parametrize("scheme", ["channel", "spatial"])
    def test_outputs_err_less_than_without(self, scheme):
        layer = layers.Conv2D(8, 3, strides=2, padding="same", name="conv")
        model = keras.Sequential([keras.Input((9, 8, 6)), layer])
        x = self.anisotropic(16, (9, 8, 6))
        expected = model.predict(x, verbose=0)
        errors = []
        for calibration in (None, x):
            plan = kl.compression_plan(
                model, rank=3, scheme=scheme, calibration=calibration
            )
            small = kl.compress(model, plan, calibration)
            lost = small.predict(x, verbose=0) - expected
            errors.append(np.linalg.norm(lost) / np.linalg.norm(expected))
        assert errors[1] < errors[0]
        if scheme == "channel":  # whose windows are those of the layer
            assert plan["conv"].error == pytest.approx(errors[1], rel=1e-2)

    def test_every_layer_that_multiplies(self):
        inputs = keras.Input((5,), dtype="int32")
        x = layers.Embedding(9, 6, name="table")(inputs)
        x = layers.MultiHeadAttention(2, 3, name="attend")(x, x)
        x = layers.TimeDistributed(layers.Dense(6, name="each"))(x)
        x = layers.Conv1D(6, 3, padding="causal", name="conv")(x)
        model = keras.Model(inputs, x)
        data = np.random.default_rng(0).integers(0, 9, (12, 5))
        plan = kl.compression_plan(model, rank=2, calibration=data)
        assert len(plan.compressed) == 7
        small = kl.compress(model, plan, calibration=data)
        assert np.isfinite(small.predict(data, verbose=0)).all()
        with pytest.raises(ValueError, match="calibration=None"):
            kl.compress(model, plan)


class TestScores:
    def test_correct(self):
        outputs = np.array([[0.1, 0.9], [0.8, 0.2], [0.4, 0.6]])
        assert correct([1, 1, 1], outputs).tolist() == [1, 0, 1]
        assert correct([[1], [1], [1]], outputs).tolist() == [1, 0, 1]
        one_hot = np.eye(2)[[1, 1, 1]]
        assert correct(one_hot, outputs).tolist() == [1, 0, 1]
        assert correct([1, 0], np.array([[0.7], [0.2]])).tolist() == [1, 1]
        logits = np.array([[0.3], [-2.0]])  # 0.3 is more likely than not
        assert correct([1, 1], logits).tolist() == [1, 0]
        sequence = np.eye(3)[np.array([[0, 1], [2, 2]])]
        labels = np.array([[0, 2], [2, 2]])
        assert correct(labels, sequence).tolist() == [0.5, 1]
        with pytest.raises(ValueError, match="Pass `score=`"):
            correct(np.array([0.3, 0.4]), np.array([[0.3], [0.4]]))
        with pytest.raises(ValueError, match="Pass `score=`"):
            correct(np.ones((3, 2)), outputs)

    def test_interval_of_a_paired_change(self):
        before = np.array([1.0] * 90 + [0.0] * 10)
        after = before.copy()
        after[:4], after[-1] = 0.0, 1.0  # four lost, one gained
        found = change(before, after)
        assert found.difference == pytest.approx(-0.03)
        # Agresti and Min: 1.5 gained, 4.5 lost of 102.
        middle = -3 / 102
        error = np.sqrt(6 - 9 / 102) / 102
        assert found.low == pytest.approx(middle - 1.959964 * error)
        assert found.high == pytest.approx(middle + 1.959964 * error)
        assert found.verdict(0.1) == "holds"
        assert found.verdict(0.05) == "not shown"
        assert found.verdict(0.02) == "fails"

    def test_other_scores(self):
        rng = np.random.default_rng(0)
        before = rng.normal(size=50)
        after = before - 0.1
        found = change(before, after)
        assert found.low == pytest.approx(-0.1)
        assert found.high == pytest.approx(-0.1)

    def test_interval_covers(self):
        rng = np.random.default_rng(0)
        hits, rounds = 0, 400
        for _ in range(rounds):
            drawn = rng.choice(3, 200, p=[0.93, 0.05, 0.02])
            before, after = (drawn != 2), (drawn != 1)
            found = change(before.astype(float), after.astype(float))
            hits += found.low <= -0.03 <= found.high
        assert hits / rounds > 0.93

    def test_data_in_every_form(self):
        model = mlp()
        x = np.random.default_rng(0).normal(size=(10, 16)).astype("float32")
        y = np.arange(10) % 3
        expected = sample_scores(model, (x, y))

        class Batches(keras.utils.PyDataset):
            def __len__(self):
                return 2

            def __getitem__(self, index):
                part = slice(5 * index, 5 * index + 5)
                return x[part], y[part]

        parts = [(x[:4], y[:4]), (x[4:], y[4:], np.ones(6))]
        for data in (Batches(), parts, (x, y, np.ones(10))):
            np.testing.assert_array_equal(sample_scores(model, data), expected)
        for data, error, message in (
            (iter(parts), TypeError, "gone through several times"),
            ((x, y[:3]), ValueError, "a target for each input"),
            ([x], ValueError, "needs targets"),
            ([], ValueError, "holds no batch"),
        ):
            with pytest.raises(error, match=message):
                sample_scores(model, data)
        score = lambda y, z: np.ones((len(z), 2))  # noqa: E731
        with pytest.raises(ValueError, match="one number for each sample"):
            sample_scores(model, (x, y), score)

    def test_data_sets_of_the_backends(self):
        x = np.arange(12.0).reshape(6, 2)
        y = np.arange(6)
        if keras.backend.backend() == "tensorflow":
            import tensorflow as tf

            data = tf.data.Dataset.from_tensor_slices((x, y)).batch(4)
        else:
            torch = pytest.importorskip("torch")
            pairs = torch.utils.data.TensorDataset(
                torch.tensor(x), torch.tensor(y)
            )
            data = torch.utils.data.DataLoader(pairs, batch_size=4)
        assert [len(one) for one, _ in batches(data)] == [4, 2]


@pytest.fixture
def stopped_clock(monkeypatch):
    """Latencies that are what a test says, not what this machine does."""
    ratios = {}

    def latency(size, ratio=0.5):
        return Latency(size, 1.0, ratio, ratio, ratio)

    def compare_layers(pairs, shapes, seconds):
        size = next(iter(shapes.values()))[0][0]
        return {name: latency(size, ratios.get(name, 0.5)) for name in pairs}

    monkeypatch.setattr(verify, "compare_layers", compare_layers)
    monkeypatch.setattr(
        verify,
        "compare_latency",
        lambda before, after, sample, seconds: latency(len(sample)),
    )
    return ratios


class TestVerify:
    def data(self, model, count=300):
        x = np.random.default_rng(1).normal(size=(count, 16)).astype("float32")
        return x, model.predict(x, verbose=0).argmax(-1)

    def test_what_hurts_is_rolled_back(self, stopped_clock):
        model = mlp(np.linspace(2, 1, 8))
        plan = kl.compression_plan(model, rank={"hidden": 5, "head": 1})
        found = kl.compress_and_verify(model, self.data(model), 0.05, plan)
        assert 1 <= len(found.rolled_back) <= 2
        assert "the score fell by" in found.rolled_back[0].reason
        assert found.change.difference >= -0.05
        assert found.model.count_params() == found.parameters[1]

    def test_what_is_not_faster_is_rolled_back(self, stopped_clock):
        stopped_clock["head"] = 1.01
        model = mlp()
        plan = kl.compression_plan(model, rank={"hidden": 5, "head": 2})
        data = self.data(model)
        found = kl.compress_and_verify(model, data, 1.0, plan)
        assert [one.name for one in found.rolled_back] == ["head"]
        assert "1.01 times as long" in found.rolled_back[0].reason
        assert [one.name for one in found.plan.compressed] == ["hidden"]
        kept = kl.compress_and_verify(model, data, 1.0, plan, keep_slower=True)
        assert not kept.rolled_back

    def test_nothing_left(self, stopped_clock):
        stopped_clock |= {"hidden": 2.0, "head": 2.0}
        model = mlp()
        found = kl.compress_and_verify(
            model, self.data(model), plan=kl.compression_plan(model, rank=1)
        )
        assert "nothing was left to compress" in found.title
        assert found.model.count_params() == model.count_params()
        assert found.verdict == "holds"

    def test_fine_tuning(self, stopped_clock):
        model = mlp(compiled=True)
        plan = kl.compression_plan(model, rank={"hidden": 2})
        data = self.data(model)
        trained = []
        found = kl.compress_and_verify(
            model, data, 1.0, plan, fine_tune=trained.append
        )
        assert trained[-1] is found.model
        assert "after fine-tuning" in found.render()
        with pytest.raises(ValueError, match="Only a compiled model"):
            kl.compress_and_verify(mlp(), data, fine_tune=trained.append)

    @pytest.mark.parametrize(
        "arguments", [{"tolerance": -0.1}, {"batch_sizes": (0,)}], ids=str
    )
    def test_mistakes(self, arguments):
        model = mlp()
        with pytest.raises(ValueError, match=next(iter(arguments))):
            kl.compress_and_verify(model, self.data(model), **arguments)

    def test_measured_for_real(self):
        model = mlp()
        found = kl.compress_and_verify(
            model,
            self.data(model, 20),
            1.0,
            kl.compression_plan(model, rank={"hidden": 2}),
            batch_sizes=(1, 50),  # more than there is data
            seconds=0.0,
        )
        assert [one.batch_size for one in found.latencies] == [1, 50]
        assert all(0 < one.before < 10 for one in found.latencies)
        # Four bytes a weight, and what a file needs besides.
        assert 4 * 83 < found.bytes_on_disk[1] < 50_000
        row = {row["quantity"]: row for row in found.rows}
        assert row["parameters"]["before"] == "163"
        json.loads(found.to_json())


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    data = load("digits")
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((64,)),
            layers.Dense(128, activation="relu", name="hidden"),
            layers.Dense(128, activation="relu", name="second"),
            layers.Dense(10, name="head"),
        ]
    )
    model.compile(
        keras.optimizers.SGD(0.1, momentum=0.9),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    model.fit(data.x_train, data.y_train, epochs=4, verbose=0)
    path = tmp_path_factory.mktemp("model") / "digits.keras"
    model.save(path)
    return path


class TestCommand:
    def test_compressed_and_saved(self, saved, tmp_path, capsys):
        out = tmp_path / "small.keras"
        words = ["compress", str(saved), "--data", "digits", "--keep-slower"]
        words += ["--tolerance", "0.1", "--parameters", "0.4", "--latency", "1"]
        words += ["--fine-tune", "1", "--out", str(out)]
        assert main(words) == 0
        printed = capsys.readouterr().out
        assert "2 of 3 layers, 26,122 ->" in printed
        assert "latency, batch of 1" in printed
        small = keras.saving.load_model(out)
        model = keras.saving.load_model(saved)
        assert small.count_params() <= 0.4 * model.count_params()
        assert main(words) == 1
        assert "exists" in capsys.readouterr().err

    def test_plan_only(self, saved, tmp_path, capsys):
        plan = tmp_path / "plan.json"
        words = ["compress", str(saved), "--data", "digits", "--plan-only"]
        assert main([*words, "--energy", "0.5", "--save-plan", str(plan)]) == 0
        assert "energy_rank(energy=0.5)" in capsys.readouterr().out
        assert main([*words, "--plan", str(plan), "--json"]) == 0
        loaded = json.loads(capsys.readouterr().out)
        assert loaded["rows"][0]["name"] == "hidden"
        assert not list(saved.parent.glob("*lowrank*"))

    def test_nothing_to_save(self, saved, tmp_path, capsys):
        out = tmp_path / "small.keras"
        words = ["compress", str(saved), "--data", "digits", "--keep-slower"]
        words += ["--tolerance", "0", "--rank", "1", "--latency", "1"]
        assert main([*words, "--out", str(out)]) == 2
        assert "nothing was saved" in capsys.readouterr().err
        assert not out.exists()
