"""A heat map to Matplotlib: cells as wide as the time between measurements."""

import numpy as np

from keras_lowrank.plots.heat import Heat
from keras_lowrank.plots.heat import edges


def draw_heat(axes, panel: Heat) -> None:
    """Draw a table of values in colours, with their scale beside it.

    Args:
        axes: `matplotlib.axes.Axes`.
        panel: `Heat`.
    """
    if not panel.values.size:
        axes.text(0.5, 0.5, "no values", transform=axes.transAxes, ha="center")
        return
    low, high = panel.limits
    # Viridis rises evenly in lightness, for colour-blind readers and print.
    cells = axes.pcolormesh(
        edges(panel.x),
        edges(panel.y),
        np.ma.masked_invalid(panel.values),
        cmap="viridis",
        vmin=low,
        vmax=high,
        # A vector graphic of a hundred thousand cells opens in no viewer.
        rasterized=True,
    )
    axes.figure.colorbar(cells, ax=axes, label=panel.value_label)
    axes.invert_yaxis()
