"""`SearchSpec`: what is searched for, where and how, as a value."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from keras_lowrank.experiments import ExperimentSpec
from keras_lowrank.experiments.specs import read_values
from keras_lowrank.search.objective import LowestRank
from keras_lowrank.search.objective import Objective
from keras_lowrank.search.objective import ParetoFront
from keras_lowrank.search.objective import as_objective
from keras_lowrank.search.settings import as_last
from keras_lowrank.search.settings import as_seeds
from keras_lowrank.search.space import SearchSpace
from keras_lowrank.search.specified import check_space

METHODS = ("random", "grid", "bayesian", "hyperband", "optuna")
EQUALS = ("epochs", "steps", "decay_clock")


@dataclasses.dataclass(frozen=True)
class SearchSpec:
    """A search from one experiment, the default, over some of its fields.

    Args:
        spec: `ExperimentSpec`, the default point; it is trained first.
        space: `SearchSpace` of its fields, or a dict of axes.
        objective: `LowestRank`, `BestAccuracy`, `ParetoFront`, or the dict of
            one. By default the lowest rank among trials that are as accurate
            as the default, in the mean over the seeds.
        method: `"random"`, `"grid"`, `"bayesian"` or `"hyperband"`, those of
            KerasTuner; or `"optuna"`, which alone searches for a front itself.
        trials: Int >= 1, points to try besides the default. `None` for all of
            a grid. Hyperband counts by itself.
        seeds: Int, how many trainings per trial; or a list of their seeds.
        last: Int >= 1. Metrics are means over this many last epochs.
        equal: What every trial has as much of as the default: `"epochs"`,
            under which a smaller batch makes more steps; `"steps"`; or
            `"decay_clock"`, the degree to which the initial weights are
            forgotten.
        seed: Int >= 0, of the method.
        prune: Boolean, whether Optuna ends trials that are worse than the
            median. A rank falls late: it must have come down half-way.

    Raises:
        TypeError: for a value of the wrong type.
        ValueError: for a value out of range, with what is in range.

    Example:

    >>> default = ExperimentSpec("mlp", "digits", epochs=30)
    >>> search = SearchSpec(
    ...     default, {"batch_size": [16, 64], "weight_decay": [1e-3, 1e-2]},
    ...     method="grid", trials=None,
    ... )
    >>> str(search.space)
    "SearchSpace({'batch_size': [16, 64], 'weight_decay': [0.001, 0.01]})"
    """

    spec: ExperimentSpec
    space: SearchSpace
    objective: Objective | None = None
    method: str = "random"
    trials: int | None = 20
    seeds: tuple[int, ...] = (0, 1, 2)
    last: int = 1
    equal: str = "epochs"
    seed: int = 0
    prune: bool = False

    def __post_init__(self):
        def keep(name, value):
            object.__setattr__(self, name, value)

        if not isinstance(self.spec, ExperimentSpec):
            raise TypeError(
                f"`spec` must be an ExperimentSpec. Received: {self.spec!r}."
            )
        if isinstance(self.space, Mapping):
            keep("space", SearchSpace(self.space))
        if self.objective is not None:
            keep("objective", as_objective(self.objective))
        keep("seeds", as_seeds(self.seeds))
        keep("last", as_last(self.last))
        for name, choices in (("method", METHODS), ("equal", EQUALS)):
            if getattr(self, name) not in choices:
                raise ValueError(
                    f"`{name}` must be one of {choices}. "
                    f"Received: {name}={getattr(self, name)!r}."
                )
        self._check_numbers()
        self._check_space()
        self._check_method()

    def _check_numbers(self):
        for name, least in (("trials", 1), ("seed", 0)):
            value = getattr(self, name)
            if value is None and name == "trials":
                continue
            if isinstance(value, bool) or not isinstance(value, int):
                raise TypeError(
                    f"`{name}` must be a whole number. "
                    f"Received: {name}={value!r}."
                )
            if value < least:
                raise ValueError(
                    f"`{name}` must be {least} or more. "
                    f"Received: {name}={value}."
                )
        if not isinstance(self.prune, bool):
            raise TypeError(
                f"`prune` must be true or false. Received: {self.prune!r}."
            )

    def _check_space(self):
        fixed = {"epochs", "steps", "decay_clock"} & set(self.space.names)
        if fixed and self.equal != "epochs":
            raise ValueError(
                f'`equal="{self.equal}"` says when every trial stops. '
                f"Received: {', '.join(sorted(fixed))} in the space too."
            )
        check_space(self.spec, self.space)

    def _check_method(self):
        if self.trials is None and self.method not in ("grid", "hyperband"):
            raise ValueError(
                f"The method {self.method} needs a number of `trials`."
            )
        if self.prune and self.method != "optuna":
            raise ValueError(
                f'`prune` is for the method "optuna". Received: '
                f"method={self.method!r}; Hyperband prunes by itself."
            )
        if self.prune and self.spec.stop[0] != "epochs":
            raise ValueError(
                "`prune` waits for half of the epochs. Received: a default "
                f"that stops at {self.spec.stop[0]}."
            )
        if self.prune and self.equal != "epochs":
            raise ValueError(
                "`prune` compares trials epoch by epoch. Received: "
                f"equal={self.equal!r}, under which epochs differ."
            )
        if self.prune and isinstance(self.objective, ParetoFront):
            raise ValueError(
                "Optuna prunes by one number, and a front has several. Leave "
                "out `prune`, or search for a lowest rank or best accuracy."
            )
        if self.method == "hyperband" and (
            self.equal != "epochs" or self.spec.stop[0] != "epochs"
        ):
            raise ValueError(
                "Hyperband gives every trial its epochs, so they cannot be "
                f"equal otherwise. Received: equal={self.equal!r}, and a "
                f"default that stops at {self.spec.stop[0]}. Use another "
                "method, or `epochs`."
            )

    def to_dict(self) -> dict[str, Any]:
        """What decides the outcome of a trial, as plain values."""
        return {
            "spec": self.spec.to_dict(),
            "method": self.method,
            "equal": self.equal,
            "seed": self.seed,
            "prune": self.prune,
        }


def read_search_spec(path) -> SearchSpec:
    """The search of a TOML or JSON file.

    Beside the fields of an `ExperimentSpec`, the default point, the file has a
    table `search` with the arguments of `SearchSpec`, and in it a table
    `space` of fields and their values: lists, or tables of `min` and `max`.

    Args:
        path: Path of a file whose name ends in `.toml` or `.json`.

    Returns:
        A `SearchSpec`.

    Raises:
        FileNotFoundError: when there is no such file.
        ValueError: when it cannot be read, or holds no valid search.

    Example:

    ```toml
    network = { name = "mlp", depth = 3, width = 100 }
    data = "digits"
    epochs = 60

    [search]
    trials = 20
    equal = "steps"

    [search.space]
    batch_size = [16, 32, 64]
    weight_decay = { min = 1e-4, max = 1e-1 }
    ```
    """
    values = read_values(path)
    if not isinstance(values.get("search"), dict):
        raise ValueError(
            f"'{path}' has no table `search`, with what to search for and "
            "where: `[search.space]` and the fields and values in it."
        )
    search = dict(values.pop("search"))
    if "sweep" in values:
        raise ValueError(
            f"'{path}' has a `sweep` and a `search`. Keep one of the two."
        )
    space = search.pop("space", None)
    if not isinstance(space, dict):
        raise ValueError(
            f"'{path}' has no table `search.space` of fields and values."
        )
    known = {field.name for field in dataclasses.fields(SearchSpec)}
    if unknown := sorted(set(search) - known | {"spec"} & set(search)):
        raise ValueError(
            f"A search has no {', '.join(map(repr, unknown))}. It has: "
            f"{', '.join(sorted(known - {'spec'}))}."
        )
    if search.get("method") == "grid":
        search.setdefault("trials", None)
    default = ExperimentSpec.from_dict(values)
    return SearchSpec(default, _space(space), **_objective(search))


def _space(table: Mapping[str, Any]) -> SearchSpace:
    """Axes of a file, where `network.width` is a table in a table."""
    axes: dict[str, Any] = {}
    for name, axis in table.items():
        if isinstance(axis, dict) and not {"min", "max"} & set(axis):
            axes |= {f"{name}.{option}": item for option, item in axis.items()}
        else:
            axes[name] = axis
    return SearchSpace(axes)


def _objective(search: dict[str, Any]) -> dict[str, Any]:
    """Lets a file name an objective by a word where that is enough."""
    objective = search.get("objective")
    if objective == "lowest_rank":
        return search | {"objective": None}
    if isinstance(objective, str):
        return search | {"objective": as_objective({"name": objective})}
    return search


def resolved(search: SearchSpec, accuracy: float) -> Objective:
    """The objective, once the accuracy of the default is known."""
    return search.objective or LowestRank(accuracy_floor=accuracy)
