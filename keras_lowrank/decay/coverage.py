"""Which variables a weight decay covers, resolved once and by identity."""

import dataclasses
import difflib
import re
from collections.abc import Iterable
from collections.abc import Sequence
from typing import Any

import keras

ROLES = ("kernel", "embedding", "bias", "normalization", "other")

# The names Keras' layers give; `scale`, of two minds, is looked at apart.
_NORMALIZATION = re.compile(
    r"gamma|beta|(moving|renorm)_(mean|variance|stddev)"
)
_BIAS = re.compile(r"(.*_)?bias(es)?")
_EMBEDDING = re.compile(r".*embed.*")
_KERNEL = re.compile(r"(.*_)?kernel(_[ab])?")


def variable_role(variable) -> str:
    """What a variable is to its layer, told from the variable alone.

    Names decide, since shapes mislead: the bias of a `MultiHeadAttention` has
    two axes. A name that no Keras layer uses is a kernel if it is a matrix,
    that is, has at least two axes longer than 1.

    | role              | variables                                         |
    |-------------------|---------------------------------------------------|
    | `"kernel"`        | kernels, also depthwise, recurrent and LoRA ones  |
    | `"embedding"`     | tables of `Embedding`, also positional ones       |
    | `"bias"`          | biases, of any shape                              |
    | `"normalization"` | `gamma`, `beta`, moving statistics, `RMS` scales  |
    | `"other"`         | anything else, as the slopes of a `PReLU`         |

    Args:
        variable: `keras.Variable`.

    Returns:
        String, one of the roles above.

    Example:

    >>> layer = keras.layers.BatchNormalization()
    >>> layer.build((None, 3))
    >>> variable_role(layer.gamma)
    'normalization'
    """
    name = variable.name.split("/")[-1].split(":")[0]
    if _NORMALIZATION.fullmatch(name):
        return "normalization"
    if _BIAS.fullmatch(name):
        return "bias"
    if _EMBEDDING.fullmatch(name):
        return "embedding"
    if _KERNEL.fullmatch(name):
        return "kernel"
    if name == "scale":
        # `RMSNormalization` and the two attention layers share this name.
        attention = "attention" in variable.path.rpartition("/")[0]
        return "other" if attention else "normalization"
    if not variable.trainable:
        return "other"  # quantization scales, spectral vectors, seeds
    return "kernel" if sum(n > 1 for n in variable.shape) >= 2 else "other"


@dataclasses.dataclass(frozen=True)
class Coverage:
    """What a `WeightDecay` covers in one list of variables.

    Args:
        mask: Tuple of bools, one per variable.
        entries: Tuple of dicts with the name, the shape and the bool of each
            variable: what is saved where identity cannot be.
        unmatched: Tuple of strings, what was asked for and found nowhere.
    """

    mask: tuple[bool, ...]
    entries: tuple[dict[str, Any], ...]
    unmatched: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class SavedCoverage:
    """A mask read from a saved model, for the variables it was made for."""

    entries: tuple[dict[str, Any], ...]

    def mask(self, variables: Sequence) -> tuple[bool, ...]:
        """The saved bools, after checking that `variables` are the same."""
        saved = [
            (entry["name"], list(entry["shape"])) for entry in self.entries
        ]
        found = [(v.name, list(v.shape)) for v in variables]
        if saved != found:
            position, expected, received = next(
                (i, s, f)
                for i, (s, f) in enumerate(
                    zip([*saved, None], [*found, None], strict=False)
                )
                if s != f
            )
            raise ValueError(
                "The weight decay was saved with a coverage by layer, variable "
                "or function, which fits the variables it was saved with and "
                f"no others. Expected {len(saved)} trainable variables with "
                f"number {position} being {expected or 'none'}. Received: "
                f"{len(found)} with number {position} being "
                f"{received or 'none'}. Give `covers` and `exclude` anew, or "
                "use roles and patterns, which fit any model."
            )
        return tuple(bool(entry["covered"]) for entry in self.entries)


# A role or pattern, a layer, a variable, a function, or a `SavedCoverage`.
Selector = Any


