"""Spectral functions from matrix products alone.

What a decomposition would give, for where there is none: inside XLA on
TensorFlow. Everything here is taken without gradients.
"""

import functools

import numpy as np
from keras import ops

from keras_lowrank.linalg.scopes import float64
from keras_lowrank.linalg.scopes import full_precision

# Relative to the largest value: what the polynomials below take to 1.
POLAR_RESOLUTION = 1.7e-3
# How far the bound of the largest value may be above it, at least 1.01 so that
# it holds after rounding: above 1 the first polynomial would run away.
SAFETY, BOUND = 1.01, 1.7
# For float64, which leaves an error of 1e-16 over this.
THRESHOLD_RESOLUTION = 1e-6
# Each doubles the power: values apart by 1e-3 of the largest are told apart,
# those within 1e-5 are one, and rounding has grown to 1e-3.
SQUARINGS = 12


def polar_factor(matrix, resolution: float = POLAR_RESOLUTION):
    """The polar factor `U V^T` of a matrix, by Newton-Schulz iteration.

    Odd polynomials of degree 5, each the best for what the ones before leave
    (seven of them by default), take all singular values above
    the resolution to 1, to float32 rounding. Those below are multiplied by
    two to four times its inverse and come out between 0 and 1: of a zero one
    nothing is left, and next to zero nothing is arbitrary.

    Args:
        matrix: Finite tensor of shape `(m, n)` or `(b, m, n)`.
        resolution: Float, a fraction of the largest value, of each block.

    Returns:
        Tensor of that shape, without gradients.

    Reference:
        [Amsel et al., The Polar Express, 2025](https://arxiv.org/abs/2505.16932)
    """
    matrix = ops.stop_gradient(matrix)
    wide = matrix.shape[-2] < matrix.shape[-1]
    with full_precision():
        x = ops.swapaxes(matrix, -1, -2) if wide else matrix
        x, gram, square = _scaled(x)
        polynomials = _best_polynomials(resolution / BOUND)
        for index, (a, b, c) in enumerate(polynomials):
            if index:
                gram = ops.swapaxes(x, -1, -2) @ x
                square = gram @ gram
            x = a * x + x @ (b * gram + c * square)
    return ops.swapaxes(x, -1, -2) if wide else x


def leading_subgradient(matrix):
    """Gradient of the spectral norm, by squaring the Gram matrix repeatedly.

    The powers of the Gram matrix of the short side become the projection on
    the leading directions, the mean over them where several are largest.

    Args:
        matrix: Finite tensor of shape `(m, n)` or `(b, m, n)`.

    Returns:
        Tensor of that shape: the mean of `u v^T` over the largest values of
        all blocks, or zeros for a zero matrix. Without gradients.
    """
    matrix = ops.stop_gradient(matrix)
    wide = matrix.shape[-2] < matrix.shape[-1]
    with full_precision():
        x = ops.swapaxes(matrix, -1, -2) if wide else matrix
        x = x / _where_positive(ops.max(ops.abs(x)))
        gram = ops.swapaxes(x, -1, -2) @ x
        power = gram / _where_positive(_trace(gram))
        for _ in range(SQUARINGS):
            power = power @ power
            power = power / _where_positive(_trace(power))
        square = ops.sum(power * gram)
        x = (x @ power) / ops.sqrt(_where_positive(square))
    return ops.swapaxes(x, -1, -2) if wide else x


