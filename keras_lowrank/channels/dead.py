"""`dead_channels`: low rank that comes from channels that died."""

import dataclasses
from typing import Any

import numpy as np

from keras_lowrank.channels.count import THRESHOLD
from keras_lowrank.channels.count import count_channels
from keras_lowrank.channels.gains import gains_after
from keras_lowrank.linalg import host_array
from keras_lowrank.roles import role_of
from keras_lowrank.tables import Column
from keras_lowrank.tables import Table
from keras_lowrank.tables import shape_text
from keras_lowrank.weights import WeightMatrices
from keras_lowrank.weights import WeightMatrix
from keras_lowrank.weights import locate_variables
from keras_lowrank.weights import weight_matrices

_COLUMNS = (
    Column("weight", "Weight"),
    Column("shape", "Matrix", shape_text),
    Column("outputs", "Outputs", str),
    Column("zero_outputs", "Zero\nkernel", str),
    Column("silenced_outputs", "Zero\ngain", str),
    Column("dead_outputs", "Dead\noutputs", str),
    Column("inputs", "Inputs", str),
    Column("dead_inputs", "Dead\ninputs", str),
    Column("live_rank", "Rank\nleft", str),
    Column("normalization", "The gain", justify="left"),
)


def dead_channels(model, threshold: float = THRESHOLD, weights=None) -> Table:
    """Count the channels of every weight matrix that carry nothing.

    A low rank is no compression where it comes from channels that died: a
    rank of 30 with 70 dead channels is not the rank of 30 of a matrix that
    uses all of them. Weight decay kills channels through their kernel, and
    through the gamma of a normalization, which Keras and torch decay too: a
    channel with gamma 0 is the constant beta, whatever its kernel is.

    Args:
        model: Built Keras model, or a layer.
        threshold: Float from 0 on, and below 1; 1e-6 by default. An output
            or input is zero if the norm of its entries is at most this share
            of the largest in its matrix; a gain if it is at most this, where
            1 leaves a normalized channel as it is.
        weights: Which weight matrices, as for `weight_matrices`.

    Returns:
        `Table` with a row per weight matrix, which has `weight`, `shape`,
        `outputs`, `zero_outputs`, `silenced_outputs`, `dead_outputs` (one or
        the other), `inputs`, `dead_inputs`, `live_rank` (the largest without
        the dead channels), and `normalization`, the name of the gain. That is
        known where a functional or Sequential model passes the output of a
        `Dense` or convolutional layer to a normalization and nowhere else;
        elsewhere it is `None`, as `silenced_outputs` is. A matrix that is not
        finite has a `reason` in place of numbers.

    Raises:
        TypeError: when `model` is no Keras model or layer.
        ValueError: for a threshold out of range, and as `weight_matrices`.

    Example:

    >>> model = keras.Sequential([
    ...     keras.Input((4,)),
    ...     keras.layers.Dense(3, use_bias=False),
    ...     keras.layers.BatchNormalization(),
    ... ])
    >>> _ = model.layers[1].gamma.assign([1.0, 0.0, 1.0])
    >>> (row,) = dead_channels(model).rows
    >>> row["silenced_outputs"], row["dead_outputs"], row["live_rank"]
    (1, 1, 2)

    Reference:
        [Galanti et al., CPAL 2025](https://arxiv.org/abs/2206.05794), where
        ranks of convolutions at multiples of 9 are 3 x 3 windows of the few
        input channels that live.
    """
    if not 0 <= threshold < 1:
        raise ValueError(
            "`threshold` must be from 0 on, and below 1. "
            f"Received: threshold={threshold}."
        )
    matrices = weight_matrices(model, weights)
    rows = channel_rows(model, matrices, threshold)
    notes = _notes(rows, matrices, threshold)
    return Table(_title(model, rows), _COLUMNS, rows, notes)


def channel_rows(
    model, matrices: WeightMatrices, threshold: float = THRESHOLD
) -> list[dict[str, Any]]:
    """The rows of `dead_channels`, for matrices that one has already.

    Args:
        model: Built Keras model, or a layer.
        matrices: `WeightMatrices` of it, in any views.
        threshold: Float, as for `dead_channels`.

    Returns:
        List of dicts, one per weight matrix.
    """
    gains = gains_after(model)
    names = {id(one.variable): one.name for one in locate_variables(model)}
    rows = []
    for matrix in matrices:
        gain, values = gains.get(id(matrix.layer)), None
        if matrix.role == "depthwise_kernel":
            gain = None  # what it gives goes to the pointwise kernel
        if gain is not None:
            values = _of_part(host_array(gain).astype(np.float64), matrix)
        channels = count_channels(matrix, values, threshold)
        row = {
            "weight": matrix.name,
            "shape": matrix.matrix_shape,
            "normalization": None if gain is None else names[id(gain)],
            "reason": None if channels else "not finite",
        }
        rows.append(row | (dataclasses.asdict(channels) if channels else {}))
    return rows


def _of_part(gain: np.ndarray, matrix: WeightMatrix) -> np.ndarray:
    """The gains of the channels of a group, which follow each other."""
    if matrix.part is None:
        return gain
    count = matrix.matricization.count(matrix.shape)
    return gain.reshape(count, -1)[matrix.part]


def _title(model, rows) -> str:
    def total(key):
        return sum(row.get(key) or 0 for row in rows)

    return (
        f"Dead channels of '{model.name}': "
        f"{total('dead_outputs')} of {total('outputs')} outputs, "
        f"{total('dead_inputs')} of {total('inputs')} inputs"
    )


def _notes(rows, matrices: WeightMatrices, threshold: float) -> list[str]:
    share = f"{threshold:g}"
    notes = [
        f"zero kernel = norm at most {share} of the largest in the matrix",
        "inputs = rows; of a convolution, all those of a channel are one",
        "rank left = the largest that live channels allow",
    ]
    if any(row["normalization"] for row in rows):
        notes += [
            f"zero gain = at most {share} in the normalization that follows",
            "dead outputs = those of zero kernel or zero gain",
            "Layer, group and RMS normalization still take such a channel "
            "into their statistics",
        ]
    reasons: dict[str, list[str]] = {}
    for row in rows:
        if row["reason"]:
            reasons.setdefault(row["reason"], []).append(row["weight"])
    for weight in matrices.skipped:
        if role_of(weight.variable) in ("kernel", "embedding"):
            reasons.setdefault(weight.reason, []).append(weight.name)
    return notes + [
        f"Not counted, {reason}: {', '.join(names)}"
        for reason, names in reasons.items()
    ]
