"""Measures by name, with their parameters: numbers that keep definitions."""

import dataclasses
import functools
import inspect
from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Mapping
from typing import Any

from keras_lowrank.measures.norms import condition_number
from keras_lowrank.measures.norms import frobenius_norm
from keras_lowrank.measures.norms import nuclear_norm
from keras_lowrank.measures.norms import schatten_norm
from keras_lowrank.measures.norms import spectral_gap
from keras_lowrank.measures.norms import spectral_norm
from keras_lowrank.measures.ranks import effective_rank
from keras_lowrank.measures.ranks import energy_rank
from keras_lowrank.measures.ranks import log_det
from keras_lowrank.measures.ranks import marchenko_pastur_count
from keras_lowrank.measures.ranks import numerical_rank
from keras_lowrank.measures.ranks import participation_ratio
from keras_lowrank.measures.ranks import stable_rank
from keras_lowrank.spectrum import Spectrum


@dataclasses.dataclass(frozen=True)
class Measure:
    """A named measure with its parameters, so a number keeps its definition.

    Args:
        name: String, the key of the measure in logs, frames and stores.
        function: Function from a `Spectrum` to a number.
        parameters: Dict of keyword arguments passed to `function`.

    Example:

    >>> measure = as_measure("rank")
    >>> measure.definition
    "numerical_rank(tolerance=0.001, relative_to='frobenius')"
    >>> measure(Spectrum([1.0, 1e-6], shape=(2, 2)))
    1.0
    """

    name: str
    function: Callable[..., Any]
    parameters: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def __call__(self, spectrum: Spectrum) -> float:
        """Value of the measure, as a Python float."""
        return float(self.function(spectrum, **self.parameters))

    @property
    def definition(self) -> str:
        """The call that gives the number, with every parameter spelled out."""
        function = getattr(self.function, "__name__", repr(self.function))
        text = ", ".join(
            f"{key}={value!r}" for key, value in self.all_parameters.items()
        )
        return f"{function}({text})"

    @property
    def all_parameters(self) -> dict[str, Any]:
        """The parameters given and, for the others, their defaults."""
        try:
            parameters = list(
                inspect.signature(self.function).parameters.values()
            )
        except (TypeError, ValueError):
            parameters = []  # some built-in functions have none to show
        defaults = {
            parameter.name: parameter.default
            for parameter in parameters
            if parameter.default is not parameter.empty
        }
        return defaults | dict(self.parameters)


MEASURES: dict[str, Measure] = {
    measure.name: measure
    for measure in (
        Measure("rank", numerical_rank),
        Measure("stable_rank", stable_rank),
        Measure("effective_rank", effective_rank),
        Measure("participation_ratio", participation_ratio),
        Measure("energy_rank", energy_rank),
        Measure("nuclear_norm", nuclear_norm),
        Measure("frobenius_norm", frobenius_norm),
        Measure("spectral_norm", spectral_norm),
        Measure("condition_number", condition_number),
        Measure("spectral_gap", spectral_gap),
        Measure("marchenko_pastur_count", marchenko_pastur_count),
        Measure("schatten_norm", schatten_norm),
        Measure("log_det", log_det),
    )
}


def as_measure(identifier) -> Measure:
    """Turn a name, a function or a `Measure` into a `Measure`.

    Args:
        identifier: A name such as `"stable_rank"` (`"numerical_rank"` is
            another name of `"rank"`), a function from a `Spectrum` to a
            number, a `functools.partial` of one, or a `Measure`.

    Returns:
        A `Measure`.

    Raises:
        ValueError: for a name that no measure has.
        TypeError: for anything else.
    """
    if isinstance(identifier, Measure):
        return identifier
    if isinstance(identifier, str):
        name = "rank" if identifier == "numerical_rank" else identifier
        if name not in MEASURES:
            raise ValueError(
                f"Unknown measure {identifier!r}. Known measures: "
                f"{', '.join(MEASURES)}. Any function from a `Spectrum` to a "
                "number is a measure too."
            )
        return MEASURES[name]
    if isinstance(identifier, functools.partial) and not identifier.args:
        measure = as_measure(identifier.func)
        parameters = dict(measure.parameters) | identifier.keywords
        return dataclasses.replace(measure, parameters=parameters)
    for measure in MEASURES.values():
        if identifier is measure.function:
            return measure
    if callable(identifier) and not isinstance(identifier, type):
        name = getattr(identifier, "__name__", type(identifier).__name__)
        return Measure(name, identifier)
    raise TypeError(
        "A measure is a name, a function from a `Spectrum` to a number, or a "
        f"`Measure`. Received: {identifier!r} (of type {type(identifier)})."
    )


def as_measures(identifiers) -> tuple[Measure, ...]:
    """Turn one identifier, several, or a dict of named ones into measures.

    Args:
        identifiers: Anything `as_measure` takes, an iterable of such, or a
            dict from your own names to such.

    Returns:
        Tuple of `Measure`, with names that differ from one another.

    Raises:
        ValueError: when two measures bear one name.

    Example:

    >>> loose = functools.partial(numerical_rank, tolerance=0.05)
    >>> [measure.name for measure in as_measures({"rank_at_5pct": loose})]
    ['rank_at_5pct']
    """
    if isinstance(identifiers, Mapping):
        measures = tuple(
            dataclasses.replace(as_measure(identifier), name=str(name))
            for name, identifier in identifiers.items()
        )
    elif isinstance(identifiers, Iterable) and not isinstance(identifiers, str):
        measures = tuple(as_measure(identifier) for identifier in identifiers)
    else:
        measures = (as_measure(identifiers),)
    names = [measure.name for measure in measures]
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise ValueError(
            f"Two measures are named {', '.join(map(repr, repeated))}. Give "
            "them names of your own with a dict, as in "
            '`{"rank": "rank", "rank_at_5pct": partial(numerical_rank, '
            "tolerance=0.05)}`."
        )
    return measures
