"""Tables like `model.summary()`: printed, framed, as JSON, HTML, Markdown."""

import csv
import dataclasses
import html
import io
import json
import math
from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any
from typing import Literal

import rich.box
import rich.console
import rich.table
from rich.cells import cell_len

_LEAST_WORDS = 20  # characters of a column of words that still read well


class KerasLowrankWarning(UserWarning):
    """Category of every warning that `keras_lowrank` raises."""


@dataclasses.dataclass(frozen=True)
class Column:
    """One column of a `Table`.

    Args:
        key: String, the entry of a row that the column shows.
        heading: String printed at the top; defaults to `key`.
        format: Function from a value to the text of its cell.
        justify: String, `"right"` as numbers are or `"left"` as words; the
            first column of a table is always left.
    """

    key: str
    heading: str = ""
    format: Callable[[Any], str] = str
    justify: Literal["left", "right"] = "right"

    def text(self, row: dict[str, Any]) -> str:
        """The cell of `row` in this column, empty where nothing is known."""
        value = row.get(self.key)
        return "" if value is None else self.format(value)


def number(digits: int = 4) -> Callable[[float], str]:
    """Format with `digits` significant digits; integers print as such."""

    def text(value):
        value = float(value)
        if math.isfinite(value) and value == int(value) and abs(value) < 1e6:
            return str(int(value))
        return f"{value:.{digits}g}"

    return text


def _word_by_word(heading: str) -> str:
    """A heading with a line for each word, where a column is short of room."""
    return "\n".join(heading.split())


def shape_text(shape: tuple[int, ...]) -> str:
    """A shape as `3 x 3 x 16`, or `scalar`."""
    return " x ".join(str(size) for size in shape) or "scalar"


