"""KerasTuner and Optuna, or what to install."""

import importlib
from types import ModuleType


def keras_tuner() -> ModuleType:
    """The package keras_tuner, or an error that says what to install."""
    return _package("keras_tuner", "KerasTuner", "tuner")


def optuna() -> ModuleType:
    """The package optuna, or an error that says what to install."""
    return _package("optuna", "Optuna", "optuna")


def _package(name: str, title: str, extra: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ImportError(
            f"This search needs {title}. Install it with "
            f'`pip install "keras-lowrank[{extra}]"`.'
        ) from error
