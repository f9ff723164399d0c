"""Logarithmic axes whose ticks are the values that were tried."""

import numpy as np

_MOST = 8
# How far ticks have to be apart, as shares of the axis: for each letter along
# the horizontal one, and for a line of text along the vertical one.
_LETTER, _LINE = 0.024, 0.06


def make_logarithmic(axis, places) -> None:
    """Make an axis logarithmic, with a tick at each place if these are few.

    Hyperparameters are searched at a few values, such as batch sizes of 8, 16
    and 32; the powers of ten between them are none of those. Zero, as of no
    decay, has a place below the least.

    Args:
        axis: `matplotlib.axis.Axis`, of the values as drawn.
        places: Array of any shape, where on the axis something is drawn.
    """
    from matplotlib.ticker import NullLocator

    values = np.unique(np.asarray(places, np.float64))
    values = values[np.isfinite(values) & (values >= 0)]
    least = values[values > 0].min(initial=np.inf)
    # `Axis.set_scale` is private, that of the axes is not.
    set_scale = getattr(axis.axes, f"set_{axis.axis_name}scale")
    if 0 in values and np.isfinite(least):
        set_scale("symlog", linthresh=least)
    else:
        set_scale("log")
        values = values[values > 0]
    if not 2 <= len(values) <= _MOST:
        return
    texts = [_short(value) for value in values.tolist()]
    longest = max(map(len, texts))
    apart = _LETTER * longest if axis.axis_name == "x" else _LINE
    # Zero is as far below the least as a tenth of it would be.
    steps = np.diff(np.log10(np.maximum(values, least / 10)))
    if np.min(steps) >= apart * np.sum(steps):
        axis.set_ticks(values, texts)
        axis.set_minor_locator(NullLocator())


def _short(value: float) -> str:
    """A number in few letters: 0.05, 128, 3.2e-4."""
    if 0.01 <= value < 1e5:
        return f"{value:.3g}" if value < 1000 else f"{value:.0f}"
    digits, exponent = f"{value:.1e}".split("e")
    return f"{digits.removesuffix('.0')}e{int(exponent)}"
