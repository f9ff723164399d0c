"""Tables of figures, and targets with their verdicts, as files.

Each table is a Markdown file and a CSV file in `results/`. Targets of all
benchmarks share one table, in which a new figure takes the place of the old
one of the same name, so that one file can be run by itself.
"""

import csv
import dataclasses
import datetime
import math
import pathlib
from collections.abc import Iterable

from benchmarks import machine
from keras_lowrank.tables import Column
from keras_lowrank.tables import Table

DIRECTORY = pathlib.Path(__file__).parent / "results"
TARGETS = "targets"


@dataclasses.dataclass(frozen=True)
class Target:
    """What was promised, and what came.

    Args:
        name: String, what is measured; names are unique.
        figure: Float, what came.
        at_least: Float, or
        at_most: Float, what was promised; neither, where nothing was.
        unit: String, behind the numbers.
        limit: String, what stops it where it was missed.
    """

    name: str
    figure: float
    at_least: float | None = None
    at_most: float | None = None
    unit: str = ""
    limit: str = ""

    @property
    def promise(self) -> str:
        """The target in words."""
        if self.at_least is not None:
            return f">= {self.at_least:g}{self.unit}"
        if self.at_most is not None:
            return f"<= {self.at_most:g}{self.unit}"
        return "none"

    @property
    def verdict(self) -> str:
        """`"met"`, `"missed"`, or `"no figure"` where it is not a number."""
        if math.isnan(self.figure):
            return "no figure"
        if self.at_least is not None:
            return "met" if self.figure >= self.at_least else "missed"
        if self.at_most is not None:
            return "met" if self.figure <= self.at_most else "missed"
        return "told"

    def row(self) -> dict[str, str]:
        """The cells of the table of targets."""
        return {
            "name": self.name,
            "target": self.promise,
            "figure": f"{self.figure:.3g}{self.unit}",
            "verdict": self.verdict,
            "limit": self.limit if self.verdict == "missed" else "",
            "date": datetime.date.today().isoformat(),
        }


def write_table(table: Table, name: str, directory=DIRECTORY) -> None:
    """A table as `name.md` and `name.csv`, with machine and versions."""
    directory.mkdir(parents=True, exist_ok=True)
    table.notes += machine.description()
    (directory / f"{name}.md").write_text(table.to_markdown())
    headings = [column.heading or column.key for column in table.columns]
    with open(directory / f"{name}.csv", "w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(headings)
        for row in table.rows:
            writer.writerow(column.text(row) for column in table.columns)


def write_targets(targets: Iterable[Target], directory=DIRECTORY) -> Table:
    """Bring the table of targets up to date, and return it."""
    rows = {}
    path = directory / f"{TARGETS}.csv"
    keys = ("name", "target", "figure", "verdict", "limit", "date")
    if path.exists():
        with open(path, newline="") as file:
            for row in csv.DictReader(file):
                rows[row["name"]] = {key: row[key] for key in keys}
    rows |= {target.name: target.row() for target in targets}
    table = Table(
        "Targets",
        [Column(key, justify="left") for key in keys],
        rows.values(),
    )
    write_table(table, TARGETS, directory)
    return table
