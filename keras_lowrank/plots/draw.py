"""Plot data to Matplotlib figures."""

import itertools
from collections.abc import Sequence
from typing import Any

from keras_lowrank.plots.data import Panel

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


def draw_panels(panels: Sequence[Panel], title: str = ""):
    """Draw panels side by side.

    Args:
        panels: Sequence of `Panel`.
        title: String above them all.

    Returns:
        A `matplotlib.figure.Figure`, to be saved with `savefig`. It belongs
        to no window: `pyplot` and its global state are left alone.

    Raises:
        ImportError: when Matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError(
            "Figures need Matplotlib. Install it with "
            '`pip install "keras-lowrank[plots]"`.'
        ) from error
    figure = Figure(figsize=(4.2 * len(panels), 3.6), layout="constrained")
    if title:
        figure.suptitle(title)
    for axes, panel in zip(
        figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True
    ):
        _draw(axes, panel)
    return figure


def _draw(axes, panel: Panel) -> None:
    styles, faint_styles = itertools.cycle(_STYLES), itertools.cycle(_FAINT)
    for line in panel.lines:
        style = next(faint_styles if line.faint else styles)
        axes.plot(line.x, line.y, label=line.label, **style)
    if panel.log_y:
        axes.set_yscale("log")
    elif panel.lines:
        axes.set_ylim(bottom=0)
    axes.set_title(panel.title, fontsize=10, pad=16 if panel.caption else 6)
    axes.set_xlabel(panel.x_label)
    axes.set_ylabel(panel.y_label)
    if panel.caption:
        axes.text(
            0.5,
            1.015,
            panel.caption,
            transform=axes.transAxes,
            ha="center",
            va="bottom",
            fontsize=6,
            color="0.4",
        )
    axes.legend(fontsize=8, loc="lower left")
    axes.grid(alpha=0.25)
