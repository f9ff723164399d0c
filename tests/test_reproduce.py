import csv
import dataclasses
import json
import math

import keras
import numpy as np
import pytest

import keras_lowrank_cli
from keras_lowrank import Recording
from keras_lowrank import Spectrum
from keras_lowrank import as_measures
from keras_lowrank.cli import main
from keras_lowrank.experiments import models
from keras_lowrank.experiments import read_runs
from keras_lowrank.experiments.data import DATASETS
from keras_lowrank.experiments.paper import FIGURES
from keras_lowrank.experiments.paper import figures_table
from keras_lowrank.experiments.paper import find_figure
from keras_lowrank.experiments.paper import make_task
from keras_lowrank.experiments.paper.claims import Monotone
from keras_lowrank.experiments.paper.claims import NearStart
from keras_lowrank.experiments.paper.curves import HALF_RANK
from keras_lowrank.experiments.paper.curves import clock
from keras_lowrank.experiments.paper.curves import half_rank
from keras_lowrank.experiments.paper.curves import norm_ratios
from keras_lowrank.experiments.paper.draw import draw
from keras_lowrank.experiments.paper.draw import picture
from keras_lowrank.experiments.paper.figure import SIZES
from keras_lowrank.experiments.paper.figure import key
from keras_lowrank.experiments.paper.figure import row
from keras_lowrank.experiments.paper.numbers import Agrees
from keras_lowrank.experiments.paper.numbers import Between
from keras_lowrank.experiments.paper.numbers import Collapses
from keras_lowrank.experiments.paper.numbers import Lowest
from keras_lowrank.experiments.paper.numbers import Scales
from keras_lowrank.experiments.paper.output import left_out
from keras_lowrank.experiments.paper.points import Estimate
from keras_lowrank.experiments.paper.points import Outcome
from keras_lowrank.experiments.paper.points import Point
from keras_lowrank.experiments.paper.points import Study
from keras_lowrank.experiments.paper.points import gather
from keras_lowrank.experiments.paper.points import read_outcome
from keras_lowrank.experiments.paper.reproduce import judge
from keras_lowrank.experiments.paper.special import BoundHolds
from keras_lowrank.experiments.paper.special import DropsAtOneClock
from keras_lowrank.experiments.paper.special import OneTolerance
from keras_lowrank.experiments.paper.special import RatiosComeTo
from keras_lowrank.experiments.paper.special import SpectraCross
from keras_lowrank.records.record import Measurement
from keras_lowrank.records.record import Record

NAMES = [f"fig{number}" for number in range(1, 20)]
NAMES += ["notebook_convnet", "notebook_resnet"]
CONTROLS = [name for name in FIGURES if name not in NAMES]
CASES = [(name, size) for name in NAMES for size in SIZES]


def recording(spectra, per_epoch=10, logs=None, rates=None):
    """A recording of weights `w0`, `w1`, ... from a dict by epoch."""
    logs = {"train_accuracy": 0.9, "val_accuracy": 0.5} | (logs or {})
    return Recording(
        as_measures("rank"),
        measurements=[
            Measurement(
                epoch=epoch,
                step=epoch * per_epoch,
                records=tuple(
                    Record(f"w{index}", spectrum(values), {})
                    for index, values in enumerate(weights)
                ),
                logs=logs if epoch else {},
                learning_rate=(rates or {}).get(epoch, 0.1),
                steps_per_epoch=per_epoch if epoch else None,
            )
            for epoch, weights in spectra.items()
        ],
    )


def spectrum(values):
    values = np.asarray(values, float)
    return Spectrum(values, (len(values), len(values)))


def outcome(spec, rank=10.0, start=20.0, collapse="", record=None, **values):
    values = {"rank": rank, "train": 0.9, "test": 0.5} | values
    return Outcome(
        spec, record or Recording(), values, {"rank": start}, collapse
    )


def a_study(figure, ranks, size="full", start=20.0, **more):
    """A study with points from a dict of fields to ranks, one for a seed.

    A rank of `None` is a network that collapsed.
    """
    spec = figure.sizes["full"].specs()[0]
    points = []
    for point, seeds in ranks.items():
        fields = dict(point)
        outcomes = tuple(
            outcome(
                spec.replace(**fields, seed=seed),
                rank=math.nan if rank is None else rank,
                start=start,
                collapse="" if rank is not None else "it is dead",
                **more,
            )
            for seed, rank in enumerate(np.atleast_1d(seeds))
        )
        reference = figure.references.get(point, {})
        points.append(Point(point, outcomes, reference))
    return Study(figure, size, tuple(points))


def by_decay(*ranks, decays=(1e-4, 2e-4, 4e-4), batch_size=32):
    return {
        key(weight_decay=decay, batch_size=batch_size): rank
        for decay, rank in zip(decays, ranks, strict=True)
    }


