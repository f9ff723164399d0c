"""The decay clock: how much of the past the decay has forgotten."""

import numpy as np

# Half the distance from 1 to the next smaller number, relative: a change of a
# weight by less than this fraction is rounded away.
_HALF_ULP = {
    "float64": 2.0**-54,
    "float32": 2.0**-25,
    "float16": 2.0**-12,
    "bfloat16": 2.0**-9,
}


def decay_clock(learning_rates, weight_decay) -> np.ndarray:
    """The decay clock after every step.

    Without gradients a step leaves `1 - learning_rate * weight_decay` of a
    weight, so after `n` steps `exp(-(tau[T] - tau[T - n]))` is left of it. It
    runs with the learning rate, and says more than a number of epochs does.

    Args:
        learning_rates: Array of shape `(steps,)`, one for each step.
        weight_decay: Float >= 0, or an array of one for each step, in the
            convention of torch and Keras, twice the lambda of the paper. See
            `convert_weight_decay`.

    Returns:
        Float64 array `tau` of shape `(steps + 1,)`, which starts at 0.

    Raises:
        ValueError: when a step leaves nothing, or the decay is negative.

    Example:

    >>> decay_clock([0.1, 0.1, 0.02], weight_decay=0.5).round(4)
    array([0.    , 0.0513, 0.1026, 0.1126])

    Reference:
        [Galanti et al., CPAL 2025](https://arxiv.org/abs/2206.05794), Lemma
        3.2, with a schedule in the place of a constant learning rate.
    """
    rates = np.asarray(learning_rates, np.float64)
    shares = rates * np.asarray(weight_decay, np.float64)
    if shares.size and not (shares.min() >= 0 and shares.max() < 1):
        worst = shares[~((shares >= 0) & (shares < 1))][0]
        raise ValueError(
            "`learning_rates * weight_decay` must be from 0 on, and below 1, "
            "so that a step leaves something of the weights. Received: "
            f"{worst:g}, with weight_decay={weight_decay}."
        )
    return np.concatenate([[0.0], np.cumsum(-np.log1p(-shares))])


def decay_lost_in_rounding(
    learning_rate: float, weight_decay: float, dtype: str = "float32"
) -> bool:
    """Whether a step of decay alone leaves weights as they are, rounded.

    Where gradients vanish, a decay of less than half the distance to the next
    number does nothing. Up to twice that, it works on some weights and not on
    others.

    Args:
        learning_rate: Float.
        weight_decay: Float, in the convention of torch and Keras.
        dtype: String, how weights are stored: `"float32"`, also under a mixed
            precision policy, `"float64"`, `"float16"` or `"bfloat16"`.

    Returns:
        Boolean: `True` when it does nothing to any weight.

    Raises:
        ValueError: for another dtype.

    Example:

    >>> decay_lost_in_rounding(4e-5, 5e-4), decay_lost_in_rounding(0.1, 5e-4)
    (True, False)
    """
    if dtype not in _HALF_ULP:
        raise ValueError(
            f"`dtype` must be one of {tuple(_HALF_ULP)}. Received: {dtype!r}."
        )
    share = learning_rate * weight_decay
    return 0 < share <= _HALF_ULP[dtype]
