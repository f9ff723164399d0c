"""One SQLite file per run: crash-safe, readable while it is written.

Nothing is ever deleted. Each call of `fit` is a row of `fits`; one that
resumes names the fit it continues and the epoch it starts from, and reading
follows that chain, so an epoch trained twice shows once, the later time.
"""

import contextlib
import json
import math
import pathlib
import sqlite3
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Mapping
from typing import Any

import numpy as np

from keras_lowrank.measures import Measure
from keras_lowrank.measures import frobenius_norm
from keras_lowrank.records.plain import from_json
from keras_lowrank.records.plain import measures_from_json
from keras_lowrank.records.plain import measures_to_json
from keras_lowrank.records.plain import to_json
from keras_lowrank.records.record import Measurement
from keras_lowrank.records.record import Record
from keras_lowrank.records.record import measure_all
from keras_lowrank.records.recording import Recording
from keras_lowrank.spectrum import Spectrum

FILE_NAME = "records.sqlite"
FORMAT = 1
APPLICATION_ID = 0x4B4C524B  # "KLRK": how `file` and we know our own files

_SCHEMA = """
CREATE TABLE fits (
    id INTEGER PRIMARY KEY,
    parent INTEGER REFERENCES fits(id),
    first_epoch INTEGER NOT NULL,
    measures TEXT NOT NULL,
    info TEXT NOT NULL
);
CREATE TABLE measurements (
    id INTEGER PRIMARY KEY,
    fit INTEGER NOT NULL REFERENCES fits(id),
    epoch INTEGER NOT NULL,
    step INTEGER,
    learning_rate REAL,
    batch_size INTEGER,
    steps_per_epoch INTEGER,
    seconds REAL NOT NULL,
    time REAL NOT NULL,
    logs TEXT NOT NULL,
    UNIQUE (fit, epoch)
);
CREATE TABLE spectra (
    measurement INTEGER NOT NULL REFERENCES measurements(id),
    weight TEXT NOT NULL,
    row_count INTEGER NOT NULL,
    column_count INTEGER NOT NULL,
    singular_values BLOB NOT NULL,
    frobenius_norm REAL,
    resolution REAL NOT NULL,
    reason TEXT,
    measures TEXT NOT NULL,
    UNIQUE (measurement, weight)
);
"""


class Store:
    """Writes the measurements of one `fit` to the file of its run.

    Every measurement is one transaction, so a process killed at any moment
    loses at most the one in flight. (A power cut may lose the last few, since
    the file is not forced to disk at each; it does not damage the file.)

    Args:
        run_dir: Path of the directory of the run, made if there is none.

    Raises:
        OSError: when the directory cannot be written.
        ValueError: when the file there is not a store, is damaged, or has a
            newer format.
    """

    def __init__(self, run_dir):
        directory = pathlib.Path(run_dir)
        try:
            directory.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OSError(
                f"Cannot make the run directory '{directory}': {error}. "
                "Choose another `run_dir`."
            ) from error
        self.path = directory / FILE_NAME
        self._fit: int | None = None
        with _explained(self.path):
            self._connection = sqlite3.connect(self.path, timeout=30)
            try:
                self._prepare()
            except BaseException:
                self._connection.close()
                raise

    def _prepare(self):
        connection = self._connection
        tables = connection.execute("SELECT count(*) FROM sqlite_master")
        if tables.fetchone()[0]:
            _check_format(connection, self.path)
        # Readers and the writer do not block each other in this mode.
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.execute("BEGIN IMMEDIATE")
        with connection:
            # Asked again inside the transaction: two runs may start at once.
            tables = connection.execute("SELECT count(*) FROM sqlite_master")
            if not tables.fetchone()[0]:
                for statement in _SCHEMA.split(";"):
                    connection.execute(statement)
                connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
                connection.execute(f"PRAGMA user_version = {FORMAT}")

    def start_fit(
        self,
        first_epoch: int,
        measures: Iterable[Measure],
        info: Mapping[str, Any],
    ) -> Recording:
        """Open a new fit, which continues the last one if it resumes.

        Args:
            first_epoch: Int, epochs complete when the fit starts. 0 starts
                anew; more continues what was last recorded here.
            measures: Iterable of `Measure` that will be recorded.
            info: Dict of settings and versions, JSON where possible.

        Returns:
            The `Recording` of what this fit continues, empty if nothing.
        """
        measures = tuple(measures)
        with _explained(self.path), self._connection as connection:
            last = connection.execute("SELECT max(id) FROM fits").fetchone()[0]
            parent = last if first_epoch > 0 else None
            fit = _insert(
                connection,
                "INSERT INTO fits (parent, first_epoch, measures, info) "
                "VALUES (?, ?, ?, ?)",
                (
                    parent,
                    first_epoch,
                    measures_to_json(measures),
                    to_json(info),
                ),
            )
            earlier = list(_read_chain(connection, fit, measures))
        self._fit = fit
        return Recording(measures, info, earlier)

    def write(self, measurement: Measurement) -> None:
        """Append one measurement, whole or not at all."""
        with _explained(self.path), self._connection as connection:
            key = _insert(
                connection,
                "INSERT INTO measurements (fit, epoch, step, learning_rate, "
                "batch_size, steps_per_epoch, seconds, time, logs) "
                "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    self._fit,
                    measurement.epoch,
                    measurement.step,
                    measurement.learning_rate,
                    measurement.batch_size,
                    measurement.steps_per_epoch,
                    measurement.seconds,
                    measurement.time,
                    to_json(measurement.logs),
                ),
            )
            connection.executemany(
                "INSERT INTO spectra VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (_spectrum_row(key, record) for record in measurement.records),
            )

    def close(self) -> None:
        """Close the file. Closing twice does no harm."""
        # Leaves one plain file, which a read-only directory can hold. Refused
        # while somebody reads; then the side files stay, and do no harm.
        with contextlib.suppress(sqlite3.Error):
            self._connection.execute("PRAGMA busy_timeout = 0")
            self._connection.execute("PRAGMA journal_mode = DELETE")
        self._connection.close()