FIG8 = find_figure("fig8")


@pytest.mark.once
class TestEntries:
    def test_every_figure_of_section_6_and_then_controls(self):
        assert list(FIGURES) == NAMES + CONTROLS
        assert all(FIGURES[name].ours for name in CONTROLS)
        assert not any(FIGURES[name].ours for name in NAMES)

    @pytest.mark.parametrize(
        "name, size", CASES, ids=[f"{name}-{size}" for name, size in CASES]
    )
    def test_specs_are_valid(self, name, size):
        figure = FIGURES[name]
        specs = figure.sizes[size].specs(seeds=2)
        assert len(specs) == len({spec.id for spec in specs})
        assert {spec.seed for spec in specs} == {0, 1}
        foreign = {"food101", "imagenette", "places365"}
        for spec in specs:
            assert spec.network.name in models.NETWORKS
            known = spec.data.name in DATASETS
            assert known or (size == "full" and spec.data.name in foreign)
            spec.plan(1000)
            assert set(dict(figure.key_of(spec))) == set(figure.fields)
        if size == "smoke":
            assert {spec.data.name for spec in specs} == {"digits"}
            assert max(spec.epochs for spec in specs) <= 60

    @pytest.mark.parametrize("name", NAMES)
    def test_references_lie_on_the_grid(self, name):
        figure = FIGURES[name]
        grid = {figure.key_of(s) for s in figure.sizes["full"].specs()}
        assert set(figure.references) <= grid
        assert figure.claims
        ranks = [ref.get("rank", 0) for ref in figure.references.values()]
        assert all(0 <= rank <= 314 for rank in ranks)

    @pytest.mark.parametrize("name", NAMES)
    def test_a_reduced_size_says_so(self, name):
        for size in FIGURES[name].sizes.values():
            if not size.numbers:
                assert "its numbers are not" in size.note or (
                    "NOT been shown" in size.note
                )

    @pytest.mark.parametrize("name", NAMES)
    def test_a_smaller_network_is_called_that(self, name):
        figure = FIGURES[name]
        cpu, full = (figure.sizes[size] for size in ("cpu", "full"))
        ours, paper = (
            {spec.network for spec in size.specs()} for size in (cpu, full)
        )
        said = "a smaller network" in cpu.note or "tenth as wide" in cpu.note
        assert said == (not ours <= paper)

    def test_sizes_that_bind_to_the_paper_are_its_own_runs(self):
        for figure in (FIGURES[name] for name in NAMES):
            full = set(figure.sizes["full"].specs())
            assert figure.sizes["full"].numbers
            assert not figure.sizes["smoke"].numbers
            if figure.sizes["cpu"].numbers:
                assert set(figure.sizes["cpu"].specs()) <= full

    def test_the_papers_numbers(self):
        counts = {name: len(FIGURES[name].references) for name in NAMES}
        assert counts == {
            "fig1": 0,
            "fig2": 12,
            "fig3": 15,
            "fig4": 18,
            "fig5": 0,
            "fig6": 1,
            "fig7": 30,
            "fig8": 15,
            "fig9": 9,
            "fig10": 21,
            "fig11": 21,
            "fig12": 9,
            "fig13": 0,
            "fig14": 12,
            "fig15": 12,
            "fig16": 2,
            "fig17": 0,
            "fig18": 6,
            "fig19": 0,
            "notebook_convnet": 5,
            "notebook_resnet": 36,
        }

    @pytest.mark.parametrize(
        "name, point, expected",
        [
            (
                "fig8",
                {"batch_size": 32, "weight_decay": 6e-3},
                {"rank": 33.8, "train": 0.903},
            ),
            (
                "fig9",
                {"batch_size": 128, "learning_rate": 0.01},
                {"rank": 83.5, "train": 0.992, "test": 0.490},
            ),
            (
                "fig2",
                {"batch_size": 8, "learning_rate": 2.0},
                {"rank": 69.1, "train": 0.982, "test": 0.783},
            ),
            (
                "fig4",
                {
                    "batch_size": 64,
                    "learning_rate": 5e-3,
                    "weight_decay": 6e-3,
                },
                {"rank": 110.9, "train": 1.0, "test": 0.836},
            ),
            (
                "fig11",
                {"batch_size": 128, "weight_decay": 5e-3},
                {"rank": 46.2},
            ),
            (
                "fig15",
                {"data": "places365", "learning_rate": 2.0},
                {"rank": 84.2, "test": 0.095, "train": 0.113},
            ),
            (
                "notebook_convnet",
                {
                    "loss": "mean_squared_error",
                    "learning_rate": 0.1,
                    "weight_decay": 1e-4,
                },
                {HALF_RANK: 1260.0},
            ),
        ],
        ids=lambda value: value if isinstance(value, str) else "",
    )
    def test_some_numbers(self, name, point, expected):
        assert FIGURES[name].references[key(**point)] == expected

    def test_what_the_entries_decide(self):
        tolerances = {n: f.tolerance for n, f in FIGURES.items()}
        assert {tolerances[f"fig{n}"] for n in (7, 8, 9)} == {0.03}
        assert {tolerances[f"fig{n}"] for n in (4, 13, 16)} == {0.05}
        assert {tolerances[f"fig{n}"] for n in (1, 2, 3, 6, 14, 15)} == {1e-3}
        momenta = {s.momentum for s in FIGURES["fig7"].sizes["full"].specs()}
        assert momenta == {0.0, 0.9}
        assert "not credible" in FIGURES["fig7"].notes[0]
        spec = FIG8.sizes["full"].specs()[0]
        assert (spec.epochs, spec.milestones) == (500, (59, 99, 199))
        assert (spec.decay_convention, spec.learning_rate_factor) == (
            "torch",
            0.2,
        )

    @pytest.mark.parametrize("name", NAMES)
    def test_the_papers_numbers_bear_out_the_papers_trends(self, name):
        figure = FIGURES[name]
        points = []
        for spec in figure.sizes["full"].specs():
            reference = figure.references.get(figure.key_of(spec))
            if not reference:
                continue
            start = {
                "rank": max(
                    r.get("rank", 0) for r in figure.references.values()
                )
            }
            start |= {part: reference.get(part, 0) for part in figure.parts}
            made = Outcome(spec, Recording(), reference, start)
            point = Point(figure.key_of(spec), (made,), reference)
            if point.collapsed_in_paper:
                made = dataclasses.replace(made, collapse="dead")
                point = Point(point.key, (made,), reference)
            points.append(point)
        study = Study(figure, "full", tuple(points))
        judged = [
            (claim, claim.judge(study))
            for claim in figure.claims
            if isinstance(claim, (Monotone, Agrees, Collapses, Scales))
        ]
        for claim, verdict in judged:
            # One set of numbers cannot be of two momenta.
            twice = getattr(claim, "field", "") == "momentum"
            expected = "does not hold" if twice else "holds"
            assert verdict.outcome in (expected, "not tested here"), verdict

    def test_a_row_of_another_length(self):
        with pytest.raises(ValueError, match=r"each of the 2 .*rank='1 2 3'"):
            row("batch_size", (4, 8), {}, rank="1 2 3")


