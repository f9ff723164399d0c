"""Spectra of tensors: values and gradients inside a training step.

Singular vectors are taken without gradients, and every value is read as
`u^T W v`, a linear function of the matrix: the gradient of a measure is then
`U diag(g) V^T`, with the derivatives `g` by the values. To differentiate a
decomposition instead gives NaN, or what its arbitrary vectors make of it,
where values repeat or vanish.
"""

from typing import Any

import keras
from keras import ops

from keras_lowrank.linalg.scopes import compiled_by_xla
from keras_lowrank.linalg.scopes import float64
from keras_lowrank.linalg.scopes import full_precision
from keras_lowrank.spectrum import Spectrum

# Relative to the largest value: what lies below, and what lies this close
# together, is one to us. The directions of a value are known to about
# `1e-16 * (sigma_1 / sigma_i)**2` from a float64 Gram matrix of float32
# weights, which are themselves rounded at 1e-7.
GRAM_TELLS_APART = 1e-6
# An SVD leaves up to 8 units where nothing is, on any backend and at any size.
SVD_UNITS = 32

DECOMPOSITIONS = ("auto", "gram", "svd")


def tensor_spectrum(
    matrix,
    method: str = "auto",
    shape: tuple[int, int] | None = None,
) -> Spectrum:
    """Singular values of a tensor, with gradients that are always finite.

    Gradients are those of `U diag(g) V^T`, and the same on every backend:

    - Values that are not told apart from zero have none: of the nuclear norm
      the gradient is `U_1 V_1^T`, the subgradient of least norm.
    - Values that are not told apart from each other share theirs: of the
      spectral norm it is the mean of `u v^T` over the largest ones.

    Second derivatives are not those of the spectrum.

    Args:
        matrix: Tensor or Keras variable of shape `(m, n)`, or `(b, m, n)` for
            the blocks of a block-diagonal matrix.
        method: `"gram"`: eigenvalues of the float64 Gram matrix of the short
            side. `"svd"`: a decomposition in the precision of the matrix, at
            least float32, for devices without float64. `"auto"`: `"svd"` for
            float64 entries, which a Gram matrix would halve, and `"gram"`
            otherwise: it is faster and tells more apart.
        shape: Tuple of two ints, of the matrix whose spectrum this is, where
            it is not that of `matrix`.

    Returns:
        A `Spectrum` of tensors. Values below 1e-6 of the largest are zero (by
        `"svd"` those below 4e-6, or 7e-15 in float64). All are NaN where an
        entry of the matrix is.

    Raises:
        ValueError: for an unknown method or shape; and where TensorFlow
            compiles by XLA, in which a decomposition takes seconds.

    Example:

    >>> spectrum = tensor_spectrum(ops.diag(ops.array([3.0, 0.0, 4.0])))
    >>> [round(float(value), 5) for value in spectrum.values]
    [4.0, 3.0, 0.0]
    """
    if method not in DECOMPOSITIONS:
        raise ValueError(
            f"`method` must be one of {DECOMPOSITIONS}. "
            f"Received: method={method!r}."
        )
    if compiled_by_xla():
        raise ValueError(
            "A decomposition would take seconds a step where TensorFlow "
            f"compiles by XLA. Received: method={method!r} inside "
            "`jit_compile=True`. Use `model.compile(jit_compile=False)`, or a "
            'regularizer that has `method="newton_schulz"`.'
        )
    blocks, finite = finite_blocks(matrix)
    count, rows, columns = blocks.shape
    wide = keras.backend.standardize_dtype(blocks.dtype) == "float64"
    if method == "auto":
        method = "svd" if wide else "gram"
    with full_precision():
        tall = blocks if rows >= columns else ops.swapaxes(blocks, -1, -2)
        decompose = _by_svd if method == "svd" else _by_gram
        left, values, right = decompose(ops.stop_gradient(tall))
        moving = ops.sum(left * (tall @ right), axis=-2)
        values = ops.reshape(values, (-1,))
        moving = ops.reshape(moving, (-1,))
        if count > 1:
            order = ops.flip(ops.argsort(values))
            values, moving = ops.take(values, order), ops.take(moving, order)
        unit = 2.0**-52 if wide else 2.0**-23
        known = SVD_UNITS * unit if method == "svd" else GRAM_TELLS_APART
        if values.shape[0]:
            resolution = known * values[0]
            moving = _sharing(values, resolution) @ moving[:, None]
            values = with_slope(values, moving[:, 0])
            # Last, so that even an infinite slope at zero counts for nothing.
            zeros = ops.zeros_like(values)
            values = ops.where(values > resolution, values, zeros)
        values = ops.where(finite, values, float("nan"))
    return Spectrum(values, shape or (count * rows, count * columns))


def finite_blocks(matrix) -> tuple[Any, Any]:
    """A matrix as float32 or float64 blocks, zero unless all is finite.

    Decompositions of what is not finite raise, or do not end.

    Args:
        matrix: Tensor or Keras variable of shape `(m, n)` or `(b, m, n)`.

    Returns:
        Tuple of a tensor of shape `(b, m, n)` and of a boolean one.
    """
    matrix = ops.convert_to_tensor(matrix)
    if len(matrix.shape) not in (2, 3):
        raise ValueError(
            "A spectrum belongs to a matrix of shape (m, n) or to diagonal "
            f"blocks of shape (b, m, n). Received: shape={matrix.shape}. Say "
            "which axes are rows with a `Matricization`."
        )
    matrix = _widened(matrix)
    if len(matrix.shape) == 2:
        matrix = matrix[None]
    finite = ops.all(ops.isfinite(ops.stop_gradient(matrix)))
    return ops.where(finite, matrix, ops.zeros_like(matrix)), finite


