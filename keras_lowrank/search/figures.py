"""What a search found, as plot data: the front, the ratio, the iso-lines."""

import math
import re
from collections.abc import Mapping
from typing import Any
from typing import TypeGuard

import numpy as np

from keras_lowrank.decay import convert_weight_decay
from keras_lowrank.plots import Line
from keras_lowrank.plots import Map
from keras_lowrank.plots import Panel
from keras_lowrank.search.results import SearchResults
from keras_lowrank.search.trials import DEFAULT_TRIAL
from keras_lowrank.search.trials import Trial

# The paper's combination: the rank that SGD can keep grows with it.
RATIO = "batch_size / (learning_rate * weight_decay)"


def front_panel(
    results: SearchResults, accuracy="val_accuracy", rank="rank_mean"
) -> Panel:
    """Every complete trial by accuracy and rank, and those on the front.

    Args:
        results: `SearchResults`.
        accuracy: Name of the metric along the horizontal axis, the more the
            better.
        rank: Name of the metric along the vertical axis, the less the better.

    Returns:
        A `Panel`.
    """
    trials = [
        trial
        for trial in results.complete
        if {accuracy, rank} <= set(trial.metrics)
    ]
    default = [trial for trial in trials if trial.id == DEFAULT_TRIAL]
    tried = [trial for trial in trials if trial.id != DEFAULT_TRIAL]
    front = results.pareto([(accuracy, "max"), (rank, "min")])
    lines = [_line("on the front", front, accuracy, rank)]
    if tried:
        lines.append(_line("trials", tried, accuracy, rank, "trial"))
    if default:
        lines.append(_line("default", default, accuracy, rank, "default"))
    return Panel(
        title="Accuracy and rank",
        x_label=_words(accuracy),
        y_label=_words(rank),
        lines=tuple(lines),
        caption=_caption(results),
    )


def ratio_panel(results: SearchResults, rank="rank_mean") -> Panel:
    """The rank against `batch_size / (learning_rate * weight_decay)`.

    That is what the paper's bound grows with, so that trials of different
    batch sizes should fall on one curve, as far as the bound decides. At a
    fixed number of epochs it is also, up to a factor, the inverse of the decay
    clock; searches with equal steps or equal clocks tell the two apart.

    Args:
        results: `SearchResults`, whose trials have all three.
        rank: Name of the metric.

    Returns:
        A `Panel` with a line for each batch size; trials without decay have
        no place in it.

    Raises:
        ValueError: when a quantity is neither searched nor known.

    Reference:
        [Galanti et al., CPAL 2025](https://arxiv.org/abs/2206.05794), 3.2
    """
    by_size: dict[Any, list[tuple[float, Trial]]] = {}
    for trial in results.complete:
        values = _known(results, trial)
        ratio = _quantity(values, RATIO)
        if math.isfinite(ratio):
            by_size.setdefault(values["batch_size"], []).append((ratio, trial))
    lines = []
    for size in sorted(by_size):
        pairs = sorted(by_size[size], key=lambda pair: pair[0])
        low, mean, high = _bars([trial for _, trial in pairs], rank)
        ratios = np.array([ratio for ratio, _ in pairs])
        lines.append(
            Line(f"batch size {size}", ratios, mean, low=low, high=high)
        )
    return Panel(
        title="Rank and the paper's ratio",
        x_label=RATIO,
        y_label=_words(rank),
        lines=tuple(lines),
        caption=_caption(results),
        log_x=True,
    )


def iso_rank_map(
    results: SearchResults,
    x: str = "learning_rate * weight_decay",
    y: str = "batch_size",
    rank="rank_mean",
) -> Map:
    """Where in the space the rank is the same.

    Args:
        results: `SearchResults`.
        x: Name of a hyperparameter, or of a product or quotient of some.
        y: Name of another.
        rank: Name of the metric that colours and iso-lines stand for.

    Returns:
        A `Map` with logarithmic axes; trials that are 0 along one have no
        place in it.

    Raises:
        ValueError: when a quantity is neither searched nor known.
    """
    trials = [trial for trial in results.complete if rank in trial.metrics]
    known = [_known(results, trial) for trial in trials]
    return Map(
        title="Where the rank is the same",
        x_label=x,
        y_label=_words(y),
        value_label=_words(rank),
        x=np.array([_quantity(values, x) for values in known]),
        y=np.array([_quantity(values, y) for values in known]),
        values=np.array([trial.metrics[rank] for trial in trials]),
        log_x=True,
        log_y=True,
        caption=_caption(results),
    )


def knows(results: SearchResults, formula: str) -> bool:
    """Whether a quantity can be told of every complete trial.

    Args:
        results: `SearchResults`.
        formula: Name of a hyperparameter, or a product or quotient of some.
    """
    names = re.findall(r"\w+(?:\.\w+)*", formula)
    known = [_known(results, trial) for trial in results.complete]
    return all(_is_number(item.get(name)) for item in known for name in names)


def _line(label, trials, accuracy, rank, mark="") -> Line:
    x = np.array([trial.metrics[accuracy] for trial in trials])
    if mark:
        y = np.array([trial.metrics[rank] for trial in trials])
        return Line(label, x, y, mark=mark)
    low, mean, high = _bars(trials, rank)
    return Line(label, x, mean, low=low, high=high)


def _bars(trials, metric: str):
    """Means over the seeds with both ends of their intervals."""
    found = [trial.interval(metric) for trial in trials]
    mean = np.array([item.mean for item in found])
    low = np.array([item.low for item in found])
    high = np.array([item.high for item in found])
    # One seed has no interval, and no bar.
    return (
        np.where(np.isfinite(low), low, mean),
        mean,
        np.where(np.isfinite(high), high, mean),
    )


def _known(results: SearchResults, trial: Trial) -> dict[str, Any]:
    """The values of a trial, and those that all trials share."""
    spec = results.settings.about.get("spec", {})
    shared = {"batch_size": 32, "weight_decay": 0.0, "learning_rate": 0.1}
    known = (shared | spec if spec else {}) | dict(trial.values)
    if spec and isinstance(known.get("weight_decay"), (int, float)):
        known["weight_decay"] = convert_weight_decay(
            known["weight_decay"],
            known.get("decay_convention", "torch"),
            "torch",
        )
    return known


def _quantity(values: Mapping[str, Any], formula: str) -> float:
    """A hyperparameter, or a product or quotient of some."""
    above, _, below = formula.partition("/")
    over = _product(values, above)
    under = _product(values, below.strip(" ()")) if below else 1.0
    return over / under if under else math.inf


def _product(values: Mapping[str, Any], names: str) -> float:
    product = 1.0
    for name in names.split("*"):
        value = values.get(name.strip())
        if not _is_number(value):
            raise ValueError(
                "A figure needs the number of every hyperparameter on its "
                f"axes. Received: {name.strip()}={value!r}, where the trials "
                f"have {', '.join(values)}."
            )
        product *= value
    return product


def _is_number(value) -> TypeGuard[float]:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _caption(results: SearchResults) -> str:
    count = len(results.settings.seeds)
    if count == 1:
        return "one seed"
    return f"means over {count} seeds, bars: 95 % intervals"


def _words(name: str) -> str:
    words = name.replace("val_", "test ").replace("_", " ")
    if words.endswith(" mean"):
        return f"mean {words.removesuffix(' mean')}"
    return words
