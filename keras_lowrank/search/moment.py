"""What is told of a trial while it trains."""

import dataclasses
import pathlib
from collections.abc import Callable
from collections.abc import Mapping


@dataclasses.dataclass(frozen=True)
class Moment:
    """What is told of an execution after each of its epochs.

    Args:
        seed: Int.
        epoch: Int, complete epochs.
        epochs: Int, all of them.
        logs: Dict of the logs of the epoch.
        run_dir: Path of the run's directory.
    """

    seed: int
    epoch: int
    epochs: int
    logs: Mapping[str, float]
    run_dir: pathlib.Path


# What hears of it. Whatever it raises ends the execution.
OnEpoch = Callable[[Moment], None]


class Pruned(Exception):  # noqa: N818
    """Raised by an `OnEpoch` to end a trial that is hopeless."""
