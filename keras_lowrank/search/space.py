"""What is searched over: the same space for KerasTuner and for Optuna."""

import dataclasses
import itertools
import math
import numbers
from collections.abc import Iterable
from collections.abc import Mapping
from typing import Any

SAMPLINGS = ("linear", "log")


@dataclasses.dataclass(frozen=True)
class Range:
    """Numbers from `min` to `max`, both included.

    Whole numbers where both ends are whole, as in `Range(8, 128, step=2)`.

    Args:
        min: Number, above 0 with logarithmic sampling.
        max: Number, larger than `min`.
        step: Number, or `None` for everything between. Added to `min` again
            and again with linear sampling, multiplied with logarithmic:
            `Range(8, 128, step=2)` is 8, 16, 32, 64, 128.
        sampling: `"log"`, under which every factor is equally likely, or
            `"linear"`.

    Raises:
        TypeError: when an end is no number.
        ValueError: when the range is empty or has no logarithm.

    Example:

    >>> Range(8, 128, step=2).values()
    (8, 16, 32, 64, 128)
    """

    min: float
    max: float
    step: float | None = None
    sampling: str = "log"

    def __post_init__(self):
        for name in ("min", "max", "step"):
            value = getattr(self, name)
            if value is None and name == "step":
                continue
            if isinstance(value, bool) or not isinstance(value, numbers.Real):
                raise TypeError(
                    f"`{name}` of a range must be a number. "
                    f"Received: {name}={value!r}."
                )
        if self.sampling not in SAMPLINGS:
            raise ValueError(
                f"`sampling` must be one of {SAMPLINGS}. "
                f"Received: sampling={self.sampling!r}."
            )
        if not (math.isfinite(self.min) and math.isfinite(self.max)):
            raise ValueError(f"A range must be finite. Received: {self}.")
        if self.min >= self.max:
            raise ValueError(
                f"`min` of a range must be below `max`. Received: {self}. Use "
                f"[{self.min}] for one value."
            )
        least = {"linear": 0, "log": 1}[self.sampling]
        if self.sampling == "log" and self.min <= 0:
            raise ValueError(
                "A logarithmic range must lie above 0. Received: "
                f'{self}. Use `sampling="linear"`, or a list of values, which '
                "may hold 0."
            )
        if self.step is not None and self.step <= least:
            raise ValueError(
                f"`step` must be above {least} with {self.sampling} sampling. "
                f"Received: {self}."
            )

    @property
    def whole(self) -> bool:
        """Whether the range is one of whole numbers."""
        return all(
            isinstance(value, numbers.Integral)
            for value in (self.min, self.max, self.step or 1)
        )

    def values(self) -> tuple[float, ...]:
        """The numbers of a range that has a step."""
        if self.step is None:
            raise ValueError(f"A range without a step is endless: {self}.")
        found = [self.min]
        for count in itertools.count(1):
            if self.sampling == "log":
                value = self.min * self.step**count
            else:
                value = self.min + self.step * count
            # A hair of rounding must not cost the last one.
            if value > self.max * (1 + 1e-12):
                return tuple(found)
            found.append(value)
        raise AssertionError("Counting has no end.")

    def to_dict(self) -> dict[str, Any]:
        """The range as a dict, without what is not given."""
        values = dataclasses.asdict(self)
        return {key: item for key, item in values.items() if item is not None}


