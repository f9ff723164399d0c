"""Values on the host, whatever the backend, the device and the dtype."""

import contextlib
import functools
import threading

import numpy as np
import threadpoolctl


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


@contextlib.contextmanager
def eagerly():
    """Compute now, also while a training step is being traced.

    Weights may be created inside a trace (TensorFlow), or by a compiled
    initializer (JAX with a layout); what is needed to draw them has values
    all the same.
    """
    import keras

    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        scope = tf.init_scope()
    elif backend == "jax":
        import jax

        scope = jax.ensure_compile_time_eval()
    else:
        scope = contextlib.nullcontext()
    with scope:
        yield


def non_finite_reason(array: np.ndarray) -> str:
    """Which entries of an array are not finite, for a message."""
    nan, infinite = int(np.isnan(array).sum()), int(np.isinf(array).sum())
    found = [
        f"{count} {what}"
        for count, what in ((nan, "NaN"), (infinite, "infinite"))
        if count
    ]
    return f"{' and '.join(found)} of {array.size} entries"


@functools.cache
def _blas() -> list[threadpoolctl.LibController]:
    # Looking up the loaded libraries costs milliseconds: once is enough.
    loaded = [
        library
        for library in threadpoolctl.ThreadpoolController().lib_controllers
        if library.user_api == "blas"
    ]
    # NumPy's own, where it has one: another library's may be training.
    return [one for one in loaded if "numpy" in one.filepath] or loaded


class _SingleThread:
    """Holds BLAS to one thread while any thread is in the block.

    The limit is the process', so that of two threads the first sets it and
    the last, whichever that is, gives back what there was.
    """

    def __init__(self):
        self._lock = threading.Lock()
        self._inside = 0
        self._before: list[int] = []

    def __enter__(self):
        with self._lock:
            if not self._inside:
                # `threadpool_limits` does so too, in five times the time.
                self._before = [one.get_num_threads() for one in _blas()]
                for library in _blas():
                    library.set_num_threads(1)
            self._inside += 1

    def __exit__(self, *error):
        with self._lock:
            self._inside -= 1
            if not self._inside:
                for library, before in zip(_blas(), self._before, strict=True):
                    library.set_num_threads(before)


_SINGLE_THREAD = _SingleThread()


def single_threaded_blas() -> contextlib.AbstractContextManager:
    """Hold BLAS to one thread in a `with` block, whichever thread asks."""
    # A second BLAS thread gains little and stalls for seconds when another
    # process wants the core, so matrices are spread over threads instead.
    return _SINGLE_THREAD
