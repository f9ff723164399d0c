"""`RankHyperModel`: a KerasTuner search that knows of ranks and seeds."""

import contextlib
import functools
import hashlib
import json
import math
import pathlib
from collections.abc import Mapping
from typing import Any

import keras

from keras_lowrank.experiments.run import load_data
from keras_lowrank.experiments.training import build_model
from keras_lowrank.search.built import Fit
from keras_lowrank.search.engines import keras_tuner
from keras_lowrank.search.objective import as_objective
from keras_lowrank.search.owned import own_optimizer
from keras_lowrank.search.settings import write_settings
from keras_lowrank.search.space import SearchSpace
from keras_lowrank.search.specified import spec_at
from keras_lowrank.search.trainer import TrialTrainer
from keras_lowrank.search.trials import Trial

# What Hyperband puts among the values of a trial.
_HYPERBAND = "tuner/"


class RankHyperModel(keras_tuner().HyperModel):  # type: ignore[misc]
    """Lets any tuner of KerasTuner search for low rank.

    Its `fit` owns the batch size, the learning rate and the weight decay,
    trains a trial once with each of several seeds, and gives the tuner what
    there is **at the end of training**: KerasTuner would report the epoch at
    which the objective was best, and a rank that was low for one epoch on its
    way is no low rank. What each execution came to is kept apart, in a file
    beside the trial, with every spectrum; `read_search` reads it.

    A trial whose loss or weights stop being finite, whose weights decay to
    zero, or for which memory runs out gets the worst score and its reason,
    and the search goes on. A search that was killed goes on too, from the last
    checkpoint of the execution in flight.

    Args:
        source: Function of `hp` that returns a compiled model, a HyperModel,
            or an `ExperimentSpec`, whose data, epochs and default values are
            then those of the search.
        space: `SearchSpace` or a dict of its axes: `batch_size`,
            `learning_rate` and `weight_decay`, or some of them; of a spec, any
            field. A function asks `hp` for what else it wants.
        objective: `LowestRank`, `BestAccuracy` or `ParetoFront`. The tuner's
            own objective is `hypermodel.objective`.
        seeds: Int, how many trainings from scratch per trial; or a list of
            them. Use these rather than `executions_per_trial`, which averages
            and forgets.
        last: Int >= 1. Metrics are means over this many last epochs.
        decay: `WeightDecay` that says what `weight_decay` means where the
            model has none: its convention, coupling and coverage.
        steps: Int >= 1, updates in every training, rounded up to epochs, so
            that batch sizes compare at equal steps rather than equal epochs.
        decay_clock: Float > 0, which every training runs to, rounded up to
            epochs, so that all forget their initial weights alike.
        measures: As for `RankTracker`.
        weights: As for `RankTracker`.
        every: As for `RankTracker`.
        checkpoint_seconds: Float, least time between checkpoints.
        directory: Path to write to where no tuner says where.

    Raises:
        ImportError: without KerasTuner.
        TypeError: for arguments of the wrong type.
        ValueError: for arguments out of range.

    Example:

    ```python
    hypermodel = RankHyperModel(
        build_model,
        SearchSpace(batch_size=[16, 64], weight_decay=Range(1e-4, 1e-1)),
        LowestRank(accuracy_floor=0.95),
    )
    tuner = keras_tuner.RandomSearch(
        hypermodel, objective=hypermodel.objective, max_trials=20
    )
    tuner.search(x, y, validation_data=(x_test, y_test), epochs=30)
    read_search(tuner.project_dir).table().print()
    ```
    """

    def __init__(
        self, source, space, objective, directory="search", **options: Any
    ):
        super().__init__()
        if isinstance(space, Mapping):
            space = SearchSpace(space)
        self.goal = as_objective(objective)
        self.trainer = TrialTrainer(source, space, **options)
        self.directory = pathlib.Path(directory)

    @property
    def objective(self):
        """The `keras_tuner.Objective` that a tuner is to be given."""
        return keras_tuner().Objective("score", "min")

    def declare_hyperparameters(self, hp) -> None:
        """Register the space; KerasTuner calls this before a search.

        Args:
            hp: `keras_tuner.HyperParameters`.
        """
        self.trainer.space.draw(hp, self.trainer.default)

    def build(self, hp):
        """The model at a point, before its batch size, rate and decay.

        Args:
            hp: `keras_tuner.HyperParameters`.

        Returns:
            A compiled Keras model.
        """
        if self.trainer.spec is not None:
            spec = spec_at(self.trainer.spec, self._owned(hp))
            return build_model(spec, _data(spec.data))
        build = getattr(self.trainer.source, "build", self.trainer.source)
        return build(hp)

    def fit(self, hp, model, *args, callbacks=(), **options) -> dict:
        """Train a trial with every seed; KerasTuner calls this.

        Args:
            hp: `keras_tuner.HyperParameters` of the trial.
            model: What `build` returned. Every seed builds its own, after
                that seed is set.
            *args: As for `model.fit`.
            callbacks: List of callbacks; every execution gets copies.
            **options: As for `model.fit`.

        Returns:
            Dict of `score`, which the tuner minimizes, and the metrics at the
            end of training, means over the seeds.
        """
        tuner, kept, last = _tuner_of(callbacks)
        owned = self._owned(hp)
        values = {
            name: value
            for name, value in hp.values.items()
            if not name.startswith(_HYPERBAND)
        } | owned
        continues = None
        if tuner is None:
            directory = self.directory / f"trial_{_digest(values)}"
        else:
            self._check_tuner(tuner)
            directory = pathlib.Path(tuner.get_trial_dir(last.trial.trial_id))
            if earlier := hp.values.get(f"{_HYPERBAND}trial_id"):
                continues = pathlib.Path(tuner.get_trial_dir(earlier))
        fit = Fit(
            args,
            options,
            tuple(kept),
            () if last is None else (last,),
            self.trainer.seeds[0],
            continues,
        )
        with _fatal():
            write_settings(directory.parent, self.trainer.settings(self.goal))
            if self.trainer.spec is None:
                self.trainer.check_fit(fit)
                own_optimizer(model, owned, self.trainer.decay)
        trial = Trial(
            directory.name.removeprefix("trial_"), values, self.trainer.seeds
        )
        trial = self.trainer.run(
            directory,
            trial,
            build=functools.partial(self.build, hp),
            fit=fit,
            keep_weights=f"{_HYPERBAND}epochs" in hp.values,
            epochs=hp.values.get(f"{_HYPERBAND}epochs"),
        )
        numbers = {
            name: value
            for name, value in trial.metrics.items()
            if math.isfinite(value)
        }
        with _fatal():
            return numbers | {"score": trial.score(self.goal)}

    def _owned(self, hp) -> dict[str, Any]:
        return self.trainer.space.draw(hp, self.trainer.default)

    def _check_tuner(self, tuner) -> None:
        fatal = keras_tuner().errors.FatalValueError
        if getattr(tuner, "executions_per_trial", 1) != 1:
            raise fatal(
                "`RankHyperModel` trains every trial with its own `seeds`. "
                "Received: executions_per_trial="
                f"{tuner.executions_per_trial}. Use `RankHyperModel(..., "
                f"seeds={tuner.executions_per_trial})`, which keeps them "
                "apart."
            )
        for name in ("optimizer", "loss", "metrics", "distribution_strategy"):
            if getattr(tuner, name, None):
                raise fatal(
                    "`RankHyperModel` builds a model for every seed, which "
                    f"the tuner does not see. Received: a tuner with `{name}`."
                    " Leave it out, and compile in the function that builds."
                )


