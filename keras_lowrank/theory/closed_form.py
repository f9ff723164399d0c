"""The bounds of the paper in closed form, with their constants."""

import math


def closed_form_rank(
    uses: int,
    batch_size: int,
    learning_rate: float,
    paper_lambda: float,
    tolerance: float,
    shape: tuple[int, int] | None = None,
) -> float:
    """The rank that Theorem 3.3 allows, for a constant learning rate.

    `uses * batch_size * log(2 / tolerance) / (2 * learning_rate *
    paper_lambda)`. It holds for late times, if norms come to rest. Where
    `log(2 / tolerance) < 2` the number of steps in it is rounded up, as in
    the proof, without which the bound is not one.

    Args:
        uses: Int >= 1, vectors of a sample that the matrix multiplies, `m_l`.
        batch_size: Int >= 1.
        learning_rate: Float > 0.
        paper_lambda: Float >= 0, the decay in the paper's objective, half of
            torch's and Keras' `weight_decay`. See `convert_weight_decay`.
        tolerance: Float in (0, 1), distance of the normalised matrix from
            those of that rank.
        shape: Tuple `(m, n)`, to cap the bound at `min(m, n)`, where it says
            nothing. Not capped by default.

    Returns:
        Float, infinite without decay.

    Raises:
        ValueError: for a value out of range.

    Example:

    >>> round(closed_form_rank(1, 6, 0.1, 0.004, 0.5))
    10398

    Reference:
        [Galanti et al., CPAL 2025](https://arxiv.org/abs/2206.05794), 3.3
    """
    if not 0 < tolerance < 1:
        raise ValueError(
            "`tolerance` must be above 0 and below 1. "
            f"Received: tolerance={tolerance}."
        )
    share = 2 * learning_rate * paper_lambda
    if not 0 <= share < 1:
        raise ValueError(
            "Theorem 3.3 needs `learning_rate * paper_lambda` from 0 on, and "
            f"below 0.5. Received: {learning_rate} * {paper_lambda}."
        )
    if not share:
        steps = math.inf
    elif math.log(2 / tolerance) >= 2:
        steps = math.log(2 / tolerance) / share
    else:
        steps = math.ceil(math.log(tolerance / 2) / math.log1p(-share))
    bound = uses * batch_size * steps
    return bound if shape is None else min(bound, *shape)


def memory_steps(
    learning_rate: float, weight_decay: float, momentum: float = 0.0
) -> float:
    """Steps after which `1 / e` of a weight is left, if nothing is added.

    Args:
        learning_rate: Float > 0.
        weight_decay: Float >= 0, in the convention of torch and Keras.
        momentum: Float in [0, 1), of a coupled decay: it shortens the memory
            by `1 - momentum`. Leave it out for a decoupled one, which it does
            not touch.

    Returns:
        Float, infinite without decay.

    Example:

    >>> memory_steps(0.1, 5e-4), memory_steps(0.1, 5e-4, momentum=0.9)
    (20000.0, 2000.0)
    """
    share = learning_rate * weight_decay
    return round((1 - momentum) / share, 9) if share else math.inf


def stationary_distance(
    step_norm: float, norm: float, learning_rate: float, weight_decay: float
) -> float:
    """Bound on the distance to rank `uses * batch_size`, from one step.

    A plain step with coupled decay says `W = -G / w - (W_next - W) / (lr w)`,
    and the gradient `G` of a batch has that rank. So `W / norm(W)` is at most
    `step_norm / (lr * w * norm)` from such a matrix: where steps are small
    against what decay takes, the rank is small, whatever came before.

    Args:
        step_norm: Float, the norm of `W_next - W`.
        norm: Float, the norm of `W`.
        learning_rate: Float > 0.
        weight_decay: Float > 0, in the convention of torch and Keras.

    Returns:
        Float. Above 1 it says nothing.
    """
    return step_norm / (learning_rate * weight_decay * norm)
