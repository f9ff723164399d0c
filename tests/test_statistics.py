import builtins
import dataclasses
import math

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from keras_lowrank.search import Interval
from keras_lowrank.search import mean_interval
from keras_lowrank.search import paired_difference

pytestmark = pytest.mark.once

NUMBERS = st.floats(-1e3, 1e3).map(lambda value: round(value, 3))
LEVELS = st.sampled_from([0.5, 0.9, 0.95, 0.99])


def ends(interval):
    return interval.low, interval.high


class TestMeanInterval:
    def test_by_hand(self):
        # Five values with a standard deviation of sqrt(2.5), and from tables
        # the quantile 2.776 of four degrees of freedom.
        interval = mean_interval([1.0, 2.0, 3.0, 4.0, 5.0])
        half = 2.776445 * math.sqrt(2.5 / 5)
        assert interval.mean == 3.0 and interval.count == 5
        assert ends(interval) == pytest.approx((3 - half, 3 + half))

    @given(st.lists(NUMBERS, min_size=2, max_size=8, unique=True), LEVELS)
    def test_is_that_of_scipy(self, values, level):
        oracle = scipy.stats.ttest_1samp(values, 0).confidence_interval(level)
        interval = mean_interval(values, level)
        assert interval.mean == pytest.approx(np.mean(values), abs=1e-9)
        assert ends(interval) == pytest.approx(tuple(oracle), abs=1e-6)

    def test_holds_the_mean_as_often_as_it_says(self):
        draws = np.random.default_rng(0).normal(2.0, 3.0, size=(1000, 4))
        intervals = [mean_interval(values, level=0.8) for values in draws]
        held = np.mean([i.low <= 2.0 <= i.high for i in intervals])
        # Three standard deviations of a share of 0.8 of 1000.
        assert held == pytest.approx(0.8, abs=0.038)

    def test_equal_values_have_no_spread(self):
        interval = mean_interval([0.1] * 3)
        assert (interval.mean, *ends(interval)) == (0.1, 0.1, 0.1)

    def test_one_value_has_no_interval(self):
        interval = mean_interval([0.25])
        assert interval.mean == 0.25 and interval.count == 1
        assert np.isnan(ends(interval)).all()

    def test_what_is_not_finite_is_left_out_and_counted(self):
        values = [1.0, math.nan, 2.0, math.inf, 4.0, -math.inf]
        interval = mean_interval(values)
        assert interval.count == 3 and interval.missing == 3
        assert dataclasses.replace(interval, missing=0) == mean_interval(
            [1.0, 2.0, 4.0]
        )

    @pytest.mark.parametrize("values", [[], [math.nan]], ids=["none", "nan"])
    def test_of_nothing_there_is_no_mean(self, values):
        interval = mean_interval(values)
        assert interval.count == 0 and interval.missing == len(values)
        assert math.isnan(interval.mean)

    def test_errors(self):
        with pytest.raises(ValueError, match=r"each seed. Received: .*\(1, 2"):
            mean_interval([[1.0, 2.0]])
        for level in (0.0, 1.0, 95, math.nan):
            with pytest.raises(ValueError, match=f"Received: level={level}"):
                mean_interval([1.0, 2.0], level)

    def test_without_scipy_it_says_what_to_install(self, monkeypatch):
        original = builtins.__import__

        def hiding(name, *arguments):
            if name.partition(".")[0] == "scipy":
                raise ImportError(name)
            return original(name, *arguments)

        monkeypatch.setattr(builtins, "__import__", hiding)
        with pytest.raises(ImportError, match=r'"keras-lowrank\[tuner\]"'):
            mean_interval([1.0, 2.0])


class TestPairedDifference:
    @given(
        st.dictionaries(st.integers(0, 9), NUMBERS, min_size=2),
        st.integers(1, 9),
        LEVELS,
    )
    def test_is_that_of_scipy(self, ours, factor, level):
        theirs = {
            # Seeds in another order, and differences that are not all equal.
            seed: value + factor * seed
            for seed, value in reversed(ours.items())
        }
        pairs = [(ours[seed], theirs[seed]) for seed in sorted(ours)]
        oracle = scipy.stats.ttest_rel(*zip(*pairs, strict=True))
        interval = paired_difference(ours, theirs, level)
        assert interval.count == len(ours) and interval.level == level
        assert ends(interval) == pytest.approx(
            tuple(oracle.confidence_interval(level)), abs=1e-6
        )

    def test_knows_better_than_two_intervals(self):
        luck = np.random.default_rng(0).normal(size=6)
        theirs = dict(enumerate(luck))
        ours = {
            seed: value + 0.1 + seed / 100 for seed, value in theirs.items()
        }
        assert paired_difference(ours, theirs).low > 0
        both = [mean_interval(list(runs.values())) for runs in (ours, theirs)]
        assert both[0].low < both[1].high

    def test_seeds_without_a_partner_are_counted(self):
        ours = {1: 3.0, 2: 5.0, 3: math.nan, 4: math.inf, 7: 0.0}
        theirs = {2: 1.0, 1: 2.0, 3: 1.0, 4: math.inf, 8: 0.0, 9: 0.0}
        interval = paired_difference(ours, theirs)
        assert interval.mean == 2.5 and interval.count == 2
        assert interval.missing == 5

    def test_without_a_common_seed_there_is_nothing_to_compare(self):
        with pytest.raises(ValueError, match=r"Received: seeds \[1\] and \[2"):
            paired_difference({1: 0.0}, {2: 0.0, 3: 0.0})


@pytest.mark.parametrize(
    ("mean", "half", "text"),
    [
        (0.9742, 0.0059, "0.974 ± 0.006"),
        (0.0133, 0.0143, "0.013 ± 0.014"),
        (0.5, 0.0951, "0.500 ± 0.095"),
        (1234.4, 56.3, "1234 ± 56"),
        (-1e-5, 0.4, "0.0 ± 0.4"),
        (-0.31, 0.248, "-0.31 ± 0.25"),
        (1.23e-7, 3e-8, "1.23e-07 ± 3e-08"),
        (0.0, 2e-9, "0 ± 2e-09"),
        (0.1, 1e-17, "0.1 ± 1e-17"),
        (5.0, 0.0, "5 ± 0"),
        (0.97345, math.nan, "0.9735"),
        (math.nan, math.nan, "nan"),
    ],
    ids=str,
)
def test_as_text(mean, half, text):
    # Around 0 the ends keep the digits of a half that a mean would swallow.
    interval = Interval(mean, -half, half, count=5, level=0.95)
    assert str(interval) == text
    interval = dataclasses.replace(interval, missing=2)
    assert str(interval) == f"{text} (2 of 7 missing)"
