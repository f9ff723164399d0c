"""Reading the file of a run, also while it is written."""

import contextlib
import json
import math
import pathlib
import sqlite3
from collections.abc import Iterator

import numpy as np

from keras_lowrank.measures import Measure
from keras_lowrank.records.file import FEATURES
from keras_lowrank.records.file import FILE_NAME
from keras_lowrank.records.file import check_format
from keras_lowrank.records.file import explained
from keras_lowrank.records.plain import from_json
from keras_lowrank.records.plain import measures_from_json
from keras_lowrank.records.plain import measures_to_json
from keras_lowrank.records.record import Measurement
from keras_lowrank.records.record import Record
from keras_lowrank.records.record import measure_all
from keras_lowrank.records.recording import Recording
from keras_lowrank.spectrum import Spectrum


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
        explained(path),
        contextlib.closing(sqlite3.connect(path, timeout=30)) as connection,
    ):
        check_format(connection, path)
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
        measurements = list(read_chain(connection, chosen, measures))
    return Recording(measures, json.loads(info) | {"fits": count}, measurements)


def read_chain(
    connection, fit: int, measures: tuple[Measure, ...], until: float = math.inf
) -> Iterator[Measurement]:
    """Measurements of a fit and of what it continues, by epoch."""
    parent, first_epoch, recorded = connection.execute(
        "SELECT parent, first_epoch, measures FROM fits WHERE id = ?", (fit,)
    ).fetchone()
    if parent is not None:
        earlier = min(until, first_epoch)
        yield from read_chain(connection, parent, measures, earlier)
    # A fit may have recorded other measures than the one that continues it;
    # from the spectra they can be had all the same.
    recompute = None if recorded == measures_to_json(measures) else measures
    has_features = connection.execute(
        "SELECT count(*) FROM sqlite_master WHERE name = ?", (FEATURES,)
    ).fetchone()[0]
    for row in connection.execute(
        "SELECT id, epoch, step, learning_rate, batch_size, steps_per_epoch, "
        "seconds, time, logs FROM measurements WHERE fit = ? AND epoch <= ? "
        "ORDER BY epoch",
        (fit, until),
    ).fetchall():
        key, epoch, step, rate, batch, steps, seconds, time, logs = row
        yield Measurement(
            epoch=epoch,
            step=step,
            records=tuple(_records(connection, "spectra", key, recompute)),
            logs=from_json(logs),
            learning_rate=rate,
            batch_size=batch,
            steps_per_epoch=steps,
            seconds=seconds,
            time=time,
            features=tuple(
                _records(connection, FEATURES, key, recompute)
                if has_features
                else ()
            ),
        )


def _records(
    connection, table: str, key: int, recompute: tuple[Measure, ...] | None
) -> Iterator[Record]:
    """Records of a measurement, with its measures or with other ones."""
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
        f"resolution, reason, measures FROM {table} "
        "WHERE measurement = ? ORDER BY rowid",
        (key,),
    ):
        spectrum = Spectrum(
            np.frombuffer(blob, "<f8").astype(np.float64),
            (rows, columns),
            resolution,
            reason,
        )
        yield Record(
            weight,
            spectrum,
            from_json(values)
            if recompute is None
            else measure_all(recompute, spectrum),
        )
