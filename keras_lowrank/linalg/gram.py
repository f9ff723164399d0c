"""Gram matrices in float64, of matrices that need not fit in memory twice."""

import math
from collections.abc import Iterator

import numpy as np

# Entries that are widened to float64 at once: 64 MiB. A larger matrix is
# taken a block of rows at a time, so that it is never held a second time.
BLOCK_ENTRIES = 2**23

# Squares of entries up to 2**±200, and sums of them, are far from over- and
# underflow, so that only matrices beyond have to be scaled.
SAFE_EXPONENT = 200


def safe_exponent(largest: float) -> int:
    """The power of two a matrix is divided by before its entries are squared.

    Args:
        largest: Float > 0, its largest entry by absolute value.

    Returns:
        Int, 0 for a matrix of ordinary size. A power of two changes no digit.
    """
    exponent = math.frexp(largest)[1]
    return exponent if abs(exponent) > SAFE_EXPONENT else 0


def largest_entry(array: np.ndarray) -> float:
    """Largest absolute entry: 0 of an empty array, not finite if any is not."""
    # NaN if any entry is; unlike `isfinite` and `abs` it makes no array.
    return float(max(array.max(initial=0.0), -array.min(initial=0.0)))


def tall(matrix: np.ndarray) -> np.ndarray:
    """A matrix or its transpose, whichever has no fewer rows than columns."""
    rows, columns = matrix.shape
    return matrix if rows >= columns else matrix.T


def row_blocks(matrix: np.ndarray, exponent: int = 0) -> Iterator[np.ndarray]:
    """Blocks of rows of `matrix / 2**exponent` in float64, in their order."""
    rows, columns = matrix.shape
    # At least as many rows as columns: each block adds a square to a sum.
    size = max(columns, BLOCK_ENTRIES // max(columns, 1), 1)
    for start in range(0, rows, size):
        block = matrix[start : start + size].astype(np.float64, copy=False)
        yield np.ldexp(block, -exponent) if exponent else block


def gram_matrix(matrix: np.ndarray, exponent: int = 0) -> np.ndarray:
    """Products of the columns of a matrix.

    Args:
        matrix: Array of shape `(m, n)` with `m >= n`.
        exponent: Int, the matrix is divided by `2**exponent` first.

    Returns:
        Float64 array of shape `(n, n)`.
    """
    gram = None
    for block in row_blocks(matrix, exponent):
        # NumPy multiplies a matrix by its own transpose with half the work.
        product = block.T @ block
        if gram is None:
            gram = product
        else:
            gram += product
    assert gram is not None  # an empty matrix has no largest entry
    return gram


def eigenvalue_roots(gram: np.ndarray) -> np.ndarray:
    """Square roots of the eigenvalues of a Gram matrix, largest first."""
    eigenvalues = np.linalg.eigvalsh(gram)[::-1]
    return np.sqrt(np.clip(eigenvalues, 0.0, None))