@pytest.mark.once
class TestEstimate:
    def test_one_seed_has_no_interval(self):
        estimate = Estimate((3.0,))
        assert estimate.interval is None
        assert estimate.kind == "one seed, no interval"

    def test_two_seeds_have_a_range(self):
        estimate = Estimate((5.0, 3.0))
        assert (estimate.mean, estimate.interval) == (4.0, (3.0, 5.0))
        assert estimate.kind == "range of 2 seeds"

    @pytest.mark.parametrize("count", range(3, 11))
    def test_more_have_student_s_interval(self, count):
        stats = pytest.importorskip("scipy.stats")
        values = np.random.default_rng(count).normal(50, 3, count)
        low, high = stats.t.interval(
            0.95, count - 1, values.mean(), stats.sem(values)
        )
        estimate = Estimate(tuple(values))
        assert estimate.interval == pytest.approx((low, high), rel=1e-4)
        assert estimate.kind == f"95 % t-interval of {count} seeds"


@pytest.mark.once
class TestCollapse:
    spec = FIG8.sizes["full"].specs()[0]

    def read(self, spectra, **more):
        point = FIG8.key_of(self.spec)
        made = recording(spectra, **more)
        return read_outcome(FIG8, "full", point, self.spec, made)

    def test_alive(self):
        read = self.read({0: [[1, 1, 1]], 10: [[1, 0.5, 0.01]]})
        assert read.collapse == ""
        assert read.values == {"rank": 2.0, "train": 0.9, "test": 0.5}
        assert read.start == {"rank": 3.0}

    @pytest.mark.parametrize(
        "last, logs, said",
        [
            ([1, 1], {"train_accuracy": 0.1}, "0.100 is at chance"),
            ([0, 0], {}, "w1 has norm 0"),
            ([1e-12, 1e-13], {}, "w1 has norm 1e-12"),
            ([math.nan, math.nan], {}, "w1 is not finite"),
        ],
        ids=["chance", "zero", "vanishing", "nan"],
    )
    def test_dead(self, last, logs, said):
        spectra = {0: [[1, 1], [1, 1]], 10: [[1, 1], last]}
        assert said in self.read(spectra, logs=logs).collapse

    def test_a_collapsed_point_is_no_low_rank(self):
        study = a_study(FIG8, by_decay(50.0, 40.0, None))
        verdict = Monotone(
            statement="falls", field="weight_decay", rises=False
        ).judge(study)
        assert verdict.outcome == "holds"
        assert "50.0, 40.0" in verdict.evidence
        assert "1 collapsed points left out" in verdict.evidence
        rows = judge(study).table.rows
        assert rows[-1]["rank"] is None
        assert rows[-1]["state"] == "collapsed: it is dead"
        (line,) = picture(study).panels[0].lines
        assert list(line.y) == [50.0, 40.0]

    def test_seeds_that_collapsed_are_left_out_and_named(self):
        study = a_study(FIG8, by_decay([50.0, None, 52.0], 40.0, 30.0))
        point = study.points[0]
        assert point.estimate("rank").values == (50.0, 52.0)
        assert not point.collapsed
        assert point.state == "collapsed, 1 of 3 seeds: it is dead"


