"""What the backend does with the operations of a training step."""

import contextlib

import keras


def compiled_by_xla() -> bool:
    """Whether TensorFlow will hand XLA what is being traced now.

    XLA expands a decomposition into loops, on a CPU a thousand times slower
    than LAPACK's. JAX, which is XLA throughout, calls LAPACK or the library of
    the GPU from it, and never counts here.

    Returns:
        Boolean. `True` inside `tf.function(jit_compile=True)`, and so inside
        the step of a model compiled with `jit_compile=True`, also in functions
        that are called from there.
    """
    if keras.backend.backend() != "tensorflow":
        return False
    import tensorflow as tf

    if tf.executing_eagerly():
        return False
    graph = tf.compat.v1.get_default_graph()
    while graph is not None:
        # What TensorFlow itself asks; the public API has no word for it.
        context = graph._get_control_flow_context()
        while context is not None:
            if context.IsXLAContext():
                return True
            context = context.outer_context
        graph = getattr(graph, "outer_graph", None)
    return False


def runs_eagerly() -> bool:
    """Whether Python runs each operation now, rather than describing it.

    Returns:
        Boolean. `False` while a step is traced or compiled, and on JAX, whose
        steps always are.
    """
    backend = keras.backend.backend()
    if backend == "torch":
        import torch

        return not torch.compiler.is_compiling()
    if backend == "tensorflow":
        import tensorflow as tf

        return tf.executing_eagerly()
    return False


@contextlib.contextmanager
def float64():
    """Let the backend compute in float64, for as long as the block lasts.

    Only JAX has to be told. Its setting holds for the operations that are
    traced in the block, and is part of what it compiles.
    """
    if keras.backend.backend() != "jax":
        yield
        return
    import jax

    with jax.enable_x64(True):
        yield


@contextlib.contextmanager
def full_precision():
    """Multiply matrices in their own precision while the block lasts.

    JAX would take TF32 on a GPU, and bfloat16 on a TPU. Torch does not unless
    it is told to; TensorFlow does, and cannot be told for a block.
    """
    if keras.backend.backend() != "jax":
        yield
        return
    import jax

    with jax.default_matmul_precision("highest"):
        yield
