"""One SQLite file per run: crash-safe, readable while it is written.

Nothing is ever deleted. Each call of `fit` is a row of `fits`; one that
resumes names the fit it continues and the epoch it starts from, and reading
follows that chain, so an epoch trained twice shows once, the later time.
"""

import contextlib
import pathlib
import sqlite3
from collections.abc import Iterable
from collections.abc import Mapping
from typing import Any

import numpy as np

from keras_lowrank.measures import Measure
from keras_lowrank.measures import frobenius_norm
from keras_lowrank.records.file import APPLICATION_ID
from keras_lowrank.records.file import FEATURES
from keras_lowrank.records.file import FILE_NAME
from keras_lowrank.records.file import FORMAT
from keras_lowrank.records.file import check_format
from keras_lowrank.records.file import explained
from keras_lowrank.records.plain import measures_to_json
from keras_lowrank.records.plain import to_json
from keras_lowrank.records.reading import read_chain
from keras_lowrank.records.record import Measurement
from keras_lowrank.records.record import Record
from keras_lowrank.records.recording import Recording

_SPECTRA = """(
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
)"""

_SCHEMA = f"""
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
CREATE TABLE spectra {_SPECTRA};
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
        with explained(self.path):
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
            check_format(connection, self.path)
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
        with explained(self.path), self._connection as connection:
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
            earlier = list(read_chain(connection, fit, measures))
        self._fit = fit
        return Recording(measures, info, earlier)

    def write(self, measurement: Measurement) -> None:
        """Append one measurement, whole or not at all."""
        with explained(self.path), self._connection as connection:
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
            _insert_spectra(connection, "spectra", key, measurement.records)
            if measurement.features:
                # A table of their own, which older versions do not look at.
                connection.execute(
                    f"CREATE TABLE IF NOT EXISTS {FEATURES} {_SPECTRA}"
                )
                _insert_spectra(connection, FEATURES, key, measurement.features)

    def close(self) -> None:
        """Close the file. Closing twice does no harm."""
        # Leaves one plain file, which a read-only directory can hold. Refused
        # while somebody reads; then the side files stay, and do no harm.
        with contextlib.suppress(sqlite3.Error):
            self._connection.execute("PRAGMA busy_timeout = 0")
            self._connection.execute("PRAGMA journal_mode = DELETE")
        self._connection.close()


def _insert(connection, statement: str, values: tuple) -> int:
    return connection.execute(statement, values).lastrowid


def _insert_spectra(
    connection, table: str, measurement: int, records: Iterable[Record]
) -> None:
    connection.executemany(
        f"INSERT INTO {table} VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (_spectrum_row(measurement, record) for record in records),
    )


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
