"""Where what is certified of a run is written while it trains."""

import warnings
from collections.abc import Iterable
from collections.abc import Mapping
from typing import Any

from keras_lowrank.callbacks.sinks import directories
from keras_lowrank.callbacks.watched import Watched
from keras_lowrank.processes import is_chief
from keras_lowrank.records import CertificateLog
from keras_lowrank.records import EventWriter
from keras_lowrank.records import theorem_layout
from keras_lowrank.tables import KerasLowrankWarning

# TensorBoard reads one event file of a directory at a time, and what a second
# one says it purges: that of `RankTracker` may be in the directory above.
EVENTS_DIR = "theory"


class TheorySinks:
    """The file of certificates and the event files of TensorBoard.

    Of several processes that train together the chief writes.

    Args:
        run_dir: Path of the directory of the run, or `None`.
        tensorboard: Path of a directory, `True` for `run_dir`, or `None`.
            Event files are put into `theory` in it.
    """

    def __init__(self, run_dir=None, tensorboard=None):
        self.run_dir, self.tensorboard = directories(run_dir, tensorboard)
        self._log: CertificateLog | None = None
        self._events: EventWriter | None = None
        self._warned = False

    def open(self) -> None:
        """Make the directory, before an hour is spent on training."""
        self.close()
        self._warned = False
        if self.run_dir is not None and is_chief():
            self._log = CertificateLog(self.run_dir)

    def start(
        self, first_epoch: int, tolerance: float, watched: Iterable[Watched]
    ) -> None:
        """Begin a `fit`, or go on with one after `first_epoch`."""
        watched = list(watched)
        if self._log is not None:
            shapes = {
                item.matrix.name: item.matrix.matrix_shape for item in watched
            }
            uses = {item.matrix.name: item.uses for item in watched}
            self._log.start(tolerance, shapes, uses, first_epoch)
        if self.tensorboard is not None and is_chief():
            self._events = EventWriter(
                self.tensorboard / EVENTS_DIR, first_epoch and first_epoch + 1
            )
            self._events.write_layout(
                theorem_layout(item.matrix.name for item in watched)
            )

    def write(self, epoch: int, rows: Iterable[Mapping[str, Any]]) -> None:
        """Hand over the rows of an epoch."""
        rows = list(rows)
        if self._events is not None:
            self._events.write_scalars(certified_scalars(rows), epoch)
        if self._log is None:
            return
        try:
            self._log.write(epoch, rows)
        except OSError as error:
            self._warn(error)

    def finish(self, epoch: int, rows: Iterable[Mapping[str, Any]]) -> None:
        """Hand over what was measured at the end of the `fit`."""
        rows = list(rows)
        if self._events is not None:
            measured = {
                f"epsilon_rank/{row['weight']}": row["measured"] for row in rows
            }
            self._events.write_scalars(measured, epoch)
        if self._log is None:
            return
        try:
            self._log.finish(rows)
        except OSError as error:
            self._warn(error)

    def close(self) -> None:
        """Close what is open."""
        if self._events is not None:
            self._events.close()
        self._events = self._log = None

    def _warn(self, error: OSError) -> None:
        # Training for hours must not die of a full disk.
        if self._warned:
            return
        self._warned = True
        warnings.warn(
            f"TheoryTracker could not write into '{self.run_dir}': {error} "
            "What was not written stays in memory, and is tried again at "
            "every epoch. After `fit`, `history` and `table()` hold it.",
            KerasLowrankWarning,
            stacklevel=3,
        )

    def __getstate__(self) -> dict[str, Any]:
        # Settings travel with a copy, open files do not.
        return self.__dict__ | dict(_log=None, _events=None)


def certified_scalars(rows: Iterable[Mapping[str, Any]]) -> dict[str, float]:
    """Scalars of certified ranks, without those that say nothing.

    Args:
        rows: Iterable of dicts with `weight`, `certified` and `vacuous`.

    Returns:
        Dict from tags to ranks.
    """
    return {
        f"certified_rank/{row['weight']}": row["certified"]
        for row in rows
        if not row["vacuous"]
    }
