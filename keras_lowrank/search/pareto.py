"""The Pareto front of several objectives, and the volume below it."""

import math
from collections.abc import Sequence

import numpy as np

DIRECTIONS = ("min", "max")


def pareto_mask(values, directions: Sequence[str]) -> np.ndarray:
    """Which points no other point dominates.

    A point dominates another if it is nowhere worse and somewhere better.
    Rank and accuracy rarely have one best network; the front is what remains
    to choose from.

    Args:
        values: Array of shape `(n, k)`, n points of k objectives. Points that
            are equal are on the front together. A point with a NaN is never on
            it and dominates nothing; infinite objectives are compared.
        directions: Sequence of k strings, `"min"` or `"max"`: what is better.

    Returns:
        A Boolean array of shape `(n,)`.

    Raises:
        ValueError: if the shapes do not fit, or for an unknown direction.

    Example:

    >>> from keras_lowrank.search import pareto_mask
    >>> rank_and_accuracy = [[12, 0.97], [20, 0.97], [31, 0.98], [31, 0.98]]
    >>> pareto_mask(rank_and_accuracy, ["min", "max"]).tolist()
    [True, False, True, True]
    """
    costs = _costs(values, directions)
    mask = np.zeros(len(costs), bool)
    # In lexicographic order only an earlier point can dominate, and if any
    # does, one of the front so far does too.
    for index in np.lexsort(costs.T[::-1]):
        point, front = costs[index], costs[mask]
        if np.any(np.isnan(point)):
            continue
        dominates = np.all(front <= point, axis=1) & np.any(
            front < point, axis=1
        )
        mask[index] = not np.any(dominates)
    return mask


def hypervolume(
    values, directions: Sequence[str], reference: Sequence[float]
) -> float:
    """Volume that the points dominate, up to a reference point.

    One number for a whole front: it grows with every point that no other
    dominates, so that two searches over the same objectives can be compared.
    It has the units of all objectives multiplied, and only numbers with the
    same reference belong together.

    It is exact, by slicing along one objective after another. The time grows
    as `n**(k - 1)`: up to three objectives at once, for four of some hundred
    points in a second, and much slower beyond.

    Args:
        values: Array of shape `(n, k)`, n points of k objectives.
        directions: Sequence of k strings, `"min"` or `"max"`: what is better.
        reference: Sequence of k finite numbers, in the units of `values`, such
            as the worst that would be accepted. Points that are not better in
            every objective count nothing.

    Returns:
        Float, 0 without a point that counts, and infinite if one of those that
        count is.

    Raises:
        ValueError: if the shapes do not fit, for an unknown direction, or if
            the reference is not finite.

    Example:

    >>> from keras_lowrank.search import hypervolume
    >>> front = [[1.0, 2.0], [2.0, 1.0]]
    >>> hypervolume(front, ["min", "min"], reference=[3.0, 3.0])
    3.0

    Reference:
        [Zitzler & Thiele, 1998](https://doi.org/10.1007/BFb0056872)
    """
    costs = _costs(values, directions)
    worst = np.asarray(reference, np.float64)
    if worst.shape != (costs.shape[1],) or not np.all(np.isfinite(worst)):
        raise ValueError(
            "`reference` must be one finite number for each of the "
            f"{costs.shape[1]} objectives. Received: reference={reference}. "
            "Give the worst value of each that would still be accepted."
        )
    worst = worst * _signs(directions)
    costs = costs[np.all(costs < worst, axis=1)]  # a NaN is never better
    if not np.all(np.isfinite(costs)):
        return math.inf
    front = costs[pareto_mask(costs, ["min"] * len(worst))]
    return _volume(np.unique(front, axis=0), worst)


def _costs(values, directions: Sequence[str]) -> np.ndarray:
    """Points as an array of shape `(n, k)` where less is better."""
    unknown = isinstance(directions, str) or [
        direction for direction in directions if direction not in DIRECTIONS
    ]
    if unknown or not len(directions):
        raise ValueError(
            "`directions` must be 'min' or 'max' for each objective, such as "
            f"['min', 'max']. Received: directions={directions!r}."
        )
    array = np.asarray(values, np.float64)
    if array.shape == (0,):  # of no points nobody knows the objectives
        array = array.reshape(0, len(directions))
    if array.ndim != 2 or array.shape[1] != len(directions):
        raise ValueError(
            "`values` must have the shape (points, objectives), with "
            f"{len(directions)} objectives as there are `directions`. "
            f"Received: values of shape {array.shape}."
        )
    return array * _signs(directions)


def _signs(directions: Sequence[str]) -> np.ndarray:
    return np.array([1.0 if way == "min" else -1.0 for way in directions])


def _volume(costs: np.ndarray, worst: np.ndarray) -> float:
    """Volume between points and a reference that all of them are below."""
    if not len(costs):
        return 0.0
    costs = costs[np.argsort(costs[:, -1], kind="stable")]
    # How far each slice reaches: to where the next point joins in.
    depths = np.diff(costs[:, -1], append=worst[-1])
    if costs.shape[1] == 1:
        return float(worst[0] - costs[0, 0])
    if costs.shape[1] == 2:
        widths = worst[0] - np.minimum.accumulate(costs[:, 0])
        return float(widths @ depths)
    return sum(
        depth * _volume(costs[: count + 1, :-1], worst[:-1])
        for count, depth in enumerate(depths.tolist())
        if depth > 0
    )
