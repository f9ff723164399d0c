"""Spectra of matrices, in float64 on the host."""

from collections.abc import Iterable
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from keras_lowrank.linalg.gram import eigenvalue_roots
from keras_lowrank.linalg.gram import gram_matrix
from keras_lowrank.linalg.gram import largest_entry
from keras_lowrank.linalg.gram import safe_exponent
from keras_lowrank.linalg.gram import tall
from keras_lowrank.linalg.host import host_array
from keras_lowrank.linalg.host import non_finite_reason
from keras_lowrank.linalg.host import single_threaded_blas
from keras_lowrank.linalg.product import Product
from keras_lowrank.linalg.refine import may_miss
from keras_lowrank.linalg.refine import refined
from keras_lowrank.linalg.refine import svd_pays
from keras_lowrank.spectrum import Spectrum

# Relative to the largest singular value: a float64 Gram matrix squares the
# condition number, so values below about 1e-8 are rounding noise. 1e-7 leaves
# a margin, and is also where float32 storage of the weights blurs them.
GRAM_RESOLUTION = 1e-7

METHODS = ("auto", "gram", "svd")


def spectrum(matrix, method: str = "auto") -> Spectrum:
    """Singular values of a matrix, to the resolution of its own precision.

    `"gram"` takes the eigenvalues of the float64 Gram matrix of the short
    side: for float32 weights more accurate than any float32 SVD down to 1e-6
    of the largest value, and several times faster. The relative error of
    `sigma_i` is at most about `1e-15 * sqrt(k) * (sigma_1 / sigma_i)**2` with
    `k = min(m, n)`, so values below `1e-7 * sigma_1` are marked as unresolved.
    `"svd"` is a float64 SVD of the tall view, for everything below that.
    `"auto"` gives values above `1e-4 * sigma_1` to 1e-8 of themselves.

    Args:
        matrix: Array, tensor or Keras variable of shape `(m, n)`; or of shape
            `(b, m, n)`, read as the block-diagonal matrix of its `b` blocks,
            whose singular values are those of the blocks together. Or a
            `Product`, which has as many values as it has inner dimensions,
            from a float64 SVD whatever the method.
        method: `"gram"`, `"svd"` or `"auto"`: `"svd"` for float64 (and
            integer) entries, for small matrices that are nearly square, and
            for those with values of which `"gram"` could miss what is promised
            (between 1e-4 and about 1e-3 of the largest), `"gram"` otherwise.

    Returns:
        A `Spectrum` with float64 values. Non-finite entries give NaN values
        and a `reason`, never an exception: training must go on.

    Raises:
        ValueError: for an unknown method or a wrong number of dimensions.

    Example:

    >>> spectrum(np.diag([3.0, 0.0, 4.0])).values
    array([4., 3., 0.])
    """
    check_method(method)
    array = _on_hand(matrix)
    if len(array.shape) not in (2, 3):
        raise ValueError(
            "A spectrum belongs to a matrix of shape (m, n) or to diagonal "
            f"blocks of shape (b, m, n). Received: shape={array.shape}. "
            "Reshape a kernel with `weight_matrices`, which knows its layer."
        )
    with single_threaded_blas():
        return _host_spectrum(array, method)


def spectra(
    matrices: Iterable, method: str = "auto", workers: int = 1
) -> Iterator[Spectrum]:
    """Spectra of many matrices, one after another, in their order.

    The matrices are consumed lazily, so memory is bounded by the largest
    `workers + 1` of them rather than by the model.

    Args:
        matrices: Iterable of arrays, tensors or variables as for `spectrum`.
        method: As for `spectrum`.
        workers: Int >= 1, threads to spread the matrices over. NumPy releases
            the GIL while it computes; BLAS is held to one thread in each.

    Yields:
        One `Spectrum` per matrix.
    """
    check_method(method)
    if workers == 1:
        for matrix in matrices:
            result = spectrum(matrix, method)
            del matrix  # before the next one is copied
            yield result
        return
    with single_threaded_blas(), ThreadPoolExecutor(workers) as pool:
        pending: list = []
        for matrix in matrices:
            # Copied here: frameworks want their tensors read by one thread.
            array = _on_hand(matrix)
            pending.append(pool.submit(_host_spectrum, array, method))
            del matrix, array
            if len(pending) > workers:
                yield pending.pop(0).result()
        for future in pending:
            yield future.result()


