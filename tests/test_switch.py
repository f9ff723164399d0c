"""Layers that are given low rank while training goes on."""

import keras
import numpy as np
import pytest
from keras import layers

import keras_lowrank as kl
from keras_lowrank.layers import FactoredLayer
from keras_lowrank.weights import locate_layers


def network():
    return keras.Sequential(
        [
            keras.Input((16,)),
            layers.Dense(24, activation="tanh", name="hidden"),
            layers.Dense(24, activation="tanh", name="second"),
            layers.Dense(3, name="head"),
        ]
    )


def data(count=64):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(count, 16)).astype("float32")
    return x, (x[:, :3] * x[:, 3:6]).astype("float32")


def compiled(optimizer=None):
    model = network()
    model.compile(optimizer or keras.optimizers.SGD(0.05, momentum=0.9), "mse")
    return model


def test_ranks_fall_where_layers_have_settled():
    model = compiled()
    switch = kl.SwitchToLowRank(
        rank={"hidden": 3, "second": 2}, min_delta=10.0, patience=2
    )
    tracker = kl.RankTracker(every=1)
    x, y = data()
    history = model.fit(
        x,
        y,
        epochs=5,
        batch_size=16,
        verbose=0,
        validation_data=(x, y),
        callbacks=[tracker, switch],
    )
    assert switch.switched == {"hidden": (3, 3), "second": (3, 2)}
    assert set(locate_layers(model, FactoredLayer)) == {"hidden", "second"}
    frame = tracker.to_frame()
    ranks = frame[frame.weight == "hidden/kernel"].set_index("epoch")["rank"]
    assert ranks[3] == 16
    assert ranks[4] == 3
    assert set(frame[frame.epoch == 5].weight) == set(
        frame[frame.epoch == 0].weight
    )
    assert np.isfinite(history.history["val_loss"]).all()
    assert history.history["loss"][-1] < history.history["loss"][0]


def test_two_fits_with_a_switch_between_are_one():
    x, y = data()
    weights = []
    for in_one_fit in (True, False):
        keras.utils.set_random_seed(1)
        model = compiled(keras.optimizers.Adam(0.01))
        settings = {"batch_size": 16, "verbose": 0, "shuffle": False}
        if in_one_fit:
            switch = kl.SwitchToLowRank(rank=3, min_delta=10.0, patience=1)
            model.fit(x, y, epochs=4, callbacks=[switch], **settings)
            assert switch.switched["hidden"] == (2, 3)
        else:
            model.fit(x, y, epochs=2, **settings)
            plan = kl.compression_plan(model, rank=3)
            kl.switch_to_low_rank(model, plan)
            model.fit(x, y, epochs=2, **settings)
        weights.append(model.get_weights())
    for one, other in zip(*weights, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)


def test_only_what_has_settled_is_switched():
    model = compiled()
    model.get_layer("second").trainable = False
    model.compile(keras.optimizers.SGD(0.05), "mse")
    x, y = data()
    switch = kl.SwitchToLowRank(
        rank=2, measure="frobenius_norm", min_delta=0.0, patience=2
    )
    model.fit(x, y, epochs=5, verbose=0, callbacks=[switch])
    assert switch.switched == {"second": (3, 2)}
    assert not model.get_layer("second").trainable


def test_rank_that_does_not_pay_waits():
    model = compiled()
    x, y = data()
    switch = kl.SwitchToLowRank(energy=1.0, min_delta=10.0, patience=1)
    model.fit(x, y, epochs=4, verbose=0, callbacks=[switch])
    assert not switch.switched
    assert not locate_layers(model, FactoredLayer)


def test_nothing_after_the_last_epoch_or_before_the_first():
    x, y = data()
    for settings in ({"patience": 2}, {"start_from_epoch": 4, "patience": 1}):
        model = compiled()
        switch = kl.SwitchToLowRank(rank=2, min_delta=10.0, **settings)
        model.fit(x, y, epochs=3, verbose=0, callbacks=[switch])
        assert not switch.switched


