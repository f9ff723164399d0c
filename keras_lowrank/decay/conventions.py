"""The four ways to state a weight decay, and how one becomes another."""

import math
import numbers
import warnings

from keras_lowrank.tables import KerasLowrankWarning

# What a rate of 1 takes from a weight per unit of learning rate: the step
# factor is `1 - learning_rate * UNITS[convention] * rate`.
UNITS = {"paper_lambda": 2.0, "torch": 1.0, "keras": 1.0, "l2": 2.0}

# How each convention's home applies its decay.
COUPLINGS = {
    "paper_lambda": "coupled",
    "torch": "coupled",
    "keras": "decoupled",
    "l2": "coupled",
}


def convert_weight_decay(
    rate: float, source: str, target: str, momentum: float = 0.0
) -> float:
    """Restate a weight decay in another convention.

    The same number means different things: copying torch's 5e-4 into Keras'
    `L2(5e-4)` doubles the decay. With `w` the fraction of a weight that one
    step takes per unit of learning rate, the conventions are

    | name             | where it is used                          | `w`      |
    |------------------|-------------------------------------------|----------|
    | `"paper_lambda"` | objective `loss + rate * sum(W ** 2)`     | `2 rate` |
    | `"l2"`           | `keras.regularizers.L2(rate)`             | `2 rate` |
    | `"torch"`        | `torch.optim.SGD(weight_decay=rate)`      | `rate`   |
    | `"keras"`        | `keras.optimizers.SGD(weight_decay=rate)` | `rate`   |

    The first three are coupled: the decay is part of the gradient. Keras' is
    decoupled: it bypasses momentum. Without momentum these are the same
    update. With momentum they are not, and no conversion makes them so: only
    a coupled decay, as `L2`, matches torch. Say so by giving `momentum`, and
    a conversion that changes the coupling warns.

    Args:
        rate: Float, 0 or larger, in the convention `source`.
        source: String, one of the names above.
        target: String, one of the names above.
        momentum: Float, the momentum of the optimizer it is meant for.

    Returns:
        Float, the rate in the convention `target`.

    Raises:
        TypeError: If `rate` is not a number.
        ValueError: If `rate` is negative, or a convention is unknown.

    Example:

    >>> convert_weight_decay(5e-4, "torch", "l2")
    0.00025
    >>> convert_weight_decay(5e-4, "torch", "keras")
    0.0005

    Reference:
        [Loshchilov & Hutter, 2019](https://arxiv.org/abs/1711.05101), on
        coupled and decoupled decay; equation (1) of
        [Galanti et al., 2024](https://arxiv.org/abs/2206.05794), the
        objective.
    """
    rate = check_rate(rate)
    source = check_choice(source, UNITS, "source")
    target = check_choice(target, UNITS, "target")
    if momentum and COUPLINGS[source] != COUPLINGS[target]:
        warnings.warn(
            f"With momentum={momentum} no rate makes the conventions "
            f"'{source}' ({COUPLINGS[source]}) and '{target}' "
            f"({COUPLINGS[target]}) equal: only L2, or any coupled decay, "
            'matches torch. Use `WeightDecay(rate, coupling="coupled")`.',
            KerasLowrankWarning,
            stacklevel=2,
        )
    return rate * UNITS[source] / UNITS[target]


def check_rate(rate) -> float:
    """`rate` as a float, or an error that says what a rate is."""
    if isinstance(rate, bool) or not isinstance(rate, numbers.Real):
        raise TypeError(
            "`rate` must be a number, 0 or larger. "
            f"Received: rate={rate!r} (of type {type(rate).__name__})."
        )
    if not math.isfinite(rate) or rate < 0:
        raise ValueError(
            "`rate` must be finite, and 0 or larger. "
            f"Received: rate={rate}. A decay of 0 switches decay off."
        )
    return float(rate)


def check_choice(value, choices, argument: str) -> str:
    """`value` if it is one of `choices`, else an error that lists them."""
    if not isinstance(value, str) or value not in choices:
        raise ValueError(
            f"`{argument}` must be one of {', '.join(map(repr, choices))}. "
            f"Received: {argument}={value!r}."
        )
    return value
