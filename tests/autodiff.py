"""Values and gradients of functions of tensors, on any backend."""

import contextlib
import functools

import keras
import numpy as np


def float64():
    """A block in which float64 arrays become float64 tensors."""
    if keras.backend.backend() != "jax":
        return contextlib.nullcontext()
    import jax

    return jax.enable_x64(True)


def value_and_gradients(function, *arrays, jit=False):
    """The value of a function, and its gradient by each argument.

    Args:
        function: Function from tensors to a scalar tensor.
        *arrays: NumPy arrays.
        jit: Boolean, whether TensorFlow compiles it by XLA. JAX always does,
            and torch never.

    Returns:
        Tuple of a float and a list of NumPy arrays.
    """
    (both,) = all_values_and_gradients([function], *arrays, jit=jit)
    return both


def all_values_and_gradients(functions, *arrays, jit=False):
    """The same for several functions of the same arguments.

    JAX compiles them together, in a fraction of the time.

    Returns:
        List of tuples.
    """
    backend = keras.backend.backend()
    if backend == "jax":
        return _on_jax(tuple(functions), len(arrays))(arrays)
    one = _on_torch if backend == "torch" else _on_tensorflow
    return [one(function, arrays, jit) for function in functions]


@functools.cache
def _on_jax(functions, count):
    import jax

    def total(*tensors):
        values = [
            function(*tensors[count * index : count * (index + 1)])
            for index, function in enumerate(functions)
        ]
        return sum(values), values

    positions = tuple(range(count * len(functions)))
    compiled = jax.jit(jax.value_and_grad(total, positions, has_aux=True))

    def both(arrays):
        (_, values), gradients = compiled(*list(arrays) * len(functions))
        gradients = [np.asarray(gradient) for gradient in gradients]
        return [
            (float(value), gradients[count * index : count * (index + 1)])
            for index, value in enumerate(values)
        ]

    return both


def _on_torch(function, arrays, jit):
    import torch

    tensors = [torch.tensor(array, requires_grad=True) for array in arrays]
    value = function(*tensors)
    value.backward()
    return value.item(), [tensor.grad.numpy() for tensor in tensors]


def _on_tensorflow(function, arrays, jit):
    import tensorflow as tf

    def both(*tensors):
        with tf.GradientTape() as tape:
            tape.watch(tensors)
            value = function(*tensors)
        return value, tape.gradient(value, tensors)

    both = tf.function(both, jit_compile=True) if jit else both
    value, gradients = both(*(tf.constant(array) for array in arrays))
    return float(value), [gradient.numpy() for gradient in gradients]