def as_selectors(value, argument: str) -> tuple[Selector, ...]:
    """`value`, one selector or several, as a tuple of checked selectors."""
    single = isinstance(value, (str, keras.layers.Layer, keras.Variable))
    if single or callable(value) or isinstance(value, SavedCoverage):
        value = (value,)
    if not isinstance(value, Iterable):
        raise TypeError(_selector_message(value, argument))
    items = tuple(value)
    if items and all(isinstance(item, dict) for item in items):
        return (SavedCoverage(items),)
    for item in items:
        if isinstance(item, str):
            _check_pattern(item, argument)
        elif not (
            callable(item) or isinstance(item, (keras.Variable, SavedCoverage))
        ):
            raise TypeError(_selector_message(item, argument))
    return items


def is_portable(selectors: Iterable[Selector]) -> bool:
    """Whether `selectors` mean the same for any model: roles and patterns."""
    return all(isinstance(item, (str, SavedCoverage)) for item in selectors)


def resolve(
    covers: tuple[Selector, ...],
    exclude: tuple[Selector, ...],
    variables: Sequence,
) -> Coverage:
    """Decide for each of `variables` whether it is covered."""
    variables = list(variables)
    covered = [False] * len(variables)
    unmatched = []
    for argument, selectors in (("covers", covers), ("exclude", exclude)):
        for selector in selectors:
            mask = _matches(selector, variables)
            # A role is a class of variables that a model may well not have.
            if not any(mask) and not _is_role(selector):
                unmatched.append(_nothing_found(selector, argument, variables))
            covered = [
                argument == "covers" if hit else before
                for hit, before in zip(mask, covered, strict=True)
            ]
    if any(isinstance(item, SavedCoverage) for item in covers):
        unmatched = []  # A mask may be empty, and was looked at when made.
    entries = tuple(
        {"name": v.name, "shape": [int(n) for n in v.shape], "covered": hit}
        for v, hit in zip(variables, covered, strict=True)
    )
    return Coverage(tuple(covered), entries, tuple(unmatched))


def _matches(selector: Selector, variables: Sequence) -> Sequence[bool]:
    if isinstance(selector, SavedCoverage):
        return selector.mask(variables)
    if isinstance(selector, str):
        if selector == "all":
            return [True] * len(variables)
        if selector in ROLES:
            return [variable_role(v) == selector for v in variables]
        return [bool(re.search(selector, v.path)) for v in variables]
    if isinstance(selector, keras.layers.Layer):
        # A layer is callable too, so it is asked for first.
        identities = {id(weight) for weight in selector.weights}
        return [id(v) in identities for v in variables]
    if isinstance(selector, keras.Variable):
        return [v is selector for v in variables]
    return [bool(selector(v)) for v in variables]


def _is_role(selector: Selector) -> bool:
    return isinstance(selector, str) and selector in (*ROLES, "all")


def _nothing_found(selector, argument: str, variables: Sequence) -> str:
    message = (
        f"`{argument}={describe(selector)}` matches no trainable variable."
    )
    if not isinstance(selector, str):
        return f"{message} Was it meant for another model, or is it frozen?"
    roles = difflib.get_close_matches(selector, ROLES, n=1)
    if roles:
        return f"{message} Did you mean the role '{roles[0]}'?"
    paths = ", ".join(f"'{v.path}'" for v in variables[:3])
    return f"{message} A pattern is searched in the paths, as {paths}."


def describe(selector: Selector) -> str:
    """A selector as a message names it."""
    if isinstance(selector, str):
        return repr(selector)
    if isinstance(selector, keras.layers.Layer):
        return f"<layer '{selector.name}'>"
    if isinstance(selector, keras.Variable):
        return f"<variable '{selector.path}'>"
    if isinstance(selector, SavedCoverage):
        return f"<saved mask of {len(selector.entries)} variables>"
    return f"<function {getattr(selector, '__name__', selector)}>"


def _check_pattern(pattern: str, argument: str) -> None:
    if not pattern:
        raise ValueError(
            f"`{argument}` holds an empty string, which matches everything as "
            "a pattern. Use 'all' if that is meant, and () for nothing."
        )
    try:
        re.compile(pattern)
    except re.error as error:
        raise ValueError(
            f"`{argument}` must hold roles ({', '.join(ROLES)}, all) or "
            "regular expressions searched in `variable.path`. Received: "
            f"{pattern!r}, which is not one: {error}."
        ) from error


def _selector_message(item, argument: str) -> str:
    return (
        f"`{argument}` must be a role ({', '.join(ROLES)}, all), a regular "
        "expression searched in `variable.path`, a layer, a `keras.Variable`, "
        "a function from a variable to a bool, or a list of these. Received: "
        f"{item!r} (of type {type(item).__name__})."
    )