@pytest.mark.once
class TestClaims:
    falls = Monotone(statement="falls", field="weight_decay", rises=False)

    def test_monotone(self):
        holds = self.falls.judge(a_study(FIG8, by_decay(50.0, 40.0, 30.0)))
        assert holds.outcome == "holds"
        assert "so in 1 of 1 seeds (0)" in holds.evidence
        fails = self.falls.judge(a_study(FIG8, by_decay(50.0, 30.0, 40.0)))
        assert fails.outcome == "does not hold"
        assert "(not so)" in fails.evidence
        flat = self.falls.judge(a_study(FIG8, by_decay(30.0, 30.0, 30.0)))
        assert flat.outcome == "does not hold"

    def test_monotone_allows_noise_and_no_more(self):
        for step, expected in ((0.15, "holds"), (0.3, "does not hold")):
            study = a_study(FIG8, by_decay(50.0, 50.0 + step, 30.0), start=20.0)
            assert self.falls.judge(study).outcome == expected

    def test_monotone_in_every_group(self):
        ranks = by_decay(50.0, 40.0, 30.0)
        ranks |= by_decay(50.0, 60.0, 70.0, batch_size=4)
        verdict = self.falls.judge(a_study(FIG8, ranks))
        assert verdict.outcome == "does not hold"
        assert "batch_size 4: 50.0, 60.0, 70.0 (not so)" in verdict.evidence
        assert "batch_size 32: 50.0, 40.0, 30.0;" in verdict.evidence
        only = dataclasses.replace(self.falls, only={"batch_size": 32})
        assert only.judge(a_study(FIG8, ranks)).outcome == "holds"
        skip = dataclasses.replace(self.falls, skip={"batch_size": 4})
        assert skip.judge(a_study(FIG8, ranks)).outcome == "holds"

    def test_monotone_counts_seeds(self):
        ranks = by_decay([50.0, 40.0], [40.0, 41.0], [30.0, 30.0])
        verdict = self.falls.judge(a_study(FIG8, ranks))
        assert verdict.outcome == "holds"
        assert "so in 1 of 2 seeds (0, 1)" in verdict.evidence

    def test_monotone_without_a_pair(self):
        verdict = self.falls.judge(a_study(FIG8, by_decay(50.0, None, None)))
        assert verdict.outcome == "not tested here"
        assert "2 collapsed" in verdict.evidence

    def test_agrees(self):
        claim = Agrees(statement="near", within=3)
        near = claim.judge(a_study(FIG8, by_decay(69.0, 66.0, 59.0)))
        assert near.outcome == "holds"
        assert "3 of 3 points within 3, largest" in near.evidence
        far = claim.judge(a_study(FIG8, by_decay(69.0, 60.0, 59.0)))
        assert far.outcome == "does not hold"
        assert "60 against 64.5" in far.evidence
        dead = claim.judge(a_study(FIG8, by_decay(69.0, None, 59.0)))
        assert dead.outcome == "does not hold"
        assert "it is dead" in dead.evidence

    @pytest.mark.parametrize(
        "claim",
        [
            Agrees(statement="near", within=3),
            Between(statement="in", low=0, high=1, value="test"),
            Lowest(statement="low", rank=30, within=3),
            Collapses(),
            NearStart(statement="near", exact=True),
            OneTolerance(statement="one", low=0.01, high=0.05, within=3),
        ],
        ids=lambda claim: type(claim).__name__,
    )
    def test_numbers_are_not_judged_by_a_reduced_size(self, claim):
        study = a_study(FIG8, by_decay(69.0, 66.0, 59.0), size="smoke")
        verdict = claim.judge(study)
        assert verdict.outcome == "not tested here"
        assert "has not been shown" in verdict.evidence

    def test_scales(self):
        claim = Scales(statement="one ratio", share=0.05)

        def judged(*ranks):
            keys = [
                key(batch_size=batch, learning_rate=rate)
                for batch, rate in ((4, 0.01), (8, 0.02), (8, 0.05))
            ]
            ranks = dict(zip(keys, ranks, strict=True))
            return claim.judge(a_study(FIGURES["fig9"], ranks))

        assert judged(10.0, 10.9, 50.0).outcome == "holds"
        assert "ratio 0.0025: 10.0, 10.9" in judged(10.0, 10.9, 50.0).evidence
        assert judged(10.0, 11.1, 10.0).outcome == "does not hold"
        assert judged(10.0, None, 10.0).outcome == "not tested here"

    def test_between(self):
        claim = Between(
            statement="in",
            low=0.4,
            high=0.6,
            value="test",
            where=("train", 0.7),
        )
        ranks = by_decay(69.0, 66.0, 59.0)
        for more, expected in (
            ({"test": 0.5}, "holds"),
            ({"test": 0.7}, "does not hold"),
            ({"test": 0.7, "train": 0.6}, "not tested here"),
        ):
            assert claim.judge(a_study(FIG8, ranks, **more)).outcome == expected

    def test_lowest(self):
        study = a_study(FIG8, by_decay(69.0, 66.0, 31.0))
        for rank, expected in ((30, "holds"), (20, "does not hold")):
            claim = Lowest(statement="low", rank=rank, within=3)
            assert claim.judge(study).outcome == expected

    def test_collapses(self):
        point = key(batch_size=4, weight_decay=6e-3)
        for rank, expected in ((None, "holds"), (1.0, "does not hold")):
            study = a_study(FIG8, {point: rank})
            assert Collapses().judge(study).outcome == expected

    def test_near_start(self):
        claim = NearStart(statement="near", only={"weight_decay": 0.0})
        for rank, expected in ((19.0, "holds"), (17.0, "does not hold")):
            ranks = by_decay(rank, 5.0, decays=(0.0, 1e-3))
            assert claim.judge(a_study(FIG8, ranks)).outcome == expected
        study = a_study(FIG8, by_decay(5.0, decays=(1e-3,)))
        assert claim.judge(study).outcome == "not tested here"


