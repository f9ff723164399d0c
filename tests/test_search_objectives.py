import itertools
import math

import numpy as np
import pytest

from keras_lowrank import Spectrum
from keras_lowrank import as_measures
from keras_lowrank.records import Measurement
from keras_lowrank.records import Record
from keras_lowrank.records import Recording
from keras_lowrank.records import measure_all
from keras_lowrank.search import BestAccuracy
from keras_lowrank.search import LowestRank
from keras_lowrank.search import ParetoFront
from keras_lowrank.search.objective import as_objective
from keras_lowrank.search.objective import objective_to_dict
from keras_lowrank.search.outcome import outcome

pytestmark = pytest.mark.once

OBJECTIVES = [LowestRank(0.9), BestAccuracy(30.0), ParetoFront()]


def metrics(accuracy, rank):
    return {
        "val_accuracy": accuracy,
        "rank_mean": float(rank),
        "full_rank_mean": 100.0,
    }


@pytest.mark.parametrize("objective", OBJECTIVES, ids=lambda o: str(o)[:12])
class TestEveryObjective:
    grid = list(itertools.product([0.1, 0.5, 0.89, 0.9, 1.0], [0, 20, 31, 100]))

    def test_scores_lie_between_0_and_2(self, objective):
        scores = [objective.score(metrics(*point)) for point in self.grid]
        assert all(0 <= score <= 2 for score in scores)

    def test_any_that_keeps_the_constraint_beats_any_that_does_not(
        self, objective
    ):
        kept = [p for p in self.grid if objective.meets(metrics(*p))]
        broken = [p for p in self.grid if p not in kept]
        worst = max(objective.score(metrics(*point)) for point in kept)
        for point in broken:
            assert objective.score(metrics(*point)) >= worst

    def test_better_in_both_is_no_worse(self, objective):
        for a, b in itertools.product(self.grid, self.grid):
            if a[0] >= b[0] and a[1] <= b[1]:
                better, worse = metrics(*a), metrics(*b)
                assert objective.score(better) <= objective.score(worse)

    def test_plain_values_give_it_again(self, objective):
        assert as_objective(objective_to_dict(objective)) == objective

    def test_missing_metrics_are_named(self, objective):
        with pytest.raises(ValueError, match="needs the metric"):
            objective.score({"loss": 1.0})


def test_a_rank_in_the_tens_does_not_drown_the_accuracy():
    """KerasTuner's own sum of raw metrics prefers the useless network."""
    useless, good = metrics(0.1, 1), metrics(0.98, 40)
    assert sum((1, -0.1)) < sum((40, -0.98))
    for objective in (LowestRank(0.9), ParetoFront()):
        assert objective.score(good) < objective.score(useless)


def test_equal_accuracy_keeps_the_floor_in_float32():
    floor = float(np.mean([0.9693593, 0.9721448]))
    same = float(np.mean(np.float32([0.9693593, 0.9721448]) - np.float32(1e-7)))
    assert LowestRank(floor).meets(metrics(same, 10))
    assert not LowestRank(floor).meets(metrics(floor - 1e-3, 10))


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: LowestRank(0.0), "above 0 and at most 1"),
        (lambda: LowestRank(95), "above 0 and at most 1"),
        (lambda: LowestRank("0.9"), "must be a number"),
        (lambda: BestAccuracy(0), "above 0"),
        (lambda: BestAccuracy(math.inf), "above 0"),
        (lambda: ParetoFront((("val_accuracy", "max"),)), "two goals"),
        (lambda: ParetoFront((("a", "max"), ("b", "low"))), '"min" or "max"'),
        (lambda: as_objective("rank_mean"), "LowestRank, BestAccuracy"),
        (lambda: as_objective({"name": "rank"}), "is one of"),
        (
            lambda: as_objective({"name": "lowest_rank", "floor": 0.9}),
            "takes accuracy, accuracy_floor, rank",
        ),
        (lambda: LowestRank(0.9).score(metrics(97, 3)), "between 0 and 1"),
    ],
    ids=range(11),
)
def test_what_is_no_objective_says_so(make, message):
    with pytest.raises((TypeError, ValueError), match=message):
        make()


def recording(*epochs, loss=0.5):
    measures = as_measures(["rank", "stable_rank"])
    run = Recording(measures)
    for epoch, spectra in enumerate(epochs):
        records = tuple(
            Record(f"layer_{i}", item, measure_all(measures, item))
            for i, item in enumerate(spectra)
        )
        logs = {"loss": loss, "val_accuracy": epoch / 10} if epoch else {}
        run.append(Measurement(epoch, epoch, records, logs))
    return run


def low(rank, shape=(6, 8)):
    values = np.zeros(min(shape))
    values[:rank] = 1.0
    return Spectrum(values, shape)


class TestOutcome:
    def test_it_is_of_the_last_epoch_and_not_of_the_best(self):
        run = recording([low(6)], [low(1)], [low(4)])
        came = outcome(run)
        assert came.status == "complete"
        assert came.metrics["rank_mean"] == 4
        assert came.metrics["val_accuracy"] == 0.2
        assert came.metrics["full_rank_mean"] == 6

    def test_means_of_the_last_epochs(self):
        run = recording([low(6)], [low(1)], [low(4)])
        assert outcome(run, last=2).metrics["rank_mean"] == 2.5
        # The initialisation is no epoch.
        assert outcome(run, last=9).metrics["rank_mean"] == 2.5

    def test_size_takes_factors_where_they_are_smaller(self):
        # 6 x 8: two factors of rank 2 have 28 numbers, of rank 4 56.
        run = recording([low(2), low(4)])
        assert outcome(run).metrics["size"] == 28 + 48
        assert outcome(run).metrics["full_size"] == 96

    def test_a_zero_matrix_is_a_collapse(self):
        came = outcome(recording([low(6), low(6)], [low(3), low(0)]))
        assert came.status == "collapsed"
        assert came.reason == "zero: layer_1"

    def test_weights_or_a_loss_that_are_not_finite_are_a_divergence(self):
        broken = Spectrum(np.full(6, np.nan), (6, 8), reason="3 NaN of 48")
        came = outcome(recording([low(6)], [broken]))
        assert (came.status, came.reason) == (
            "diverged",
            "layer_0: 3 NaN of 48",
        )
        came = outcome(recording([low(6)], [low(6)], loss=math.inf))
        assert (came.status, came.reason) == ("diverged", "loss is inf")