def with_slope(value, moving):
    """`value`, with the gradient of `moving`."""
    return ops.stop_gradient(value) + moving - ops.stop_gradient(moving)


def log_det(matrix, epsilon: float):
    """`log det(I + W^T W / epsilon^2)`, from a triangle of Cholesky.

    Args:
        matrix: Finite tensor of shape `(m, n)` or `(b, m, n)`.
        epsilon: Float > 0.

    Returns:
        Scalar tensor with the gradient `2 W (epsilon^2 I + W^T W)^(-1)`.
    """
    fixed = ops.stop_gradient(matrix)
    wide = matrix.shape[-2] < matrix.shape[-1]
    with float64():
        tall = ops.cast(fixed, "float64") / epsilon
        tall = ops.swapaxes(tall, -1, -2) if wide else tall
        turned = ops.swapaxes(tall, -1, -2)
        eye = ops.eye(tall.shape[-1], dtype="float64")
        triangle = ops.cholesky(eye + turned @ tall)
        diagonal = ops.sum(triangle * eye, axis=-1)
        value = 2 * ops.sum(ops.log(diagonal))
        half = ops.solve_triangular(triangle, turned, lower=True)
        slope = ops.solve_triangular(
            ops.swapaxes(triangle, -1, -2), half, lower=False
        )
        slope = (2 / epsilon) * (slope if wide else ops.swapaxes(slope, -1, -2))
        value = ops.cast(value, matrix.dtype)
        slope = ops.cast(slope, matrix.dtype)
    return with_slope(value, ops.sum(slope * matrix))


def product_core(left, right, orthonormal):
    """A small matrix with the spectrum and the gradients of a product.

    `Q^T (L R) P` with orthonormal bases `Q` of the columns of `L` and `P` of
    the rows of `R`, which are taken without gradients. Nothing of the size of
    the product is formed.

    Args:
        left: Tensor of shape `(m, r)` or `(b, m, r)`.
        right: Tensor of shape `(r, n)` or `(b, r, n)`.
        orthonormal: Function from a tensor to a basis of its columns.

    Returns:
        Tensor of shape `(min(m, r), min(r, n))`, or of blocks of that shape.
    """
    left, left_finite = finite_blocks(left)
    right, right_finite = finite_blocks(right)
    finite = ops.logical_and(left_finite, right_finite)
    with full_precision():
        rows = ops.swapaxes(right, -1, -2)
        one, other = (
            orthonormal(ops.stop_gradient(factor)) for factor in (left, rows)
        )
        core = (ops.swapaxes(one, -1, -2) @ left) @ (right @ other)
    return ops.where(finite, core, float("nan"))


def squared_norm_of_product(left, right):
    """`||L R||_F^2`, from the Gram matrices of the factors.

    Args:
        left: Tensor of shape `(m, r)` or `(b, m, r)`.
        right: Tensor of shape `(r, n)` or `(b, r, n)`.

    Returns:
        Scalar tensor, in float32 at least.
    """
    left, right = _widened(left), _widened(right)
    with full_precision():
        gram = ops.swapaxes(left, -1, -2) @ left
        return ops.sum(gram * (right @ ops.swapaxes(right, -1, -2)))


def triangular_basis(matrix):
    """A basis of the columns of a matrix, by QR."""
    if compiled_by_xla():
        raise ValueError(
            "A decomposition would take seconds a step where TensorFlow "
            "compiles by XLA. Use `model.compile(jit_compile=False)`, or a "
            'regularizer that has `method="newton_schulz"`.'
        )
    return ops.qr(matrix)[0]


def _widened(matrix):
    matrix = ops.convert_to_tensor(matrix)
    wide = keras.backend.standardize_dtype(matrix.dtype) == "float64"
    return matrix if wide else ops.cast(matrix, "float32")


def _by_gram(tall):
    dtype = tall.dtype
    with float64():
        tall = ops.cast(tall, "float64")
        # Scaled, since squares of small entries would vanish.
        largest = ops.max(ops.abs(tall), axis=(-1, -2), keepdims=True)
        largest = ops.where(largest > 0, largest, ops.ones_like(largest))
        tall = tall / largest
        # `ops.matmul` and `ops.maximum` would give float32 on torch.
        squares, right = ops.eigh(ops.swapaxes(tall, -1, -2) @ tall)
        squares = ops.where(squares > 0, squares, ops.zeros_like(squares))
        values = ops.flip(ops.sqrt(squares), axis=-1)
        right = ops.flip(right, axis=-1)
        left = tall @ right
        norms = ops.sqrt(ops.sum(ops.square(left), axis=-2, keepdims=True))
        left = left / ops.where(norms > 0, norms, ops.ones_like(norms))
        values = values * largest[..., 0]
        return tuple(ops.cast(item, dtype) for item in (left, values, right))


def _by_svd(tall):
    left, values, right = ops.svd(tall, full_matrices=False)
    return left, values, ops.swapaxes(right, -1, -2)


def _sharing(values, resolution):
    """Matrix that takes the mean over values that are not told apart."""
    values = ops.stop_gradient(values)
    # Small values are told apart more finely, or a long tail would be one;
    # and what counts shares nothing with what does not.
    larger, smaller = values[:-1], values[1:]
    fine = 1e-3 * larger
    fine = ops.where(fine < resolution, fine, resolution)
    apart = ops.logical_or(larger - smaller > fine, smaller <= resolution)
    group = ops.cumsum(ops.cast(apart, "int32"))
    group = ops.concatenate([ops.zeros((1,), "int32"), group])
    same = ops.cast(group[:, None] == group[None, :], values.dtype)
    return same / ops.sum(same, axis=1, keepdims=True)