@pytest.mark.once
class TestCurves:
    spec = (
        FIG8.sizes["full"]
        .specs()[0]
        .replace(
            weight_decay=0.1,
            learning_rate=0.1,
            milestones=(2,),
            epochs=6,
            batch_size=4,
        )
    )

    def test_clock(self):
        made = recording({0: [[1.0]], 2: [[1.0]], 4: [[1.0]]})
        first = -20 * math.log1p(-0.01)
        second = -20 * math.log1p(-0.002)
        assert clock(self.spec, made) == pytest.approx(
            [0, first, first + second]
        )

    def test_norm_ratios_are_those_of_numpy(self):
        made = recording({0: [[4.0, 3.0]], 2: [[2.0, 0.0]]})
        ratios = norm_ratios(self.spec, made)
        assert ratios.values == pytest.approx(np.array([[0.4]]))
        assert ratios.decay == pytest.approx([0.99**20])

    def study(self, left, claimed="fig5"):
        """Norms that shrink by `left` between measurements after the cut."""
        figure = FIGURES[claimed]
        norms = {0: 1.0, 2: 0.9} | {e: 0.9 * left ** (e - 2) for e in (3, 4, 5)}
        made = recording(
            {epoch: [[norm, norm]] for epoch, norm in norms.items()},
            rates={epoch: 0.1 if epoch < 2 else 0.02 for epoch in norms},
        )
        run = outcome(self.spec, record=made)
        return Study(figure, "full", (Point(key(learning_rate=0.1), (run,)),))

    def test_ratios_come_to_what_decay_leaves_or_to_1(self):
        for left, to_decay in ((0.998**10, True), (0.999, False)):
            for decay in (True, False):
                claim = RatiosComeTo(statement="come", decay=decay)
                verdict = claim.judge(self.study(left))
                expected = decay == to_decay
                assert verdict.outcome == (
                    "holds" if expected else "does not hold"
                )
                assert f"{left:.4f}, decay alone 0.9802" in verdict.evidence

    def test_half_rank(self):
        measure = FIG8.measure("full")
        falling = {0: [[1, 1, 1, 1]], 3: [[1, 1, 0, 0]], 5: [[1, 0, 0, 0]]}
        assert half_rank(recording(falling), measure) == 5
        assert half_rank(recording({0: [[1, 1]]}), measure) is None

    def test_drops_at_one_clock(self):
        figure = FIGURES["notebook_convnet"]
        claim = DropsAtOneClock(statement="one")
        drops = {0: [[1, 1, 1]], 2: [[1, 1, 1]], 4: [[1, 0, 0]]}

        def point(decay):
            spec = self.spec.replace(weight_decay=decay)
            made = recording(drops)
            return Point(
                key(weight_decay=decay),
                (outcome(spec, record=made, **{HALF_RANK: 4.0}),),
            )

        for decays, expected in (
            ((0.1, 0.12), "holds"),
            ((0.1, 0.3), "does not hold"),
            ((0.1,), "not tested here"),
        ):
            points = tuple(point(decay) for decay in decays)
            verdict = claim.judge(Study(figure, "full", points))
            assert verdict.outcome == expected


