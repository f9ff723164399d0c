"""The report of a comparison: text, Markdown, HTML, JSON and a figure."""

import base64
import html
import pathlib
from typing import TYPE_CHECKING

from keras_lowrank.experiments.compare.tables import divergences_table
from keras_lowrank.experiments.compare.tables import epochs_table
from keras_lowrank.experiments.compare.tables import panels
from keras_lowrank.experiments.compare.tables import sides_table
from keras_lowrank.experiments.compare.tables import spectra_table
from keras_lowrank.experiments.compare.tables import steps_table
from keras_lowrank.experiments.runs import write_whole
from keras_lowrank.plots import draw_panels
from keras_lowrank.tables import Table
from keras_lowrank.tables import html_page
from keras_lowrank.thinning import some

if TYPE_CHECKING:
    from keras_lowrank.experiments.compare.comparison import Comparison

MOST_ROWS = 16  # that a terminal shows of a table


def tables(comparison: "Comparison") -> list[Table]:
    """Every table of the report, in its order."""
    found = [sides_table(comparison)]
    if comparison.divergences:
        found.append(divergences_table(comparison))
    return [
        *found,
        steps_table(comparison),
        epochs_table(comparison),
        spectra_table(comparison),
    ]


def title(comparison: "Comparison") -> str:
    """What was compared, in a line."""
    spec = comparison.spec
    return f"{spec.network.name} on {spec.data.name}: " + ", ".join(
        comparison.runs
    )


def to_text(comparison: "Comparison", line_length: int | None = None) -> str:
    """The report as plain text: what a terminal has room for."""
    parts = [title(comparison), "\n".join(comparison.verdict())]
    for table in tables(comparison)[:-1]:
        short = Table(
            table.title,
            [item for item in table.columns if _is_short(item.key)],
            some(table.rows, MOST_ROWS),
            table.notes,
        )
        parts.append(short.render(line_length))
    parts += [f"{side} said:\n{text}" for side, text in _failures(comparison)]
    return "\n\n".join(parts)


def to_markdown(comparison: "Comparison", figure: str = "") -> str:
    """The report as Markdown.

    Args:
        comparison: `Comparison`.
        figure: String, the path of the figure, relative to the report.
    """
    lines = [f"# {title(comparison)}", ""]
    if comparison.command:
        lines += ["Made by", "", "```", comparison.command, "```", ""]
    lines += [f"- {sentence}" for sentence in comparison.verdict()]
    if figure:
        lines += ["", f"![What differs, and by how much]({figure})"]
    lines += ["", *(table.to_markdown() for table in tables(comparison))]
    for side, text in _failures(comparison):
        lines += [f"**{side} said**", "", "```", text, "```", ""]
    lines += ["**Spec**", "", "```toml", comparison.spec.to_toml().strip()]
    return "\n".join([*lines, "```", ""])


def to_html(comparison: "Comparison", figure: bytes | None = None) -> str:
    """The report as one HTML page that needs no other file.

    Args:
        comparison: `Comparison`.
        figure: The figure as PNG, or `None`.
    """
    head = html.escape(title(comparison))
    parts = [f"<h1>{head}</h1>"]
    if comparison.command:
        parts.append(f"<pre>{html.escape(comparison.command)}</pre>")
    sentences = "".join(
        f"<li>{html.escape(item)}</li>" for item in comparison.verdict()
    )
    parts.append(f"<ul>{sentences}</ul>")
    if figure is not None:
        data = base64.b64encode(figure).decode()
        parts.append(
            f'<img alt="What differs, and by how much" '
            f'src="data:image/png;base64,{data}">'
        )
    parts += [table._repr_html_() for table in tables(comparison)]
    for side, text in _failures(comparison):
        parts.append(f"<p>{html.escape(side)} said</p>")
        parts.append(f"<pre>{html.escape(text)}</pre>")
    spec = html.escape(comparison.spec.to_toml().strip())
    parts.append(f"<p>Spec</p><pre>{spec}</pre>")
    return html_page(title(comparison), parts)


def save(comparison: "Comparison", out_dir) -> dict[str, pathlib.Path]:
    """Write every form of the report into a directory.

    Returns:
        Dict from the names of the files to their paths.
    """
    out_dir = pathlib.Path(out_dir)
    out_dir.mkdir(parents=True, exist_ok=True)
    written = {}
    picture = None
    try:
        figure = draw_panels(panels(comparison))
    except ImportError:
        # Said by the absence of the file, and by `draw_panels` itself.
        pass
    else:
        written["figure"] = out_dir / "figure.png"
        figure.savefig(written["figure"], dpi=90)
        picture = written["figure"].read_bytes()
    name = written["figure"].name if "figure" in written else ""
    for form, text in (
        ("md", to_markdown(comparison, name)),
        ("html", to_html(comparison, picture)),
        ("json", comparison.to_json()),
    ):
        written[form] = out_dir / f"report.{form}"
        write_whole(written[form], text)
    return written


def _is_short(key: str) -> bool:
    """Whether a terminal has room for a column."""
    return not key.startswith(("spectra ", "train_loss "))


def _failures(comparison: "Comparison"):
    return comparison.failed.items()
