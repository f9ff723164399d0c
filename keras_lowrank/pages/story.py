"""`run_page`: the story of a run or of several, as one page of HTML."""

import base64
import datetime
import html
import io
from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

from keras_lowrank.experiments.found import FoundRun
from keras_lowrank.pages.findings import findings
from keras_lowrank.pages.gallery import Picture
from keras_lowrank.pages.gallery import gallery
from keras_lowrank.pages.viewer import viewer
from keras_lowrank.tables import Column
from keras_lowrank.tables import Table
from keras_lowrank.tables import html_page
from keras_lowrank.tables import number
from keras_lowrank.version import __version__

_STYLE = """
h2 { margin-top: 2em; border-bottom: 2px solid #0072B2; }
figure { margin: 1.5em 0; } figcaption { color: #555; max-width: 60em; }
nav a { margin-right: 1em; } .warning { border-left: 4px solid #D55E00;
  padding-left: .8em; } .fine { border-left: 4px solid #009E73;
  padding-left: .8em; } #canvas { width: 100%; max-width: 60em; }
#epoch { width: 18em; vertical-align: middle; } .wide { overflow-x: auto; }
@media print { body { margin: 0; max-width: none; font-size: 11px; }
  nav, .controls { display: none; } h2 { break-after: avoid; }
  figure, tr, #viewer { break-inside: avoid; }
  .wide { overflow: visible; } table { font-size: 9px; }
  th, td { padding: .1em .4em; } }
"""
# Some words of logs that everybody looks for first.
_KNOWN_LOGS = ("val_accuracy", "accuracy", "val_loss", "loss")


def run_page(
    runs: Sequence[FoundRun],
    command: str = "",
    measures=None,
    weights: str | None = None,
) -> str:
    """Everything recorded of some runs, as a page that needs no other file.

    Args:
        runs: Sequence of `FoundRun`, as from `found_runs`.
        command: String, what to say made the page.
        measures: What figures show, as for `gallery`.
        weights: Regular expression for the weight matrices of the figures, as
            for `gallery`.

    Returns:
        String of HTML.

    Raises:
        ImportError: when Matplotlib is not installed.
        ValueError: when `weights` selects nothing.
    """
    title = ", ".join(run.name for run in runs[:3])
    if len(runs) > 3:
        title += f" and {len(runs) - 3} more"
    title = f"Ranks of {title}"
    sections = {
        "In short": _outcomes(runs),
        "What to mind": warning_parts(runs),
        "Spectra, epoch by epoch": viewer(runs),
        "Figures": [
            figure_part(picture)
            for picture in gallery(runs, None, measures, weights)
        ],
        "Tables": [_scrolled(_table_of(run)) for run in runs],
        "Settings": [_scrolled(_settings(runs))],
    }
    parts = [f"<h1>{html.escape(title)}</h1>"]
    links = "".join(
        f'<a href="#{_anchor(name)}">{name}</a>' for name in sections
    )
    parts.append(f"<nav>{links}</nav>")
    for name, content in sections.items():
        parts += [f'<h2 id="{_anchor(name)}">{name}</h2>', *content]
    made = f"keras_lowrank {__version__}, {datetime.date.today().isoformat()}"
    if command:
        made += f", by <code>{html.escape(command)}</code>"
    parts.append(f"<p>{made}</p>")
    return html_page(title, parts, _STYLE)


def _anchor(name: str) -> str:
    # Apart from the ids that the viewer and the figures have.
    return f"section-{name.split(',')[0].lower().replace(' ', '-')}"


def _outcomes(runs: Sequence[FoundRun]) -> list[str]:
    """One row per run: where it began and where it came to."""
    measures = runs[0].recording.measures
    rows = []
    for run in runs:
        measured = run.recording.measurements
        first, last = measured[0], measured[-1]
        row: dict[str, Any] = {"run": run.name, "epochs": last.epoch}
        for measure in run.recording.measures:
            name = measure.name
            row[f"{name} first"] = first.mean(name)
            row[f"{name} last"] = last.mean(name)
        row |= {key: last.logs[key] for key in _KNOWN_LOGS if key in last.logs}
        rows.append(row)
    columns = [Column("run", "Run"), Column("epochs", "Epochs")]
    for measure in measures:
        words = measure.name.replace("_", " ")
        columns += [
            Column(f"{measure.name} first", f"{words},\nfirst", number(4)),
            Column(f"{measure.name} last", f"{words},\nlast", number(4)),
        ]
    columns += [
        Column(key, key.replace("_", " "), number(4))
        for key in _KNOWN_LOGS
        if any(key in row for row in rows)
    ]
    notes = [
        f"{one.name}: {one.definition}, mean over the weight matrices"
        for one in measures
    ]
    return [
        _scrolled(Table("First and last measurement", columns, rows, notes))
    ]


def warning_parts(runs: Sequence[FoundRun]) -> list[str]:
    """What to mind of each run, as paragraphs."""
    found = [(run.name, text) for run in runs for text in findings(run)]
    if not found:
        return ['<p class="fine">Nothing is amiss with these runs.</p>']
    return [
        f'<p class="warning"><b>{name}</b>: {text}</p>'
        for name, text in (map(html.escape, pair) for pair in found)
    ]


def _table_of(run: FoundRun) -> Table:
    table = run.recording.table()
    table.title = f"{run.name}: {table.title[:1].lower()}{table.title[1:]}"
    return table


def _settings(runs: Sequence[FoundRun]) -> Table:
    """What the runs were told, and where they differ first."""
    by_run = {run.name: dict(_flat(_told(run))) for run in runs}
    keys = dict.fromkeys(key for told in by_run.values() for key in told)
    rows = [
        {"setting": key}
        | {name: told.get(key) for name, told in by_run.items()}
        for key in keys
    ]
    # A stable sort: those that differ, then the others, in their order.
    rows.sort(key=lambda row: len({str(row[name]) for name in by_run}) == 1)
    columns = [
        Column("setting", "Setting"),
        *(Column(name, name, justify="left") for name in by_run),
    ]
    return Table("What differs, then what does not", columns, rows)


def _told(run: FoundRun) -> Mapping[str, Any]:
    info = {
        key: value
        for key, value in run.recording.info.items()
        if key != "weight_decay"
    }
    spec = {} if run.spec is None else run.spec.to_dict()
    return {**spec, **info, "records": str(run.run_dir)}


def _flat(told: Mapping[str, Any], prefix: str = "") -> Iterable:
    for key, value in told.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        elif value is not None:
            yield f"{prefix}{key}", value


def figure_part(picture: Picture) -> str:
    """A figure as an image in the page, sharp at any size."""
    figure = picture.draw()
    from matplotlib import rc_context  # it is there, or that has said so

    file = io.BytesIO()
    # The same runs give the same page.
    with rc_context({"svg.hashsalt": picture.kind}):
        figure.savefig(file, format="svg", metadata={"Date": None})
    data = base64.b64encode(file.getvalue()).decode()
    title, says = html.escape(picture.title), html.escape(picture.says)
    return (
        f'<figure id="{picture.kind}"><img alt="{title}" '
        f'src="data:image/svg+xml;base64,{data}">'
        f"<figcaption>{says}</figcaption></figure>"
    )


def _scrolled(table: Table) -> str:
    """A table that a narrow window scrolls, rather than the whole page."""
    return f'<div class="wide">{table._repr_html_()}</div>'
