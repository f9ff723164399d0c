"""What a search leaves on disk for others: tables, figures, TensorBoard."""

import csv
import pathlib
from collections.abc import Iterable
from typing import Any

from keras_lowrank.plots import draw_panels
from keras_lowrank.records import write_experiment
from keras_lowrank.records import write_hparams
from keras_lowrank.search.figures import RATIO
from keras_lowrank.search.figures import front_panel
from keras_lowrank.search.figures import iso_rank_map
from keras_lowrank.search.figures import knows
from keras_lowrank.search.figures import ratio_panel
from keras_lowrank.search.results import SearchResults
from keras_lowrank.search.space import Range

TRIALS_FILE = "trials.csv"
EPOCHS_FILE = "epochs.csv"
FIGURE_FILE = "search.png"
TENSORBOARD_DIR = "tensorboard"


def write_report(results: SearchResults, directory) -> list[str]:
    """Write the tables, the figure and the HParams of a search.

    Args:
        results: `SearchResults`.
        directory: Path of the directory to write to.

    Returns:
        List of lines that say what is where, and what could not be written
        for want of an extra.
    """
    directory = pathlib.Path(directory)
    _write_rows(directory / TRIALS_FILE, results.trial_rows())
    _write_rows(directory / EPOCHS_FILE, results.rows())
    lines = [
        f"Trials: {directory / TRIALS_FILE}",
        f"Every seed and epoch: {directory / EPOCHS_FILE}",
    ]
    for what, write in (
        ("Figure", lambda: draw(results, directory / FIGURE_FILE)),
        (
            "TensorBoard",
            lambda: write_tensorboard(results, directory / TENSORBOARD_DIR),
        ),
    ):
        try:
            lines.append(f"{what}: {write()}")
        except ImportError as error:
            lines.append(f"{what}: not written. {error}")
    return lines


def draw(results: SearchResults, path) -> pathlib.Path:
    """Draw the front, the paper's ratio and the lines of equal rank.

    The last two where batch size, learning rate and decay are known: those
    that a function asks for by other names, or sets itself, are not.

    Args:
        results: `SearchResults`.
        path: Path of the picture.

    Returns:
        The path.

    Raises:
        ImportError: when Matplotlib is not installed.
    """
    panels: list[Any] = [front_panel(results)]
    if knows(results, RATIO):
        panels += [ratio_panel(results), iso_rank_map(results)]
    draw_panels(panels, title=str(results.objective)).savefig(path, dpi=150)
    return pathlib.Path(path)


def write_tensorboard(results: SearchResults, directory) -> pathlib.Path:
    """Write the HParams tab of TensorBoard; needs no TensorFlow.

    Each execution is a session, with its metrics at the end of training; the
    executions of a trial are a group.

    Args:
        results: `SearchResults`.
        directory: Path of the directory for TensorBoard.

    Returns:
        The path.

    Raises:
        ImportError: when tensorboardX is not installed.
    """
    directory = pathlib.Path(directory)
    metrics = list(
        dict.fromkeys(
            name
            for trial in results.trials
            for execution in trial.executions
            for name in execution.outcome.metrics
        )
    )
    goals = [name for name, _ in results.objective.goals if name in metrics]
    metrics = goals + [name for name in metrics if name not in goals]
    write_experiment(directory, _domains(results), metrics)
    for trial in results.trials:
        for execution in trial.executions:
            recording = execution.recording
            complete = execution.outcome.status == "complete"
            write_hparams(
                directory / f"trial_{trial.id}" / f"seed_{execution.seed}",
                trial.values,
                execution.outcome.metrics,
                step=recording.epochs[-1] if recording else 0,
                status="success" if complete else "failure",
                group=f"trial {trial.id}",
            )
    return directory


def _domains(results: SearchResults) -> dict[str, Any]:
    """What every hyperparameter may be, those that a function asked for too."""
    domains: dict[str, Any] = {
        name: (axis.min, axis.max) if isinstance(axis, Range) else list(axis)
        for name, axis in results.settings.space.axes.items()
    }
    for trial in results.trials:
        for name, value in trial.values.items():
            known = domains.setdefault(name, [])
            # The default may lie outside of the space.
            if isinstance(known, list) and value not in known:
                known.append(value)
    return domains


def _write_rows(path: pathlib.Path, rows: Iterable[dict[str, Any]]) -> None:
    rows = list(rows)
    names = list(dict.fromkeys(name for row in rows for name in row))
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, names)
        writer.writeheader()
        writer.writerows(rows)