class SearchSpace:
    """The hyperparameters of a search, and the values that each may take.

    Args:
        axes: Dict from names to values: a list of choices, a `Range`, or the
            dict of one, `{"min": 0.01, "max": 1.0}`. `"network.width"`
            reaches an option of the network of an `ExperimentSpec`.
        **more: Further names and values.

    Raises:
        TypeError: when an axis is neither a list nor a range.
        ValueError: when one is empty, or there is none.

    Example:

    >>> space = SearchSpace(
    ...     batch_size=[16, 32, 64],
    ...     learning_rate=Range(0.01, 1.0),
    ...     weight_decay={"min": 1e-4, "max": 1e-1},
    ... )
    >>> space.names
    ('batch_size', 'learning_rate', 'weight_decay')
    """

    def __init__(self, axes: Mapping[str, Any] | None = None, **more: Any):
        given = dict(axes or {}) | more
        if not given:
            raise ValueError(
                "A search needs something to search over, as "
                "`SearchSpace(weight_decay=[0.0, 1e-3])`. Received: no axis."
            )
        self.axes = {name: _axis(name, item) for name, item in given.items()}

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the hyperparameters."""
        return tuple(self.axes)

    def draw(self, hp, default: Mapping[str, Any] | None = None) -> dict:
        """The values of a KerasTuner trial; registers what is not yet there.

        Args:
            hp: `keras_tuner.HyperParameters`.
            default: Dict of values that stand where a trial has none.

        Returns:
            Dict from names to values.
        """
        return {
            name: _draw(hp, name, axis, (default or {}).get(name))
            for name, axis in self.axes.items()
        }

    def suggest(self, trial) -> dict[str, Any]:
        """The values of an Optuna trial.

        Args:
            trial: `optuna.trial.Trial`.

        Returns:
            Dict from names to values.
        """
        return {
            name: _suggest(trial, name, axis)
            for name, axis in self.axes.items()
        }

    def to_dict(self) -> dict[str, Any]:
        """The axes as plain values; `SearchSpace` takes them back."""
        return {
            name: axis.to_dict() if isinstance(axis, Range) else list(axis)
            for name, axis in self.axes.items()
        }

    def __eq__(self, other):
        return isinstance(other, SearchSpace) and self.axes == other.axes

    def __hash__(self):
        return hash(tuple(self.axes.items()))

    def __repr__(self):
        return f"SearchSpace({self.to_dict()})"


def _axis(name: str, given) -> tuple | Range:
    if isinstance(given, Range):
        return given
    if isinstance(given, Mapping):
        try:
            return Range(**given)
        except TypeError as error:
            raise TypeError(
                f"The range of `{name}` is a table of `min`, `max`, and "
                "perhaps `step` and `sampling`. "
                f"Received: {name}={dict(given)}. {error}"
            ) from error
    if isinstance(given, str) or not isinstance(given, Iterable):
        raise TypeError(
            f"The values of `{name}` must be a list, or a range as "
            f'{{"min": 0.01, "max": 1.0}}. Received: {name}={given!r}.'
        )
    values = tuple(given)
    if not values:
        raise ValueError(f"The list of values of `{name}` is empty.")
    kinds = {_kind(name, value) for value in values}
    if kinds == {int, float}:
        # Neither engine takes both in one list.
        values = tuple(float(value) for value in values)
    elif len(kinds) > 1:
        raise TypeError(
            f"The values of `{name}` must be of one kind. "
            f"Received: {name}={list(values)!r}."
        )
    return tuple(dict.fromkeys(values))


def _kind(name: str, value) -> type:
    for kind, base in (
        (bool, bool),
        (int, numbers.Integral),
        (float, numbers.Real),
        (str, str),
    ):
        if isinstance(value, base):
            return kind
    raise TypeError(
        f"A value of `{name}` must be a number, a string or a boolean. "
        f"Received: {value!r} (of type {type(value).__name__})."
    )


def _draw(hp, name: str, axis, default):
    if not isinstance(axis, Range):
        default = default if default in axis else None
        return hp.Choice(name, list(axis), default=default)
    if default is not None and not axis.min <= default <= axis.max:
        default = None
    draw = hp.Int if axis.whole else hp.Float
    return draw(
        name,
        axis.min,
        axis.max,
        step=axis.step,
        sampling=axis.sampling,
        default=default,
    )


def _suggest(trial, name: str, axis):
    logarithmic = isinstance(axis, Range) and axis.sampling == "log"
    if not isinstance(axis, Range):
        return trial.suggest_categorical(name, list(axis))
    if logarithmic and axis.step is not None:
        # Optuna's logarithmic ranges have no steps.
        return trial.suggest_categorical(name, list(axis.values()))
    suggest = trial.suggest_int if axis.whole else trial.suggest_float
    step = {} if axis.step is None else {"step": axis.step}
    return suggest(name, axis.min, axis.max, log=logarithmic, **step)
