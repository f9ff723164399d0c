"""Fewer of many, evenly chosen, with the first and the last."""

from collections.abc import Sequence

import numpy as np


def evenly(count: int, most: int) -> np.ndarray:
    """Indices from the first to the last of `count`.

    Args:
        count: Int, how many there are.
        most: Int >= 2, how many are chosen at the most.

    Returns:
        Increasing array of ints.
    """
    places = np.linspace(0, count - 1, min(count, most)).round()
    return np.unique(places.astype(int))


def some(items: Sequence, most: int) -> list:
    """Those items of a sequence that `evenly` chooses."""
    return [items[index] for index in evenly(len(items), most)]
