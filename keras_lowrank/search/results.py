"""What a search found: every trial, seed and epoch in one frame."""

import dataclasses
import pathlib
from collections.abc import Iterable
from typing import Any

import numpy as np

from keras_lowrank.search.objective import Objective
from keras_lowrank.search.pareto import hypervolume
from keras_lowrank.search.pareto import pareto_mask
from keras_lowrank.search.settings import Settings
from keras_lowrank.search.settings import read_settings
from keras_lowrank.search.statistics import Interval
from keras_lowrank.search.statistics import paired_difference
from keras_lowrank.search.trials import Trial
from keras_lowrank.search.trials import read_trials
from keras_lowrank.search.words import gain
from keras_lowrank.search.words import trials_table
from keras_lowrank.tables import Table
from keras_lowrank.tables import frame


@dataclasses.dataclass(frozen=True)
class SearchResults:
    """The trials of a search, finished or still running.

    Args:
        directory: Path of the search.
        settings: `Settings`, what was asked.
        trials: Tuple of `Trial`.
    """

    directory: pathlib.Path
    settings: Settings
    trials: tuple[Trial, ...]

    @property
    def objective(self) -> Objective:
        """What the search was after."""
        return self.settings.objective

    @property
    def complete(self) -> list[Trial]:
        """The trials of which every execution ended well."""
        return [trial for trial in self.trials if trial.status == "complete"]

    def best(self, count: int = 1) -> list[Trial]:
        """Complete trials by score, the best first.

        Args:
            count: Int, how many.

        Returns:
            List of at most `count` trials.
        """
        return sorted(self.complete, key=self.order)[:count]

    def order(self, trial: Trial):
        """What trials are sorted by: the score, and among equal ones the goals.

        Args:
            trial: `Trial`, complete or not.

        Returns:
            Tuple of floats, smaller for the better.
        """
        signs = {"min": 1, "max": -1}
        return (
            trial.score(self.objective),
            *(
                signs[way] * trial.metrics.get(name, 0.0)
                for name, way in self.objective.goals
            ),
        )

    def __getitem__(self, id: str) -> Trial:
        """The trial of that id."""
        for trial in self.trials:
            if trial.id == id:
                return trial
        raise KeyError(
            f"There is no trial {id!r}. There are: "
            f"{', '.join(trial.id for trial in self.trials) or 'none'}."
        )

    # The front --------------------------------------------------------------

    def pareto(self, goals=None) -> list[Trial]:
        """The complete trials that no other beats in every goal.

        Means over the seeds are compared; whether a difference is more than
        chance, `Trial.interval` and `dominates` say.

        Args:
            goals: Pairs of a metric and `"min"` or `"max"`; those of the
                objective by default.

        Returns:
            List of `Trial`, by the first goal.
        """
        goals = tuple(goals or self.objective.goals)
        trials = self.complete
        if not trials:
            return []
        values, ways = self._points(trials, goals)
        kept = [
            trial
            for trial, on in zip(trials, pareto_mask(values, ways), strict=True)
            if on
        ]
        return sorted(kept, key=lambda trial: trial.metrics[goals[0][0]])

    def hypervolume(self, reference=None, goals=None) -> float:
        """The volume that the front dominates, up to a reference point.

        Args:
            reference: Dict from the metrics of the goals to the values of the
                reference point. By default the worst of all complete trials
                in each goal, which grows with the search: give one to compare
                searches.
            goals: As for `pareto`.

        Returns:
            Float >= 0, in the product of the units of the goals.
        """
        goals = tuple(goals or self.objective.goals)
        trials = self.complete
        if not trials:
            return 0.0
        values, ways = self._points(trials, goals)
        if reference is None:
            point = [
                column.max() if way == "min" else column.min()
                for column, way in zip(values.T, ways, strict=True)
            ]
        else:
            if missing := [name for name, _ in goals if name not in reference]:
                raise ValueError(
                    "`reference` needs a value for every goal. Missing: "
                    f"{', '.join(missing)}."
                )
            point = [reference[name] for name, _ in goals]
        return hypervolume(values, ways, point)

    def dominates(
        self, one: Trial, other: Trial, level: float = 0.95
    ) -> dict[str, Interval]:
        """How much better one trial is than another, in each goal.

        Args:
            one: `Trial`.
            other: `Trial`, trained with the same seeds, so that differences
                are taken seed by seed.
            level: Float in (0, 1), the confidence.

        Returns:
            Dict from metrics to the `Interval` of the mean gain, positive
            where `one` is better.
        """
        gains = {}
        for name, way in self.objective.goals:
            ours, theirs = one.by_seed(name), other.by_seed(name)
            if way == "min":
                ours, theirs = theirs, ours
            gains[name] = paired_difference(ours, theirs, level)
        return gains

    def against_default(self, level: float = 0.95) -> list[str]:
        """What the search gained over its default, in sentences.

        Args:
            level: Float in (0, 1), the confidence of the intervals.

        Returns:
            List of strings.
        """
        return gain(self, level)

    def _points(self, trials: Iterable[Trial], goals):
        values = np.array(
            [[trial.metrics[name] for name, _ in goals] for trial in trials]
        )
        return values, [way for _, way in goals]

    # Rows and tables --------------------------------------------------------

    def rows(self) -> list[dict[str, Any]]:
        """One dict per trial, seed and measured epoch.

        Returns:
            List of dicts with `trial`, `seed`, the status and reason of the
            execution, the hyperparameters, `epoch`, `step`, `learning_rate`,
            the logs of the epoch and the means of the measures. An execution
            without records has one row.
        """
        rows = []
        for trial in self.trials:
            for execution in trial.executions:
                told = {
                    "trial": trial.id,
                    "seed": execution.seed,
                    "status": execution.outcome.status,
                    "reason": execution.outcome.reason,
                    **trial.values,
                }
                recording = execution.recording
                if recording is None:
                    rows.append(told)
                    continue
                for item in recording.measurements:
                    rows.append(
                        told
                        | {
                            "epoch": item.epoch,
                            "step": item.step,
                            "learning_rate_now": item.learning_rate,
                            **item.logs,
                            **{
                                f"{measure.name}_mean": item.mean(measure.name)
                                for measure in recording.measures
                            },
                        }
                    )
        return rows

    def to_frame(self):
        """`rows()` as a `pandas.DataFrame`. Needs pandas."""
        return frame(self.rows())

    def trial_rows(self, level: float = 0.95) -> list[dict[str, Any]]:
        """One dict per trial: its metrics at the end, with their intervals.

        Args:
            level: Float in (0, 1), the confidence of the intervals.

        Returns:
            List of dicts with `trial`, `status`, `reason`, `score`, whether it
            `meets` the constraint and is on the `front`, the hyperparameters,
            and of each metric the mean, `<metric>_low` and `<metric>_high`.
        """
        front = {trial.id for trial in self.pareto()}
        rows = []
        for trial in self.trials:
            complete = trial.status == "complete"
            row = {
                "trial": trial.id,
                "status": trial.status,
                "reason": trial.reason,
                "score": trial.score(self.objective),
                "meets": complete and self.objective.meets(trial.metrics),
                "front": trial.id in front,
                "seeds": len(trial.executions),
                **trial.values,
            }
            for name, mean in trial.metrics.items():
                interval = trial.interval(name, level)
                row |= {
                    name: mean,
                    f"{name}_low": interval.low,
                    f"{name}_high": interval.high,
                }
            rows.append(row)
        return rows

    def table(self, count: int | None = None) -> Table:
        """The trials by score, with their goals as means and intervals.

        Args:
            count: Int, how many; all by default.

        Returns:
            A `Table`.
        """
        return trials_table(self, count)

    def __repr__(self):
        return (
            f"<SearchResults: {len(self.complete)} of {len(self.trials)} "
            f"trials complete, in '{self.directory}'>"
        )


def read_search(directory) -> SearchResults:
    """Read what a search has found, also while it goes on.

    Args:
        directory: Path of the search: `tuner.project_dir`, the `directory` of
            an Optuna objective, or `--out` of `keras-lowrank search`.

    Returns:
        `SearchResults`.

    Raises:
        FileNotFoundError: when there is no search.

    Example:

    >>> results = read_search("searches/digits")  # doctest: +SKIP
    >>> results.table().print()  # doctest: +SKIP
    >>> results.to_frame()  # doctest: +SKIP
    """
    directory = pathlib.Path(directory)
    settings = read_settings(directory)
    return SearchResults(directory, settings, tuple(read_trials(directory)))
