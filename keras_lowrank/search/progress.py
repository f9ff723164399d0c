"""What a search shows of itself, on a terminal and in a log."""

import threading
from collections.abc import Mapping
from typing import Any

import rich.console
import rich.progress

from keras_lowrank.search.moment import Moment
from keras_lowrank.search.trials import DEFAULT_TRIAL
from keras_lowrank.search.trials import Trial


class SearchProgress:
    """Shows trials as they train: bars on a terminal, lines in a log.

    A context manager, and what `search` takes as its `report`.

    Args:
        trials: Int, how many there will be besides the default, or `None`.
        goals: Pairs of a metric and a direction, which are shown of a trial.
        console: `rich.console.Console` to show it on.
        ended: Int, how many ended before this search was killed.

    Example:

    >>> with SearchProgress(20, goals) as progress:  # doctest: +SKIP
    ...     search(asked, "searches/digits", report=progress)
    """

    def __init__(
        self,
        trials: int | None,
        goals,
        console: rich.console.Console | None = None,
        ended: int = 0,
    ):
        self.console = console or rich.console.Console(highlight=False)
        self._goals = tuple(goals)
        self._lock = threading.Lock()
        self._trials = trials
        self._ended = ended
        self._best: float | None = None
        self._tasks: dict[str, rich.progress.TaskID] = {}
        self._bars = rich.progress.Progress(
            rich.progress.TextColumn("{task.description}"),
            rich.progress.BarColumn(bar_width=20),
            rich.progress.TaskProgressColumn(),
            rich.progress.TimeElapsedColumn(),
            console=self.console,
            disable=not self.console.is_terminal,
        )

    def __enter__(self):
        self._bars.__enter__()
        return self

    def __exit__(self, *error):
        self._bars.__exit__(*error)

    def began(self, trial: Trial) -> None:
        """Show a trial that begins."""
        with self._lock:
            told = f"{_name(trial)}: {_values(trial.values)}"
            self._tasks[trial.id] = self._bars.add_task(told, total=1.0)

    def moved(self, trial: Trial, moment: Moment) -> None:
        """Show how far a trial is."""
        with self._lock:
            # Seeds train together or one after another: both come to 1.
            before = trial.seeds.index(moment.seed)
            done = (before + moment.epoch / moment.epochs) / len(trial.seeds)
            self._bars.update(self._tasks[trial.id], completed=done)

    def ended(self, trial: Trial, score: float | None) -> None:
        """Show what a trial came to, in a line that stays."""
        with self._lock:
            self._bars.remove_task(self._tasks.pop(trial.id))
            self._ended += trial.id != DEFAULT_TRIAL
            of_all = f"/{self._trials}" if self._trials else ""
            count = f"{self._ended}{of_all} "
            if trial.id == DEFAULT_TRIAL:
                count = ""
            self.console.print(
                f"{count}{_name(trial)}: {_values(trial.values)}: "
                f"{self._came_to(trial)}{self._rating(trial, score)}",
                soft_wrap=True,
            )

    def _came_to(self, trial: Trial) -> str:
        if trial.status != "complete":
            return f"{trial.status}: {trial.reason}"
        return ", ".join(
            f"{name} {trial.interval(name)}"
            for name, _ in self._goals
            if name in trial.metrics
        )

    def _rating(self, trial: Trial, score: float | None) -> str:
        if score is None or trial.status != "complete":
            return ""
        if self._best is not None and score >= self._best:
            return f" (score {score:.4f})"
        self._best = score
        return f" (score {score:.4f}, the best so far)"


def _name(trial: Trial) -> str:
    if trial.id == DEFAULT_TRIAL:
        return "the default"
    return f"trial {trial.id}"


def _values(values: Mapping[str, Any]) -> str:
    return ", ".join(
        f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}"
        for name, value in values.items()
    )
