"""Where the measurements of a run are written while it trains."""

import pathlib
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Sequence
from typing import Any

from keras_lowrank.callbacks.trouble import Trouble
from keras_lowrank.processes import is_chief
from keras_lowrank.records import EventWriter
from keras_lowrank.records import Measurement
from keras_lowrank.records import Recording
from keras_lowrank.records import Store
from keras_lowrank.records import layout_of
from keras_lowrank.records import tensorboardx


class Sinks:
    """The store of a run, TensorBoard's event files, and sinks of the user's.

    Of several processes that train together the chief writes.

    Args:
        run_dir: Path of the store, or `None`.
        tensorboard: Path of the event files, `True` for `run_dir`, or `None`.
        others: Functions that are called with every `Measurement`, once it is
            written.
    """

    def __init__(
        self,
        run_dir=None,
        tensorboard=None,
        others: Sequence[Callable[[Measurement], Any]] = (),
    ):
        self.run_dir, self.tensorboard = directories(run_dir, tensorboard)
        self.others = _functions(others)
        self._recording = Recording()
        self._store: Store | None = None
        self._events: EventWriter | None = None
        self._laid_out = False
        self._drawn = 0  # measurements in the last images
        self._unwritten: list[Measurement] = []

    def open(self) -> None:
        """Open the store, before an hour is spent on training, not after."""
        self._unwritten = []
        if self.run_dir is not None and is_chief():
            self._store = Store(self.run_dir)

    def start(self, first_epoch: int, recording: Recording) -> Recording:
        """Begin or continue a recording.

        Args:
            first_epoch: Int, epochs complete.
            recording: `Recording` to go on with where there is no store.

        Returns:
            The one to go on with.
        """
        if self._store is not None:
            recording = self._store.start_fit(
                first_epoch, recording.measures, recording.info
            )
        if self.tensorboard and is_chief():
            known = first_epoch in recording.epochs
            self._events = EventWriter(self.tensorboard, first_epoch + known)
        self._recording, self._laid_out, self._drawn = recording, False, 0
        return recording

    def write(self, measurement: Measurement) -> Iterator[Trouble]:
        """Hand a measurement, the last of the recording, to all sinks.

        Yields:
            What to tell the user of, where one could not have it.
        """
        if self._events is not None:
            self._events.write(measurement)
            self._lay_out(self._events)
            # An image costs as much as all columns in it. Drawn when they
            # have doubled, all images together cost as much as two of the
            # last ones.
            if len(self._recording) >= 2 * max(1, self._drawn):
                self._draw(self._events)
        if self._store is not None:
            yield from self._store_all(self._store, measurement)
        if is_chief():
            # Last, so that what goes wrong there loses nothing.
            for number, other in enumerate(self.others):
                yield from self._call(number, other, measurement)

    def _store_all(self, store, measurement) -> Iterator[Trouble]:
        self._unwritten.append(measurement)
        try:
            while self._unwritten:
                store.write(self._unwritten[0])
                self._unwritten.pop(0)
        except OSError as error:
            # Training for hours must not die of a full disk: what could not
            # be written stays in memory and is tried again each time.
            yield (
                "unwritten",
                f"RankTracker could not write epoch "
                f"{self._unwritten[0].epoch}: {error} It stays in memory; "
                "writing is tried again at every measurement. After `fit`, "
                "`tracker.recording` holds it.",
            )

    def _call(self, number, other, measurement) -> Iterator[Trouble]:
        try:
            other(measurement)
        except Exception as error:
            # At the start it is a mistake to be told of; hours later it must
            # not cost the training.
            if len(self._recording) == 1:
                raise
            name = getattr(other, "__name__", type(other).__name__)
            yield (
                f"sink {number}",
                f"The sink '{name}' failed after epoch {measurement.epoch}: "
                f"{type(error).__name__}: {error}. It is called again at every "
                "measurement; `tracker.recording` holds them all.",
            )

    def close(self) -> None:
        """Draw what was not drawn yet, and close what is open."""
        if self._events is not None and len(self._recording) > self._drawn:
            self._draw(self._events)
        for sink in (self._store, self._events):
            if sink is not None:
                sink.close()
        self._store = self._events = None

    def _lay_out(self, events: EventWriter) -> None:
        layout = {} if self._laid_out else layout_of(self._recording)
        if layout:  # there are no logs before the first epoch
            events.write_layout(layout)
            self._laid_out = True

    def _draw(self, events: EventWriter) -> None:
        events.write_images(self._recording)
        self._drawn = len(self._recording)

    def __getstate__(self) -> dict[str, Any]:
        # Settings travel with a copy, open files do not.
        return self.__dict__ | dict(_store=None, _events=None)


def _functions(sinks) -> tuple[Callable[[Measurement], Any], ...]:
    if isinstance(sinks, Sequence) and all(map(callable, sinks)):
        return tuple(sinks)
    raise TypeError(
        "`sinks` must be a list of functions that take a `Measurement`. "
        f"Received: sinks={sinks!r}."
    )


def directories(
    run_dir, tensorboard
) -> tuple[pathlib.Path | None, pathlib.Path | None]:
    """Where a callback records, and where its event files go.

    Args:
        run_dir: Path, or `None`.
        tensorboard: Path, `True` for `run_dir`, or `None`.

    Returns:
        Tuple of two paths, `None` for what is not wanted.

    Raises:
        ValueError: for `True` without a `run_dir`.
        ImportError: for event files without tensorboardX.
    """
    if tensorboard is True and run_dir is None:
        raise ValueError(
            "`tensorboard=True` writes the event files into `run_dir`. "
            "Received: run_dir=None. Give a `run_dir`, or a path as "
            "`tensorboard`."
        )
    if tensorboard:
        # Missing, it is said now; there, its import is no cost of `fit`.
        tensorboardx()
    records = None if run_dir is None else pathlib.Path(run_dir)
    if tensorboard is True:
        return records, records
    return records, pathlib.Path(tensorboard) if tensorboard else None