@pytest.mark.once
class TestSpectra:
    def test_bound(self):
        figure = FIGURES["fig6"]
        spec = figure.sizes["full"].specs()[0]
        claim = BoundHolds(statement="bound", epsilons=(0.5, 0.7))

        def judged(count, width=9000):
            values = np.r_[np.ones(count), np.zeros(width - count)]
            # After the cut the theorem says less.
            broken = np.ones(width)
            made = recording(
                {0: [values], 10: [values], 20: [broken]}, rates={20: 0.02}
            )
            run = outcome(spec, record=made, rank=count)
            point = Point(figure.key_of(spec), (run,))
            return claim.judge(Study(figure, "full", (point,)))

        holds = judged(50)
        assert holds.outcome == "holds"
        assert "epsilon 0.5: bound 10398, which says nothing" in holds.evidence
        assert "at epoch 10, seed 0" in holds.evidence
        assert "epsilon 0.7: bound 7872, epsilon-rank up to 26" in (
            holds.evidence
        )
        vacuous = judged(50, width=100)
        assert vacuous.outcome == "not tested here"
        # An isotropic matrix far from one of that rank breaks any bound.
        strict = spec.replace(weight_decay=0.5, batch_size=1)
        values = np.ones(60)
        made = recording({0: [values], 10: [values]})
        point = Point(key(weight_decay=0.5), (outcome(strict, record=made),))
        broken = claim.judge(Study(figure, "full", (point,)))
        assert broken.outcome == "does not hold"

    def test_crossing(self):
        figure = FIGURES["fig18"]
        steep, flat = [4.0, 1.0, 0.1, 0.1], [2.0, 1.5, 1.0, 1.0]
        claim = SpectraCross(statement="cross")
        for small, large, expected in (
            (steep, flat, "holds"),
            (flat, steep, "does not hold"),
        ):
            spec = figure.sizes["full"].specs()[0]
            points = tuple(
                Point(
                    key(batch_size=size),
                    (
                        outcome(
                            spec.replace(batch_size=size),
                            record=recording({0: [values], 10: [values]}),
                        ),
                    ),
                )
                for size, values in ((64, large), (4, small))
            )
            study = Study(figure, "full", points)
            assert claim.judge(study).outcome == expected

    def test_one_tolerance(self):
        figure = FIGURES["fig12"]
        claim = OneTolerance(statement="one", low=1e-3, high=0.1, within=0.5)
        values = np.r_[1.0, np.full(4, 0.05), np.full(5, 0.005)]
        made = recording({0: [values], 10: [values]})
        run = outcome(figure.sizes["full"].specs()[0], record=made)
        for rank, expected in ((5.0, "holds"), (7.0, "does not hold")):
            point = Point(key(weight_decay=1e-4), (run,), {"rank": rank})
            verdict = claim.judge(Study(figure, "full", (point,)))
            assert verdict.outcome == expected


