"""The two ways to decay variables in a training step, on every backend."""

import keras
from keras import ops


def add_decay(gradient, variable, rate):
    """The coupled way: a gradient plus `rate` times its variable.

    Args:
        gradient: Tensor of the variable's shape, dense or sparse.
        variable: The variable.
        rate: Scalar float32 tensor.

    Returns:
        Dense tensor of the gradient's dtype: every row decays.
    """
    exact = _wide(variable)
    decay = ops.cast(rate, exact.dtype) * exact
    total = ops.add(ops.cast(gradient, exact.dtype), decay)
    return ops.cast(total, gradient.dtype)


def shrink(optimizer, variables, fraction) -> None:
    """The decoupled way: take a fraction off each of `variables`.

    Args:
        optimizer: Keras optimizer that assigns them.
        variables: List of variables.
        fraction: Scalar float32 tensor.
    """

    def shrink_one(variable, fraction):
        exact = _wide(variable)
        exact = exact - ops.cast(fraction, exact.dtype) * exact
        optimizer.assign(variable, ops.cast(exact, variable.dtype))

    # Only Keras' optimizers for TensorFlow have a strategy.
    if not hasattr(optimizer, "_distribution_strategy"):
        for variable in variables:
            shrink_one(variable, fraction)
        return

    # Its replicas share the variables, which can be updated only where the
    # replicas meet, once for all of them.
    import tensorflow as tf

    def shrink_all(strategy, variables, fraction):
        for variable in variables:
            if isinstance(variable, keras.Variable):
                variable = variable.value
            strategy.extended.update(
                variable, shrink_one, args=(fraction,), group=False
            )

    tf.__internal__.distribute.interim.maybe_merge_call(
        shrink_all, optimizer._distribution_strategy, variables, fraction
    )


def _wide(variable):
    # In less than float32 a small decay would be lost to rounding twice.
    dtype = keras.backend.standardize_dtype(variable.dtype)
    return ops.cast(variable, keras.backend.result_type(dtype, "float32"))
