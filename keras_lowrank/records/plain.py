"""Numbers and measures as JSON text, the way the store keeps them."""

import json
import math
from collections.abc import Iterable
from collections.abc import Mapping
from typing import Any

from keras_lowrank.measures import MEASURES
from keras_lowrank.measures import Measure
from keras_lowrank.tables import plain

_FUNCTIONS = {
    measure.function.__name__: measure.function for measure in MEASURES.values()
}


def to_json(values: Mapping[str, Any]) -> str:
    """JSON text of a dict, with what JSON has no words for as `plain` says."""
    return json.dumps(plain(values), allow_nan=False)


def from_json(text: str) -> dict[str, Any]:
    """The dict of numbers that `to_json` wrote, NaN and infinity included."""
    return {
        key: math.nan if value is None else float(value)
        for key, value in json.loads(text).items()
    }


def measures_to_json(measures: Iterable[Measure]) -> str:
    """JSON text of measures: function and parameters, not their code."""
    return to_json(
        {
            measure.name: {
                "function": _function_name(measure.function),
                "known": measure.function in _FUNCTIONS.values(),
                "parameters": measure.all_parameters,
            }
            for measure in measures
        }
    )


def measures_from_json(text: str) -> tuple[Measure, ...]:
    """Measures that `measures_to_json` wrote.

    Those of this library can be called again. Of a user's own function only
    the definition is known: it measures NaN.
    """
    return tuple(
        Measure(
            name,
            _FUNCTIONS[spec["function"]]
            if spec["known"] and spec["function"] in _FUNCTIONS
            else UnknownFunction(spec["function"]),
            spec["parameters"],
        )
        for name, spec in json.loads(text).items()
    )


class UnknownFunction:
    """Stands for a function of which a store keeps the name, not the code."""

    def __init__(self, name: str):
        self.__name__ = name

    def __call__(self, spectrum, **parameters) -> float:
        """NaN: what the function would say is not known."""
        return math.nan


def _function_name(function) -> str:
    return getattr(function, "__name__", type(function).__name__)
