"""Optuna as an `Engine`, and what its studies and ours have in common."""

import contextlib
import json
import pathlib
from collections.abc import Mapping
from typing import Any

from keras_lowrank.records import open_run
from keras_lowrank.search.asking import Point
from keras_lowrank.search.engines import optuna
from keras_lowrank.search.moment import Moment
from keras_lowrank.search.objective import WORST_SCORE
from keras_lowrank.search.objective import Objective
from keras_lowrank.search.objective import ParetoFront
from keras_lowrank.search.outcome import outcome
from keras_lowrank.search.space import Range
from keras_lowrank.search.spec import SearchSpec
from keras_lowrank.search.trials import Trial

JOURNAL_FILE = "optuna.journal"

# Where a trial of Optuna keeps its values, as JSON: its own parameters may be
# incomplete when it is killed.
_VALUES = "values"


class StudyEngine:
    """Asks a study of Optuna, kept in a journal beside the trials.

    Args:
        search: `SearchSpec` of the method `"optuna"`.
        directory: Path of the search.
        objective: The objective, known by now.
    """

    name = "worker"

    def __init__(self, search: SearchSpec, directory, objective: Objective):
        self._search = search
        self._objective = objective
        path = pathlib.Path(directory) / JOURNAL_FILE
        storage = optuna().storages
        pruner = optuna().pruners.NopPruner()
        if search.prune:
            # Before half of the epochs a rank says little of the end.
            pruner = optuna().pruners.MedianPruner(
                n_startup_trials=5, n_warmup_steps=int(search.spec.stop[1]) // 2
            )
        with _quiet():
            self._study = optuna().create_study(
                storage=storage.JournalStorage(
                    storage.journal.JournalFileBackend(str(path))
                ),
                study_name="search",
                directions=directions(objective),
                sampler=sampler(objective, search.seed),
                pruner=pruner,
                load_if_exists=True,
            )
        running = optuna().trial.TrialState.RUNNING
        # A killed search left these; they go on as they are.
        self._left = [
            trial
            for trial in self._study.get_trials(deepcopy=False)
            if trial.state == running
        ]

    def ask(self, worker: str) -> Point | None:
        """As `Engine.ask`."""
        while self._left:
            left = self._left.pop(0)
            if _VALUES in left.user_attrs:
                values = json.loads(left.user_attrs[_VALUES])
                trial = optuna().trial.Trial(self._study, left._trial_id)
                return Point(_id(left.number), values, trial)
            failed = optuna().trial.TrialState.FAIL
            self._study.tell(left.number, state=failed)
        known = [
            trial
            for trial in self._study.get_trials(deepcopy=False)
            if _VALUES in trial.user_attrs
        ]
        if len(known) >= (self._search.trials or 0):
            return None
        trial = self._study.ask()
        values = self._search.space.suggest(trial)
        trial.set_user_attr(_VALUES, json.dumps(values))
        return Point(_id(trial.number), values, trial)

    def tell(self, point: Point, trial: Trial, score: float) -> None:
        """As `Engine.tell`."""
        number = point.native.number
        point.native.set_user_attr("status", trial.status)
        point.native.set_user_attr("reason", trial.reason)
        told = told_of(self._objective, trial, score)
        if told is None:
            pruned = optuna().trial.TrialState.PRUNED
            self._study.tell(number, state=pruned)
        else:
            self._study.tell(number, told)

    def report(self, point: Point, epoch: int, score: float) -> str:
        """As `Engine.report`."""
        if not self._search.prune:
            return ""
        point.native.report(score, epoch)
        if not point.native.should_prune():
            return ""
        return (
            f"after epoch {epoch}: its score of {score:.3f} is worse than the "
            "median of the others"
        )

    def alive(self, point: Point):
        """As `Engine.alive`; nobody else asks this study."""
        return contextlib.nullcontext()


def directions(objective: Objective) -> list[str]:
    """The directions of a study: of every goal of a front, else of a score."""
    if not isinstance(objective, ParetoFront):
        return ["minimize"]
    return [f"{way}imize" for _, way in objective.goals]


def sampler(objective: Objective, seed: int):
    """Optuna's sampler of choice: NSGA-II for a front, else TPE."""
    if isinstance(objective, ParetoFront):
        return optuna().samplers.NSGAIISampler(seed=seed)
    return optuna().samplers.TPESampler(seed=seed)


def told_of(objective: Objective, trial: Trial, score: float):
    """What Optuna is told of a trial; `None`, when it has no values.

    A trial that came to no good end has no place on a front; among scores it
    has the worst, from which the sampler learns to stay away.
    """
    if not isinstance(objective, ParetoFront):
        return None if trial.status == "pruned" else score
    if trial.status != "complete":
        return None
    return [trial.metrics[name] for name, _ in objective.goals]


def score_so_far(objective: Objective, moment: Moment) -> float:
    """The score of an execution as it stands after an epoch."""
    so_far = outcome(open_run(moment.run_dir))
    if so_far.status != "complete":
        return WORST_SCORE
    return objective.score(so_far.metrics)


class SuggestedHyperParameters:
    """Gives a function written for KerasTuner's `hp` the values of Optuna.

    Args:
        trial: `optuna.trial.Trial`.
        owned: Dict of values that the search space has given already.
    """

    def __init__(self, trial, owned: Mapping[str, Any]):
        self.trial = trial
        self.values = dict(owned)

    def Choice(self, name, values, ordered=None, default=None, **conditions):  # noqa: N802
        """One of some values."""
        return self._once(
            name, lambda: self.trial.suggest_categorical(name, list(values))
        )

    def Boolean(self, name, default=False, **conditions):  # noqa: N802
        """True or false."""
        return self.Choice(name, [False, True])

    def Int(  # noqa: N802
        self, name, min_value, max_value, step=None, sampling="linear", **others
    ):
        """A whole number."""
        return self._number(
            name, min_value, max_value, step, sampling, self.trial.suggest_int
        )

    def Float(  # noqa: N802
        self, name, min_value, max_value, step=None, sampling="linear", **others
    ):
        """A number."""
        return self._number(
            name, min_value, max_value, step, sampling, self.trial.suggest_float
        )

    def Fixed(self, name, value, **conditions):  # noqa: N802
        """That value."""
        return self._once(name, lambda: value)

    def get(self, name):
        """The value of that name."""
        return self.values[name]

    def _number(self, name, low, high, step, sampling, suggest):
        if sampling not in ("linear", "log"):
            raise ValueError(
                f"Optuna samples linearly or by the logarithm. Received: "
                f"sampling={sampling!r} for '{name}'."
            )
        if sampling == "log" and step is not None:
            return self.Choice(name, Range(low, high, step).values())
        steps = {} if step is None else {"step": step}
        return self._once(
            name,
            lambda: suggest(name, low, high, log=sampling == "log", **steps),
        )

    def _once(self, name, suggest):
        if name not in self.values:
            self.values[name] = suggest()
        return self.values[name]


@contextlib.contextmanager
def _quiet():
    """Optuna logs on standard error what the command line says itself."""
    logging = optuna().logging
    before = logging.get_verbosity()
    logging.set_verbosity(logging.WARNING)
    try:
        yield
    finally:
        logging.set_verbosity(before)


def _id(number: int) -> str:
    return f"{number:04d}"
