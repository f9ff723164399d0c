"""What Lemma 3.2 certified of a run: one file of lines of JSON per run.

A line is appended at each epoch and never changed. Each call of `fit` begins
with a line of its own; one that resumes goes on with what was certified up to
its first epoch, as the store does with measurements.
"""

import dataclasses
import json
import math
import os
import pathlib
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Mapping
from typing import Any

from keras_lowrank.records.plain import to_json
from keras_lowrank.version import __version__

FILE_NAME = "theory.jsonl"
FORMAT = 1


@dataclasses.dataclass(frozen=True, eq=False)
class Certificates:
    """Ranks that `TheoryTracker` certified in a run, epoch by epoch.

    Args:
        tolerance: Float, distance over the norm that all ranks are meant at.
        shapes: Dict from the names of weight matrices to their shapes.
        uses: Dict from the same names to how often a sample uses them, `None`
            where that is not known.
        rows: List of dicts, one per epoch and weight matrix, with `epoch`,
            `weight`, `certified`, `full` (`min(m, n)`), `steps`, `remainder`,
            `vacuous` and `verdict`.
        final: List of dicts with the rows of `TheoryTracker.table()`, measured
            ranks among them; empty before a `fit` has ended.
    """

    tolerance: float
    shapes: dict[str, tuple[int, int]]
    uses: dict[str, int | None]
    rows: list[dict[str, Any]]
    final: list[dict[str, Any]]

    @property
    def epochs(self) -> list[int]:
        """Epochs with rows, counted as those complete."""
        return list(dict.fromkeys(row["epoch"] for row in self.rows))

    @property
    def weights(self) -> list[str]:
        """Names of the weight matrices, in the order of the model."""
        named = [row["weight"] for row in self.rows]
        return list(dict.fromkeys([*self.shapes, *named]))


class CertificateLog:
    """Appends what is certified in one `fit` to the file of its run.

    A process killed at any moment loses at most the line it was writing. What
    could not be written, to a full disk for one, is tried again with the next
    line.

    Args:
        run_dir: Path of the directory of the run, made if there is none.

    Raises:
        OSError: when the directory cannot be made.
    """

    def __init__(self, run_dir):
        directory = pathlib.Path(run_dir)
        directory.mkdir(parents=True, exist_ok=True)
        self.path = directory / FILE_NAME
        self._unwritten: list[str] = []

    def start(
        self,
        tolerance: float,
        shapes: Mapping[str, tuple[int, int]],
        uses: Mapping[str, int | None],
        first_epoch: int = 0,
    ) -> None:
        """Begin a `fit`.

        Args:
            tolerance: As for `Certificates`.
            shapes: As for `Certificates`.
            uses: As for `Certificates`.
            first_epoch: Int, epochs complete when it starts. More than 0
                continues what was certified up to there.
        """
        self._append(
            {
                "fit": {
                    "format": FORMAT,
                    "version": __version__,
                    "first_epoch": first_epoch,
                    "tolerance": tolerance,
                    "shapes": shapes,
                    "uses": uses,
                }
            }
        )

    def write(self, epoch: int, rows: Iterable[Mapping[str, Any]]) -> None:
        """Append the rows of one epoch."""
        self._append({"epoch": epoch, "rows": list(rows)})

    def finish(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Append what was measured at the end of the `fit`."""
        self._append({"final": list(rows)})

    def _append(self, line: Mapping[str, Any]) -> None:
        self._unwritten.append(to_json(line))
        with open(self.path, "ab+") as file:
            if file.seek(0, os.SEEK_END):
                file.seek(-1, os.SEEK_END)
                if file.read(1) != b"\n":  # left by a process that was killed
                    file.write(b"\n")
            file.write(("\n".join(self._unwritten) + "\n").encode())
        self._unwritten.clear()


def read_certificates(run_dir) -> Certificates | None:
    """Read what was certified in the last `fit` of a run.

    Also while it trains, and after it was killed.

    Args:
        run_dir: Path, the `run_dir` of `TheoryTracker`.

    Returns:
        `Certificates`, or `None` where no `TheoryTracker` wrote there.

    Raises:
        ValueError: when the file is damaged or has a newer format.

    Example:

    >>> import tempfile
    >>> from keras_lowrank.records import CertificateLog, read_certificates
    >>> with tempfile.TemporaryDirectory() as run_dir:
    ...     log = CertificateLog(run_dir)
    ...     log.start(0.1, shapes={"dense/kernel": (8, 4)}, uses={})
    ...     log.write(1, [{"weight": "dense/kernel", "certified": 2}])
    ...     certificates = read_certificates(run_dir)
    >>> certificates.tolerance, certificates.epochs
    (0.1, [1])
    >>> certificates.rows
    [{'epoch': 1, 'weight': 'dense/kernel', 'certified': 2}]
    """
    path = pathlib.Path(run_dir) / FILE_NAME
    if not path.is_file():
        return None
    header: dict[str, Any] = {}
    # By epoch, since lines that were tried again may be there twice.
    rows: dict[int, list[dict[str, Any]]] = {}
    final: list[dict[str, Any]] = []
    for line in _lines(path):
        if "fit" in line:
            rows = _continued(rows, header, line["fit"])
            header, final = line["fit"], []
        elif "final" in line:
            final = line["final"]
        else:
            rows[line["epoch"]] = line["rows"]
    if not header:
        return None
    return Certificates(
        header["tolerance"],
        {name: tuple(shape) for name, shape in header["shapes"].items()},
        header["uses"],
        [
            {"epoch": epoch, **_row(row)}
            for epoch in sorted(rows)
            for row in rows[epoch]
        ],
        [_row(row) for row in final],
    )


def _lines(path: pathlib.Path) -> Iterator[dict[str, Any]]:
    """The lines of a file but those that a killed process left unfinished."""
    for number, text in enumerate(path.read_bytes().split(b"\n"), 1):
        if not text:
            continue
        try:
            line = json.loads(text)
        except ValueError:
            line = {}
            if text.startswith(b"{"):
                continue
        kinds = {"fit", "rows", "final"}
        if not isinstance(line, dict) or not kinds & set(line):
            raise ValueError(
                f"'{path}' is damaged or not a file of TheoryTracker. Received "
                f"in line {number}: {text[:40]!r}. Move it away or choose "
                "another `run_dir`."
            )
        version = line.get("fit", {}).get("format", FORMAT)
        if version > FORMAT:
            raise ValueError(
                f"'{path}' has the format {version}; this version of "
                f"keras_lowrank reads formats up to {FORMAT}. Upgrade "
                "keras_lowrank, or choose another `run_dir`."
            )
        yield line


def _continued(
    rows: dict[int, list], before: Mapping[str, Any], now: Mapping[str, Any]
) -> dict[int, list]:
    """What a `fit` goes on with, of what was certified at its tolerance."""
    if before.get("tolerance") != now["tolerance"]:
        return {}
    first = now["first_epoch"]
    return {epoch: item for epoch, item in rows.items() if epoch <= first}


def _row(row: dict[str, Any]) -> dict[str, Any]:
    """A row as it was, but for what JSON has no word for."""
    row = dict(row)
    for key in ("remainder", "measured"):
        if key in row and row[key] is None:
            row[key] = math.nan
    if "shape" in row:
        row["shape"] = tuple(row["shape"])
    return row