def gram_spectrum(gram, rows: int, noise: float = 0.0) -> Spectrum:
    """Singular values of a matrix of which only the Gram matrix is known.

    Args:
        gram: NumPy float64 array of shape `(n, n)`, the products `X.T @ X` of
            the columns of a matrix `X` of shape `(rows, n)`.
        rows: Int >= 0, how many rows that matrix has.
        noise: Float >= 0, in the units of singular values: the size of what
            was subtracted to come to `gram`, whose rounding stays in it.

    Returns:
        A `Spectrum` of a matrix of shape `(rows, n)`. Values that are not
        resolved are zero: rounding would give each of many zero ones 1e-8 of
        the largest, and together they would count.
    """
    shape = (rows, gram.shape[0])
    size = min(shape)
    if not np.isfinite(gram).all():
        reason = "features that are NaN, infinite or too large to be squared"
        return Spectrum(np.full(size, np.nan), shape, reason=reason)
    largest = float(np.max(np.abs(gram), initial=0.0))
    if not size or largest == 0.0:
        return Spectrum(np.zeros(size), shape)
    half = int(np.frexp(largest)[1]) // 2
    with single_threaded_blas():
        values = eigenvalue_roots(np.ldexp(gram, -2 * half))[:size]
    values = np.ldexp(values, half)
    resolution = GRAM_RESOLUTION * max(float(values[0]), noise)
    values = np.where(values > resolution, values, 0.0)
    return Spectrum(values, shape, resolution)


def check_method(method: str, methods: tuple[str, ...] = METHODS) -> None:
    """Raise `ValueError` unless `method` is one of `methods`."""
    if method not in methods:
        raise ValueError(
            f"`method` must be one of {methods}. Received: method={method!r}."
        )


def _on_hand(matrix) -> np.ndarray | Product:
    return matrix if isinstance(matrix, Product) else host_array(matrix)


def _host_spectrum(array: np.ndarray | Product, method: str) -> Spectrum:
    if isinstance(array, Product):
        return _product_spectrum(array)
    blocks = array if array.ndim == 3 else array[None]
    count, rows, columns = blocks.shape
    shape = (count * rows, count * columns)
    size = count * min(rows, columns)
    largest = largest_entry(array)
    if not np.isfinite(largest):
        reason = non_finite_reason(array)
        return Spectrum(np.full(size, np.nan), shape, reason=reason)
    if largest == 0.0:
        return Spectrum(np.zeros(size), shape)
    exponent = safe_exponent(largest)
    if method == "svd" or (method == "auto" and array.dtype == np.float64):
        found = [_svd_values(block, exponent) for block in blocks]
        relative = max(rows, columns) * np.finfo(np.float64).eps
    else:
        found = _gram_values(blocks, exponent, method == "auto")
        relative = GRAM_RESOLUTION
    values = found[0]
    if count > 1:
        values = np.sort(np.concatenate(found))[::-1]
    if exponent:
        values = np.ldexp(values, exponent)
    return Spectrum(values, shape, resolution=relative * float(values[0]))


def _product_spectrum(product: Product) -> Spectrum:
    left, right = product.left, product.right
    if left.ndim == 2:
        left, right = left[None], right[None]
    count, rows, inner = left.shape
    columns = right.shape[-1]
    shape = (count * rows, count * columns)
    size = count * min(rows, inner, columns)
    for array in (left, right):
        if not np.isfinite(array).all():
            reason = f"{non_finite_reason(array)} of a factor"
            return Spectrum(np.full(size, np.nan), shape, reason=reason)
    values, error = [np.zeros(0)], 0.0
    for one, other in zip(left, right, strict=True):
        upper, lower = _triangle(one), _triangle(other.T).T
        values.append(_svd_values(upper @ lower, 0))
        # What rounding leaves is measured by the factors, which may be large
        # where their product is small.
        norms = np.linalg.norm(upper) * np.linalg.norm(lower)
        error = max(error, float(norms))
    resolution = max(rows, columns) * np.finfo(np.float64).eps * error
    ordered = np.sort(np.concatenate(values))[::-1]
    return Spectrum(ordered, shape, resolution=resolution)


def _triangle(matrix: np.ndarray) -> np.ndarray:
    """Triangular matrix with the Gram matrix of `matrix`."""
    return np.asarray(np.linalg.qr(matrix.astype(np.float64), mode="r"))


def _gram_values(
    blocks: np.ndarray, exponent: int, promised: bool
) -> list[np.ndarray]:
    """Singular values of each block, from its Gram matrix."""
    sides = [tall(block) for block in blocks]
    if promised and svd_pays(*sides[0].shape):
        return [_svd_values(side, exponent) for side in sides]
    grams = [gram_matrix(side, exponent) for side in sides]
    found = [eigenvalue_roots(gram) for gram in grams]
    if not promised:
        return found
    # What is small is so beside the largest value of all blocks.
    largest = max(values[0] for values in found)
    for index, values in enumerate(found):
        if not may_miss(values, largest):
            continue
        better = refined(sides[index], exponent, grams[index], values)
        if better is None:
            better = _svd_values(sides[index], exponent)
        found[index] = better
    return found


def _svd_values(matrix: np.ndarray, exponent: int) -> np.ndarray:
    matrix = tall(matrix).astype(np.float64, copy=False)
    if exponent:
        matrix = np.ldexp(matrix, -exponent)
    return np.linalg.svd(matrix, compute_uv=False)