def test_layers_given_as_objects_and_fits_repeated(capsys):
    model = compiled()
    x, y = data()
    switch = kl.SwitchToLowRank(
        tolerance=0.9,
        min_delta=10.0,
        patience=1,
        layers=[model.get_layer("hidden"), "second"],
        verbose=1,
    )
    model.fit(x, y, epochs=4, verbose=0, callbacks=[switch])
    assert set(switch.switched) == {"hidden", "second"}
    printed = capsys.readouterr().out
    assert "Epoch 2: low rank from here on: hidden at rank" in printed
    assert "parameters" in printed
    switch = kl.SwitchToLowRank(rank=2, patience=1)
    model.fit(x, y, epochs=3, verbose=0, callbacks=[switch])
    assert "hidden" not in switch.switched


def test_checkpoints_load(tmp_path):
    inputs = keras.Input((4, 6))
    x = layers.MultiHeadAttention(2, 3, name="attend")(inputs, inputs)
    model = keras.Model(inputs, layers.Dense(2, name="head")(x))
    model.compile(keras.optimizers.Adam(0.01), "mse")
    path = str(tmp_path / "{epoch}.keras")
    data = np.ones((8, 4, 6)), np.ones((8, 4, 2))
    switch = kl.SwitchToLowRank(rank=1, min_delta=10.0, patience=1)
    model.fit(
        *data,
        epochs=4,
        verbose=0,
        callbacks=[switch, keras.callbacks.ModelCheckpoint(path)],
    )
    assert switch.switched["attend/query"] == (2, 1)
    loaded = keras.saving.load_model(tmp_path / "4.keras")
    np.testing.assert_allclose(
        loaded.predict(data[0], verbose=0),
        model.predict(data[0], verbose=0),
        atol=1e-6,
    )
    # The state of the optimizer is in the file, and training goes on.
    for one, other in zip(
        loaded.optimizer.variables, model.optimizer.variables, strict=True
    ):
        np.testing.assert_allclose(one, other, rtol=1e-6)
    loaded.fit(*data, epochs=1, verbose=0)


def test_theory_tracker_goes_on():
    model = compiled(
        kl.WeightDecay(0.1).wrap(keras.optimizers.SGD(0.05, momentum=0.9))
    )
    x, y = data()
    theory = kl.TheoryTracker()
    switch = kl.SwitchToLowRank(rank={"second": 2}, min_delta=10.0, patience=1)
    model.fit(
        x, y, epochs=4, batch_size=4, verbose=0, callbacks=[theory, switch]
    )
    rows = {row["weight"]: row for row in theory.table().rows}
    assert rows["second/kernel"]["measured"] == 2
    assert set(rows) == {"hidden/kernel", "second/kernel", "head/kernel"}
    # What is known of a full matrix is of the optimizer that trains it now.
    assert theory.history[-1]["epoch"] == 4
    assert isinstance(model.optimizer, kl.DecayedOptimizer)


def test_deferred_model():
    model = keras.Sequential([layers.Dense(24, name="hidden"), layers.Dense(3)])
    model.compile("sgd", "mse")
    x, y = data()
    switch = kl.SwitchToLowRank(rank={"hidden": 2}, min_delta=10, patience=1)
    model.fit(x, y, epochs=3, verbose=0, callbacks=[switch])
    assert switch.switched == {"hidden": (2, 2)}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"energy": 0.9, "rank": 2}, "chosen by one of"),
        ({"patience": 0}, "`patience` must be"),
        ({"min_delta": -1.0}, "`min_delta`"),
        ({"measure": "rnak"}, "Unknown measure"),
        ({"every": 0}, "`every` must be"),
    ],
    ids=range(5),
)
def test_mistakes(arguments, message):
    with pytest.raises(ValueError, match=message):
        kl.SwitchToLowRank(**arguments)


def test_best_weights_of_before_are_warned_of():
    model = compiled()
    stop = keras.callbacks.EarlyStopping("loss", restore_best_weights=True)
    switch = kl.SwitchToLowRank(rank=2)
    with pytest.warns(kl.KerasLowrankWarning, match="cannot put back weights"):
        model.fit(*data(), epochs=1, verbose=0, callbacks=[stop, switch])


def test_a_mistake_ends_the_fit_before_it_begins():
    model = compiled()
    x, y = data()
    switch = kl.SwitchToLowRank(rank={"nowhere": 2})
    with pytest.raises(KeyError, match="nowhere"):
        model.fit(x, y, epochs=1, verbose=0, callbacks=[switch])