class Table:
    """Rows with headings and notes, in every form a user may want.

    Args:
        title: String printed above the table.
        columns: Sequence of `Column`; a row may hold more entries than are
            printed, and these are kept in frames and JSON.
        rows: Sequence of dicts.
        notes: Sequence of strings printed below the table.
    """

    def __init__(
        self,
        title: str,
        columns: Iterable[Column],
        rows: Iterable[dict[str, Any]],
        notes: Iterable[str] = (),
    ):
        self.title = title
        self.columns = tuple(columns)
        self.rows = list(rows)
        self.notes = list(notes)

    def renderable(self) -> rich.table.Table:
        """The table as a `rich` object, for live displays."""
        return self._drawn(self.title, self.columns)

    def _drawn(
        self, title: str | None, columns: Sequence[Column]
    ) -> rich.table.Table:
        table = rich.table.Table(
            title=title,
            title_justify="left",
            title_style="bold",
            box=rich.box.HORIZONTALS,
            pad_edge=False,
            padding=(0, 1, 0, 0),
        )
        for index, column in enumerate(columns):
            table.add_column(
                column.heading or column.key,
                justify="left" if index == 0 else column.justify,
                overflow="fold",
            )
        for row in self.rows:
            table.add_row(*(column.text(row) for column in columns))
        return table

    def render(self, line_length: int | None = None) -> str:
        """The table as plain text, at most `line_length` characters wide.

        Columns that do not fit go on below, beside the first one again.
        """
        buffer = io.StringIO()
        width = line_length or rich.console.Console().width
        console = rich.console.Console(
            file=buffer,
            width=width,
            color_system=None,
            highlight=False,
            markup=False,
        )
        # A table without columns would drop its title too.
        title: str | None = self.title
        if not self.columns:
            console.print(title)
        for block in self._blocks(width):
            console.print(self._drawn(title, block))
            title = None
        for note in self.notes:
            console.print(note)
        lines = buffer.getvalue().splitlines()
        return "\n".join(line.rstrip() for line in lines)

    def _blocks(self, width: int) -> list[tuple[Column, ...]]:
        """Columns that fit beside one another, with the first in each block."""
        widths = [self._width(column) for column in self.columns]
        if len(widths) < 3 or sum(widths) + 2 * len(widths) <= width:
            return [self.columns] if self.columns else []
        narrow = [
            dataclasses.replace(
                column, heading=_word_by_word(column.heading or column.key)
            )
            for column in self.columns
        ]
        first, *rest = narrow
        room = width - 2 - min(self._width(first), width // 2)
        blocks, left = [[first]], room
        for column in rest:
            needed = 2 + self._width(column)
            if needed > left and len(blocks[-1]) > 1:
                blocks.append([first])
                left = room
            blocks[-1].append(column)
            left -= needed
        return [tuple(block) for block in blocks]

    def _width(self, column: Column) -> int:
        """Characters that a column needs; words may go on in a next line."""
        heading = (column.heading or column.key).split("\n")
        cells = [
            line for row in self.rows for line in column.text(row).split("\n")
        ]
        most = max(map(cell_len, cells), default=0)
        if column.justify == "left" and column is not self.columns[0]:
            most = min(most, _LEAST_WORDS)
        return max(most, *map(cell_len, heading))

    def print(
        self,
        line_length: int | None = None,
        print_fn: Callable[[str], Any] | None = None,
    ) -> None:
        """Print the table, as `model.summary()` does.

        Args:
            line_length: Int, the width to print at; the terminal's by default.
            print_fn: Function called with the whole text, `print` by default.
        """
        (print_fn or print)(self.render(line_length))

    def to_dict(self) -> dict[str, Any]:
        """Title, rows and notes as plain Python values."""
        rows = [
            {key: plain(value) for key, value in row.items()}
            for row in self.rows
        ]
        return {"title": self.title, "rows": rows, "notes": self.notes}

    def to_json(self, indent: int | None = 2) -> str:
        """`to_dict()` as JSON; NaN becomes `null`."""
        return json.dumps(self.to_dict(), indent=indent, allow_nan=False)

    def to_markdown(self) -> str:
        """The table as GitHub's Markdown, notes and title included."""
        aligned = [
            "---:" if index and column.justify == "right" else "---"
            for index, column in enumerate(self.columns)
        ]
        lines = [
            [column.heading or column.key for column in self.columns],
            aligned,
            *(
                [column.text(row) for column in self.columns]
                for row in self.rows
            ),
        ]
        text = [f"**{_markdown(self.title)}**", ""]
        if self.columns:
            text += [
                f"| {' | '.join(_markdown(cell) for cell in cells)} |"
                for cells in lines
            ]
            text.append("")
        for note in self.notes:
            text += [_markdown(note), ""]
        return "\n".join(text)

    def to_csv(self) -> str:
        """The rows as CSV: every entry, as `to_dict` has it, and no notes."""
        rows = self.to_dict()["rows"]
        keys = list({key: None for row in rows for key in row})
        buffer = io.StringIO()
        writer = csv.DictWriter(buffer, keys, lineterminator="\n")
        writer.writeheader()
        for row in rows:
            writer.writerow(
                {
                    key: " x ".join(map(str, value))
                    if isinstance(value, list)
                    else value
                    for key, value in row.items()
                }
            )
        return buffer.getvalue()

    def to_html(self) -> str:
        """The table as a page by itself."""
        return html_page(self.title, [self._repr_html_()])

    def to_frame(self):
        """The rows as a `pandas.DataFrame`. Needs pandas."""
        return frame(self.rows)

    def __str__(self):
        return self.render()

    def __repr__(self):
        return f"<{type(self).__name__}: {self.title}, {len(self.rows)} rows>"

    def _repr_html_(self):
        """What a notebook shows."""
        heads = "".join(
            f"<th>{html.escape(column.heading or column.key)}</th>"
            for column in self.columns
        )
        body = "".join(
            "<tr>"
            + "".join(
                f"<td>{html.escape(column.text(row))}</td>"
                for column in self.columns
            )
            + "</tr>"
            for row in self.rows
        )
        notes = "".join(f"<p>{html.escape(note)}</p>" for note in self.notes)
        return (
            f"<table><caption>{html.escape(self.title)}</caption>"
            f"<thead><tr>{heads}</tr></thead><tbody>{body}</tbody></table>"
            f"{notes}"
        )


# Of every page that the library writes; no page needs another file.
_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2em auto; max-width: 75em;
  padding: 0 1em; color: #222; background: #fff; }
table { border-collapse: collapse; margin: 1.5em 0 .5em; font-size: 13px; }
caption { text-align: left; font-weight: 600; font-size: 16px;
  white-space: nowrap; }
th, td { padding: .15em .7em; text-align: right; white-space: pre-line;
  border-bottom: 1px solid #ddd; }
th:first-child, td:first-child { text-align: left; }
p { max-width: 60em; } img { max-width: 100%; } pre { overflow-x: auto; }
"""


def html_page(title: str, parts: Iterable[str], style: str = "") -> str:
    """A page of HTML that stands by itself.

    Args:
        title: String, plain text.
        parts: Iterable of strings of HTML, the body.
        style: String, CSS after that of all pages.
    """
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width">'
        f"<title>{html.escape(title)}</title>"
        f"<style>{_STYLE}{style}</style></head>\n<body>\n"
        + "\n".join(parts)
        + "\n</body></html>\n"
    )


def _markdown(text: str) -> str:
    """Text on one line, where nothing is taken for markup of a table."""
    text = " ".join(text.split())
    for mark in "\\|*_`<":
        text = text.replace(mark, f"\\{mark}")
    return text


def frame(rows: Iterable[dict[str, Any]]):
    """A `pandas.DataFrame` of `rows`, or an error that says what to install."""
    try:
        import pandas
    except ImportError as error:
        raise ImportError(
            "`to_frame` needs pandas. Install it with "
            '`pip install "keras-lowrank[plots]"`, or use `to_dict()` or '
            "`rows`, which do not need it."
        ) from error
    return pandas.DataFrame(list(rows))


def plain(value):
    """A value as JSON knows it.

    NaN becomes `null` and infinity `"Infinity"`, which JSON has no numbers
    for; arrays become lists, and what is none of these becomes its text.
    """
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, (bool, int, str)) or value is None:
        return value
    if hasattr(value, "tolist"):
        return plain(value.tolist())
    if isinstance(value, float):
        if math.isnan(value):
            return None
        if math.isinf(value):
            return "Infinity" if value > 0 else "-Infinity"
        return value
    return str(value)
