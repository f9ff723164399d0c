"""A thing by its name, with options: a network, a data set, an optimizer."""

import dataclasses
from collections.abc import Mapping
from typing import Any


@dataclasses.dataclass(frozen=True)
class Choice:
    """A name out of a registry, and options for what it names.

    Args:
        name: String.
        options: Tuple of pairs of a string and a plain value, sorted.
    """

    name: str
    options: tuple[tuple[str, Any], ...] = ()

    @classmethod
    def of(cls, value, argument: str) -> "Choice":
        """A choice out of a name, of a dict with a `name`, or of a choice.

        Args:
            value: What the user gave.
            argument: String, what it was given as, for errors.
        """
        if isinstance(value, Choice):
            return value
        if isinstance(value, str):
            return cls(value)
        if not isinstance(value, Mapping):
            raise TypeError(
                f"`{argument}` must be a name, or a dict of a name and "
                f'options, as {{"name": "...", ...}}. Received: '
                f"{argument}={value!r} (of type {type(value).__name__})."
            )
        options = dict(value)
        name = options.pop("name", None)
        if not isinstance(name, str):
            raise ValueError(
                f"`{argument}` needs a `name`. Received: {argument}={value!r}."
            )
        return cls(name).replace(**options)

    def replace(self, **options) -> "Choice":
        """A choice with some options changed or added."""
        merged = dict(self.options) | {
            key: _frozen(value) for key, value in options.items()
        }
        name = merged.pop("name", self.name)
        return Choice(name, tuple(sorted(merged.items())))

    @property
    def keywords(self) -> dict[str, Any]:
        """The options, as keyword arguments."""
        return {key: _thawed(value) for key, value in self.options}

    def to_dict(self) -> dict[str, Any]:
        """Name and options as one dict of plain values."""
        return {"name": self.name, **self.keywords}


def _frozen(value):
    if isinstance(value, (list, tuple)):
        return tuple(_frozen(item) for item in value)
    if isinstance(value, (str, int, float, bool)) or value is None:
        return value
    raise TypeError(
        "An option must be a string, a number, a boolean, or a list of these, "
        f"so that it can be written to a file. Received: {value!r} (of type "
        f"{type(value).__name__})."
    )


def _thawed(value):
    if isinstance(value, tuple):
        return [_thawed(item) for item in value]
    return value