class _SaveEnd(keras.callbacks.Callback):
    """Keeps the weights at the end, which `tuner.get_best_models` reads.

    In place of KerasTuner's own callback, which writes them at every epoch,
    since no epoch's logs have the score; and tells the tuner of the epochs.
    """

    def __init__(self, path, tuner_callback):
        super().__init__()
        self.path = path
        self.tuner_callback = tuner_callback
        self.trial = tuner_callback.trial

    def on_epoch_begin(self, epoch, logs=None):
        self._tuner("on_epoch_begin", epoch, logs)

    def on_epoch_end(self, epoch, logs=None):
        self._tuner("on_epoch_end", epoch, logs)

    def on_train_end(self, logs=None):
        self.model.save_weights(self.path)

    def _tuner(self, hook, epoch, logs):
        tuner = self.tuner_callback.tuner
        getattr(tuner, hook)(self.trial, self.model, epoch, logs=logs)


def _tuner_of(callbacks):
    """The tuner that calls, the callbacks of the user, and one of our own."""
    kept, tuner, path = [], None, None
    for callback in callbacks:
        if hasattr(callback, "tuner") and hasattr(callback, "trial"):
            tuner = callback
        elif type(callback).__name__ == "SaveBestEpoch":
            path = callback.filepath
        else:
            kept.append(callback)
    if tuner is None:
        return None, kept, None
    return tuner.tuner, kept, _SaveEnd(path, tuner)


@contextlib.contextmanager
def _fatal():
    """Ends the search by what no trial of it could do right."""
    try:
        yield
    except ValueError as error:
        raise keras_tuner().errors.FatalValueError(str(error)) from error


@functools.lru_cache(maxsize=1)
def _data(choice):
    return load_data(choice)


def _digest(values: Mapping[str, Any]) -> str:
    text = json.dumps(dict(values), sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:12]