@pytest.mark.once
class TestOutput:
    def test_table_beside_the_papers(self):
        made = judge(a_study(FIG8, by_decay([70.0, 72.0], 60.0, 61.2)))
        first = made.table.rows[0]
        assert first["rank"] == 71.0
        assert first["rank paper"] == 69.0
        assert first["difference"] == pytest.approx(2.0)
        assert first["interval"] == "70.0-72.0"
        assert first["train paper"] == 0.966
        text = made.render()
        assert "+2.0" in text and "range of 2 seeds" in text
        assert "tolerance=0.03" in text
        assert "12 of the 15 points that the paper reports" in text

    def test_a_reduced_size_has_the_paper_s_numbers_apart(self):
        size = dataclasses.replace(FIG8.sizes["cpu"], numbers=False)
        figure = dataclasses.replace(
            FIG8, sizes=dict(FIG8.sizes) | {"cpu": size}
        )
        spec = size.specs()[1]
        made = recording({0: [[1, 1]], 10: [[1, 1]]})
        study = gather(figure, "cpu", [(FIG8.key_of(spec), spec, made)])
        assert FIG8.key_of(spec) in FIG8.references
        assert study.points[0].reference == {}
        text = judge(study).render()
        assert "The paper's fig8" in text and "69.0" in text

    @pytest.mark.parametrize(
        "per_epoch, whole", [(1563, True), (13, False)], ids=["all", "part"]
    )
    def test_a_part_of_the_data_is_not_the_paper_s(self, per_epoch, whole):
        spec = FIG8.sizes["cpu"].specs()[1]
        made = recording({0: [[1, 1]], 10: [[1, 1]]}, per_epoch=per_epoch)
        study = gather(FIG8, "cpu", [(FIG8.key_of(spec), spec, made)])
        assert study.numbers == whole
        text = judge(study).render()
        said = "13 steps an epoch at batch size 32, where its 50000 samples"
        assert (said in " ".join(text.split())) == (not whole)
        assert bool(study.points[0].reference) == whole

    def test_nothing_left_out(self):
        full = {FIG8.key_of(spec): 10.0 for spec in FIG8.sizes["full"].specs()}
        assert left_out(a_study(FIG8, full)) == []
        assert left_out(a_study(FIG8, full), ["no data"]) == ["no data"]

    def test_lines_and_the_papers_points(self):
        ranks = by_decay(50.0, 40.0, None) | by_decay(
            30.0, 20.0, 10.0, batch_size=4
        )
        shown = picture(a_study(FIG8, ranks))
        assert [line.label for line in shown.panels[0].lines] == [
            "batch_size 32",
            "batch_size 4",
        ]
        np.testing.assert_array_equal(shown.panels[0].lines[0].x, [1e-4, 2e-4])
        paper = shown.paper[0]["batch_size 32"]
        np.testing.assert_array_equal(paper.x, [1e-4, 2e-4, 4e-4])
        np.testing.assert_array_equal(paper.y, [69.0, 64.5, 61.2])
        assert shown.x_scale == "log"

    def test_curves_have_the_papers_ranks_by_epoch(self):
        figure = FIGURES["fig6"]
        (spec,) = figure.sizes["full"].specs()
        spectra = {0: [[1, 1, 1]], 10: [[1, 1, 0]], 20: [[1, 0, 0]]}
        made = recording(spectra, per_epoch=8334)
        study = gather(figure, "full", [(figure.key_of(spec), spec, made)])
        assert study.points[0].outcomes[0].values["rank after 10 epochs"] == 2
        shown = picture(study)
        (line,) = shown.panels[0].lines
        assert list(line.y) == [3, 2, 1]
        (paper,) = shown.paper[0].values()
        np.testing.assert_array_equal(paper.x, [0, 10, 70, 20])
        np.testing.assert_array_equal(paper.y, [6236, 577, 127, 104])

    def test_ratios_beside_what_decay_leaves(self):
        study = TestCurves().study(0.99)
        (panel,) = picture(study).panels
        ours, decay = panel.lines
        assert ours.y == pytest.approx([0.9, 0.99, 0.99, 0.99])
        assert decay.y == pytest.approx([0.99**20, *[0.998**10] * 3])
        assert decay.faint

    def test_spectra(self):
        figure = FIGURES["fig18"]
        runs = [
            (
                figure.key_of(spec),
                spec,
                recording({0: [[2, 2]], 10: [[4, 3]]}),
            )
            for spec in figure.sizes["full"].specs()
        ]
        (panel,) = picture(gather(figure, "full", runs)).panels
        assert len(panel.lines) == 6 + 2
        assert list(panel.lines[-2].y) == [0.8, 0.6]

    def test_drawn(self):
        pytest.importorskip("matplotlib")
        study = a_study(FIG8, by_decay(50.0, 40.0, 30.0))
        (axes,) = draw(study).axes
        hollow = [
            line for line in axes.lines if line.get_markerfacecolor() == "none"
        ]
        assert [list(line.get_ydata()) for line in hollow] == [
            [69.0, 64.5, 61.2]
        ]
        assert axes.get_ylim()[1] > 69
        assert axes.get_xscale() == "log"
        smoke = a_study(FIG8, by_decay(50.0, 40.0, 30.0), size="smoke")
        title = draw(smoke).get_suptitle()
        assert "MLP on digits" in title.replace("\n", " ")

    def test_a_decay_of_zero_has_a_place_on_the_axis(self):
        shown = picture(a_study(FIG8, by_decay(9.0, 8.0, decays=(0.0, 1e-4))))
        assert shown.x_scale == "symlog"


