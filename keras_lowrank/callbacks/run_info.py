"""What is worth knowing of a run besides its spectra."""

import contextlib
import platform
import sys
from typing import Any

import keras
import numpy as np
from keras.src.utils import module_utils

from keras_lowrank.decay import weight_decay_table
from keras_lowrank.processes import process_count
from keras_lowrank.version import __version__


def run_info(
    model, recorder, every, fit=None, max_overhead=None
) -> dict[str, Any]:
    """Settings and versions of a training that is recorded.

    Args:
        model: Keras model.
        recorder: `Recorder` that measures it.
        every: When it does.
        fit: Dict of what `fit` was told.
        max_overhead: Float, the share of its time that measuring may take.
    """
    return {
        "model": model.name,
        "optimizer": _optimizer_info(model),
        "weight_decay": _decay_info(model),
        "fit": dict(fit or {}),
        "method": recorder.method,
        "weights": recorder.weights,
        "views": recorder.views,
        "every": every,
        "max_overhead": max_overhead,
        "versions": {
            "keras_lowrank": __version__,
            "keras": keras.__version__,
            "numpy": np.__version__,
            "python": platform.python_version(),
        },
        "backend": keras.backend.backend(),
        "processes": process_count(),
    }


def _optimizer_info(model) -> dict[str, Any] | None:
    optimizer = getattr(model, "optimizer", None)
    if optimizer is None:
        return None
    info = {"class_name": type(optimizer).__name__}
    try:
        with _tensorflow_left_alone():
            return info | optimizer.get_config()
    except Exception as error:
        # Somebody's optimizer without a config is no reason not to train.
        return info | {"config_error": f"{type(error).__name__}: {error}"}


@contextlib.contextmanager
def _tensorflow_left_alone():
    """Serialize without importing TensorFlow where it is not the backend.

    To ask whether an object is one of TensorFlow's, Keras imports it where it
    is installed: seconds of the first `fit`. Before that there is no such
    object.
    """
    lazy = vars(module_utils.tensorflow)
    asked = lazy.get("_available")
    if asked is not None or "tensorflow" in sys.modules:
        yield
        return
    lazy["_available"] = False
    try:
        yield
    finally:
        lazy["_available"] = None


def _decay_info(model) -> dict[str, Any] | None:
    """How each variable decays as the run begins, and what is amiss."""
    optimizer = getattr(model, "optimizer", None)
    if optimizer is None or not model.built:
        return None
    try:
        table = weight_decay_table(model)
    except Exception as error:
        # As above: what cannot be described can be trained.
        return {"error": f"{type(error).__name__}: {error}"}
    kept = ("name", "role", "route", "coupling", "rate")
    return {
        "variables": [{key: row[key] for key in kept} for row in table.rows],
        "warnings": table.warnings,
    }


def learning_rate(model) -> float | None:
    """Learning rate of the next update, or `None` where there is not one."""
    value = _of_optimizer(model, "learning_rate")
    return None if value is None else float(value)


def updates(model) -> int | None:
    """How many updates the optimizer has made, or `None` without one."""
    value = _of_optimizer(model, "iterations")
    return None if value is None else int(value)


def _of_optimizer(model, name: str):
    # A `MultiOptimizer` has several learning rates, and hence none.
    value = getattr(getattr(model, "optimizer", None), name, None)
    return None if value is None else keras.ops.convert_to_numpy(value)
