import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings
from hypothesis import strategies as st

from keras_lowrank.search import hypervolume
from keras_lowrank.search import pareto_mask

pytestmark = pytest.mark.once


def points(objectives, most=6):
    # Few values, so that there are ties and duplicates.
    row = st.lists(
        st.integers(-3, 4).map(float), min_size=objectives, max_size=objectives
    )
    return st.lists(row, max_size=most).map(
        lambda rows: np.array(rows).reshape(-1, objectives)
    )


@st.composite
def problems(draw):
    objectives = draw(st.integers(1, 4))
    directions = st.sampled_from(["min", "max"])
    ways = st.lists(directions, min_size=objectives, max_size=objectives)
    return draw(points(objectives)), draw(ways)


def better(one, other, directions):
    """Whether one point dominates another, word by word."""
    pairs = [
        (a, b) if direction == "min" else (b, a)
        for a, b, direction in zip(one, other, directions, strict=True)
    ]
    return all(a <= b for a, b in pairs) and any(a < b for a, b in pairs)


def by_inclusion_and_exclusion(values, directions, reference):
    """Volume of a union of boxes from those of all their intersections."""
    signs = np.array([1 if way == "min" else -1 for way in directions])
    sides = (np.array(reference) - values) * signs
    sides = sides[np.all(sides > 0, axis=1)]
    return sum(
        (-1) ** (count + 1) * math.prod(np.min(sides[list(some)], axis=0))
        for count in range(1, len(sides) + 1)
        for some in itertools.combinations(range(len(sides)), count)
    )


class TestParetoMask:
    def test_by_hand(self):
        values = [[1, 5], [2, 4], [3, 4], [2, 4], [4, 1], [5, 5]]
        mask = pareto_mask(values, ["min", "min"])
        assert mask.dtype == bool
        assert mask.tolist() == [True, True, False, True, True, False]
        mask = pareto_mask(values, ["max", "min"])
        assert mask.tolist() == [False, False, False, False, True, True]

    def test_one_objective_has_its_best_points(self):
        values = [[2.0], [1.0], [1.0]]
        assert pareto_mask(values, ["min"]).tolist() == [False, True, True]
        assert pareto_mask(values, ["max"]).tolist() == [True, False, False]

    def test_what_is_not_a_number_is_not_on_the_front(self):
        values = [[math.nan, 0.0], [1.0, 1.0], [0.0, math.nan]]
        mask = pareto_mask(values, ["min", "min"])
        assert mask.tolist() == [False, True, False]

    def test_infinite_objectives_are_compared(self):
        values = [[1.0, math.inf], [1.0, 2.0], [-math.inf, math.inf]]
        mask = pareto_mask(values, ["min", "min"])
        assert mask.tolist() == [False, True, True]
        mask = pareto_mask(values, ["max", "max"])
        assert mask.tolist() == [True, False, False]

    @pytest.mark.parametrize("none", [[], np.empty((0, 2))])
    def test_no_points(self, none):
        assert pareto_mask(none, ["min", "max"]).shape == (0,)
        assert hypervolume(none, ["min", "max"], [0.0, 0.0]) == 0.0

    @given(problems())
    def test_is_what_the_definition_says(self, problem):
        values, directions = problem
        expected = [
            not any(better(other, one, directions) for other in values)
            for one in values
        ]
        assert pareto_mask(values, directions).tolist() == expected

    @given(problems(), st.randoms(use_true_random=False))
    def test_order_does_not_matter(self, problem, random):
        values, directions = problem
        order = list(range(len(values)))
        random.shuffle(order)
        shuffled = pareto_mask(values[order], directions)
        mask = pareto_mask(values, directions)
        np.testing.assert_array_equal(shuffled, mask[order])


