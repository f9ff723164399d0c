"""Plot data to Matplotlib figures."""

import dataclasses
import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np

from keras_lowrank.plots.data import Line
from keras_lowrank.plots.data import Panel
from keras_lowrank.plots.draw_heat import draw_heat
from keras_lowrank.plots.draw_map import draw_map
from keras_lowrank.plots.heat import Heat
from keras_lowrank.plots.log_axis import make_logarithmic
from keras_lowrank.plots.maps import Map
from keras_lowrank.thinning import some

# Okabe and Ito's colours, told apart by colour-blind readers too; each has a
# line style of its own, for print in black and white.
_STYLES: tuple[dict[str, Any], ...] = (
    {"color": "#0072B2", "linestyle": "-"},
    {"color": "#D55E00", "linestyle": "--"},
    {"color": "#009E73", "linestyle": "-."},
    {"color": "#CC79A7", "linestyle": ":"},
    {"color": "#E69F00", "linestyle": "-"},
    {"color": "#56B4E9", "linestyle": "--"},
)
_FAINT: tuple[dict[str, Any], ...] = (
    {"color": "0.6", "linestyle": "-", "linewidth": 1.0},
    {"color": "0.4", "linestyle": ":", "linewidth": 1.0},
)
# In the colours of the lines that they belong to. One that lies beyond points
# there, and its base is at the edge.
_MARKS: dict[str, dict[str, Any]] = {
    "measured": {"color": "#0072B2", "marker": "o", "markersize": 5},
    "certified": {"color": "#D55E00", "marker": "D", "markersize": 8},
    "vacuous": {"color": "0.55", "marker": "D", "markersize": 8},
    "closed form": {"color": "#009E73", "marker": "|", "markersize": 12},
    "beyond": {"color": "#009E73", "marker": 9, "markersize": 7},
    "trial": {"color": "0.55", "marker": "o", "markersize": 4},
    "default": {"color": "#D55E00", "marker": "*", "markersize": 12},
}
_HOLLOW = ("certified", "vacuous")
_MOST_NAMED = 8  # of lines in a sequence, whose colours say the rest
_ROW_HEIGHT = 0.26  # inches
_LETTER = 0.065  # inches, of the names of rows


