"""What `explain_weight_decay` says of every route, and what it warns about."""

import json
import re
import warnings

import keras
import numpy as np
import pytest

from keras_lowrank.decay import TorchSGD
from keras_lowrank.decay import WeightDecay
from keras_lowrank.decay import explain_weight_decay
from keras_lowrank.tables import KerasLowrankWarning

BACKEND = keras.backend.backend()


def model_with(optimizer, l2=0.0, **dtype):
    layers = [
        keras.Input((4,)),
        keras.layers.Dense(
            5,
            name="first",
            kernel_regularizer=keras.regularizers.L2(l2) if l2 else None,
            **dtype,
        ),
        keras.layers.BatchNormalization(name="norm", **dtype),
        keras.layers.Dense(3, name="last", **dtype),
    ]
    model = keras.Sequential(layers)
    model.compile(optimizer, "mse")
    return model


def rows_of(table):
    return {row["name"]: row for row in table.rows}


def ours(caught):
    return [
        str(one.message)
        for one in caught
        if one.category is KerasLowrankWarning
    ]


class TestRoutes:
    def test_decoupled(self):
        table = explain_weight_decay(
            model_with(WeightDecay(0.5).wrap(keras.optimizers.SGD(0.1)))
        )
        rows = rows_of(table)
        assert list(rows) == [
            "first/kernel",
            "first/bias",
            "norm/gamma",
            "norm/beta",
            "last/kernel",
            "last/bias",
        ]
        row = rows["first/kernel"]
        assert row["route"] == "decoupled weight decay"
        assert row["decay"] == pytest.approx(0.05)
        assert row["memory"] == pytest.approx(20)
        assert row["paper_lambda"] == pytest.approx(0.25)
        assert row["shape"] == (4, 5) and row["role"] == "kernel"
        bias = rows["first/bias"]
        assert bias["route"] is None and bias["decay"] == 0
        assert table.warnings == [] and table.notes == []

    @pytest.mark.parametrize(
        "optimizer",
        [keras.optimizers.SGD, TorchSGD],
    )
    def test_momentum_repeats_a_coupled_decay(self, optimizer):
        policy = WeightDecay(0.5, "torch")
        table = explain_weight_decay(
            model_with(policy.wrap(optimizer(0.01, momentum=0.9)))
        )
        assert rows_of(table)["last/kernel"]["decay"] == pytest.approx(0.05)
        assert "Momentum 0.9 repeats" in table.notes[0]
        assert table.warnings == []

    def test_momentum_leaves_a_decoupled_one(self):
        optimizer = keras.optimizers.SGD(0.01, momentum=0.9)
        table = explain_weight_decay(
            model_with(WeightDecay(0.5).wrap(optimizer))
        )
        assert rows_of(table)["last/kernel"]["decay"] == pytest.approx(0.005)

    def test_keras_own(self):
        with pytest.warns(KerasLowrankWarning, match="norm/gamma") as caught:
            table = explain_weight_decay(
                model_with(keras.optimizers.AdamW(0.1, weight_decay=0.5))
            )
        assert ours(caught) == table.warnings
        assert len(table.warnings) == 1
        assert {row["route"] for row in table.rows} == {"Keras weight_decay"}
        assert all(row["decay"] == pytest.approx(0.05) for row in table.rows)

    def test_l2(self):
        table = explain_weight_decay(
            model_with(keras.optimizers.SGD(0.1), l2=0.25)
        )
        row = rows_of(table)["first/kernel"]
        assert row["route"] == "L2 regularizer"
        assert row["decay"] == pytest.approx(0.05)
        assert row["paper_lambda"] == 0.25

    def test_an_adaptive_optimizer_rescales_what_is_coupled(self):
        table = explain_weight_decay(
            model_with(keras.optimizers.Adam(0.1), l2=0.25)
        )
        row = rows_of(table)["first/kernel"]
        assert row["decay"] is None and row["memory"] is None
        assert "Adam rescales it" in table.notes[0]

    def test_muon_has_two_rates(self):
        optimizer = keras.optimizers.Muon(
            0.1, weight_decay=0.5, adam_weight_decay=0.25
        )
        with pytest.warns(KerasLowrankWarning, match="Normalization"):
            rows = rows_of(explain_weight_decay(model_with(optimizer)))
        assert rows["first/kernel"]["rate"] == 0.5
        assert rows["first/bias"]["rate"] == 0.25

    def test_under_loss_scaling(self):
        policy = WeightDecay(0.5)
        optimizer = keras.optimizers.LossScaleOptimizer(
            policy.wrap(keras.optimizers.SGD(0.1))
        )
        rows = rows_of(explain_weight_decay(model_with(optimizer)))
        assert rows["first/kernel"]["decay"] == pytest.approx(0.05)

    def test_several_optimizers(self):
        each = keras.optimizers.OptimizerMap(keras.optimizers.SGD(0.1))
        each[".*last.*"] = WeightDecay(0.5).wrap(keras.optimizers.SGD(0.2))
        optimizer = keras.optimizers.MultiOptimizer(each)
        table = explain_weight_decay(model_with(optimizer))
        rows = rows_of(table)
        assert rows["first/kernel"]["route"] is None
        assert rows["last/kernel"]["decay"] == pytest.approx(0.1)

    def test_built_or_not_it_says_the_same(self):
        policy = WeightDecay(0.5, covers="all", exclude=["normalization"])
        model = model_with(policy.wrap(keras.optimizers.SGD(0.1)))
        before = explain_weight_decay(model).rows
        model.optimizer.build(model.trainable_variables)
        assert explain_weight_decay(model).rows == before

    def test_the_rate_now(self):
        schedule = keras.optimizers.schedules.PiecewiseConstantDecay(
            [0], [0.5, 0.25]
        )
        model = model_with(
            WeightDecay(schedule).wrap(keras.optimizers.SGD(0.1))
        )
        assert (
            rows_of(explain_weight_decay(model))["last/kernel"]["rate"] == 0.5
        )
        model.fit(np.ones((2, 4)), np.ones((2, 3)), verbose=0)
        assert (
            rows_of(explain_weight_decay(model))["last/kernel"]["rate"] == 0.25
        )

    def test_what_it_says_is_what_happens(self):
        policy = WeightDecay(0.5, covers="all", exclude="normalization")
        model = model_with(policy.wrap(keras.optimizers.SGD(0.1)))
        rows = explain_weight_decay(model).rows
        variables = model.trainable_variables
        for variable in variables:
            variable.assign(np.ones(variable.shape))
        zeros = [keras.ops.zeros(v.shape) for v in variables]
        model.optimizer.apply(zeros, variables)
        for row, variable in zip(rows, variables, strict=True):
            kept = keras.ops.convert_to_numpy(variable)
            np.testing.assert_allclose(kept, 1 - row["decay"], rtol=1e-6)

    def test_frozen_layers_are_left_out(self):
        model = model_with("sgd")
        model.get_layer("first").trainable = False
        assert len(explain_weight_decay(model).rows) == 4


