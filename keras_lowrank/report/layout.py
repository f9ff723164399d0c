"""The text of a report, for a terminal of any width.

Names such as `bidirectional/forward_lstm/lstm_cell/recurrent_kernel` leave
no room for numbers beside them. Where they are too long, each gets a line of
its own with the numbers below, so that neither is ever broken.
"""

import textwrap
from collections.abc import Iterator

from keras_lowrank.tables import number
from keras_lowrank.tables import shape_text

HEADINGS = {
    "effective_rank": "effect. rank",
    "frobenius_norm": "Frob. norm",
    "spectral_norm": "spec. norm",
}

GAP = "  "


def heading(measure) -> str:
    """What stands above the column of a measure."""
    return HEADINGS.get(measure.name, measure.name.replace("_", " "))


def report_lines(report, width: int) -> Iterator[str]:
    """Lines of a `RankReport`, at most `width` characters wide each.

    Args:
        report: `RankReport`.
        width: Int, characters there is room for.

    Yields:
        Strings: title, measured rows, skipped variables by reason, notes.
    """
    yield from _wrapped(report.title, width)
    if report.measured:
        yield from _measured_lines(report.measured, report.measures, width)
    else:
        yield "No matrix to measure."
    for reason, names in report.skipped_by_reason.items():
        yield from _wrapped(f"Skipped, {reason}: {', '.join(names)}", width)
    for note in report.notes:
        yield from _wrapped(note, width)


def _measured_lines(rows, measures, width) -> Iterator[str]:
    columns = [["matrix", *(shape_text(row["matrix_shape"]) for row in rows)]]
    columns += [
        [heading(measure), *(_cell(row[measure.name]) for row in rows)]
        for measure in measures
    ]
    shown = len(columns)
    while shown > 2 and _block_width(columns[:shown]) + 2 > width:
        shown -= 1
    columns, left_out = columns[:shown], measures[shown - 1 :]
    block = _block_width(columns)
    names = max(len(row["name"]) for row in rows)
    beside = names + len(GAP) + block <= width
    rule = "─" * (names + len(GAP) + block if beside else width)
    yield rule
    head, *body = _block(columns)
    for line in head:
        yield line.rjust(len(rule))
    yield rule
    for row, (line,) in zip(rows, body, strict=True):
        if beside:
            yield row["name"].ljust(names) + GAP + line
            if _details(row):
                yield from _wrapped(f"{GAP}{_details(row)}", width)
        else:
            details = f" ({_details(row)})" if _details(row) else ""
            yield from _wrapped(row["name"] + details, width)
            yield line.rjust(width)
    yield rule
    if left_out:
        names_left = ", ".join(measure.name for measure in left_out)
        yield from _wrapped(f"Too wide to show: {names_left}", width)


def _cell(value: float | None) -> str:
    return "" if value is None else number()(value)


def _details(row) -> str:
    """What sets a matrix apart from a plain measured variable."""
    details = []
    if row["shape"] != row["matrix_shape"]:
        details.append(f"of {shape_text(row['shape'])}")
    if row["note"]:
        details.append(row["note"])
    if row.get("dead"):
        details.append(f"dead: {row['dead']}")
    if row["status"] != "measured":
        details.append(f"{row['status']}: {row['reason']}")
    return ", ".join(details)


def _block(columns) -> list[list[str]]:
    """Rows of numbers under their headings, which may take several lines."""
    heads = [column[0].split() for column in columns]
    height = max(map(len, heads))
    lines = [[""] * (height - len(words)) + words for words in heads]
    rows = [[cells] for cells in zip(*(c[1:] for c in columns), strict=True)]
    widths = [_column_width(column) for column in columns]
    return [
        [
            GAP.join(
                text.rjust(size)
                for text, size in zip(cells, widths, strict=True)
            )
            for cells in group
        ]
        for group in ([*zip(*lines, strict=True)], *rows)
    ]


def _column_width(column) -> int:
    return max(map(len, [*column[0].split(), *column[1:]]))


def _block_width(columns) -> int:
    return sum(map(_column_width, columns)) + len(GAP) * (len(columns) - 1)


def _wrapped(text: str, width: int) -> list[str]:
    return textwrap.wrap(
        text, width, subsequent_indent=GAP, break_on_hyphens=False
    )
