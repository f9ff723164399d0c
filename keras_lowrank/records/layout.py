"""Which charts TensorBoard's tab of custom scalars opens on.

Charts choose their curves by regular expressions, so that those of several
runs, which TensorBoard merges, are the same and show once.
"""

import re
from collections.abc import Iterable

Layout = dict[str, dict[str, list]]


def training_layout(
    measures: Iterable[str], logs: Iterable[str], features: bool = False
) -> Layout:
    """Charts of a recorded `fit`.

    Args:
        measures: Names of the measures recorded.
        logs: Keys of the logs of an epoch.
        features: Boolean, whether features are recorded, too.

    Returns:
        Dict from categories to dicts from titles to charts, as tensorboardX
        takes it: the means, what is trained for, and each measure over all
        weight matrices.

    Example:

    >>> from keras_lowrank.records.layout import training_layout
    >>> layout = training_layout(["rank"], ["loss", "val_loss"])
    >>> list(layout)
    ['Means', 'Training', 'Ranks']
    >>> layout["Training"]
    {'loss': ['Multiline', ['loss$', 'val_loss$']]}
    """
    measures, logs = list(measures), list(logs)
    means = [f"{name}_mean" for name in measures]
    if features:
        means += [f"features_{name}_mean" for name in measures]
    means += [key for key in logs if key.endswith("_mean")]
    trained = [key.removeprefix("val_") for key in logs if key not in means]
    layout = {
        "Means": {name: _chart(_whole(name)) for name in dict.fromkeys(means)},
        "Training": {
            name: _chart(_whole(name), _whole(f"val_{name}"))
            for name in dict.fromkeys(trained)
        },
        "Ranks": {
            name: _chart(f"{re.escape(name)}/(?!features/)")
            for name in measures
        },
    }
    if features:
        layout["Features"] = {
            name: _chart(f"{re.escape(name)}/features/") for name in measures
        }
    return {category: charts for category, charts in layout.items() if charts}


def theorem_layout(weights: Iterable[str]) -> Layout:
    """Charts of the certified rank of each weight matrix beside the measured.

    Args:
        weights: Names of weight matrices.

    Returns:
        Dict as that of `training_layout`.
    """
    charts = {
        name: _chart(
            _whole(f"certified_rank/{name}"), _whole(f"epsilon_rank/{name}")
        )
        for name in weights
    }
    return {"Theorem": charts} if charts else {}


def _whole(tag: str) -> str:
    """A regular expression, matched from the start, for one tag."""
    return f"{re.escape(tag)}$"


def _chart(*expressions: str) -> list:
    return ["Multiline", list(expressions)]