def draw_panels(
    panels: Sequence[Panel | Map | Heat],
    title: str = "",
    columns: int | None = None,
):
    """Draw panels side by side.

    Args:
        panels: Sequence of `Panel`, `Map` and `Heat`.
        title: String above them all.
        columns: Int, panels in a row; all of them by default.

    Returns:
        A `matplotlib.figure.Figure`, to be saved with `savefig`. It belongs
        to no window: `pyplot` and its global state are left alone.

    Raises:
        ImportError: when Matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
        from matplotlib.layout_engine import ConstrainedLayoutEngine
    except ImportError as error:
        raise ImportError(
            "Figures need Matplotlib. Install it with "
            '`pip install "keras-lowrank[plots]"`.'
        ) from error
    columns = min(columns or len(panels), len(panels))
    sizes = [_size(panel) for panel in panels]
    rows = [
        sizes[at : at + columns] for at in range(0, len(sizes), columns or 1)
    ]
    width = max((sum(w for w, _ in row) for row in rows), default=0)
    height = sum(max(h for _, h in row) for row in rows)
    # By default the label of an axis touches the panel at its left.
    layout = ConstrainedLayoutEngine(w_pad=0.1)
    figure = Figure(figsize=(width, height), layout=layout)
    if title:
        figure.suptitle(title)
    places = figure.subplots(len(rows), columns, squeeze=False).flat
    for axes, panel in itertools.zip_longest(places, panels):
        if panel is None:
            axes.remove()  # the last row has fewer
            continue
        if isinstance(panel, Map):
            panel = panel.averaged()
            draw_map(axes, panel)
        elif isinstance(panel, Heat):
            draw_heat(axes, panel)
        else:
            _draw_lines(axes, panel)
        _draw_words(axes, panel)
    return figure


def _size(panel: Panel | Map | Heat) -> tuple[float, float]:
    """Width and height of a panel, in inches."""
    width = max(4.2, _LETTER * 1.5 * len(panel.title))
    if isinstance(panel, (Map, Heat)):
        return width + 0.8, 4.2  # beside it is the scale of the colours
    if not panel.rows:
        return width, 4.2 if _has_marks(panel) else 3.6
    beside = sum(
        max(map(len, texts), default=0) for texts in (panel.rows, panel.remarks)
    )
    return width + _LETTER * beside, 1.8 + _ROW_HEIGHT * len(panel.rows)


def _has_marks(panel: Panel) -> bool:
    return any(line.mark for line in panel.lines)


def _draw_words(axes, panel: Panel | Map | Heat) -> None:
    """Title, caption, and what the axes are."""
    axes.set_title(panel.title, fontsize=10, pad=16 if panel.caption else 6)
    axes.set_xlabel(panel.x_label)
    axes.set_ylabel(panel.y_label)
    if panel.caption:
        axes.annotate(
            panel.caption,
            (0.5, 1),
            (0, 4),
            xycoords="axes fraction",
            textcoords="offset points",
            ha="center",
            va="bottom",
            fontsize=6,
            color="0.4",
        )
    if not isinstance(panel, Heat):
        axes.grid(alpha=0.25)


def _draw_lines(axes, panel: Panel) -> None:
    styles, faint_styles = itertools.cycle(_STYLES), itertools.cycle(_FAINT)
    shaded = [line for line in panel.lines if line.shade is not None]
    unnamed = {line.label for line in shaded} - {
        line.label for line in some(shaded, _MOST_NAMED)
    }
    for line in panel.lines:
        if line.label in unnamed:
            line = dataclasses.replace(line, label="_")  # not in the legend
        if line.mark == "end":
            style = next(styles) | {"linestyle": "none", "marker": "o"}
        elif line.mark:
            style = {"linestyle": "none"} | _MARKS[line.mark]
            if line.mark in _HOLLOW:
                style |= {"markerfacecolor": "none", "markeredgewidth": 1.5}
        elif line.shade is not None:
            style = {"color": _shaded(line.shade), "linewidth": 1.2}
        else:
            style = next(faint_styles if line.faint else styles)
        _draw_line(axes, line, style)
    if panel.log_x:
        places = itertools.chain.from_iterable(line.x for line in panel.lines)
        make_logarithmic(axes.xaxis, list(places))
    elif panel.lines and all(line.x.dtype.kind == "i" for line in panel.lines):
        axes.xaxis.get_major_locator().set_params(integer=True)
    if panel.log_y:
        axes.set_yscale("log")
    elif panel.lines and not panel.rows and not _is_negative(panel):
        axes.set_ylim(bottom=0)
    if panel.rows:
        _draw_rows(axes, panel)
    if not _has_marks(panel):
        has_bars = any(line.low is not None for line in panel.lines)
        axes.legend(fontsize=8, loc="best" if has_bars else "lower left")
        return
    axes.legend(
        fontsize=8,
        loc="upper center",
        bbox_to_anchor=(0.5, 0),
        borderaxespad=5,
        ncols=2,
        frameon=False,
    )


def _draw_line(axes, line: Line, style: dict[str, Any]) -> None:
    if line.low is None or line.high is None:
        axes.plot(line.x, line.y, label=line.label, **style)
        return
    axes.errorbar(
        line.x,
        line.y,
        yerr=[line.y - line.low, line.high - line.y],
        label=line.label,
        elinewidth=1.0,
        capsize=2.5,
        **{"marker": "o", "markersize": 3.5} | style,
    )


def _shaded(place: float):
    """A colour of a sequence; the brightest are not seen on white."""
    from matplotlib import colormaps

    return colormaps["viridis"](0.9 * place)


def _is_negative(panel: Panel) -> bool:
    """Whether anything lies below zero, such as a difference."""
    heights = [line.y if line.low is None else line.low for line in panel.lines]
    return any(np.any(np.asarray(height) < 0) for height in heights)


def _draw_rows(axes, panel: Panel) -> None:
    """Names at the left of the rows, remarks at their right."""
    heights = range(len(panel.rows))
    axes.set_yticks(heights, panel.rows, fontsize=8)
    axes.set_ylim(len(panel.rows) - 0.5, -0.5)
    axes.set_xlim(left=0)
    for height, remark in zip(heights, panel.remarks, strict=False):
        axes.annotate(
            remark,
            (1, height),
            (6, 0),
            xycoords=axes.get_yaxis_transform(),
            textcoords="offset points",
            va="center",
            fontsize=8,
            color="0.25",
            annotation_clip=False,
        )
