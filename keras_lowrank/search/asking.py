"""What a search asks of an engine: the next point, and to be told of it."""

import dataclasses
from contextlib import AbstractContextManager
from typing import Any
from typing import Protocol

from keras_lowrank.search.trials import Trial


@dataclasses.dataclass(frozen=True)
class Point:
    """A point of the space that an engine wants tried.

    Args:
        id: String, the engine's name of the trial.
        values: Dict of hyperparameters.
        native: The engine's own trial.
        epochs: Int, where the engine says how long to train, or `None`.
    """

    id: str
    values: dict[str, Any]
    native: Any
    epochs: int | None = None


class Engine(Protocol):
    """Says which points to try. Called by one thread at a time."""

    @property
    def name(self) -> str:
        """The name of this process among those that ask."""

    def ask(self, worker: str) -> Point | None:
        """The next point for a worker.

        Args:
            worker: String, the name of who asks.

        Returns:
            A `Point`; or `None`, when there are no more.

        Raises:
            Waiting: when the engine waits for other trials to end first.
        """

    def tell(self, point: Point, trial: Trial, score: float) -> None:
        """Say what a point came to.

        Args:
            point: `Point`.
            trial: `Trial`, ended.
            score: Float, what the objective makes of it.
        """

    def report(self, point: Point, epoch: int, score: float) -> str:
        """Say what a point has come to so far.

        Args:
            point: `Point`.
            epoch: Int, complete epochs.
            score: Float, what the objective makes of it now.

        Returns:
            String, why it is to end early; empty when it is to go on.
        """

    def alive(self, point: Point) -> AbstractContextManager:
        """A context in which others know that a point is being trained."""


class Waiting(Exception):  # noqa: N818
    """Raised when an engine waits for other trials before the next."""
