"""The tables of a study, and what of the paper it leaves out."""

import csv
import io
from collections.abc import Sequence
from typing import Any

from keras_lowrank.experiments.paper.claims import Verdict
from keras_lowrank.experiments.paper.figure import Figure
from keras_lowrank.experiments.paper.figure import label
from keras_lowrank.experiments.paper.figure import text
from keras_lowrank.experiments.paper.points import Point
from keras_lowrank.experiments.paper.points import Study
from keras_lowrank.tables import Column
from keras_lowrank.tables import Table
from keras_lowrank.tables import plain

_DIGITS = {"train": 3, "test": 3}


def points_table(study: Study) -> Table:
    """Each point beside what the paper reports.

    Args:
        study: `Study`.

    Returns:
        `Table`, with columns for what is known of any point.
    """
    figure = study.figure
    names = ["rank", "train", "test"]
    known = [p.reference for p in study.points]
    known += [o.values for p in study.points for o in p.outcomes]
    names += [
        n for n in dict.fromkeys(k for d in known for k in d) if n not in names
    ]
    rows = [_row(point, names) for point in study.points]
    columns = [
        Column(name, name.replace("_", "\n"), text) for name in figure.fields
    ]
    columns.append(Column("start", "Rank,\nstart", _fixed(1)))
    for name in names:
        title = {"rank": "Rank"}.get(name, name.replace("_", " "))
        digits = _DIGITS.get(name, 1)
        columns.append(Column(name, f"{title},\nours", _fixed(digits)))
        if name == "rank":
            columns.append(Column("interval", "Interval"))
        columns.append(Column(f"{name} paper", "\npaper", _fixed(digits)))
        if name == "rank":
            columns.append(Column("difference", "Differ-\nence", _signed))
    columns.append(Column("state", "State", _without_reason))
    shown = [
        column
        for column in columns
        if any(row.get(column.key) not in (None, "") for row in rows)
    ]
    kinds = dict.fromkeys(
        point.estimate("rank").kind for point in study.points if point.alive
    )
    measure = figure.measure(study.size)
    notes = [
        f"rank = {measure.definition}, mean over the weight matrices, of the "
        "runs that did not collapse",
        *(f"Interval: {kind}" for kind in kinds),
        *(f"{label(p.key)}: {p.state}" for p in study.points if p.state),
    ]
    return Table(f"{figure.name}, {study.size}", shown, rows, notes)


def _row(point: Point, names: Sequence[str]) -> dict[str, Any]:
    found: dict[str, Any] = dict(point.key)
    found["seeds"] = len(point.outcomes)
    found["start"] = point.start()
    found["state"] = point.state or None
    for name in names:
        estimate = point.estimate(name)
        found[name] = estimate.mean if estimate.values else None
        found[f"{name} paper"] = point.reference.get(name)
        interval = estimate.interval
        low, high = interval or (None, None)
        found[f"{name} low"], found[f"{name} high"] = low, high
    low, high = found["rank low"], found["rank high"]
    if low is not None:
        found["interval"] = f"{low:.1f}-{high:.1f}"
    if point.reference and point.collapsed_in_paper:
        found["state"] = "; ".join(
            filter(None, (found["state"], "collapsed in the paper"))
        )
    elif found["rank"] is not None and found["rank paper"] is not None:
        found["difference"] = found["rank"] - found["rank paper"]
    return found


def paper_table(figure: Figure) -> Table:
    """What the paper reports of a figure.

    Args:
        figure: `Figure`.

    Returns:
        `Table`, without rows where no number is known.
    """
    rows = [
        dict(point) | dict(values)
        for point, values in figure.references.items()
    ]
    names = dict.fromkeys(
        name for values in figure.references.values() for name in values
    )
    columns = [
        Column(name, name.replace("_", "\n"), text) for name in figure.fields
    ]
    columns += [
        Column(name, name, _fixed(_DIGITS.get(name, 1))) for name in names
    ]
    notes = ["Rank 0 stands for a network that collapsed."]
    return Table(f"The paper's {figure.name}", columns, rows, notes)


def verdicts_text(verdicts: Sequence[Verdict]) -> str:
    """Each claim, whether it holds, and what says so, in lines."""
    return "\n".join(
        f"- {verdict.outcome.upper()}: {verdict.statement}\n"
        f"    {verdict.evidence}"
        for verdict in verdicts
    )


def left_out(study: Study, missing: Sequence[str] = ()) -> list[str]:
    """What the paper reports and the study does not, in words.

    Args:
        study: `Study`.
        missing: Sequence of strings: further reasons, such as missing data.

    Returns:
        List of strings, empty where nothing is left out.
    """
    figure = study.figure
    ours = {point.key for point in study.points}
    told = list(missing)
    if figure.ours:
        return told
    if not study.numbers:
        told.append(
            "all numbers of the paper: only directions are judged. "
            + (study.trouble or figure.sizes[study.size].note)
        )
    absent = [point for point in figure.references if point not in ours]
    if study.numbers and absent:
        points = "; ".join(label(point) for point in absent)
        told.append(
            f"{len(absent)} of the {len(figure.references)} points that the "
            f"paper reports: {points}"
        )
    every = {figure.key_of(spec) for spec in figure.sizes["full"].specs()}
    unreported = len(every - ours - set(absent))
    if study.numbers and unreported:
        told.append(
            f"{unreported} further points of its grid, of which it reports no "
            "number"
        )
    return told


def to_csv(table: Table) -> str:
    """The rows of a table as CSV, with all they hold."""
    keys = dict.fromkeys(key for row in table.rows for key in row)
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, list(keys), lineterminator="\n")
    writer.writeheader()
    writer.writerows(plain(row) for row in table.rows)
    return buffer.getvalue()


def _without_reason(state: str) -> str:
    """Whether a point collapsed; why stands below the table."""
    return "; ".join(part.split(":")[0] for part in state.split("; "))


def _fixed(digits: int):
    return lambda value: f"{value:.{digits}f}"


def _signed(value: float) -> str:
    return f"{value:+.1f}"
