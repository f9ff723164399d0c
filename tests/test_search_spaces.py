import json

import keras_tuner
import optuna
import pytest

from keras_lowrank.search import Range
from keras_lowrank.search import SearchSpace

pytestmark = pytest.mark.once

SPACE = SearchSpace(
    {"network.width": [10, 20]},
    batch_size=Range(8, 64, step=2),
    learning_rate=Range(0.01, 1.0),
    momentum=Range(0.0, 0.8, step=0.4, sampling="linear"),
    weight_decay=[0, 1e-3],
    optimizer=["sgd", "adam"],
)


def drawn_by_keras_tuner(count):
    oracle = keras_tuner.oracles.RandomSearchOracle(
        keras_tuner.Objective("score", "min"), max_trials=count, seed=1
    )
    hp = oracle.get_space()
    SPACE.draw(hp)
    oracle.update_space(hp)
    for index in range(count):
        trial = oracle.populate_space(str(index))
        hp = oracle.get_space()
        hp.values = trial["values"]
        yield SPACE.draw(hp)


def drawn_by_optuna(count):
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=1))
    for _ in range(count):
        yield SPACE.suggest(study.ask())


@pytest.mark.parametrize("draw", [drawn_by_keras_tuner, drawn_by_optuna])
def test_both_engines_draw_from_the_same_space(draw):
    trials = list(draw(150))
    assert all(list(trial) == list(SPACE.names) for trial in trials)
    seen = {name: {trial[name] for trial in trials} for name in SPACE.names}
    assert seen["network.width"] == {10, 20}
    assert seen["batch_size"] == {8, 16, 32, 64}
    assert all(type(size) is int for size in seen["batch_size"])
    assert sorted(seen["momentum"]) == pytest.approx([0.0, 0.4, 0.8])
    assert seen["weight_decay"] == {0.0, 1e-3}
    assert seen["optimizer"] == {"sgd", "adam"}
    rates = sorted(trial["learning_rate"] for trial in trials)
    assert 0.01 <= rates[0] and rates[-1] <= 1.0
    # Evenly by the logarithm: half of them below the geometric mean.
    assert 0.35 < sum(rate < 0.1 for rate in rates) / len(rates) < 0.65


def test_a_default_outside_of_the_space_is_left_out():
    hp = keras_tuner.HyperParameters()
    space = SearchSpace(batch_size=[16, 32], learning_rate=Range(0.1, 1.0))
    values = space.draw(hp, {"batch_size": 7, "learning_rate": 0.01})
    assert values == {"batch_size": 16, "learning_rate": 0.1}
    hp = keras_tuner.HyperParameters()
    values = space.draw(hp, {"batch_size": 32, "learning_rate": 0.5})
    assert values == {"batch_size": 32, "learning_rate": 0.5}


def test_plain_values_give_the_space_again():
    text = json.dumps(SPACE.to_dict())
    assert SearchSpace(json.loads(text)) == SPACE
    assert hash(SearchSpace(json.loads(text))) == hash(SPACE)


def test_steps_of_a_logarithmic_range_multiply():
    assert Range(1e-3, 1.0, step=10).values() == pytest.approx(
        (1e-3, 1e-2, 1e-1, 1.0)
    )
    assert Range(0, 6, step=2, sampling="linear").values() == (0, 2, 4, 6)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({}, "something to search over"),
        ({"batch_size": []}, "is empty"),
        ({"batch_size": 16}, "must be a list, or a range"),
        ({"batch_size": "16"}, "must be a list, or a range"),
        ({"batch_size": [16, "32"]}, "of one kind"),
        ({"batch_size": [None]}, "a number, a string or a boolean"),
        ({"learning_rate": {"low": 1}}, "a table of `min`, `max`"),
        ({"learning_rate": {"min": 1, "max": 0.5}}, "below `max`"),
        ({"learning_rate": {"min": 0, "max": 1}}, "must lie above 0"),
        ({"learning_rate": {"min": "a", "max": 1}}, "must be a number"),
        (
            {"learning_rate": {"min": 1, "max": 8, "step": 1}},
            "must be above 1 with log sampling",
        ),
        (
            {"learning_rate": {"min": 1, "max": 8, "sampling": "even"}},
            r"must be one of \('linear', 'log'\)",
        ),
        ({"learning_rate": {"min": 1, "max": float("inf")}}, "be finite"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_what_is_no_space_says_so(arguments, message):
    with pytest.raises((TypeError, ValueError), match=message):
        SearchSpace(arguments)