class TestHypervolume:
    def test_by_hand(self):
        ways, reference = ["min", "max"], [10.0, 0.5]
        # A box of 6 by 0.4, and above it one of 2 by 0.1.
        values = [[4.0, 0.9], [8.0, 1.0], [9.0, 0.7]]
        assert hypervolume(values, ways, reference) == pytest.approx(2.6)

    def test_three_objectives_by_hand(self):
        # Two boxes of 1 by 2 by 2 that share one of 1 by 1 by 2.
        values = [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]
        assert hypervolume(values, ["min"] * 3, [2.0, 2.0, 2.0]) == 6.0

    def test_only_what_is_better_everywhere_counts(self):
        values = [[1.0, 3.0], [0.0, 5.0], [math.nan, 0.0]]
        assert hypervolume(values, ["min", "min"], [3.0, 3.0]) == 0.0
        infinite = [[-math.inf, 3.0]]
        assert hypervolume(infinite, ["min", "min"], [3.0, 3.0]) == 0.0
        assert hypervolume(infinite, ["min", "min"], [3.0, 4.0]) == math.inf

    @given(problems())
    def test_is_that_of_the_union_of_boxes(self, problem):
        values, directions = problem
        reference = [1.5] * len(directions)
        expected = by_inclusion_and_exclusion(values, directions, reference)
        actual = hypervolume(values, directions, reference)
        assert actual == pytest.approx(expected, abs=1e-9)

    @settings(max_examples=40)
    @given(problems(), st.lists(st.floats(0, 2), min_size=4, max_size=4))
    def test_a_dominated_point_adds_nothing(self, problem, worse):
        values, directions = problem
        signs = [1 if way == "min" else -1 for way in directions]
        steps = np.array(worse[: len(signs)]) * signs
        more = np.concatenate([values, values[:1] + steps])
        reference = [2.5] * len(directions)
        volume = hypervolume(values, directions, reference)
        assert hypervolume(more, directions, reference) == volume
        assert hypervolume(more[::-1], directions, reference) == volume

    @settings(max_examples=40)
    @given(problems(), st.integers(0, 3))
    def test_more_is_better_of_the_negative(self, problem, index):
        values, directions = problem
        index %= len(directions)
        reference = np.full(len(directions), 0.5)
        sign = np.ones(len(directions))
        sign[index] = -1
        flipped = list(directions)
        flipped[index] = {"min": "max", "max": "min"}[directions[index]]
        np.testing.assert_array_equal(
            pareto_mask(values * sign, flipped), pareto_mask(values, directions)
        )
        assert hypervolume(
            values * sign, flipped, reference * sign
        ) == hypervolume(values, directions, reference)

    def test_hundreds_of_points_on_a_simplex(self):
        """Points below the reference (1, 1, 1) with a sum of 1."""
        count = 24
        grid = [
            (a, b, count - a - b)
            for a in range(count + 1)
            for b in range(count + 1 - a)
        ]
        volume = hypervolume(np.array(grid) / count, ["min"] * 3, [1.0] * 3)
        # What it lacks of the unit cube are stairs: the cells of the grid
        # whose lower corner has a sum below `count`.
        stairs = math.comb(count + 2, 3)
        assert volume == pytest.approx(1 - stairs / count**3)


class TestErrors:
    @pytest.mark.parametrize(
        "directions", ["min", ["min", "up"], [], ["min", None]], ids=str
    )
    def test_unknown_directions(self, directions):
        with pytest.raises(ValueError, match="'min' or 'max' for each"):
            pareto_mask([[1.0, 2.0]], directions)

    @pytest.mark.parametrize(
        "values", [[1.0, 2.0], [[1.0, 2.0, 3.0]], 1.0], ids=str
    )
    def test_shapes(self, values):
        with pytest.raises(ValueError, match=r"2 objectives .*Received: va"):
            pareto_mask(values, ["min", "max"])

    @pytest.mark.parametrize(
        "reference", [[1.0], [1.0, math.inf], [math.nan, 1.0], 1.0], ids=str
    )
    def test_references(self, reference):
        with pytest.raises(ValueError, match="one finite number for each"):
            hypervolume([[1.0, 2.0]], ["min", "max"], reference)
