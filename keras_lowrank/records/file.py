"""The SQLite file of a run: its name, its format, and what can go wrong."""

import contextlib
import sqlite3

FILE_NAME = "records.sqlite"
FORMAT = 1
FEATURES = "features"  # a table that only runs with recorded features have
APPLICATION_ID = 0x4B4C524B  # "KLRK": how `file` and we know our own files


def check_format(connection, path) -> None:
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
def explained(path):
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
