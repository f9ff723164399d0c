"""Other initial weights than a network begins with: of low rank, or tiny."""

import keras
import numpy as np
from keras import ops

from keras_lowrank.weights import WeightMatrix
from keras_lowrank.weights import weight_matrices


def change_start(
    model: keras.Model,
    weights=None,
    rank: int | None = None,
    scale: float | None = None,
) -> None:
    """Replace the kernels of a model by others of a rank, or of a size.

    Args:
        model: Built Keras model.
        weights: Which weight matrices, as for `weight_matrices`.
        rank: Int >= 1: each matrix becomes the nearest of that rank, times
            what gives it its Frobenius norm back. `None` for no change.
        scale: Float > 0, by which each matrix is multiplied after that.
            `None` for no change.

    Raises:
        ValueError: for a matrix that is not a reshaped variable, such as one
            with LoRA.

    Example:

    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    >>> change_start(model, rank=1)
    >>> int(np.linalg.matrix_rank(model.layers[0].kernel, tol=1e-6))
    1
    """
    if rank is None and scale is None:
        return
    for matrix in weight_matrices(model, weights=weights):
        values = matrix.to_numpy().astype(np.float64)
        if rank is not None:
            values = _nearest_of_rank(values, rank)
        if scale is not None:
            values = scale * values
        _write(matrix, values)


def _nearest_of_rank(values: np.ndarray, rank: int) -> np.ndarray:
    left, sigma, right = np.linalg.svd(values, full_matrices=False)
    kept = np.where(np.arange(len(sigma)) < rank, sigma, 0.0)
    if not kept.any():
        return values  # the zero matrix
    kept *= np.linalg.norm(sigma) / np.linalg.norm(kept)
    return (left * kept) @ right


def _write(matrix: WeightMatrix, values: np.ndarray) -> None:
    """Give a variable values, and see that they are those of its matrix."""
    variable = matrix.variable
    before = ops.convert_to_numpy(variable)
    if before.size == values.size:
        variable.assign(values.reshape(before.shape))
        close = 1e-5 * np.abs(values).max() + np.finfo("float32").tiny
        if np.allclose(matrix.to_numpy(), values, rtol=0, atol=close):
            return
        variable.assign(before)
    raise ValueError(
        "`initial_rank` and `initial_scale` change kernels that are their "
        f"weight matrix, reshaped. Received: '{matrix.name}' of "
        f"{type(matrix.layer).__name__}, whose matrix is another. Leave it "
        "out with `weights`."
    )
