"""The seam: tensors in, float64 spectra out.

The only file that knows devices, dtypes and backends. Whatever the backend
that trains, the numbers are computed here, in float64 NumPy on the host, so
the same weights give the same spectrum everywhere. A device route would be a
second function of the same signature as `_host_spectrum`.
"""

import functools
from collections.abc import Iterable
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import threadpoolctl

from keras_lowrank.spectrum import Spectrum

# Relative to the largest singular value: a float64 Gram matrix squares the
# condition number, so values below about 1e-8 are rounding noise. 1e-7 leaves
# a margin, and is also where float32 storage of the weights blurs them.
GRAM_RESOLUTION = 1e-7

# `"auto"` promises values above 1e-4 of the largest to 1e-8 of themselves.
PROMISED_ABOVE = 1e-4
PROMISED_ERROR = 1e-8

METHODS = ("auto", "gram", "svd")


def host_array(value) -> np.ndarray:
    """Copy a variable or tensor to a NumPy array of its exact values.

    bfloat16, float16 and float8 entries are widened to float32, which holds
    them exactly; float32 and float64 stay as they are. A variable that is
    sharded over devices is put together here, and stays sharded. Where its
    shards belong to several processes, each of them has to call this.

    Args:
        value: Keras variable, backend tensor or array-like of any shape.

    Returns:
        A NumPy float32 or float64 array on the host, not aliased by training.
    """
    array = value if isinstance(value, np.ndarray) else _on_host(value)
    array = np.asarray(array)
    if array.dtype in (np.float32, np.float64):
        return array
    if np.issubdtype(array.dtype, np.complexfloating):
        raise TypeError(
            "Spectra are defined here for real matrices. "
            f"Received: an array of dtype {array.dtype}. "
            "Measure its real and imaginary parts as separate matrices."
        )
    if array.dtype.kind in "iub":
        # Integers up to 2**53 are exact in float64, not in float32.
        return array.astype(np.float64)
    return array.astype(np.float32)


def _on_host(value):
    """A copy of a variable or tensor, put together where it is sharded."""
    import keras

    tensor = value.value if isinstance(value, keras.Variable) else value
    if getattr(tensor, "is_fully_replicated", True):
        return keras.ops.convert_to_numpy(value)
    import jax

    # Devices may hold copies of the same shard: one of each is counted.
    shards = {str(one.index): one.data for one in tensor.addressable_shards}
    if sum(shard.size for shard in shards.values()) < tensor.size:
        from jax.experimental import multihost_utils

        # The rest is with other processes, which have to ask as well.
        return multihost_utils.process_allgather(tensor, tiled=True)
    # JAX keeps what it puts together as long as the array, so that in the end
    # the host would hold the whole model: so ask another array of the shards.
    twin = jax.make_array_from_single_device_arrays(
        tensor.shape,
        tensor.sharding,
        [shard.data for shard in tensor.addressable_shards],
    )
    return np.asarray(twin)


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
            whose singular values are those of the blocks together.
        method: `"gram"`, `"svd"` or `"auto"`: `"svd"` for float64 (and
            integer) entries, and for matrices with values of which `"gram"`
            could miss what is promised (between 1e-4 and about 1e-3 of the
            largest), `"gram"` otherwise.

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
    array = host_array(matrix)
    if array.ndim not in (2, 3):
        raise ValueError(
            "A spectrum belongs to a matrix of shape (m, n) or to diagonal "
            f"blocks of shape (b, m, n). Received: shape={array.shape}. "
            "Reshape a kernel with `weight_matrices`, which knows its layer."
        )
    with _single_threaded_blas():
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
    with _single_threaded_blas(), ThreadPoolExecutor(workers) as pool:
        pending: list = []
        for matrix in matrices:
            # Copied here: frameworks want their tensors read by one thread.
            array = host_array(matrix)
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
    with _single_threaded_blas():
        eigenvalues = np.linalg.eigvalsh(np.ldexp(gram, -2 * half))
    values = np.sqrt(np.clip(eigenvalues, 0.0, None))[::-1][:size]
    values = np.ldexp(values, half)
    resolution = GRAM_RESOLUTION * max(float(values[0]), noise)
    values = np.where(values > resolution, values, 0.0)
    return Spectrum(values, shape, resolution)


