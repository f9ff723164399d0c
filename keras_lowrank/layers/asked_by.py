"""Who asks: a step of Keras' loop, which must stay cheap, or somebody else.

Keras calls a layer from `fit`, `evaluate` and `predict` alike, and asks its
metrics at every step as it does at the end of an epoch. Nothing that it passes
tells them apart, but the function in whose frame the call is made does. A
compiled step is traced once, so that there it is asked once as well.
"""

import inspect

import keras

# What Keras runs at every step, or traces, and what a user may override.
STEPS = ("train_step", "test_step", "compute_metrics", "stateless_result")


def inside_step() -> bool:
    """Whether this runs inside a step of training or evaluation.

    Everything that is compiled is such a step, and so is all that JAX's
    stateless functions do: values are not known there.
    """
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        if not tf.executing_eagerly():
            return True
    # Compilers put something before the name of what they make of a function.
    return any(name.endswith(STEPS) for name, _ in _callers())


def inside_prediction() -> bool:
    """Whether this runs for the sake of outputs: `predict` or `export`."""
    return any(
        name.endswith("predict_step") or module.startswith("keras.src.export")
        for name, module in _callers()
    )


def _callers():
    frame = inspect.currentframe()
    while frame is not None:
        yield frame.f_code.co_name, frame.f_globals.get("__name__") or ""
        frame = frame.f_back
