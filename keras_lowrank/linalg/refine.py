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

# Below this side a float64 SVD is as fast as refining, and where the matrix is
# nearly square takes not twice the time of the Gram matrix.
SMALLEST_SIDE = 128

# Up to this part of the vectors is found by inverse iteration; more of them by
# all eigenvectors. Beside them are as many spare ones, and so many at least.
MOST_ITERATED = 1 / 8
SPARE_VECTORS = 12
# An SVD grows faster with the side than an iteration does, so that large
# matrices may take more of them: so many for each row of the Gram matrix.
MOST_ITERATIONS = 12
ITERATIONS_PER_ROW = 1 / 128
CONVERGED = 1e-11
SHIFT = 1e-15  # of the trace
TRIANGLE = 64  # rows of a diagonal block


def safe_above(side: int) -> float:
    """From where on a Gram matrix keeps the promise, over the largest value.

    Args:
        side: Int, the side of the Gram matrix.
    """
    # Measured: at most 3.5 eps sqrt(side) (sigma_1 / sigma_i)^2 in the worst
    # spectra we found (half of the values equal, a long tail), up to 768.
    return math.sqrt(5 * EPS * side**0.5 / PROMISED_ERROR)


def svd_pays(rows: int, side: int) -> bool:
    """Whether an SVD at once is cheaper than a Gram matrix that may miss.

    Args:
        rows: Int, the long side of a matrix.
        side: Int, the short one.
    """
    return side < SMALLEST_SIDE and 2 * rows < 3 * side


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
    if count <= MOST_ITERATED * side:
        basis = _inverse_iteration(gram, values, first)
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


def _inverse_iteration(
    gram: np.ndarray, values: np.ndarray, first: int
) -> np.ndarray | None:
    """Eigenvectors of the tail, from one triangular factorization.

    Args:
        gram: Float64 array of shape `(n, n)`.
        values: The roots of its eigenvalues, largest first.
        first: Int, where the tail begins.

    Returns:
        Array of shape `(n, n - first)` with orthonormal columns, or `None`
        where it would take too long.
    """
    side = len(gram)
    # Spare vectors keep the next larger eigenvalues from slowing down those
    # that are asked for.
    count = side - first
    size = count + max(SPARE_VECTORS, count)
    if size >= side:
        return None
    slowest = (values[first] / values[side - size - 1]) ** 2
    iterations = math.ceil(math.log(CONVERGED) / math.log(slowest))
    if iterations > max(MOST_ITERATIONS, ITERATIONS_PER_ROW * side):
        return None
    shifted = gram.copy()
    # What is singular to rounding has a triangle none the less.
    shifted.flat[:: side + 1] += SHIFT * np.trace(gram)
    try:
        triangle = _Triangle(np.linalg.cholesky(shifted))
    except np.linalg.LinAlgError:
        return None
    basis = np.random.default_rng(side).standard_normal((side, size))
    for _ in range(iterations):
        basis = np.linalg.qr(triangle.solve(basis))[0]
    # Of this subspace the part that is smallest.
    image = triangle.lower.T @ basis
    return basis @ np.linalg.eigh(image.T @ image)[1][:, :count]


class _Triangle:
    """A lower triangle, to solve with: NumPy can only solve in general.

    Blocks on the diagonal are inverted; what is left are products.
    """

    def __init__(self, lower: np.ndarray):
        self.lower = lower
        self.blocks = [
            slice(start, min(start + TRIANGLE, len(lower)))
            for start in range(0, len(lower), TRIANGLE)
        ]
        self.inverses = [np.linalg.inv(lower[at, at]) for at in self.blocks]

    def solve(self, right: np.ndarray) -> np.ndarray:
        """Solution `x` of `lower @ lower.T @ x = right`."""
        found = right.copy()
        blocks = list(zip(self.blocks, self.inverses, strict=True))
        for at, inverse in blocks:
            left = self.lower[at, : at.start] @ found[: at.start]
            found[at] = inverse @ (found[at] - left)
        for at, inverse in reversed(blocks):
            left = self.lower[at.stop :, at].T @ found[at.stop :]
            found[at] = inverse.T @ (found[at] - left)
        return found


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
