"""Searches with KerasTuner and Optuna, over functions and specs."""

import gc
import json
import math
import weakref

import keras
import keras_tuner
import numpy as np
import optuna
import pytest

from keras_lowrank import WeightDecay
from keras_lowrank import numerical_rank
from keras_lowrank.experiments import ExperimentSpec
from keras_lowrank.search import LowestRank
from keras_lowrank.search import OptunaObjective
from keras_lowrank.search import ParetoFront
from keras_lowrank.search import Range
from keras_lowrank.search import RankHyperModel
from keras_lowrank.search import SearchSpace
from keras_lowrank.search import read_search

pytestmark = [
    pytest.mark.filterwarnings("ignore::UserWarning:keras_tuner"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning"),
]

RNG = np.random.default_rng(0)
X = RNG.normal(size=(48, 6)).astype("float32")
Y = (X[:, 0] > 0).astype("int32")
FIT = {"validation_data": (X, Y), "epochs": 2, "verbose": 0}


def build(hp, optimizer=None):
    width = hp.Choice("width", [8])
    model = keras.Sequential(
        [
            keras.Input((6,)),
            keras.layers.Dense(width, activation="relu"),
            keras.layers.Dense(2),
        ]
    )
    model.compile(
        optimizer or keras.optimizers.SGD(0.5),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    return model


def tuner_of(hypermodel, directory, kind=keras_tuner.RandomSearch, **options):
    if kind is keras_tuner.Hyperband:
        options = {"max_epochs": 2, "factor": 2} | options
    else:
        options = {"max_trials": 2} | options
    return kind(
        hypermodel,
        objective=hypermodel.objective,
        directory=directory,
        project_name="search",
        seed=1,
        **options,
    )


SPACE = SearchSpace(
    batch_size=[12, 24],
    learning_rate=Range(0.01, 0.5),
    weight_decay=[0.0, 0.1, 2.0],
)


@pytest.mark.parametrize(
    "kind",
    [
        keras_tuner.RandomSearch,
        # Which points a tuner asks for does not depend on what trains them.
        *(
            pytest.param(kind, marks=pytest.mark.once)
            for kind in (
                keras_tuner.GridSearch,
                keras_tuner.BayesianOptimization,
                keras_tuner.Hyperband,
            )
        ),
    ],
    ids=lambda kind: kind.__name__,
)
def test_every_tuner_searches(tmp_path, kind):
    hypermodel = RankHyperModel(build, SPACE, LowestRank(0.4), seeds=2)
    tuner = tuner_of(hypermodel, tmp_path, kind)
    tuner.search(X, Y, **FIT)
    results = read_search(tuner.project_dir)
    scores = {
        trial.trial_id: trial.score for trial in tuner.oracle.trials.values()
    }
    assert len(results.complete) == len(results.trials) == len(scores) >= 2
    for trial in results.trials:
        assert trial.score(hypermodel.goal) == scores[trial.id]
        assert [item.seed for item in trial.executions] == [0, 1]
        for execution in trial.executions:
            run = execution.recording
            # What was given is what trained.
            batch = trial.values["batch_size"]
            last = run.measurements[-1]
            assert last.batch_size == batch
            assert last.step == last.epoch * 48 // batch
            assert last.learning_rate == pytest.approx(
                trial.values["learning_rate"]
            )
            # And the end is what counts.
            assert execution.outcome.metrics["rank_mean"] == np.mean(
                [numerical_rank(record.spectrum) for record in last.records]
            )
    (best,) = results.best()
    assert best.score(hypermodel.goal) == min(scores.values())
    (model,) = tuner.get_best_models()
    first = tuner.oracle.get_best_trials()[0].trial_id
    expected = results[first].executions[0].outcome.metrics["val_accuracy"]
    _, accuracy = model.evaluate(X, Y, verbose=0)
    assert accuracy == pytest.approx(expected)
    if kind is keras_tuner.Hyperband:
        check_rungs(tuner, results)


def check_rungs(tuner, results):
    """A rung of Hyperband goes on where each seed was."""
    continued = 0
    for trial in tuner.oracle.trials.values():
        earlier = trial.hyperparameters.values.get("tuner/trial_id")
        if earlier is None:
            continue
        continued += 1
        for one, two in zip(
            results[earlier].executions,
            results[trial.trial_id].executions,
            strict=True,
        ):
            before = one.recording.measurements[-1]
            after = two.recording.measurements[0]
            assert after.epoch == before.epoch == 1
            for a, b in zip(before.records, after.records, strict=True):
                np.testing.assert_array_equal(
                    a.spectrum.values, b.spectrum.values
                )
    assert continued


def test_seeds_begin_apart_and_alike_in_every_trial(tmp_path):
    hypermodel = RankHyperModel(
        build, {"weight_decay": [0.0, 0.5]}, LowestRank(0.4), seeds=[3, 7]
    )
    tuner = tuner_of(hypermodel, tmp_path, keras_tuner.GridSearch)
    tuner.search(X, Y, **FIT)
    starts = [
        [item.recording.measurements[0] for item in trial.executions]
        for trial in read_search(tuner.project_dir).trials
    ]

    def norms(measurement):
        return [r.spectrum.values.sum() for r in measurement.records]

    assert norms(starts[0][0]) == norms(starts[1][0])
    assert norms(starts[0][1]) == norms(starts[1][1])
    assert norms(starts[0][0]) != norms(starts[0][1])


def norm_after(directory, function, space, value, **options):
    """What is left of the weights after one step of learning nothing."""
    hypermodel = RankHyperModel(
        function, space, LowestRank(0.1), seeds=1, **options
    )
    hp = keras_tuner.HyperParameters()
    hypermodel.declare_hyperparameters(hp)
    hp.values["weight_decay"] = value
    hypermodel.directory = directory
    zeros = np.zeros_like(X)
    hypermodel.fit(
        hp,
        hypermodel.build(hp),
        zeros,
        Y,
        batch_size=48,
        validation_data=(X, Y),
        verbose=0,
    )
    (trial,) = read_search(directory).trials
    first, last = trial.executions[0].recording.measurements
    name = first.records[0].weight
    ends = [item.records[0].spectrum.values.max() for item in (first, last)]
    assert name.endswith("kernel")
    return ends[1] / ends[0]


def test_decay_means_what_it_says(tmp_path):
    """A hidden kernel behind inputs of 0 has no gradient: it only decays."""
    space = {"weight_decay": [0.1, 0.2]}
    rate = 0.5  # of SGD in `build`
    left = norm_after(tmp_path / "keras", build, space, 0.2)
    assert left == pytest.approx(1 - rate * 0.2, rel=1e-5)
    left = norm_after(
        tmp_path / "paper",
        build,
        space,
        0.2,
        decay=WeightDecay(0.0, convention="paper_lambda"),
    )
    assert left == pytest.approx(1 - rate * 2 * 0.2, rel=1e-5)

    def own(hp):
        policy = WeightDecay(0.0, convention="l2")
        return build(hp, policy.wrap(keras.optimizers.SGD(0.25)))

    left = norm_after(tmp_path / "own", own, space, 0.1)
    assert left == pytest.approx(1 - 0.25 * 2 * 0.1, rel=1e-5)


@pytest.mark.once
def test_equal_steps_and_equal_clocks(tmp_path):
    decays = {"weight_decay": [0.05, 0.1]}
    for name, options, space, expected in (
        ("steps", {"steps": 8}, {"batch_size": [12, 24]}, lambda *_: 8),
        # The clock of one step is -log(1 - 0.5 w): steps to a clock of 0.15.
        (
            "clock",
            {"decay_clock": 0.15},
            decays,
            lambda batch, decay: math.ceil(
                0.15 / -math.log1p(-0.5 * decay) - 1e-9
            ),
        ),
    ):
        hypermodel = RankHyperModel(
            build, space, LowestRank(0.1), seeds=1, **options
        )
        tuner = tuner_of(hypermodel, tmp_path / name, keras_tuner.GridSearch)
        given = {} if "batch_size" in space else {"batch_size": 16}
        tuner.search(X, Y, validation_data=(X, Y), verbose=0, **given)
        trials = read_search(tuner.project_dir).trials
        assert len(trials) == 2
        for trial in trials:
            batch = trial.values.get("batch_size", 16)
            steps = expected(batch, trial.values.get("weight_decay"))
            per_epoch = 48 // batch
            whole = math.ceil(steps / per_epoch) * per_epoch
            (execution,) = trial.executions
            assert execution.recording.measurements[-1].step == whole


@pytest.mark.filterwarnings("ignore:Weights that are not finite")
def test_what_diverges_or_runs_out_of_memory_is_recorded(tmp_path):
    class Full(keras.callbacks.Callback):
        def on_train_begin(self, logs=None):
            if self.model.layers[0].units == 16:
                raise RuntimeError("RESOURCE_EXHAUSTED: Out of memory.")

    def wide(hp):
        units = hp.Choice("units", [4, 16])
        model = keras.Sequential(
            [
                keras.Input((6,)),
                keras.layers.Dense(units),
                keras.layers.Dense(2),
            ]
        )
        model.compile(
            keras.optimizers.SGD(0.1),
            keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            metrics=["accuracy"],
        )
        return model

    hypermodel = RankHyperModel(
        wide, {"learning_rate": [0.1, 1e30]}, LowestRank(0.1), seeds=2
    )
    tuner = tuner_of(
        hypermodel, tmp_path, keras_tuner.GridSearch, max_trials=None
    )
    tuner.search(X, Y, callbacks=[Full()], **FIT)
    found = {
        (trial.values["learning_rate"], trial.values["units"]): trial
        for trial in read_search(tuner.project_dir).trials
    }
    assert found[0.1, 4].status == "complete"
    assert found[1e30, 4].status == "diverged"
    assert "loss is nan" in found[1e30, 4].reason
    # It ended there: the second epoch would have told nothing more.
    assert found[1e30, 4].executions[0].recording.epochs[-1] < 2
    for rate in (0.1, 1e30):
        assert found[rate, 16].status == "failed"
        assert found[rate, 16].reason.startswith("out of memory: RuntimeError")
        assert len(found[rate, 16].executions) == 1
    scores = {t.score for t in tuner.oracle.trials.values()}
    assert scores == {found[0.1, 4].score(hypermodel.goal), 2.0}
    rows = read_search(tuner.project_dir).rows()
    assert {row["status"] for row in rows} == {"complete", "diverged", "failed"}


@pytest.mark.once
def test_a_mistake_is_not_searched_around(tmp_path):
    def scheduled(hp):
        schedule = keras.optimizers.schedules.ExponentialDecay(0.1, 10, 0.9)
        return build(hp, keras.optimizers.SGD(schedule))

    def decaying(hp):
        return build(hp, keras.optimizers.AdamW(0.1))

    cases = [
        (scheduled, {"learning_rate": [0.1]}, {}, {}, "follows a schedule"),
        (decaying, {"weight_decay": [0.1]}, {}, {}, "decays by itself"),
        (build, {"batch_size": [8]}, {}, {"batch_size": 16}, "Leave one out"),
        (
            build,
            {"weight_decay": [0.1]},
            {"executions_per_trial": 3},
            {},
            "seeds=3",
        ),
        (build, {"weight_decay": [0.1]}, {"loss": "mse"}, {}, "with `loss`"),
    ]
    unseen = {"validation_data": None}
    cases.append((build, {"weight_decay": [0.1]}, {}, unseen, "val_accuracy"))
    for index, (function, space, tuned, fit, message) in enumerate(cases):
        hypermodel = RankHyperModel(function, space, LowestRank(0.1), seeds=1)
        tuner = tuner_of(hypermodel, tmp_path / str(index), **tuned)
        with pytest.raises(keras_tuner.errors.FatalValueError, match=message):
            tuner.search(X, Y, **(FIT | fit))


@pytest.mark.once
def test_batches_of_a_data_set_are_its_own(tmp_path):
    class Batched(keras.utils.PyDataset):
        def __len__(self):
            return 4

        def __getitem__(self, index):
            return X[:12], Y[:12]

    hypermodel = RankHyperModel(build, {"batch_size": [8]}, LowestRank(0.1))
    tuner = tuner_of(hypermodel, tmp_path)
    with pytest.raises(keras_tuner.errors.FatalValueError, match="as arrays"):
        tuner.search(Batched(), **FIT)


@pytest.mark.once
def test_a_search_with_other_settings_is_another(tmp_path):
    for floor, error in (
        (0.1, None),
        (0.1, None),
        (0.2, "another `objective`"),
    ):
        hypermodel = RankHyperModel(
            build, {"weight_decay": [0.1, 0.2]}, LowestRank(floor), seeds=1
        )
        trials = 1 if error is None else 2
        tuner = tuner_of(hypermodel, tmp_path, max_trials=trials)
        if error is None:
            tuner.search(X, Y, **FIT)
            continue
        with pytest.raises(keras_tuner.errors.FatalValueError, match=error):
            tuner.search(X, Y, **FIT)


@pytest.mark.once
def test_an_interrupted_trial_goes_on_from_its_checkpoint(tmp_path):
    class Interrupt(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            # In the third epoch of the second seed.
            path = tmp_path / "search" / "trial_0" / "executions.json"
            if epoch == 2 and json.loads(path.read_text())["executions"]:
                raise KeyboardInterrupt

    for callbacks in ([Interrupt()], []):
        hypermodel = RankHyperModel(
            build,
            {"weight_decay": [0.1]},
            LowestRank(0.1),
            seeds=2,
            checkpoint_seconds=0.0,
        )
        tuner = tuner_of(hypermodel, tmp_path, max_trials=1)
        fit = FIT | {"epochs": 4, "callbacks": callbacks}
        if callbacks:
            with pytest.raises(KeyboardInterrupt):
                tuner.search(X, Y, **fit)
        else:
            tuner.search(X, Y, **fit)
    (trial,) = read_search(tuner.project_dir).complete
    fits = []
    for execution in trial.executions:
        recording = execution.recording
        assert recording.epochs == [0, 1, 2, 3, 4]
        fits.append(recording.info["fits"])
        assert not list(execution.run_dir.glob("checkpoint*"))
    assert fits == [1, 2]
    # The optimizer went on as well.
    steps = [item.step for item in trial.executions[1].recording.measurements]
    assert steps == [0, 2, 4, 6, 8]


SPEC = ExperimentSpec(
    {"name": "mlp", "depth": 2, "width": 8},
    {"name": "digits", "train_samples": 64, "test_samples": 64},
    learning_rate=0.05,
    epochs=2,
)


@pytest.mark.once
def test_a_spec_is_searched_too(tmp_path):
    hypermodel = RankHyperModel(
        SPEC, {"batch_size": [16, 32], "momentum": [0.0, 0.5]}, LowestRank(0.01)
    )
    tuner = tuner_of(hypermodel, tmp_path, keras_tuner.GridSearch)
    tuner.search(verbose=0)
    results = read_search(tuner.project_dir)
    assert len(results.complete) == 2
    for trial in results.trials:
        assert len(trial.executions) == 3
        for execution in trial.executions:
            recorded = execution.recording.measurements[-1]
            assert recorded.batch_size == trial.values["batch_size"]
            run = json.loads(
                (execution.run_dir / "spec.json").read_text(encoding="utf-8")
            )
            assert run["momentum"] == trial.values["momentum"]
            assert run["seed"] == execution.seed


@pytest.mark.once
def test_optuna_finds_a_front_over_the_same_space(tmp_path):
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    objective = OptunaObjective(
        build,
        SPACE,
        ParetoFront(),
        fit={"x": X, "y": Y} | FIT,
        directory=tmp_path,
        seeds=2,
    )
    study = optuna.create_study(
        directions=objective.directions,
        sampler=optuna.samplers.RandomSampler(seed=0),
    )
    study.optimize(objective, n_trials=4)
    results = read_search(tmp_path)
    assert len(results.complete) == 4
    front = {f"{trial.number:04d}" for trial in study.best_trials}
    assert {trial.id for trial in results.pareto()} == front
    for trial in study.trials:
        ours = results[f"{trial.number:04d}"]
        assert trial.params == ours.values
        assert trial.values == [
            ours.metrics["val_accuracy"],
            ours.metrics["rank_mean"],
        ]


@pytest.mark.once
def test_optuna_prunes(tmp_path):
    optuna.logging.set_verbosity(optuna.logging.WARNING)

    class Hopeless(optuna.pruners.BasePruner):
        def prune(self, study, trial):
            return trial.number > 0 and trial.last_step >= 1

    objective = OptunaObjective(
        build,
        SPACE,
        LowestRank(0.4),
        fit={"x": X, "y": Y} | FIT,
        directory=tmp_path,
        seeds=2,
    )
    study = optuna.create_study(pruner=Hopeless())
    study.optimize(objective, n_trials=2)
    first, second = read_search(tmp_path).trials
    assert (first.status, len(first.executions)) == ("complete", 2)
    assert (second.status, len(second.executions)) == ("pruned", 1)
    assert [trial.state.name for trial in study.trials] == [
        "COMPLETE",
        "PRUNED",
    ]
    assert len(study.trials[0].intermediate_values) == 2


def test_callbacks_see_the_rank_and_each_execution_has_its_own(tmp_path):
    class Count(keras.callbacks.Callback):
        def __init__(self):
            super().__init__()
            self.epochs = 0

        def on_epoch_end(self, epoch, logs=None):
            self.epochs += 1
            assert "rank_mean" in logs

        def on_train_end(self, logs=None):
            assert self.epochs == 2

    count = Count()
    hypermodel = RankHyperModel(
        build, {"weight_decay": [0.1]}, LowestRank(0.1), seeds=2
    )
    tuner = tuner_of(hypermodel, tmp_path)
    stop = keras.callbacks.EarlyStopping("rank_mean", mode="min", patience=9)
    tuner.search(X, Y, callbacks=[count, stop], **FIT)
    assert count.epochs == 0
    assert len(read_search(tuner.project_dir).complete) == 1


def test_no_model_of_a_trial_is_kept(tmp_path):
    models = []

    def watched(hp):
        model = build(hp)
        models.append(weakref.ref(model))
        return model

    hypermodel = RankHyperModel(
        watched, {"weight_decay": [0.1, 0.2]}, LowestRank(0.1), seeds=2
    )
    before = set(gradient_functions())
    tuner = tuner_of(hypermodel, tmp_path)
    tuner.search(X, Y, **FIT)
    gc.collect()
    # One is built before the search, and each trial is given one to train.
    assert len(models) >= 2 * 2
    assert sum(model() is not None for model in models) <= 1
    assert set(gradient_functions()) == before


def gradient_functions():
    """What TensorFlow keeps for ever of the steps that it traced."""
    if keras.backend.backend() != "tensorflow":
        return {}
    from tensorflow.python.framework import ops

    return ops.gradient_registry._registry
