"""What is worth knowing of a run besides its spectra."""

import platform
from typing import Any

import keras
import numpy as np

from keras_lowrank.version import __version__


def run_info(tracker) -> dict[str, Any]:
    """Settings and versions of the `fit` that a tracker watches."""
    optimizer = getattr(tracker.model, "optimizer", None)
    return {
        "model": tracker.model.name,
        "optimizer": None
        if optimizer is None
        else {"class_name": type(optimizer).__name__} | optimizer.get_config(),
        "fit": dict(tracker.params or {}),
        "method": tracker.method,
        "weights": tracker.weights,
        "views": tracker.views,
        "every": tracker.every,
        "versions": {
            "keras_lowrank": __version__,
            "keras": keras.__version__,
            "numpy": np.__version__,
            "python": platform.python_version(),
        },
        "backend": keras.backend.backend(),
    }


def learning_rate(model) -> float | None:
    """Learning rate of the next update, or `None` without an optimizer."""
    optimizer = getattr(model, "optimizer", None)
    if optimizer is None:
        return None
    return float(keras.ops.convert_to_numpy(optimizer.learning_rate))


def updates(model) -> int | None:
    """How many updates the optimizer has made, or `None` without one."""
    optimizer = getattr(model, "optimizer", None)
    if optimizer is None:
        return None
    return int(keras.ops.convert_to_numpy(optimizer.iterations))
