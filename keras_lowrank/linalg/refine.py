"""Small singular values that a Gram matrix has lost digits of.

Squaring loses digits of values that are small beside the largest. But the
Gram matrix knows well where their singular vectors lie, all together; and
once the matrix itself is applied to a basis of those, they are small beside
nothing. What comes out is checked, so a wrong basis cannot go unnoticed.
"""

import math

import numpy as np

from keras_lowrank.linalg.gram import row_blocks

EPS = float(np.finfo(np.float64).eps)

# `"auto"` promises values above 1e-4 of the largest to 1e-8 of themselves.
PROMISED_ABOVE = 1e-4
PROMISED_ERROR = 1e-8

# Below this side a float64 SVD is as fast.
SMALLEST_SIDE = 48

# Up to so many vectors are found one by one, each by a system of equations;
# more of them by all eigenvectors, which cost about as much as twelve.
MOST_SOLVED = 8


def safe_above(side: int) -> float:
    """From where on a Gram matrix keeps the promise, over the largest value.

    Args:
        side: Int, the side of the Gram matrix.
    """
    # Measured: at most 3.5 eps sqrt(side) (sigma_1 / sigma_i)^2 in the worst
    # spectra we found (half of the values equal, a long tail), up to 768.
    return math.sqrt(5 * EPS * side**0.5 / PROMISED_ERROR)


def may_miss(values: np.ndarray, largest: float) -> bool:
    """Whether a value above 1e-4 of the largest may be off by over 1e-8.

    Args:
        values: All singular values from a Gram matrix, largest first.
        largest: Float, the value that the promise is relative to: that of all
            diagonal blocks, of which `values` may be one.
    """
    seen = values[values >= PROMISED_ABOVE * largest]
    side = len(values)
    return bool(seen.size and seen[-1] < safe_above(side) * values[0])


def refined(
    matrix: np.ndarray, exponent: int, gram: np.ndarray, values: np.ndarray
) -> np.ndarray | None:
    """Singular values that keep the promise, out of some that do not.

    Those too small for the Gram matrix are taken again, from the products of
    the matrix with an orthonormal basis of their right singular vectors
    (Rayleigh and Ritz). The residual bounds what they err by.

    Args:
        matrix: Array of shape `(m, n)` with `m >= n`.
        exponent: Int, `gram` and `values` are those of
            `matrix / 2**exponent`.
        gram: Float64 array of shape `(n, n)`.
        values: Float64 array of shape `(n,)`, the singular values from the
            eigenvalues of `gram`, largest first.

    Returns:
        Float64 array like `values`; or `None` where an SVD is faster, or
        where the check fails.

    Reference:
        Parlett, The Symmetric Eigenvalue Problem, 1998, section 11, on how
        far the Ritz values of a block lie from eigenvalues
    """
    rows, side = matrix.shape
    first = _start_of_tail(values, safe_above(side) * values[0])
    count = side - first
    if side < SMALLEST_SIDE or first == 0:
        return None
    if count <= MOST_SOLVED:
        basis = _solved(gram, values[first:])
    elif rows >= 2 * side and count <= side // 2:
        basis = np.linalg.eigh(gram)[1][:, :count]
    else:
        return None
    if basis is None:
        return None
    return _ritz_values(matrix, exponent, basis, values, first)


def _start_of_tail(values: np.ndarray, bound: float) -> int:
    """Place of the first value of the tail, which begins at a clear gap."""
    first = int(np.searchsorted(-values, -bound, side="right"))
    # Vectors of values that are nearly equal cannot be told apart, and it
    # does not matter as long as none of them is left out.
    while first and values[first - 1] < 1.001 * values[first]:
        first -= 1
    return first


def _solved(gram: np.ndarray, values: np.ndarray) -> np.ndarray | None:
    """Eigenvectors of single eigenvalues, by inverse iteration."""
    side = len(gram)
    start = np.random.default_rng(side).standard_normal(side)
    vectors = []
    for value in values:
        shifted = gram.copy()
        shifted.flat[:: side + 1] -= value**2
        try:
            vector = np.linalg.solve(shifted, start)
        except np.linalg.LinAlgError:
            return None  # the shift is an eigenvalue to the last digit
        norm = np.linalg.norm(vector)
        if not np.isfinite(norm):
            return None
        vectors.append(vector / norm)
    return np.linalg.qr(np.stack(vectors, axis=1))[0]


def _ritz_values(matrix, exponent, basis, values, first) -> np.ndarray | None:
    count = basis.shape[1]
    squares = np.zeros((count, count))
    applied = np.zeros_like(basis)
    for block in row_blocks(matrix, exponent):
        image = block @ basis
        squares += image.T @ image
        applied += block.T @ image
    eigenvalues = np.clip(np.linalg.eigvalsh(squares), 0.0, None)
    residual = np.linalg.norm(applied - basis @ squares)
    gap = values[first - 1] ** 2 - eigenvalues[-1]
    # Twice the error that is allowed of the least value that was promised,
    # since these are squares.
    allowed = 2 * PROMISED_ERROR * (PROMISED_ABOVE * values[0]) ** 2
    if gap <= 0 or residual**2 > allowed * gap:
        return None
    tail = np.sqrt(eigenvalues)[::-1]
    if tail[0] > values[first - 1]:
        return None
    return np.concatenate([values[:first], tail])
