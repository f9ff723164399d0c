"""Low-rank factors of a matrix: the truncated singular value decomposition."""

import numpy as np

from keras_lowrank.linalg.host import host_array
from keras_lowrank.linalg.host import non_finite_reason
from keras_lowrank.linalg.host import single_threaded_blas
from keras_lowrank.linalg.product import Product


def truncate(matrix, rank: int, second_moment=None) -> Product:
    """The best approximation of a matrix by one of lower rank, as factors.

    A truncated float64 SVD, `W = U S V^T`, split evenly: `U sqrt(S)` and
    `sqrt(S) V^T`, whose Frobenius norms are equal. The Frobenius error is
    `sqrt(sum_{i>rank} sigma_i^2)`, the smallest there is.

    With the second moments of the inputs the error of the *outputs* is the
    smallest instead: `E ||x^T (W - W')||^2`, which is that of `S^(1/2) W`
    with `S = E[x x^T]`. The solution projects `W` on the leading directions
    of its outputs.

    A direction that `W` does not have gets zeros on the left and a unit row
    on the right, so that the product is the same and training can fill it.

    Args:
        matrix: Array, tensor or Keras variable of shape `(m, n)`, or
            `(b, m, n)` for diagonal blocks, each of which gets `rank`.
        rank: Int from 1 to `min(m, n)`.
        second_moment: Array of shape `(m, m)`, `E[x x^T]` over inputs, or
            `(b, m, m)`. By default all directions of the input count alike.

    Returns:
        A `Product` of float64 arrays of shapes `(m, rank)` and `(rank, n)`.

    Raises:
        ValueError: when `rank` is out of range, shapes do not fit, or entries
            are not finite.

    Example:

    >>> truncate(np.diag([4.0, 1.0]), rank=1).to_numpy()
    array([[4., 0.],
           [0., 0.]])

    Reference:
        [Eckart & Young, 1936](https://doi.org/10.1007/BF02288367); with
        second moments [Wang et al., SVD-LLM, 2024](https://arxiv.org/abs/2403.07378)
    """
    array = host_array(matrix).astype(np.float64)
    blocks = array if array.ndim == 3 else array[None]
    if blocks.ndim != 3 or not 1 <= rank <= min(blocks.shape[1:]):
        raise ValueError(
            "`rank` must be a whole number from 1 to min(m, n) of a matrix of "
            f"shape (m, n). Received: rank={rank} for shape {array.shape}."
        )
    if not np.isfinite(array).all():
        raise ValueError(
            "Only a finite matrix has a truncation. "
            f"Received: {non_finite_reason(array)}."
        )
    moments: list = [None] * len(blocks)
    if second_moment is not None:
        moment = host_array(second_moment).astype(np.float64)
        rows = blocks.shape[1]
        if moment.shape != (*array.shape[:-2], rows, rows):
            raise ValueError(
                "`second_moment` must have the shape "
                f"{(*array.shape[:-2], rows, rows)} for a matrix of shape "
                f"{array.shape}. Received: shape={moment.shape}."
            )
        moments = list(moment if moment.ndim == 3 else moment[None])
    with single_threaded_blas():
        pairs = [
            _truncated(block, rank, moment)
            for block, moment in zip(blocks, moments, strict=True)
        ]
    left, right = (np.stack(side) for side in zip(*pairs, strict=True))
    if array.ndim == 2:
        left, right = left[0], right[0]
    return Product(left, right)


def whitened(matrix, second_moment) -> np.ndarray:
    """A matrix whose size is that of the outputs: `S^(1/2) W`, turned.

    Its singular values beyond a rank are what `truncate` loses of the outputs,
    `E ||x^T (W - W')||^2`.

    Args:
        matrix: NumPy array of shape `(m, n)`, or `(b, m, n)`.
        second_moment: NumPy array of shape `(m, m)`, or `(b, m, m)`.

    Returns:
        NumPy float64 array of the shape of `matrix`.
    """
    moment = second_moment.astype(np.float64)
    # All directions count a little, so that those which the data did not
    # show are kept by their own size rather than by chance.
    size = moment.shape[-1]
    ridge = 1e-6 * np.trace(moment, axis1=-2, axis2=-1) / size
    ridge = np.where(ridge > 0, ridge, 1.0)[..., None]
    with single_threaded_blas():
        values, vectors = np.linalg.eigh(moment)
        root = np.sqrt(np.clip(values, 0.0, None) + ridge)
        return root[..., None] * (np.swapaxes(vectors, -1, -2) @ matrix)


def _truncated(matrix, rank, moment):
    if moment is not None:
        _, _, directions = np.linalg.svd(
            whitened(matrix, moment), full_matrices=False
        )
        matrix = matrix @ directions[:rank].T @ directions[:rank]
    left, values, right = np.linalg.svd(matrix, full_matrices=False)
    left, values, right = left[:, :rank], values[:rank], right[:rank]
    noise = max(matrix.shape) * np.finfo(np.float64).eps * values[0]
    present = values > noise
    root = np.sqrt(np.where(present, values, 0.0))
    return left * root, np.where(present, root, 1.0)[:, None] * right