class TestWarnings:
    def explain(self, model, message):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            table = explain_weight_decay(model)
        texts = ours(caught)
        assert any(re.search(message, text) for text in texts), texts
        assert texts == table.warnings
        assert all(f"Warning: {text}" in table.notes for text in texts)
        return table

    def test_l2_plus_weight_decay(self):
        policy = WeightDecay(0.5)
        model = model_with(policy.wrap(keras.optimizers.SGD(0.1)), l2=0.25)
        table = self.explain(
            model, "L2 plus weight decay: 'first/kernel' decay"
        )
        row = rows_of(table)["first/kernel"]
        assert row["route"] == "decoupled weight decay + L2 regularizer"
        assert row["decay"] == pytest.approx(0.1)
        assert len(table.warnings) == 1

    def test_normalization(self):
        policy = WeightDecay(0.5, covers="all")
        table = self.explain(
            model_with(policy.wrap("sgd")), "'norm/gamma', 'norm/beta'"
        )
        assert len(table.warnings) == 1

    @pytest.mark.parametrize("built", [False, True])
    def test_our_patterns(self, built):
        model = model_with(WeightDecay(0.5, exclude="frist").wrap("sgd"))
        if built:
            with pytest.warns(KerasLowrankWarning):
                model.optimizer.build(model.trainable_variables)
        self.explain(model, "`exclude='frist'` matches no trainable variable")

    def test_keras_patterns_that_match_nothing(self):
        optimizer = keras.optimizers.SGD(0.1, weight_decay=0.5)
        optimizer.exclude_from_weight_decay(var_names=["frist", "gamma|beta"])
        table = self.explain(model_with(optimizer), "'frist'.*excludes nothing")
        assert not any("'gamma'" in text for text in table.warnings)
        assert rows_of(table)["norm/gamma"]["route"] is None
        assert any("not saved" in text for text in table.warnings)

    def test_keras_patterns_that_depend_on_the_backend(self):
        optimizer = keras.optimizers.SGD(0.1, weight_decay=0.5)
        optimizer.exclude_from_weight_decay(var_names=["norm"])
        works = BACKEND == "tensorflow"
        effect = "works" if works else "matches nothing"
        model = model_with(optimizer)
        table = self.explain(model, f"'norm'.* {effect} on this backend")
        route = rows_of(table)["norm/gamma"]["route"]
        assert route == (None if works else "Keras weight_decay")

    def test_keras_variables_are_not_saved(self):
        optimizer = keras.optimizers.SGD(0.1, weight_decay=0.5)
        model = model_with(optimizer)
        norm = model.get_layer("norm")
        optimizer.exclude_from_weight_decay(var_list=[norm.gamma, norm.beta])
        table = self.explain(model, "not saved")
        assert len(table.warnings) == 1

    @pytest.mark.parametrize(
        ("dtype", "decay", "message"),
        [
            ("float32", 1e-8, "float32 loses it all"),
            ("float32", 4e-8, "float32 loses some"),
            ("bfloat16", 1e-3, "bfloat16 loses it all"),
            ("bfloat16", 3e-3, "bfloat16 loses some"),
            ("float16", 1e-4, "float16 loses it all"),
            ("float16", 4e-4, "float16 loses some"),
        ],
    )
    def test_decay_lost_to_rounding(self, dtype, decay, message):
        optimizer = WeightDecay(decay).wrap(keras.optimizers.SGD(1.0))
        model = model_with(optimizer, dtype=dtype)
        table = self.explain(model, f"'first/kernel'.*{message}")
        assert len(table.warnings) == 1
        kernel = model.get_layer("first").kernel
        start = np.linspace(1.0, 1.99, 20).reshape(4, 5)
        kernel.assign(start)
        start = keras.ops.convert_to_numpy(keras.ops.cast(kernel, "float32"))
        variables = model.trainable_variables
        zeros = [keras.ops.zeros(v.shape, dtype) for v in variables]
        optimizer.apply(zeros, variables)
        end = keras.ops.convert_to_numpy(keras.ops.cast(kernel, "float32"))
        # 1 itself has closer neighbours below it.
        unmoved = (end == start)[start > 1].mean()
        assert unmoved == 1 if "all" in message else 0 < unmoved < 1

    def test_enough_decay_is_not_lost(self):
        optimizer = WeightDecay(0.01).wrap(keras.optimizers.SGD(1.0))
        assert not explain_weight_decay(
            model_with(optimizer, dtype="bfloat16")
        ).warnings

    def test_a_rate_set_on_the_loss_scale_optimizer(self):
        inner = WeightDecay(0.5).wrap(keras.optimizers.SGD(0.1))
        optimizer = keras.optimizers.LossScaleOptimizer(inner)
        optimizer.weight_decay = 0.25
        self.explain(model_with(optimizer), "`LossScaleOptimizer`.* no effect")


class TestTable:
    def table(self):
        return explain_weight_decay(model_with(WeightDecay(0.5).wrap("sgd")))

    def test_prints_like_a_summary(self):
        printed = []
        self.table().print(100, print_fn=printed.append)
        assert "Weight decay of 'sequential' with SGD at" in printed[0]
        assert "decoupled weight decay" in printed[0]

    def test_json(self):
        rows = json.loads(self.table().to_json())["rows"]
        assert rows[0]["name"] == "first/kernel"
        assert rows[0]["coupling"] == "decoupled"

    def test_bad_models(self):
        with pytest.raises(TypeError, match=r"must be a `keras\.Model`"):
            explain_weight_decay(keras.layers.Dense(2))
        model = keras.Sequential([keras.layers.Dense(2)])
        with pytest.raises(ValueError, match="is not built"):
            explain_weight_decay(model)
        model.build((None, 3))
        with pytest.raises(ValueError, match="is not compiled"):
            explain_weight_decay(model)
