"""Names that Keras makes for layers, names that do not change, patterns."""

import re
from collections.abc import Callable
from collections.abc import Iterable

# Prefixes that Keras puts before the name of a layer it copies.
COPY_PREFIXES = "forward_|backward_"


def automatic_name(name: str, class_name: str) -> re.Match | None:
    """Match of a name that Keras made for a class; its group 1 has no number.

    Args:
        name: String, the name of an object.
        class_name: String, the name of its class.

    Returns:
        A `re.Match`, or `None` for a name that was given.

    Example:

    >>> automatic_name("forward_lstm_2", "LSTM")[1]
    'forward_lstm'
    """
    stem = rf"(?:{COPY_PREFIXES})?{snake_case(class_name)}"
    return re.fullmatch(rf"({stem})(_\d+)?", name)


def sibling_names(named: Iterable[tuple[str, str]]) -> list[str]:
    """Names without the numbers of the process, all of them different.

    Args:
        named: Iterable of pairs, the name and the class name of an object.

    Returns:
        List of strings, in the same order.

    Example:

    >>> sibling_names([("dense_7", "Dense"), ("head", "Dense"),
    ...                ("forward_lstm_2", "LSTM"), ("dense_9", "Dense")])
    ['dense', 'head', 'forward_lstm', 'dense_1']
    """
    stems = []
    for name, class_name in named:
        match = automatic_name(name, class_name)
        stems.append((match[1], True) if match else (name, False))
    # A name that was given is kept, so the others make way for it.
    taken = {stem for stem, automatic in stems if not automatic}
    names: list[str] = []
    for stem, automatic in stems:
        name, number = stem, 0
        if automatic or stem in names:
            while name in taken:
                number += 1
                name = f"{stem}_{number}"
        taken.add(name)
        names.append(name)
    return names


def snake_case(name: str) -> str:
    """The automatic name of a class, by Keras' rule, which is not public."""
    name = re.sub(r"\W+", "", name)
    name = re.sub("(.)([A-Z][a-z]+)", r"\1_\2", name)
    return re.sub("([a-z])([A-Z])", r"\1_\2", name).lower()


def searcher(pattern, argument: str) -> Callable[[str], re.Match | None]:
    """The search for a regular expression that a user gave.

    Args:
        pattern: String or compiled pattern.
        argument: String, what the user gave it as.

    Returns:
        Function of a string.

    Raises:
        ValueError: for a string that is no regular expression.
    """
    try:
        return re.compile(pattern).search
    except re.error as error:
        raise ValueError(
            f"`{argument}` is no regular expression: {error}. "
            f"Received: {pattern!r}."
        ) from error
