"""A map to Matplotlib: points in the colour of their value, iso-lines."""

from keras_lowrank.plots.log_axis import make_logarithmic
from keras_lowrank.plots.maps import Map
from keras_lowrank.plots.maps import spans_an_area
from keras_lowrank.plots.maps import unit_square

_LEVELS = 6  # at most, without those at the ends


def draw_map(axes, panel: Map) -> None:
    """Draw the points of a map, each at a place of its own.

    Args:
        axes: `matplotlib.axes.Axes`.
        panel: `Map`, as from `Map.averaged`.
    """
    if panel.log_x:
        make_logarithmic(axes.xaxis, panel.x)
    if panel.log_y:
        make_logarithmic(axes.yaxis, panel.y)
    if not len(panel.values):
        axes.text(0.5, 0.5, "no points", transform=axes.transAxes, ha="center")
        return
    # Viridis rises evenly in lightness, for colour-blind readers and print.
    points = axes.scatter(
        panel.x,
        panel.y,
        c=panel.values,
        cmap="viridis",
        edgecolors="0.2",
        linewidths=0.6,
        zorder=3,
    )
    axes.figure.colorbar(points, ax=axes, label=panel.value_label)
    axes.margins(0.1)
    # Iso-lines have other units, and would move the limits.
    axes.set_xlim(axes.get_xlim())
    axes.set_ylim(axes.get_ylim())
    _draw_iso_lines(axes, panel)
    for label, x, y in zip(panel.labels, panel.x, panel.y, strict=False):
        axes.annotate(
            label,
            (x, y),
            (5, 4),
            textcoords="offset points",
            fontsize=6,
            color="0.25",
            zorder=4,
        )


def _draw_iso_lines(axes, panel: Map) -> None:
    """Labelled lines of equal value, between the points and not beyond.

    Values are linear on each triangle of neighbours, along the axes as they
    are drawn. Points on one line have none.
    """
    from matplotlib.patheffects import withStroke
    from matplotlib.ticker import MaxNLocator
    from matplotlib.tri import Triangulation

    positions = panel.positions()
    low, high = panel.values.min(), panel.values.max()
    levels = [
        level
        for level in MaxNLocator(_LEVELS).tick_values(low, high)
        if low < level < high
    ]
    if not levels or not spans_an_area(positions):
        return
    neighbours = Triangulation(*unit_square(positions).T).triangles
    contours = axes.tricontour(
        Triangulation(positions[:, 0], positions[:, 1], neighbours),
        panel.values,
        levels=levels,
        colors="0.45",
        linewidths=1.0,
        # Positions are logarithms already where the axes are.
        transform=axes.transLimits + axes.transAxes,
        zorder=2,
    )
    for text in axes.clabel(contours, fmt="%g", fontsize=7, zorder=4):
        # Readable also where a point lies below.
        text.set_path_effects([withStroke(linewidth=2, foreground="white")])