@pytest.mark.once
class TestTask:
    def test_names(self):
        with pytest.raises(ValueError, match=r"one of fig1, .*Received: 'x'"):
            make_task("x")

    @pytest.mark.parametrize("seeds", [0, True, 1.5])
    def test_seeds(self, seeds):
        with pytest.raises(ValueError, match=r"`seeds` must be .*Received: "):
            make_task("fig8", seeds=seeds)

    def test_size(self):
        with pytest.raises(ValueError, match=r"`size` must be one of .*'big'"):
            make_task("fig8", "big")

    def test_data_that_are_not_there(self, tmp_path, monkeypatch):
        monkeypatch.delenv("KERAS_LOWRANK_DATA", raising=False)
        with pytest.raises(FileNotFoundError, match=r"There is no '.*none'"):
            make_task("fig14", "full", data=tmp_path / "none")
        with pytest.raises(
            FileNotFoundError,
            match=r"None of the data of .*"
            r"`food101.npz`.*--data",
        ):
            make_task("fig14", "full", data=tmp_path)

    def test_sets_that_are_not_there_are_named(self, tmp_path, monkeypatch):
        monkeypatch.delenv("KERAS_LOWRANK_DATA", raising=False)
        task = make_task("fig14", "full")
        assert {spec.data.name for spec in task.specs} == {"svhn"}
        assert [text.split(":")[0] for text in task.missing] == [
            "data set 'food101'",
            "data set 'imagenette'",
        ]
        (tmp_path / "food101.npz").touch()
        task = make_task("fig14", "full", data=tmp_path)
        names = {spec.data.name for spec in task.specs}
        assert names == {str(tmp_path / "food101.npz")}
        assert {dict(point)["data"] for point, _ in task.runs} == {"food101"}

    def test_the_place_of_a_set_that_we_load(self, tmp_path):
        (tmp_path / "cifar10.npz").touch()
        for place in (tmp_path, tmp_path / "cifar10.npz"):
            task = make_task("fig8", "cpu", data=place)
            assert task.specs[0].data.keywords == {"path": str(place)}
        assert make_task("fig8", "cpu").specs[0].data.keywords == {}

    def test_figures_share_runs(self):
        eight, nine = (make_task(f"fig{n}", "full").specs for n in (8, 9))
        assert len(set(eight) & set(nine)) == 3


class TestCommand:
    @pytest.mark.once
    def test_smoke(self, tmp_path, capsys):
        out = tmp_path / "out"
        command = ["reproduce", "fig8", "--size", "smoke", "--out", str(out)]
        assert main(command) == 0
        said = " ".join(capsys.readouterr().out.split())
        assert "HOLDS: mean rank falls as weight decay grows" in said
        assert "HOLDS: smaller batches give lower rank" in said
        assert "NOT TESTED HERE: mean rank within 3 of the paper's" in said
        assert "Not reproduced: - all numbers of the paper" in said
        made = json.loads((out / "fig8-smoke.json").read_text())
        assert [p["weight_decay"] for p in made["points"]] == 2 * [
            0.0,
            0.01,
            0.03,
        ]
        assert made["comparable_with_the_paper"] is False
        assert len(made["paper"]) == 15
        assert "tolerance=0.05" in made["rank"]
        with (out / "fig8-smoke.csv").open() as file:
            rows = list(csv.DictReader(file))
        assert float(rows[0]["rank"]) == made["points"][0]["rank"]
        assert (out / "fig8-smoke.png").stat().st_size > 10_000
        runs = read_runs(out / "runs")
        assert len(runs) == 6 and all(run.complete for run in runs)
        # Again: nothing is trained, and the same comes out.
        finished = [run.result["finished"] for run in runs]
        before = (out / "fig8-smoke.json").read_text()
        assert main(command) == 0
        assert [run.result["finished"] for run in runs] == finished
        assert (out / "fig8-smoke.json").read_text() == before

    @pytest.mark.once
    def test_list(self, capsys, monkeypatch):
        monkeypatch.setenv("COLUMNS", "120")
        assert main(["reproduce", "--list"]) == 0
        out = capsys.readouterr().out
        for name in FIGURES:
            assert f" {name} " in out
        assert figures_table().rows[7] == {
            "name": "fig8",
            "title": FIG8.title,
            "smoke": 6,
            "cpu": 6,
            "full": 18,
        }

    @pytest.mark.once
    @pytest.mark.parametrize("given", [[], ["fig99"]], ids=["none", "unknown"])
    def test_no_such_figure(self, given, capsys):
        assert main(["reproduce", *given]) == 1
        error = capsys.readouterr().err
        assert "fig1, fig2" in error and "notebook_resnet" in error

    @pytest.mark.once
    def test_the_command_spreads_runs_over_cores(self, monkeypatch):
        monkeypatch.setattr("sys.argv", ["keras-lowrank", "reproduce", "x"])
        monkeypatch.setenv("XLA_FLAGS", "")
        monkeypatch.setenv("KERAS_BACKEND", keras.backend.backend())
        assert keras_lowrank_cli.main() == 1
        import os

        assert "device_count" in os.environ["XLA_FLAGS"]
