"""The spectra of a weight matrix over time as one small image."""

from collections.abc import Mapping

import numpy as np

from keras_lowrank.images import BLACK
from keras_lowrank.images import TEXT_HEIGHT
from keras_lowrank.images import WHITE
from keras_lowrank.images import number_pixels
from keras_lowrank.images import viridis
from keras_lowrank.spectrum import Spectrum

# Below, a float32 matrix does not tell singular values from zero.
DEPTH = -7
# Pixels of the heat map and of its margins: one shape for all, as wide as
# TensorBoard shows without a scroll bar.
_HEIGHT, _WIDTH = 256, 310
_LEFT, _TOP, _BOTTOM, _RIGHT = 52, 8, 28, 56

DESCRIPTION = (
    "Singular values over time. **Columns** are the measurements up to this "
    "step, from left to right; the numbers below are their epochs. **Rows** "
    "are singular values, the largest on top; the numbers at the left count "
    f"them. **Colour** is log10(sigma_i / sigma_1), from 0 (bright) to {DEPTH} "
    "(dark, and all below); white where there is none: the matrix was zero, "
    "not finite or not there. Where the rank falls, the dark rises."
)


def spectrum_image(spectra: Mapping[int, Spectrum]) -> np.ndarray:
    """Draw spectra over time: columns are epochs, rows singular values.

    Of long recordings and of large matrices evenly chosen columns and rows
    are drawn; of short and small ones each takes several pixels.

    Args:
        spectra: Dict from epoch to `Spectrum`, by increasing epoch, as
            `Recording.spectra` gives it.

    Returns:
        Array of shape `(height, width)` of bytes, for `images.png`.
    """
    epochs = list(spectra)
    count = max(len(spectrum.values) for spectrum in spectra.values())
    columns, rows = _chosen(len(epochs), _WIDTH), _chosen(count, _HEIGHT)
    drawn, places = np.unique(columns, return_inverse=True)
    heat = np.stack(
        [_column(spectra[epochs[place]], rows) for place in drawn], axis=1
    )
    image = np.full(
        (_TOP + _HEIGHT + _BOTTOM, _LEFT + _WIDTH + _RIGHT), WHITE, np.uint8
    )
    image[_TOP : _TOP + _HEIGHT, _LEFT : _LEFT + _WIDTH] = viridis(
        heat, DEPTH, 0
    )[:, places]
    _draw_rows(image, count)
    _draw_epochs(image, columns, epochs)
    _draw_scale(image)
    return image


def _chosen(count: int, pixels: int) -> np.ndarray:
    """Which of some columns or rows each pixel shows; the ends always."""
    if count < pixels:
        return np.arange(pixels) * count // pixels
    return np.rint(np.linspace(0, count - 1, pixels)).astype(int)


def _column(spectrum: Spectrum, rows: np.ndarray) -> np.ndarray:
    """Logarithms of some singular values over the largest, NaN for none."""
    values = np.asarray(spectrum.values, np.float64)
    column = np.full(len(rows), np.nan)
    if not spectrum.finite or spectrum.zero:
        return column
    known = rows < len(values)
    with np.errstate(divide="ignore"):  # zero has no logarithm, and is dark
        column[known] = np.log10(values[rows[known]] / values[0])
    return column


def _draw_rows(image: np.ndarray, count: int) -> None:
    """Number the first singular value and the last."""
    for number, top in ((1, _TOP), (count, _TOP + _HEIGHT - TEXT_HEIGHT)):
        pixels = number_pixels(number)
        _put(image, pixels, top, _LEFT - 6 - pixels.shape[1])


def _draw_epochs(
    image: np.ndarray, columns: np.ndarray, epochs: list[int]
) -> None:
    """Mark some columns, and number them by their epochs."""
    below, last = _TOP + _HEIGHT, len(epochs) - 1
    between = columns[np.rint(np.linspace(0, _WIDTH - 1, 5)[1:-1]).astype(int)]
    taken: list[tuple[int, int]] = []
    for place in (0, last, *between):
        pixels = number_pixels(epochs[place])
        middle = _LEFT + int(np.mean(np.flatnonzero(columns == place)))
        left = middle - pixels.shape[1] // 2
        right = left + pixels.shape[1]
        if any(left < end + 9 and right > start - 9 for start, end in taken):
            continue
        taken.append((left, right))
        image[below : below + 4, middle] = BLACK
        _put(image, pixels, below + 8, left)


def _draw_scale(image: np.ndarray) -> None:
    """The colours, and the numbers at their ends."""
    left = _LEFT + _WIDTH + 12
    line = viridis(np.linspace(0, DEPTH, _HEIGHT), DEPTH, 0)
    image[_TOP : _TOP + _HEIGHT, left : left + 12] = line[:, None]
    for number, top in ((0, _TOP), (DEPTH, _TOP + _HEIGHT - TEXT_HEIGHT)):
        _put(image, number_pixels(number), top, left + 18)


def _put(image: np.ndarray, pixels: np.ndarray, top: int, left: int) -> None:
    height, width = pixels.shape
    image[top : top + height, left : left + width] = pixels
