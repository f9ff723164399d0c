"""A value over two axes, such as a spectrum over the epochs of a run."""

import dataclasses

import numpy as np

from keras_lowrank.records import Recording
from keras_lowrank.records.spectrum_image import DEPTH


@dataclasses.dataclass(frozen=True, eq=False)
class Heat:
    """A table of values in colours.

    Args:
        title: String above the axes.
        x_label: String with the unit of `x`.
        y_label: String with the unit of `y`.
        value_label: String with the unit of `values`.
        x: Array of shape `(n,)`, increasing.
        y: Array of shape `(m,)`, increasing, from the top.
        values: Array of shape `(m, n)`; where not finite, there is no colour.
        limits: Pair of floats, the values of the first and last colour.
        caption: String with the definition of what is drawn.

    Raises:
        ValueError: if the shapes do not fit.
    """

    title: str
    x_label: str
    y_label: str
    value_label: str
    x: np.ndarray
    y: np.ndarray
    values: np.ndarray
    limits: tuple[float, float]
    caption: str = ""

    def __post_init__(self):
        if self.values.shape != (len(self.y), len(self.x)):
            raise ValueError(
                "`values` must have a row for each `y` and a column for each "
                f"`x`. Received: shape {self.values.shape} for {len(self.y)} "
                f"and {len(self.x)}."
            )


def spectrum_over_time(recording: Recording, weight: str) -> Heat:
    """The spectrum of one weight matrix at every measured epoch.

    Args:
        recording: `Recording`.
        weight: String, the name of the weight matrix.

    Returns:
        A `Heat`: singular values from the top, epochs from the left, and in
        colour `log10(sigma_i / sigma_1)`. What is zero or not finite has none.
    """
    spectra = recording.spectra(weight)
    count = max((len(one.values) for one in spectra.values()), default=0)
    decades = np.full((count, len(spectra)), np.nan)
    for column, spectrum in enumerate(spectra.values()):
        values = np.asarray(spectrum.values)
        if spectrum.finite and len(values) and values[0] > 0:
            with np.errstate(divide="ignore"):
                decades[: len(values), column] = np.log10(values / values[0])
    decades[np.isneginf(decades)] = np.nan
    return Heat(
        title=f"Spectrum of {weight}",
        x_label="epochs",
        y_label="index of the singular value",
        value_label="log10(sigma_i / sigma_1)",
        x=np.array([*spectra], float),
        y=np.arange(1, count + 1, dtype=float),
        values=decades,
        limits=(DEPTH, 0.0),
        caption="sigma_i / sigma_1 at every measurement",
    )


def edges(places: np.ndarray) -> np.ndarray:
    """Where cells around some places begin and end: halfway between them.

    Args:
        places: Increasing array of shape `(n,)`, `n >= 1`.

    Returns:
        Array of shape `(n + 1,)`.
    """
    if len(places) == 1:
        return np.array([places[0] - 0.5, places[0] + 0.5])
    middle = (places[1:] + places[:-1]) / 2
    first = 2 * places[0] - middle[0]
    last = 2 * places[-1] - middle[-1]
    return np.concatenate([[first], middle, [last]])
