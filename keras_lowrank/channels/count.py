"""How many channels of a weight matrix carry something."""

import dataclasses
import math

import numpy as np

from keras_lowrank.channels.gains import CONVOLUTIONS
from keras_lowrank.channels.gains import TRANSPOSED
from keras_lowrank.weights import WeightMatrix

# Relative to the largest norm, and to a gain of 1. Decay alone takes a weight
# there in 14 of its memories.
THRESHOLD = 1e-6


@dataclasses.dataclass(frozen=True)
class Channels:
    """Channels of a weight matrix, and those that carry nothing.

    Args:
        outputs: Int.
        zero_outputs: Int, those whose entries in the kernel are zero.
        silenced_outputs: Int, those that a normalization multiplies with
            zero, or `None` where no such normalization is known.
        dead_outputs: Int, those of either kind.
        inputs: Int.
        dead_inputs: Int, those whose entries in the kernel are zero.
        live_rank: Int, the largest rank of the matrix without dead channels.
    """

    outputs: int
    zero_outputs: int
    silenced_outputs: int | None
    dead_outputs: int
    inputs: int
    dead_inputs: int
    live_rank: int


def count_channels(
    matrix: WeightMatrix, gain=None, threshold: float = THRESHOLD
) -> Channels | None:
    """Count the channels of a weight matrix, the dead ones apart.

    Args:
        matrix: `WeightMatrix`. Its columns are outputs and its rows inputs;
            of a convolution all rows of an input channel are one input, and
            of a transposed one the two change places.
        gain: Array of shape `(outputs,)` that multiplies the outputs once
            they are normalized, or `None`.
        threshold: Float, as for `dead_channels`.

    Returns:
        `Channels`, or `None` for a matrix that is not finite.
    """
    array = matrix.to_numpy().astype(np.float64)
    if not np.isfinite(array).all():
        return None
    window = _window(matrix)
    blocks = array if array.ndim == 3 else array[None]
    count, _, columns = blocks.shape
    # Over the largest entry, so that no square is lost below the least float.
    scaled = blocks / (np.max(np.abs(blocks)) or 1.0)
    squares = np.square(scaled).reshape(count, window, -1, columns)
    # Of shape (blocks, channels), those that go along the rows first.
    along, across = (
        _is_zero(np.sqrt(squares.sum(axis=axes)), threshold)
        for axes in ((1, 3), (1, 2))
    )
    turned = isinstance(matrix.layer, TRANSPOSED)
    inputs, outputs = (across, along) if turned else (along, across)
    silenced = np.zeros_like(outputs)
    if gain is not None:
        # Normalized channels have unit variance, so no scale is needed here.
        silenced = (np.abs(gain) <= threshold).reshape(outputs.shape)
    dead = outputs | silenced
    live_along, live_across = (
        np.sum(~zero, axis=1)
        for zero in ((dead, inputs) if turned else (inputs, dead))
    )
    return Channels(
        outputs=outputs.size,
        zero_outputs=int(outputs.sum()),
        silenced_outputs=None if gain is None else int(silenced.sum()),
        dead_outputs=int(dead.sum()),
        inputs=inputs.size,
        dead_inputs=int(inputs.sum()),
        live_rank=int(np.minimum(window * live_along, live_across).sum()),
    )


def _window(matrix: WeightMatrix) -> int:
    """Rows that one channel has, which are the places of a window."""
    if isinstance(matrix.layer, (*CONVOLUTIONS, *TRANSPOSED)):
        return math.prod(matrix.shape[:-2])
    return 1


def _is_zero(norms: np.ndarray, threshold: float) -> np.ndarray:
    return norms <= threshold * norms.max()