def open_run(run_dir, fit: int | None = None) -> Recording:
    """Read the recording of a run, finished or still being written.

    Args:
        run_dir: Path of the run directory, or of its `records.sqlite`.
        fit: Int, which call of `fit` to read, counted from 1; by default the
            last. A fit that resumed includes what it continued.

    Returns:
        A `Recording`. Its `info` says how many `fits` the run has.

    Raises:
        FileNotFoundError: when there is no store.
        ValueError: when the file is not a store, is damaged, has a newer
            format, or holds no such fit.

    Example:

    >>> recording = open_run("runs/mnist")  # doctest: +SKIP
    >>> recording.to_frame(measures="stable_rank")  # doctest: +SKIP
    """
    path = pathlib.Path(run_dir)
    path = path / FILE_NAME if path.is_dir() else path
    if not path.is_file():
        raise FileNotFoundError(
            f"There is no recorded run at '{path}'. Give the `run_dir` that "
            "`RankTracker` was given."
        )
    with (
        _explained(path),
        contextlib.closing(sqlite3.connect(path, timeout=30)) as connection,
    ):
        _check_format(connection, path)
        count = connection.execute("SELECT count(*) FROM fits").fetchone()[0]
        chosen = count if fit is None else fit
        if fit is not None and not 1 <= fit <= count:
            raise ValueError(
                f"The run at '{path}' has {count} fits, counted from 1. "
                f"Received: fit={fit}."
            )
        if not count:
            return Recording(info={"fits": 0})
        text, info = connection.execute(
            "SELECT measures, info FROM fits WHERE id = ?", (chosen,)
        ).fetchone()
        measures = measures_from_json(text)
        measurements = list(_read_chain(connection, chosen, measures))
    return Recording(measures, json.loads(info) | {"fits": count}, measurements)


def _read_chain(
    connection, fit: int, measures: tuple[Measure, ...], until: float = math.inf
) -> Iterator[Measurement]:
    """Measurements of a fit and of what it continues, by epoch."""
    parent, first_epoch, recorded = connection.execute(
        "SELECT parent, first_epoch, measures FROM fits WHERE id = ?", (fit,)
    ).fetchone()
    if parent is not None:
        earlier = min(until, first_epoch)
        yield from _read_chain(connection, parent, measures, earlier)
    # A fit may have recorded other measures than the one that continues it;
    # from the spectra they can be had all the same.
    as_recorded = recorded == measures_to_json(measures)
    for row in connection.execute(
        "SELECT id, epoch, step, learning_rate, batch_size, steps_per_epoch, "
        "seconds, time, logs FROM measurements WHERE fit = ? AND epoch <= ? "
        "ORDER BY epoch",
        (fit, until),
    ).fetchall():
        key, epoch, step, rate, batch, steps, seconds, time, logs = row
        records = []
        for (
            weight,
            rows,
            columns,
            blob,
            resolution,
            reason,
            values,
        ) in connection.execute(
            "SELECT weight, row_count, column_count, singular_values, "
            "resolution, reason, measures FROM spectra "
            "WHERE measurement = ? ORDER BY rowid",
            (key,),
        ):
            spectrum = Spectrum(
                np.frombuffer(blob, "<f8").astype(np.float64),
                (rows, columns),
                resolution,
                reason,
            )
            values = (
                from_json(values)
                if as_recorded
                else measure_all(measures, spectrum)
            )
            records.append(Record(weight, spectrum, values))
        yield Measurement(
            epoch=epoch,
            step=step,
            records=tuple(records),
            logs=from_json(logs),
            learning_rate=rate,
            batch_size=batch,
            steps_per_epoch=steps,
            seconds=seconds,
            time=time,
        )


def _insert(connection, statement: str, values: tuple) -> int:
    return connection.execute(statement, values).lastrowid


def _spectrum_row(measurement: int, record: Record) -> tuple:
    spectrum = record.spectrum
    return (
        measurement,
        record.weight,
        *spectrum.shape,
        np.asarray(spectrum.values, "<f8").tobytes(),
        float(frobenius_norm(spectrum)) if spectrum.finite else None,
        spectrum.resolution,
        spectrum.reason,
        to_json(record.values),
    )


def _check_format(connection, path) -> None:
    """Raise `ValueError` unless this library can read the file."""
    application = connection.execute("PRAGMA application_id").fetchone()[0]
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    if application != APPLICATION_ID:
        raise ValueError(
            f"'{path}' is an SQLite file, but not one that keras_lowrank "
            "wrote. Choose another `run_dir`; the file was left as it is."
        )
    if version > FORMAT:
        raise ValueError(
            f"'{path}' has the store format {version}; this version of "
            f"keras_lowrank reads formats up to {FORMAT}. Upgrade "
            "keras_lowrank, or choose another `run_dir`."
        )


@contextlib.contextmanager
def _explained(path):
    """Say of an SQLite error which file it is about and what can be done."""
    try:
        yield
    except sqlite3.OperationalError as error:
        raise OSError(
            f"Cannot use the store '{path}': {error}. Check that its directory "
            "is writable and its disk not full, or choose another `run_dir`."
        ) from error
    except sqlite3.DatabaseError as error:
        raise ValueError(
            f"'{path}' is damaged or not a store of keras_lowrank: {error}. "
            "Move it away or choose another `run_dir`; the file was left as "
            "it is."
        ) from error
