"""What a search was asked, kept beside its trials."""

import dataclasses
import json
import pathlib
from collections.abc import Iterable
from collections.abc import Mapping
from typing import Any

from keras_lowrank.experiments.runs import write_whole
from keras_lowrank.search.objective import Objective
from keras_lowrank.search.objective import as_objective
from keras_lowrank.search.objective import objective_to_dict
from keras_lowrank.search.space import SearchSpace
from keras_lowrank.tables import plain

SETTINGS_FILE = "search.json"


@dataclasses.dataclass(frozen=True)
class Settings:
    """What all trials of a search have in common.

    Args:
        space: `SearchSpace`.
        objective: `LowestRank`, `BestAccuracy` or `ParetoFront`.
        seeds: Tuple of ints, those that every trial is trained with.
        last: Int >= 1, epochs that the metrics are means over.
        about: Dict of what else decides what a trial gives, plain values.
    """

    space: SearchSpace
    objective: Objective
    seeds: tuple[int, ...]
    last: int
    about: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def with_about(self, more: Mapping[str, Any]) -> "Settings":
        """The settings with more said about them."""
        return dataclasses.replace(self, about=dict(self.about) | dict(more))

    def to_dict(self) -> dict[str, Any]:
        """The settings as plain values."""
        return {
            "space": self.space.to_dict(),
            "objective": objective_to_dict(self.objective),
            "seeds": list(self.seeds),
            "last": self.last,
            "about": dict(self.about),
        }


def as_seeds(seeds: int | Iterable[int]) -> tuple[int, ...]:
    """Seeds out of their number, or out of themselves.

    Raises:
        ValueError: when there is none, or one twice, or one below 0.
    """
    if isinstance(seeds, bool):
        raise TypeError(f"`seeds` must be numbers. Received: seeds={seeds}.")
    found = tuple(range(seeds) if isinstance(seeds, int) else seeds)
    wrong = [
        seed
        for seed in found
        if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0
    ]
    if not found or wrong or len(set(found)) < len(found):
        raise ValueError(
            "`seeds` must be a number of seeds from 1 on, or a list of "
            f"different whole numbers from 0 on. Received: seeds={seeds!r}."
        )
    return found


def as_last(last: int) -> int:
    """A checked number of last epochs."""
    if isinstance(last, bool) or not isinstance(last, int) or last < 1:
        raise ValueError(
            "`last` must be a whole number of epochs from 1 on. "
            f"Received: last={last!r}."
        )
    return last


def write_settings(directory, settings: Settings) -> None:
    """Write the settings of a search, or see that they are what they were.

    Raises:
        ValueError: when the directory holds a search with others.
    """
    path = pathlib.Path(directory) / SETTINGS_FILE
    told = json.loads(json.dumps(plain(settings.to_dict())))
    if path.exists():
        before = json.loads(path.read_text(encoding="utf-8"))
        differing = [key for key in told if told[key] != before.get(key)]
        if differing:
            key = differing[0]
            raise ValueError(
                f"'{path.parent}' holds a search with another `{key}`. "
                f"Received: {told[key]}, where it began with "
                f"{before.get(key)}. Search in another directory, or remove "
                "that one."
            )
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, json.dumps(told, indent=2))


def read_settings(directory) -> Settings:
    """The settings of the search in a directory.

    Raises:
        FileNotFoundError: when there is no search.
    """
    path = pathlib.Path(directory) / SETTINGS_FILE
    if not path.is_file():
        raise FileNotFoundError(
            f"There is no search in '{path.parent}'. Give the directory of "
            "one: `directory/project_name` of the tuner, or `--out` of "
            "`keras-lowrank search`."
        )
    told = json.loads(path.read_text(encoding="utf-8"))
    return Settings(
        SearchSpace(told["space"]),
        as_objective(told["objective"]),
        tuple(told["seeds"]),
        told["last"],
        told["about"],
    )
