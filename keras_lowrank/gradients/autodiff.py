"""Gradients of a batch, by the autodiff of the backend.

Beside `linalg`, the one place that knows backends: Keras has no call for it.
"""

import keras
import numpy as np
from keras import ops


def batch_gradients(model, x, y, loss, training: bool) -> list[np.ndarray]:
    """Gradients of the loss of a batch, for each trainable variable.

    The model is left as it was: weights, moving statistics, seeds, and what
    torch keeps as `.grad`.

    Args:
        model: Built Keras model.
        x: Inputs, as `model` takes them.
        y: Targets.
        loss: Function of targets and outputs, to a scalar or to one number
            for each sample, whose mean is taken.
        training: Boolean, whether the model is called in training mode.

    Returns:
        List of arrays, zero where the loss does not depend on a variable.
    """
    x, y = (
        keras.tree.map_structure(ops.convert_to_tensor, item) for item in (x, y)
    )
    kept = [
        np.array(ops.convert_to_numpy(variable))
        for variable in model.non_trainable_variables
    ]
    try:
        gradients = _GRADIENTS[keras.backend.backend()](
            model, x, y, loss, training
        )
        return [
            np.zeros(variable.shape, np.float32)
            if gradient is None
            else np.array(ops.convert_to_numpy(gradient))
            for gradient, variable in zip(
                gradients, model.trainable_variables, strict=True
            )
        ]
    finally:
        for variable, value in zip(
            model.non_trainable_variables, kept, strict=True
        ):
            variable.assign(value)


def _jax(model, x, y, loss, training):
    import jax

    fixed = [variable.value for variable in model.non_trainable_variables]

    def scalar(trainable):
        outputs, _ = model.stateless_call(
            trainable, fixed, x, training=training
        )
        return ops.mean(loss(y, outputs))

    # One program, rather than one for each operation.
    return jax.jit(jax.grad(scalar))(
        [variable.value for variable in model.trainable_variables]
    )


def _torch(model, x, y, loss, training):
    import torch

    with torch.enable_grad():
        scalar = ops.mean(loss(y, model(x, training=training)))
        return torch.autograd.grad(
            scalar,
            [variable.value for variable in model.trainable_variables],
            allow_unused=True,
        )


def _tensorflow(model, x, y, loss, training):
    import tensorflow

    with tensorflow.GradientTape() as tape:
        scalar = ops.mean(loss(y, model(x, training=training)))
    gradients = tape.gradient(
        scalar, [variable.value for variable in model.trainable_variables]
    )
    # Embeddings have theirs row by row.
    return [
        tensorflow.convert_to_tensor(gradient)
        if isinstance(gradient, tensorflow.IndexedSlices)
        else gradient
        for gradient in gradients
    ]


_GRADIENTS = {"jax": _jax, "torch": _torch, "tensorflow": _tensorflow}
