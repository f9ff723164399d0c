"""What a long training shows of itself, on a terminal and in a log."""

from collections.abc import Sequence

import rich.console
import rich.progress

from keras_lowrank.experiments.spec import ExperimentSpec
from keras_lowrank.experiments.specs import labels

# Lines that a run leaves in a log.
_LINES = 20


class Progress:
    """Shows runs as they train: bars on a terminal, lines in a log.

    A context manager; its `report` is what `run` and `run_all` take.

    Args:
        specs: Sequence of `ExperimentSpec`, all that will be trained.
        console: `rich.console.Console` to show it on.

    Example:

    >>> with Progress(specs) as progress:  # doctest: +SKIP
    ...     run_all(specs, report=progress.report)
    """

    def __init__(
        self,
        specs: Sequence[ExperimentSpec],
        console: rich.console.Console | None = None,
    ):
        self.console = console or rich.console.Console(highlight=False)
        self.labels = labels(specs)
        self._tasks: dict[ExperimentSpec, rich.progress.TaskID] = {}
        self._shown: dict[ExperimentSpec, str] = {}
        self._bars = rich.progress.Progress(
            rich.progress.TextColumn("{task.description}"),
            rich.progress.BarColumn(bar_width=20),
            rich.progress.MofNCompleteColumn(),
            rich.progress.TimeRemainingColumn(),
            rich.progress.TextColumn("{task.fields[state]}"),
            console=self.console,
            disable=not self.console.is_terminal,
        )

    def __enter__(self):
        self._bars.__enter__()
        return self

    def __exit__(self, *error):
        self._bars.__exit__(*error)

    def report(self, spec, epoch: int, epochs: int, logs) -> None:
        """Show what is known of a run after an epoch.

        Args:
            spec: `ExperimentSpec`.
            epoch: Int, complete epochs.
            epochs: Int, all epochs.
            logs: Dict of the logs of the epoch.
        """
        if "rank_mean" in logs or spec not in self._shown:
            self._shown[spec] = _state(logs)
        label = self.labels[spec]
        if self.console.is_terminal:
            if spec not in self._tasks:
                self._tasks[spec] = self._bars.add_task(
                    label, total=epochs, state=""
                )
            self._bars.update(
                self._tasks[spec], completed=epoch, state=self._shown[spec]
            )
        elif epoch == epochs or epoch % max(1, epochs // _LINES) == 0:
            self.console.print(
                f"{label}: epoch {epoch}/{epochs}, {_state(logs)}",
                soft_wrap=True,
            )


_WORDS = {
    "loss": ("loss", ".3f"),
    "train_accuracy": ("train", ".3f"),
    "val_accuracy": ("test", ".3f"),
    "rank_mean": ("rank", ".1f"),
    "stable_rank_mean": ("stable rank", ".2f"),
}


def _state(logs) -> str:
    return ", ".join(
        f"{word} {logs[key]:{digits}}"
        for key, (word, digits) in _WORDS.items()
        if logs.get(key) is not None
    )
