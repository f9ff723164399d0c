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
# Pixels of a side, of the heat map without its axes.
LEAST_SIDE, MOST_SIDE = 128, 512
_LEFT, _TOP, _BOTTOM, _RIGHT = 36, 6, 20, 44

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
    are drawn, of short and small ones each several times.

    Args:
        spectra: Dict from epoch to `Spectrum`, by increasing epoch, as
            `Recording.spectra` gives it.

    Returns:
        Array of shape `(height, width)` of bytes, for `images.png`.
    """
    epochs = list(spectra)
    count = max(len(spectrum.values) for spectrum in spectra.values())
    columns, rows = _chosen(len(epochs)), _chosen(count)
    heat = np.stack(
        [_column(spectra[epochs[place]], rows) for place in columns], axis=1
    )
    across, down = _repeats(len(columns)), _repeats(len(rows))
    colours = viridis(heat, DEPTH, 0).repeat(across, 1).repeat(down, 0)
    height, width = colours.shape
    image = np.full(
        (_TOP + height + _BOTTOM, _LEFT + width + _RIGHT), WHITE, np.uint8
    )
    image[_TOP : _TOP + height, _LEFT : _LEFT + width] = colours
    _draw_rows(image, height, count)
    _draw_epochs(image, height, across, [epochs[place] for place in columns])
    _draw_scale(image, height)
    return image


def _chosen(count: int) -> np.ndarray:
    """Which of some columns or rows are drawn, the first and the last too."""
    return np.rint(np.linspace(0, count - 1, min(count, MOST_SIDE))).astype(int)


def _repeats(count: int) -> int:
    """How many pixels each of them takes."""
    return -(-LEAST_SIDE // count)


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


def _draw_rows(image: np.ndarray, height: int, count: int) -> None:
    """Number the first singular value and the last."""
    for number, top in ((1, _TOP), (count, _TOP + height - TEXT_HEIGHT)):
        pixels = number_pixels(number)
        _put(image, pixels, top, _LEFT - 4 - pixels.shape[1])


def _draw_epochs(
    image: np.ndarray, height: int, across: int, epochs: list[int]
) -> None:
    """Mark some columns, and number them by their epochs."""
    below, last = _TOP + height, len(epochs) - 1
    between = np.rint(np.linspace(0, last, 5)[1:-1]).astype(int)
    taken: list[tuple[int, int]] = []
    for place in (0, last, *between):
        pixels = number_pixels(epochs[place])
        middle = _LEFT + place * across + across // 2
        left = middle - pixels.shape[1] // 2
        right = left + pixels.shape[1]
        if any(left < end + 6 and right > start - 6 for start, end in taken):
            continue
        taken.append((left, right))
        image[below : below + 3, middle] = BLACK
        _put(image, pixels, below + 5, left)


def _draw_scale(image: np.ndarray, height: int) -> None:
    """The colours, and the numbers at their ends."""
    left = image.shape[1] - _RIGHT + 10
    line = viridis(np.linspace(0, DEPTH, height), DEPTH, 0)
    image[_TOP : _TOP + height, left : left + 10] = line[:, None]
    for number, top in ((0, _TOP), (DEPTH, _TOP + height - TEXT_HEIGHT)):
        _put(image, number_pixels(number), top, left + 14)


def _put(image: np.ndarray, pixels: np.ndarray, top: int, left: int) -> None:
    height, width = pixels.shape
    image[top : top + height, left : left + width] = pixels
