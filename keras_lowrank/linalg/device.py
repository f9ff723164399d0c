"""Spectra computed by the device that trains: only values come back.

The numbers are those of the host, to 1e-9 of the largest: float64 there too,
in a scope of its own. Matrices of one shape are stacked and go through one
call; what a Gram matrix cannot give to the promised digits, and what is not
finite, is left to the host.
"""

import functools
from collections.abc import Iterable
from typing import Any

import numpy as np

from keras_lowrank.linalg.product import Product
from keras_lowrank.linalg.refine import may_miss
from keras_lowrank.linalg.scopes import float64
from keras_lowrank.linalg.spectra import GRAM_RESOLUTION
from keras_lowrank.linalg.spectra import check_method
from keras_lowrank.linalg.spectra import spectrum
from keras_lowrank.spectrum import Spectrum

# Entries that are stacked at once: 256 MiB in float64. A larger matrix goes
# by itself, so that memory is bounded by the largest and not by the model.
STACK_ENTRIES = 2**25

BACKENDS = ("jax", "torch", "tensorflow")
NARROW = ("float32", "bfloat16", "float16")


def device_tensor(variable) -> Any:
    """The value of a variable where it is, or `None` where it has no one place.

    Args:
        variable: Built Keras variable.

    Returns:
        Tensor of the backend; `None` for entries that need more than a
        float64 Gram matrix, and for values that several devices share.
    """
    import keras

    backend = keras.backend.backend()
    dtype = keras.backend.standardize_dtype(variable.dtype)
    if backend not in BACKENDS or dtype not in NARROW:
        return None
    tensor = variable.value
    if backend == "jax":
        return tensor if len(tensor.devices()) == 1 else None
    if backend == "torch":
        # Neither Apple's GPUs nor torch's stand-ins for data have float64.
        known = tensor.device.type in ("cpu", "cuda", "xpu")
        return tensor.detach() if known else None
    if hasattr(tensor, "distribute_strategy"):
        return None
    return tensor


def on_accelerator(variable) -> bool:
    """Whether the device route could take a variable and is no CPU."""
    tensor = device_tensor(variable)
    if tensor is None:
        return False
    if hasattr(tensor, "devices"):  # JAX
        return all(device.platform != "cpu" for device in tensor.devices())
    where = tensor.device
    return "cpu" not in str(getattr(where, "type", where)).lower()


def device_spectra(matrices: Iterable, method: str = "auto") -> list[Spectrum]:
    """Spectra of matrices, each by the device it is on.

    Args:
        matrices: Iterable of tensors of shape `(m, n)` or `(b, m, n)`, as
            `device_tensor` gives them; what is a NumPy array or a `Product`
            is left to the host.
        method: As for `spectrum`; `"svd"` is the host's.

    Returns:
        List of `Spectrum`, in the order of the matrices.
    """
    check_method(method)
    found: dict[int, Spectrum] = {}
    waiting: dict[tuple[int, ...], list[tuple[int, Any]]] = {}
    entries = 0
    for place, matrix in enumerate(matrices):
        on_host = isinstance(matrix, (np.ndarray, Product))
        shape = tuple(matrix.shape)
        if on_host or method == "svd" or 0 in shape:
            found[place] = spectrum(matrix, method)
            continue
        waiting.setdefault(shape, []).append((place, matrix))
        entries += int(np.prod(shape))
        if entries > STACK_ENTRIES:
            _compute(waiting, method, found)
            waiting, entries = {}, 0
    _compute(waiting, method, found)
    return [found[place] for place in range(len(found))]


def _compute(waiting, method, found) -> None:
    for group in waiting.values():
        values = _gram_values([matrix for _, matrix in group])
        for (place, matrix), blocks in zip(group, values, strict=True):
            known = _spectrum(tuple(matrix.shape), blocks, method)
            found[place] = known or spectrum(matrix, method)


def _spectrum(shape, blocks: np.ndarray, method: str) -> Spectrum | None:
    """The `Spectrum` of values of diagonal blocks, if they are good enough."""
    if not np.isfinite(blocks).all():
        return None  # the host says how many entries are not
    values = np.sort(blocks.ravel())[::-1]
    if method == "auto" and values[0] > 0:
        if any(may_miss(block[::-1], values[0]) for block in blocks):
            return None
    count = 1 if len(shape) == 2 else shape[0]
    full = (count * shape[-2], count * shape[-1])
    return Spectrum(values, full, resolution=GRAM_RESOLUTION * values[0])


def _gram_values(tensors: list) -> np.ndarray:
    """Singular values of a stack of matrices, smallest first.

    Args:
        tensors: List of `s` tensors of one shape, `(m, n)` or `(b, m, n)`.

    Returns:
        Float64 array of shape `(s, b, min(m, n))`, with `b = 1` for matrices;
        NaN throughout for those that are not finite.
    """
    import keras

    backend = keras.backend.backend()
    with float64():
        if backend == "jax":
            values, finite = _jax_values()(tensors)
        elif backend == "torch":
            values, finite = _torch_values(tensors)
        else:
            values, finite = _tensorflow_values(tensors)
        values, finite = (
            keras.ops.convert_to_numpy(item) for item in (values, finite)
        )
    values = np.sqrt(np.clip(values, 0.0, None))
    values = values.reshape(len(tensors), -1, values.shape[-1])
    return np.where(finite[:, None, None], values, np.nan)


@functools.cache
def _jax_values():
    import jax
    from jax import numpy as jnp

    @jax.jit
    def values(tensors):
        stack = jnp.stack(tensors).astype("float64")
        finite = jnp.isfinite(stack).all(axis=range(1, stack.ndim))
        shape = (-1, *(1,) * (stack.ndim - 1))
        stack = jnp.where(finite.reshape(shape), stack, 0.0)
        turned = stack.swapaxes(-1, -2)
        wide = stack.shape[-2] < stack.shape[-1]
        gram = stack @ turned if wide else turned @ stack
        return jnp.linalg.eigvalsh(gram), finite

    return values


def _torch_values(tensors):
    import torch

    with torch.no_grad():
        stack = torch.stack([tensor.double() for tensor in tensors])
        finite = torch.isfinite(stack).flatten(1).all(1)
        shape = (-1, *(1,) * (stack.ndim - 1))
        stack = torch.where(finite.reshape(shape), stack, 0.0)
        wide = stack.shape[-2] < stack.shape[-1]
        gram = stack @ stack.mT if wide else stack.mT @ stack
        return torch.linalg.eigvalsh(gram), finite


def _tensorflow_values(tensors):
    import tensorflow as tf

    with tf.device(tensors[0].device):
        stack = tf.cast(tf.stack(tensors), tf.float64)
        axes = list(range(1, len(stack.shape)))
        finite = tf.reduce_all(tf.math.is_finite(stack), axis=axes)
        shape = (-1, *(1,) * len(axes))
        stack = tf.where(tf.reshape(finite, shape), stack, tf.zeros_like(stack))
        wide = stack.shape[-2] < stack.shape[-1]
        gram = tf.matmul(stack, stack, transpose_a=not wide, transpose_b=wide)
        return tf.linalg.eigvalsh(gram), finite
