"""`OptunaObjective`: what a study of Optuna optimizes, written by the user."""

import pathlib
from collections.abc import Mapping
from typing import Any

from keras_lowrank.search.built import Fit
from keras_lowrank.search.engines import optuna
from keras_lowrank.search.moment import Moment
from keras_lowrank.search.moment import Pruned
from keras_lowrank.search.objective import ParetoFront
from keras_lowrank.search.objective import as_objective
from keras_lowrank.search.settings import write_settings
from keras_lowrank.search.space import SearchSpace
from keras_lowrank.search.studies import SuggestedHyperParameters
from keras_lowrank.search.studies import directions
from keras_lowrank.search.studies import score_so_far
from keras_lowrank.search.studies import told_of
from keras_lowrank.search.trainer import TrialTrainer
from keras_lowrank.search.trials import Trial


class OptunaObjective:
    """Lets a study of Optuna search for low rank, over the same space.

    What `RankHyperModel` is for KerasTuner: several seeds per trial, the
    values at the end of training, every execution kept apart and on disk.
    With a `ParetoFront` the study has several directions and finds the front
    itself; with another objective it minimizes the score, and may prune.

    Args:
        source: As for `RankHyperModel`. A function is given what suggests
            `Choice`, `Int`, `Float`, `Boolean` and `Fixed` as KerasTuner's
            `hp` does.
        space: As for `RankHyperModel`.
        objective: As for `RankHyperModel`.
        fit: Dict of the arguments of `model.fit`, where the source is a
            function: `{"x": x, "y": y, "validation_data": ..., "epochs": 30}`.
        directory: Path to write to.
        **options: What else `RankHyperModel` takes, as `seeds` and `decay`.

    Raises:
        ImportError: without Optuna.
        TypeError: for arguments of the wrong type.
        ValueError: for arguments out of range.

    Example:

    ```python
    objective = OptunaObjective(
        build_model, space, ParetoFront(), directory="search/front",
        fit={"x": x, "y": y, "validation_data": held_out, "epochs": 30},
    )
    study = optuna.create_study(directions=objective.directions)
    study.optimize(objective, n_trials=20)
    read_search("search/front").pareto()
    ```
    """

    def __init__(
        self,
        source,
        space,
        objective,
        fit: Mapping[str, Any] | None = None,
        directory="search",
        **options: Any,
    ):
        optuna()  # missing, it is said now
        if isinstance(space, Mapping):
            space = SearchSpace(space)
        self.goal = as_objective(objective)
        self.trainer = TrialTrainer(source, space, **options)
        self.directory = pathlib.Path(directory)
        fit = dict(fit or {})
        callbacks = tuple(fit.pop("callbacks", ()))
        self._fit = Fit(options=fit, callbacks=callbacks)
        if self.trainer.spec is None:
            self.trainer.check_fit(self._fit)
        elif fit or callbacks:
            raise ValueError(
                "A spec says itself how it is trained. Received: "
                f"fit={sorted(fit)}."
            )

    @property
    def directions(self) -> list[str]:
        """The `directions` that the study is to be created with."""
        return directions(self.goal)

    def __call__(self, trial):
        """Train a trial with every seed; Optuna calls this.

        Args:
            trial: `optuna.trial.Trial`.

        Returns:
            Float, the score; or the list of the goals of a front.
        """
        values = self.trainer.space.suggest(trial)
        hp = SuggestedHyperParameters(trial, values)
        build = None
        if self.trainer.spec is None:
            source = self.trainer.source
            function = getattr(source, "build", source)
            function(hp)  # asks for all that it wants to know

            def build():
                return function(hp)

        write_settings(self.directory, self.trainer.settings(self.goal))
        name = f"{trial.number:04d}"
        ended = self.trainer.run(
            self.directory / f"trial_{name}",
            Trial(name, dict(hp.values), self.trainer.seeds),
            build=build,
            fit=self._fit,
            on_epoch=self._pruning(trial),
        )
        trial.set_user_attr("status", ended.status)
        trial.set_user_attr("reason", ended.reason)
        told = told_of(self.goal, ended, ended.score(self.goal))
        if told is None:
            raise optuna().TrialPruned(f"{ended.status}: {ended.reason}")
        return told

    def _pruning(self, trial):
        """What reports to Optuna after an epoch of the first seed."""
        # A front has no order that Optuna could prune by.
        if isinstance(self.goal, ParetoFront):
            return None

        def on_epoch(moment: Moment) -> None:
            if moment.seed != self.trainer.seeds[0]:
                return
            trial.report(score_so_far(self.goal, moment), moment.epoch)
            if trial.should_prune():
                raise Pruned(f"after epoch {moment.epoch}, by Optuna")

        return on_epoch
