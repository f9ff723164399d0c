"""Letting go of what a training leaves behind in its backend."""

import contextlib
import sys

import keras


@contextlib.contextmanager
def forgetting():
    """What was traced inside is not kept after, so memory does not grow.

    TensorFlow keeps the gradient function of every custom gradient that it
    has traced for as long as the process lives, and with it the graph of the
    whole step: megabytes for every model that is trained, though nobody can
    use them once the model is gone. To be put around a training of which no
    model is handed out.
    """
    before = set(_gradients())
    try:
        yield
    finally:
        keras.backend.clear_session()
        registry = _gradients()
        for name in set(registry) - before:
            # Names of others are the operations of TensorFlow itself.
            if name.startswith("CustomGradient-"):
                del registry[name]


def _gradients() -> dict:
    """TensorFlow's gradient functions by name; nothing elsewhere."""
    ops = sys.modules.get("tensorflow.python.framework.ops")
    registry = getattr(ops, "gradient_registry", None)
    # There is no public way to ask for them, nor to take one out.
    return getattr(registry, "_registry", {})
