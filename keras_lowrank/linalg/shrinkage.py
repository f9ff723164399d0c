"""The proximal step of the nuclear norm: singular values soft-thresholded."""

import numpy as np

from keras_lowrank.linalg.host import host_array
from keras_lowrank.linalg.host import non_finite_reason
from keras_lowrank.linalg.host import single_threaded_blas
from keras_lowrank.linalg.product import Product

# Above this fraction of the largest value a Gram matrix is exact enough for
# the shrinkage, whose slope it divides by.
GRAM_THRESHOLD = 1e-5


def soft_threshold(matrix, threshold: float):
    """`U (S - threshold)_+ V^T`: each singular value lowered, down to zero.

    The minimizer of `||X - W||_F^2 / 2 + threshold * ||X||_*`. Computed in
    float64: values at or below the threshold are zero to rounding.

    Of a product each factor takes half of the shrinkage, and is otherwise left
    as it is. Of a direction that becomes zero only the left factor does, so
    that training can fill it again.

    Args:
        matrix: Array, tensor or Keras variable of shape `(m, n)`, or
            `(b, m, n)` for diagonal blocks; or a `Product`.
        threshold: Float >= 0, in the units of singular values.

    Returns:
        NumPy array of that shape, float32 or float64 as `matrix` is; or a
        `Product`.

    Raises:
        ValueError: for a threshold out of range, or entries that are not
            finite.

    Example:

    >>> soft_threshold(np.diag([3.0, 0.5]), threshold=1.0)
    array([[2., 0.],
           [0., 0.]])

    Reference:
        [Cai, Candes & Shen, 2010](https://arxiv.org/abs/0810.3286)
    """
    if not threshold >= 0 or np.isinf(threshold):
        raise ValueError(
            "`threshold` must be finite, and 0 or larger. "
            f"Received: threshold={threshold}."
        )
    if isinstance(matrix, Product):
        return _of_product(matrix, threshold)
    array = host_array(matrix)
    _check_finite(array)
    blocks = (array if array.ndim == 3 else array[None]).astype(np.float64)
    with single_threaded_blas():
        lowered = np.stack([_lowered(block, threshold) for block in blocks])
    return lowered.reshape(array.shape).astype(array.dtype)


def _lowered(matrix, threshold):
    if matrix.shape[0] < matrix.shape[1]:
        return _lowered(matrix.T, threshold).T
    largest = np.max(np.abs(matrix), initial=0.0)
    if threshold == 0 or largest == 0:
        return matrix
    # Squares of small entries would vanish, and of large ones overflow.
    exponent = int(np.frexp(largest)[1])
    if exponent:
        scaled = np.ldexp(matrix, -exponent)
        lowered = _lowered(scaled, float(np.ldexp(threshold, -exponent)))
        return np.ldexp(lowered, exponent)
    squares, vectors = np.linalg.eigh(matrix.T @ matrix)
    if threshold**2 < GRAM_THRESHOLD**2 * squares[-1]:
        left, values, right = np.linalg.svd(matrix, full_matrices=False)
        return (left * np.clip(values - threshold, 0.0, None)) @ right
    values = np.sqrt(np.clip(squares, 0.0, None))
    kept = _kept(values, threshold)
    present = kept > 0
    vectors = vectors[:, present]
    return (matrix @ (vectors * kept[present])) @ vectors.T


def _kept(values, threshold):
    """The share of each value that is left."""
    above = values > threshold
    return np.where(above, 1 - threshold / np.where(above, values, 1.0), 0.0)


def _of_product(product: Product, threshold: float) -> Product:
    left, right = product.left, product.right
    for factor in (left, right):
        _check_finite(factor)
    blocks = (left, right) if left.ndim == 3 else (left[None], right[None])
    with single_threaded_blas():
        pairs = [
            _lowered_factors(
                one.astype(np.float64), other.astype(np.float64), threshold
            )
            for one, other in zip(*blocks, strict=True)
        ]
    lowered = (np.stack(side) for side in zip(*pairs, strict=True))
    return Product(
        *(
            new.reshape(old.shape).astype(old.dtype)
            for new, old in zip(lowered, (left, right), strict=True)
        )
    )


def _lowered_factors(left, right, threshold):
    rows, upper = np.linalg.qr(left)
    columns, lower = np.linalg.qr(right.T)
    turn, values, other = np.linalg.svd(upper @ lower.T, full_matrices=False)
    rows, columns = rows @ turn, columns @ other.T
    norms = np.linalg.norm(upper) * np.linalg.norm(lower)
    present = values > max(rows.shape[0], len(columns)) * 2.0**-52 * norms
    # Where there is nothing, one of the factors may still have a direction.
    half = np.sqrt(np.where(present, _kept(values, threshold), 1.0))
    left = left - rows @ ((1 - half)[:, None] * (rows.T @ left))
    half = np.where(half > 0, half, 1.0)
    right = right - ((right @ columns) * (1 - half)) @ columns.T
    return left, right


def _check_finite(array):
    if not np.isfinite(array).all():
        raise ValueError(
            "Only a finite matrix can be thresholded. "
            f"Received: {non_finite_reason(array)}."
        )