def check_method(method: str) -> None:
    """Raise `ValueError` unless `method` names a way to compute spectra."""
    if method not in METHODS:
        raise ValueError(
            f"`method` must be one of {METHODS}. Received: method={method!r}."
        )


def _host_spectrum(array: np.ndarray, method: str) -> Spectrum:
    blocks = array if array.ndim == 3 else array[None]
    count, rows, columns = blocks.shape
    shape = (count * rows, count * columns)
    size = count * min(rows, columns)
    if not np.isfinite(array).all():
        reason = _non_finite_reason(array)
        return Spectrum(np.full(size, np.nan), shape, reason=reason)
    largest_entry = float(np.max(np.abs(array), initial=0.0))
    if largest_entry == 0.0:
        return Spectrum(np.zeros(size), shape)
    # A power of two changes no digit and keeps squares away from under- and
    # overflow, for weights of any size.
    exponent = int(np.frexp(largest_entry)[1])
    scaled = np.ldexp(blocks.astype(np.float64), -exponent)
    wide = array.dtype == np.float64
    if method == "svd" or (method == "auto" and wide):
        values = _sorted(_svd_values, scaled)
        relative = max(rows, columns) * np.finfo(np.float64).eps
    else:
        values = _sorted(_gram_values, scaled)
        relative = GRAM_RESOLUTION
        if method == "auto" and _gram_may_miss(values, min(rows, columns)):
            values = _sorted(_svd_values, scaled)
    values = np.ldexp(values, exponent)
    return Spectrum(values, shape, resolution=relative * float(values[0]))


def _sorted(singular_values, blocks: np.ndarray) -> np.ndarray:
    values = np.concatenate([singular_values(block) for block in blocks])
    return np.sort(values)[::-1]


def _gram_values(matrix: np.ndarray) -> np.ndarray:
    wide = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T
    # NumPy multiplies a matrix by its own transpose with half the work.
    eigenvalues = np.linalg.eigvalsh(wide @ wide.T)
    return np.sqrt(np.clip(eigenvalues, 0.0, None))


def _gram_may_miss(values: np.ndarray, side: int) -> bool:
    """Whether a value above 1e-4 of the largest may be off by over 1e-8."""
    # Measured: at most 3.5 eps sqrt(side) (sigma_1 / sigma_i)^2 in the worst
    # spectra we found (half of the values equal, a long tail), up to 768.
    error = 5 * np.finfo(np.float64).eps * side**0.5
    safe_above = (error / PROMISED_ERROR) ** 0.5
    relative = values[values >= PROMISED_ABOVE * values[0]] / values[0]
    return bool(relative[-1] < safe_above)


def _svd_values(matrix: np.ndarray) -> np.ndarray:
    tall = matrix if matrix.shape[0] >= matrix.shape[1] else matrix.T
    return np.linalg.svd(tall, compute_uv=False)


def _non_finite_reason(array: np.ndarray) -> str:
    nan, infinite = int(np.isnan(array).sum()), int(np.isinf(array).sum())
    found = [
        f"{count} {what}"
        for count, what in ((nan, "NaN"), (infinite, "infinite"))
        if count
    ]
    return f"{' and '.join(found)} of {array.size} entries"


@functools.cache
def _blas() -> threadpoolctl.ThreadpoolController:
    # Looking up the loaded libraries costs milliseconds: once is enough.
    return threadpoolctl.ThreadpoolController()


def _single_threaded_blas():
    # A second BLAS thread gains little and stalls for seconds when another
    # process wants the core, so matrices are spread over threads instead.
    return _blas().limit(limits=1, user_api="blas")
