"""Which variables a weight decay covers, decided once and by identity."""

import dataclasses
import difflib
import re
from collections.abc import Iterable
from collections.abc import Sequence
from typing import Any

import keras

from keras_lowrank.roles import role_of

# What `covers` and `exclude` call the roles.
ROLE_NAMES = {
    "kernels": "kernel",
    "biases": "bias",
    "normalization": "normalization",
    "embeddings": "embedding",
    "vectors": "vector",
}
NAMES = (*ROLE_NAMES, "all")

# What is said of one variable may be said of several.
_MEANING = ROLE_NAMES | {role: role for role in ROLE_NAMES.values()}

# A role or a pattern, a layer, or a variable.
Selector = Any


@dataclasses.dataclass(frozen=True)
class Coverage:
    """What a weight decay covers in one list of variables.

    Args:
        covered: Tuple of bools, one per variable.
        unmatched: Tuple of strings that say what was asked for in vain.
    """

    covered: tuple[bool, ...]
    unmatched: tuple[str, ...] = ()


def resolve(
    covers: tuple[Selector, ...],
    exclude: tuple[Selector, ...],
    variables: Sequence,
) -> Coverage:
    """Decide for each of `variables` whether it is covered."""
    covered, unmatched = [False] * len(variables), []
    for argument, selectors in (("covers", covers), ("exclude", exclude)):
        for selector in selectors:
            hits = [matches(selector, variable) for variable in variables]
            # A role is a kind of variable that a model may well not have.
            if not any(hits) and not _is_role(selector):
                unmatched.append(_in_vain(selector, argument, variables))
            for index, hit in enumerate(hits):
                if hit:
                    covered[index] = argument == "covers"
    return Coverage(tuple(covered), tuple(unmatched))


def matches(selector: Selector, variable) -> bool:
    """Whether a selector means this variable."""
    if isinstance(selector, keras.layers.Layer):
        return any(weight is variable for weight in selector.weights)
    if isinstance(selector, keras.Variable):
        return selector is variable
    if _is_role(selector):
        return selector == "all" or _MEANING[selector] == role_of(variable)
    return re.search(selector, variable.path) is not None


def as_selectors(value, argument: str) -> tuple[Selector, ...]:
    """`value`, one selector or several, as a tuple of checked selectors."""
    if isinstance(value, (str, keras.layers.Layer, keras.Variable)):
        value = (value,)
    if not isinstance(value, Iterable):
        raise TypeError(_wrong_type(value, argument))
    selectors = tuple(value)
    for selector in selectors:
        if isinstance(selector, str):
            _check_pattern(selector, argument)
        elif not isinstance(selector, (keras.layers.Layer, keras.Variable)):
            raise TypeError(_wrong_type(selector, argument))
    return selectors


def as_strings(selectors: Iterable[Selector]) -> list[str]:
    """Selectors as they are saved: objects become patterns of their paths."""
    strings = []
    for selector in selectors:
        if isinstance(selector, str):
            strings.append(selector)
        elif isinstance(selector, keras.Variable):
            strings.append(_exactly(selector.path))
        elif selector.weights:
            strings += [_exactly(weight.path) for weight in selector.weights]
        else:
            strings.append(rf"(^|/){re.escape(selector.name)}/")
    return strings


def describe(selector: Selector) -> str:
    """A selector as a message names it."""
    if isinstance(selector, str):
        return repr(selector)
    if isinstance(selector, keras.layers.Layer):
        return f"<layer '{selector.name}'>"
    return f"<variable '{selector.path}'>"


def _is_role(selector: Selector) -> bool:
    return isinstance(selector, str) and selector in (*_MEANING, "all")


def _exactly(path: str) -> str:
    return f"^{re.escape(path)}$"


def _check_pattern(pattern: str, argument: str) -> None:
    try:
        re.compile(pattern)
    except re.error as error:
        raise ValueError(
            f"`{argument}` must hold {NAMES} or regular expressions searched "
            f"in `variable.path`. Received: {pattern!r}, which is neither: "
            f"{error}."
        ) from error
    if not pattern:
        raise ValueError(
            f"`{argument}` must not hold an empty string, a pattern found in "
            "every path. Received: ''. Use 'all' for all variables, and () "
            "for none."
        )


def _wrong_type(value, argument: str) -> str:
    return (
        f"`{argument}` must be one of {NAMES}, a regular expression searched "
        "in `variable.path`, a Keras layer, a `keras.Variable`, or a list of "
        f"these. Received: {value!r} (of type {type(value).__name__})."
    )


def _in_vain(selector: Selector, argument: str, variables) -> str:
    message = (
        f"`{argument}={describe(selector)}` matches no trainable variable."
    )
    if isinstance(selector, str):
        for name in difflib.get_close_matches(selector, NAMES, n=1):
            message += f" Did you mean '{name}'?"
    paths = ", ".join(variable.path for variable in variables[:8])
    more = ", …" if len(variables) > 8 else ""
    return f"{message} There are: {paths}{more}."
