"""The four ways to state a weight decay, and how one becomes another."""

import dataclasses
import math
import numbers


@dataclasses.dataclass(frozen=True)
class Convention:
    """What a rate means to those who use it.

    Args:
        factor: Float; one step takes `learning_rate * factor * rate` of a
            weight, without momentum.
        coupling: String, how the decay is applied at home: `"coupled"`, as
            part of the gradient, or `"decoupled"`, beside it.
    """

    factor: float
    coupling: str


CONVENTIONS = {
    "keras": Convention(1.0, "decoupled"),
    "torch": Convention(1.0, "coupled"),
    "l2": Convention(2.0, "coupled"),
    "paper_lambda": Convention(2.0, "coupled"),
}

COUPLINGS = ("coupled", "decoupled")


def convert_weight_decay(
    value: float, source: str, target: str, momentum: float = 0.0
) -> float:
    """Restate a weight decay in another convention.

    The same number means different things: torch's 5e-4 copied into Keras'
    `L2(5e-4)` doubles the decay. One step takes `learning_rate * w` of a
    weight, where

    | name             | is the `value` of                          | `w`      |
    |------------------|--------------------------------------------|----------|
    | `"keras"`        | `keras.optimizers.SGD(weight_decay=value)` | `value`  |
    | `"torch"`        | `torch.optim.SGD(weight_decay=value)`      | `value`  |
    | `"l2"`           | `keras.regularizers.L2(value)`             | `2value` |
    | `"paper_lambda"` | the objective `loss + value * sum(W ** 2)` | `2value` |

    All but Keras' are coupled: the decay is part of the gradient, so it also
    enters the momentum. Without momentum that is the same update. With it no
    number makes the two agree, and asking for one is an error.

    Args:
        value: Float, 0 or larger, in the convention `source`.
        source: String, one of the names above.
        target: String, one of the names above.
        momentum: Float, momentum of the optimizer that it is meant for.

    Returns:
        Float, the value in the convention `target`.

    Raises:
        TypeError: when `value` is not a number.
        ValueError: when it is negative or not finite, when a convention is
            unknown, and when `momentum` keeps the two from agreeing.

    Example:

    >>> convert_weight_decay(5e-4, "torch", "l2")
    0.00025

    Reference:
        [Loshchilov & Hutter, 2019](https://arxiv.org/abs/1711.05101), on
        coupled and decoupled decay; [Galanti et al.,
        2024](https://arxiv.org/abs/2206.05794), equation (1), the objective.
    """
    value = check_rate(value, "value")
    from_, to = convention(source, "source"), convention(target, "target")
    if momentum and from_.coupling != to.coupling:
        raise ValueError(
            f"With momentum, '{source}' ({from_.coupling}) and '{target}' "
            f"({to.coupling}) are different updates, and no value makes them "
            f"agree. Received: momentum={momentum}. Only a coupled decay, as "
            "L2, matches torch under momentum: use "
            '`WeightDecay(rate, convention="torch")`, or convert to "l2".'
        )
    return value * from_.factor / to.factor


def convention(name: str, argument: str = "convention") -> Convention:
    """The convention of that name, or an error that lists them."""
    if not isinstance(name, str) or name not in CONVENTIONS:
        raise ValueError(
            f"`{argument}` must be one of {tuple(CONVENTIONS)}. "
            f"Received: {argument}={name!r}."
        )
    return CONVENTIONS[name]


def check_rate(rate, argument: str = "rate") -> float:
    """`rate` as a float, or an error that says what a rate is."""
    if isinstance(rate, bool) or not isinstance(rate, numbers.Real):
        raise TypeError(
            f"`{argument}` must be a number, 0 or larger. "
            f"Received: {argument}={rate!r} (of type {type(rate).__name__})."
        )
    if not math.isfinite(rate) or rate < 0:
        raise ValueError(
            f"`{argument}` must be finite, and 0 or larger. "
            f"Received: {argument}={rate}. Use 0 for no decay."
        )
    return float(rate)
