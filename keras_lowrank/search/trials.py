"""Trials on disk: what was tried, with which seeds, and what it came to.

A file per trial, written whole or not at all by the one process that runs the
trial, so a search over many machines needs nothing but a common directory and
a kill costs at most the execution in flight.
"""

import dataclasses
import json
import math
import os
import pathlib
from collections.abc import Iterable
from collections.abc import Mapping
from typing import Any

from keras_lowrank.experiments.runs import write_whole
from keras_lowrank.records import Recording
from keras_lowrank.records import open_run
from keras_lowrank.search.objective import WORST_SCORE
from keras_lowrank.search.objective import Objective
from keras_lowrank.search.outcome import Outcome
from keras_lowrank.search.outcome import overall
from keras_lowrank.search.statistics import Interval
from keras_lowrank.search.statistics import mean_interval
from keras_lowrank.tables import plain

TRIAL_FILE = "executions.json"

# The id of the point that a search begins from.
DEFAULT_TRIAL = "default"


@dataclasses.dataclass(frozen=True)
class Execution:
    """One training of a trial: a seed, and what came out.

    Args:
        seed: Int.
        outcome: `Outcome`.
        run_dir: Path of the run's directory, or `None` if it has none.
        seconds: Float, how long it took.
    """

    seed: int
    outcome: Outcome
    run_dir: pathlib.Path | None = None
    seconds: float = 0.0

    @property
    def recording(self) -> Recording | None:
        """The `Recording`, or `None` where nothing was recorded."""
        try:
            return None if self.run_dir is None else open_run(self.run_dir)
        except FileNotFoundError:
            return None


@dataclasses.dataclass(frozen=True)
class Trial:
    """One point of the space, trained with several seeds.

    Args:
        id: String, as KerasTuner or Optuna count them.
        values: Dict of the hyperparameters.
        seeds: Tuple of ints, those to train with.
        executions: Tuple of `Execution`, those that ended.
    """

    id: str
    values: Mapping[str, Any]
    seeds: tuple[int, ...]
    executions: tuple[Execution, ...] = ()

    @property
    def status(self) -> str:
        """That of the worst execution, `"running"` while some are missing."""
        return self._overall[0]

    @property
    def reason(self) -> str:
        """What is behind a status other than `"complete"`."""
        return self._overall[1]

    @property
    def _overall(self) -> tuple[str, str]:
        outcomes = [item.outcome for item in self.executions]
        ended = {item.seed for item in self.executions}
        if outcomes:
            status, reason = overall(outcomes)
            # No further seed mends these, so the others are not trained.
            if status in ("failed", "pruned"):
                return status, reason
        if missing := set(self.seeds) - ended:
            return "running", f"seeds left: {sorted(missing)}"
        return status, reason

    @property
    def metrics(self) -> dict[str, float]:
        """Means over the seeds, of the metrics that every execution has."""
        told = [item.outcome.metrics for item in self.executions]
        return {
            name: math.fsum(item[name] for item in told) / len(told)
            for name in (told[0] if told else ())
            if all(name in item for item in told)
        }

    def by_seed(self, metric: str) -> dict[int, float]:
        """A metric of each execution that has it, by seed."""
        return {
            item.seed: item.outcome.metrics[metric]
            for item in self.executions
            if metric in item.outcome.metrics
        }

    def interval(self, metric: str, level: float = 0.95) -> Interval:
        """Mean of a metric over the seeds, with its confidence interval.

        Args:
            metric: Name out of `metrics`.
            level: Float in (0, 1), the confidence.

        Returns:
            An `Interval`, without bounds for a single seed.
        """
        return mean_interval(list(self.by_seed(metric).values()), level)

    def score(self, objective: Objective) -> float:
        """What an objective makes of the means over the seeds.

        Raises:
            ValueError: when a metric that it needs is missing.
        """
        if self.status != "complete":
            return WORST_SCORE
        return objective.score(self.metrics)

    def with_execution(self, execution: Execution) -> "Trial":
        """The trial with one more execution, in place of one of that seed."""
        others = [
            item for item in self.executions if item.seed != execution.seed
        ]
        executions = sorted([*others, execution], key=lambda item: item.seed)
        return dataclasses.replace(self, executions=tuple(executions))


def write_trial(directory, trial: Trial) -> None:
    """Write a trial into its directory, whole or not at all."""
    directory = pathlib.Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    told = {
        "id": trial.id,
        "values": dict(trial.values),
        "seeds": list(trial.seeds),
        "executions": [
            {
                "seed": item.seed,
                "status": item.outcome.status,
                "reason": item.outcome.reason,
                "metrics": item.outcome.metrics,
                "run_dir": None
                if item.run_dir is None
                else os.path.relpath(item.run_dir, directory),
                "seconds": item.seconds,
            }
            for item in trial.executions
        ],
    }
    # Two workers may begin the default at once.
    write_whole(directory / TRIAL_FILE, json.dumps(plain(told), indent=2))


def read_trial(directory) -> Trial | None:
    """The trial in a directory, or `None` where there is none."""
    directory = pathlib.Path(directory)
    path = directory / TRIAL_FILE
    if not path.exists():
        return None
    told = json.loads(path.read_text(encoding="utf-8"))
    return Trial(
        told["id"],
        told["values"],
        tuple(told["seeds"]),
        tuple(_execution(item, directory) for item in told["executions"]),
    )


def read_trials(directory) -> list[Trial]:
    """Every trial of a search, by its id."""
    found: Iterable[pathlib.Path] = pathlib.Path(directory).glob(
        f"trial_*/{TRIAL_FILE}"
    )
    trials = [read_trial(path.parent) for path in found]
    return sorted(
        (trial for trial in trials if trial is not None),
        key=lambda trial: (len(trial.id), trial.id),
    )


def _execution(told, directory: pathlib.Path) -> Execution:
    # NaN has no word in JSON, and infinity one of its own.
    metrics = {
        name: math.nan if value is None else float(value)
        for name, value in told["metrics"].items()
    }
    run_dir = told["run_dir"]
    return Execution(
        told["seed"],
        Outcome(told["status"], told["reason"], metrics),
        None if run_dir is None else directory / run_dir,
        told["seconds"],
    )
