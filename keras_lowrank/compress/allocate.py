"""Ranks for a budget: shared out so that the errors are smallest."""

import itertools
import math
import operator
from collections.abc import Iterable
from collections.abc import Sequence

import numpy as np

from keras_lowrank.compress.layer_plan import LayerPlan


def allocate(
    forms: Sequence[Sequence[LayerPlan]], budget: float, cost: str
) -> list[LayerPlan]:
    """The ranks within a budget that keep most of the energy of all layers.

    Layers follow each other, so what counts is the product of the shares of
    energy that they keep, `sum_{i<=r} s_i^2 / sum_i s_i^2`: their sum would
    be largest with a few layers destroyed and the others whole. Each layer has
    a curve of its loss, minus the logarithm of its share, over costs, of which
    the lower convex hull matters: its steps are taken in the order of what
    they save for what they cost, which is optimal up to the last step, and
    what is left of the budget goes to the best step that still fits.

    Args:
        forms: For each layer the `LayerPlan`s of the forms it may take.
        budget: Float, in the units of `cost`, for all these layers.
        cost: String, `"parameters"` or `"flops"`.

    Returns:
        List of `LayerPlan`, one for each layer.

    Raises:
        ValueError: when rank 1 everywhere costs more.

    Reference:
        [Kim, Khan & Kyung, 2019](https://arxiv.org/abs/1811.12781), who take
        the product of energies for the accuracy of a network.
    """
    curves = [_curve(one, cost) for one in forms]
    least = sum(curve[0].cost for curve in curves)
    if least > budget:
        raise ValueError(
            f"The budget cannot be kept: rank 1 in every layer that may be "
            f"compressed costs {least:,.0f} {cost}. Received: a budget that "
            f"leaves {budget:,.0f} for them."
        )
    places = [0] * len(curves)
    left = budget - least
    steps = sorted(
        (-gain / max(price, 1e-300), index, place)
        for index, curve in enumerate(curves)
        for price, gain, place in _hull_steps(curve)
    )
    stuck: set[int] = set()
    for _, index, place in steps:
        curve = curves[index]
        price = curve[place].cost - curve[places[index]].cost
        if index in stuck or price > left:
            stuck.add(index)
            continue
        left -= price
        places[index] = place
    # What is left is less than any step of a hull: smaller ones may fit.
    while True:
        found = _best_fit(curves, places, left)
        if found is None:
            break
        index, place = found
        left -= curves[index][place].cost - curves[index][places[index]].cost
        places[index] = place
    return [
        curve[place].plan for curve, place in zip(curves, places, strict=True)
    ]


class _Point:
    """One choice for a layer: what it costs, and what it loses."""

    def __init__(self, plan: LayerPlan, cost: float, loss: float):
        self.plan = plan
        self.cost = cost
        self.loss = loss


def _curve(forms: Iterable[LayerPlan], cost: str) -> list[_Point]:
    """Choices that cost more only where they lose less, cheapest first."""
    forms = list(forms)
    points = []
    of = operator.attrgetter(f"{cost}_after")
    for form in forms:
        whole = form.kept("all of it fits the budget")
        points.append(_Point(whole, of(whole), 0.0))
        squares = np.square(form.values)
        shares = np.cumsum(squares) / np.sum(squares)
        for rank in range(1, form.largest_paying_rank + 1):
            plan = form.with_rank(rank)
            share = min(float(shares[rank - 1]), 1.0)
            points.append(_Point(plan, of(plan), -math.log(share)))
    points.sort(key=lambda point: (point.cost, point.loss))
    best: list[_Point] = []
    for point in points:
        if not best or point.loss < best[-1].loss:
            best.append(point)
    return best


def _hull_steps(curve: list[_Point]):
    """Steps `(price, gain, place)` along the lower convex hull."""
    hull = [0]
    for place in range(1, len(curve)):
        while len(hull) > 1 and _above(curve, hull[-2], hull[-1], place):
            hull.pop()
        hull.append(place)
    for start, end in itertools.pairwise(hull):
        yield (
            curve[end].cost - curve[start].cost,
            curve[start].loss - curve[end].loss,
            end,
        )


def _above(curve, first, middle, last) -> bool:
    """Whether the middle point lies on or above the line of the others."""
    one, two, three = curve[first], curve[middle], curve[last]
    return (one.loss - two.loss) * (three.cost - one.cost) <= (
        one.loss - three.loss
    ) * (two.cost - one.cost)


def _best_fit(curves, places, left):
    """The step that saves most for what it costs, of those that fit."""
    found, best = None, 0.0
    for index, curve in enumerate(curves):
        here = curve[places[index]]
        for place in range(places[index] + 1, len(curve)):
            price = curve[place].cost - here.cost
            if price > left:
                break
            gain = (here.loss - curve[place].loss) / max(price, 1e-300)
            if gain > best:
                found, best = (index, place), gain
    return found