def thresholded(matrix, threshold):
    """`U (S - threshold)_+ V^T`, by two Newton-Schulz iterations in float64.

    With the polar factor `Q` and `H = Q^T W`, which has the singular values as
    its eigenvalues, `(H - t)_+` is half of `(H - t) + |H - t|`, and the
    absolute value takes the sign, a polar factor again.

    Args:
        matrix: Finite tensor of shape `(m, n)` or `(b, m, n)`.
        threshold: Float or scalar tensor, >= 0.

    Returns:
        Tensor of that shape and dtype, without gradients. Its singular values
        are those of the exact form to 1e-6 of the largest.
    """
    matrix = ops.stop_gradient(matrix)
    wide = matrix.shape[-2] < matrix.shape[-1]
    with float64():
        x = ops.cast(matrix, "float64")
        x = ops.swapaxes(x, -1, -2) if wide else x
        polar = polar_factor(x, THRESHOLD_RESOLUTION)
        above = ops.swapaxes(polar, -1, -2) @ x
        above = (above + ops.swapaxes(above, -1, -2)) / 2
        eye = ops.eye(above.shape[-1], dtype="float64")
        above = above - ops.cast(threshold, "float64") * eye
        sign = polar_factor(above, THRESHOLD_RESOLUTION)
        # Multiplied by what the sign misses near zero, which is as small.
        x = polar @ ((above + sign @ above) / 2)
        x = ops.swapaxes(x, -1, -2) if wide else x
        return ops.cast(x, matrix.dtype)


def _trace(blocks):
    """Trace of a block-diagonal matrix."""
    eye = ops.eye(blocks.shape[-1], dtype=blocks.dtype)
    return ops.sum(blocks * eye)


def _where_positive(value):
    # Dividing a zero matrix by 1 leaves it zero.
    return ops.where(value > 0, value, ops.ones_like(value))


def _scaled(tall):
    """A matrix with singular values up to 1, the largest at least `1 / BOUND`.

    Returns:
        Tuple of the matrix, its Gram matrix and the square of that, each of
        which the bound has needed.
    """
    x = tall / _where_positive(ops.max(ops.abs(tall), (-1, -2), keepdims=True))
    gram = ops.swapaxes(x, -1, -2) @ x
    # Scaled again, since powers overflow.
    size = _where_positive(ops.max(ops.abs(gram), (-1, -2), keepdims=True))
    gram = gram / size
    square = gram @ gram
    fourth = square @ square
    # The Schatten norm of order 16, whose factor is at most the sixteenth
    # root of the number of values: 1.68 for 4096 equal ones.
    total = ops.sum(ops.square(fourth), (-1, -2), keepdims=True)
    bound = SAFETY**2 * ops.power(_where_positive(total), 1 / 8)
    x = x / ops.sqrt(size * bound)
    return x, gram / bound, square / ops.square(bound)


@functools.cache
def _best_polynomials(low: float):
    """Odd polynomials of degree 5 whose composition takes [low, 1] to 1."""
    found, high = [], 1.0
    while high - low > 2e-7:
        coefficients, low, high = _best_polynomial(low, high)
        found.append(coefficients)
    return tuple(found)


def _best_polynomial(low: float, high: float):
    """The odd polynomial of degree 5 closest to 1 on [low, high].

    Remez' exchange: the error is the same, with signs that alternate, at both
    ends and at the two extrema between them.

    Returns:
        Tuple of the three coefficients, of the smallest and of the largest
        value that it takes there.
    """
    if high - low < 1e-3:
        # Too narrow for the exchange in float64, and for anything better: of
        # an error of 1e-3 Newton-Schulz itself leaves 1e-9.
        return (15 / 8, -10 / 8, 3 / 8), 1.0, 1.0
    inner, outer = (3 * low + high) / 4, (low + 3 * high) / 4
    signs = np.array([1.0, -1.0, 1.0, -1.0])
    for _ in range(20):
        x = np.array([low, inner, outer, high])
        powers = np.stack([x, x**3, x**5, signs], axis=1)
        a, b, c, _ = (float(v) for v in np.linalg.solve(powers, np.ones(4)))
        root = np.sqrt(9 * b * b - 20 * a * c)
        inner, outer = (
            float(np.sqrt((-3 * b + sign * root) / (10 * c)))
            for sign in (-1.0, 1.0)
        )
    x = np.array([low, inner, outer, high])
    values = a * x + b * x**3 + c * x**5
    return (a, b, c), float(values.min()), float(values.max())
