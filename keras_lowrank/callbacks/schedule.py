"""When to measure."""

import math
from collections.abc import Callable

Schedule = Callable[[int], bool]


def as_schedule(every) -> Schedule:
    """Turn what a user says about "when" into a question per epoch.

    Args:
        every: Int `n >= 1`, every `n` complete epochs; `"log"`, the epochs
            of `log_spaced()`; or a function from the number of complete
            epochs to a boolean.

    Returns:
        Function from the number of complete epochs to a boolean.

    Raises:
        ValueError: for a number below 1 or an unknown name.
        TypeError: for anything else.
    """
    if every == "log":
        return log_spaced()
    if isinstance(every, bool) or not (isinstance(every, int) or every):
        raise _wrong(TypeError, every)
    if isinstance(every, int):
        if every < 1:
            raise _wrong(ValueError, every)
        return _EveryEpochs(every)
    if callable(every):
        return every
    raise _wrong(ValueError if isinstance(every, str) else TypeError, every)


def log_spaced(per_decade: int = 10) -> Schedule:
    """A schedule of epochs evenly spaced on a logarithmic axis.

    Args:
        per_decade: Int >= 1, how many epochs in each factor of ten, where
            there are as many.

    Returns:
        Function from the number of complete epochs to a boolean.

    Example:

    >>> due = log_spaced(per_decade=3)
    >>> [epoch for epoch in range(101) if due(epoch)]
    [0, 1, 2, 5, 10, 22, 46, 100]
    """
    if per_decade < 1:
        raise ValueError(
            f"`per_decade` must be 1 or more. Received: {per_decade}."
        )
    return _LogSpaced(per_decade)


# Classes rather than closures, since a callback is pickled and deep-copied.
class _EveryEpochs:
    def __init__(self, count: int):
        self.count = count

    def __call__(self, epoch: int) -> bool:
        return epoch % self.count == 0


class _LogSpaced:
    def __init__(self, per_decade: int):
        self.per_decade = per_decade

    def __call__(self, epoch: int) -> bool:
        if epoch < 1:
            return epoch == 0
        nearest = round(math.log10(epoch) * self.per_decade)
        return any(
            epoch == round(10 ** (place / self.per_decade))
            for place in (nearest - 1, nearest, nearest + 1)
        )


def _wrong(kind, every):
    return kind(
        "`every` must be a whole number of epochs from 1 on, 'log', or a "
        "function from the number of complete epochs to a boolean. "
        f"Received: every={every!r} (of type {type(every)})."
    )
