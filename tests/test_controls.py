import math

import numpy as np
import pytest

from keras_lowrank import Recording
from keras_lowrank import Spectrum
from keras_lowrank import as_measures
from keras_lowrank.cli import main
from keras_lowrank.experiments import ExperimentSpec
from keras_lowrank.experiments.paper import FIGURES
from keras_lowrank.experiments.paper.claims import Monotone
from keras_lowrank.experiments.paper.draw import draw
from keras_lowrank.experiments.paper.draw import picture
from keras_lowrank.experiments.paper.dynamics import CLOCK
from keras_lowrank.experiments.paper.dynamics import MEMORY
from keras_lowrank.experiments.paper.dynamics import NOISE
from keras_lowrank.experiments.paper.dynamics import FallsBelow
from keras_lowrank.experiments.paper.dynamics import OrderedBy
from keras_lowrank.experiments.paper.dynamics import RisesAfterCut
from keras_lowrank.experiments.paper.dynamics import SameRank
from keras_lowrank.experiments.paper.dynamics import Settles
from keras_lowrank.experiments.paper.fields import field_of
from keras_lowrank.experiments.paper.figure import SIZES
from keras_lowrank.experiments.paper.figure import Figure
from keras_lowrank.experiments.paper.figure import Grid
from keras_lowrank.experiments.paper.figure import Size
from keras_lowrank.experiments.paper.output import points_table
from keras_lowrank.experiments.paper.points import gather
from keras_lowrank.experiments.paper.reproduce import judge
from keras_lowrank.records.record import Measurement
from keras_lowrank.records.record import Record

CONTROLS = [name for name, figure in FIGURES.items() if figure.ours]
# An epoch of 10 steps, each of which takes 1 % of the weights: 0.1005 of the
# decay clock.
SPEC = ExperimentSpec(
    network={"name": "mlp", "depth": 2, "width": 20},
    data="digits",
    batch_size=4,
    learning_rate=0.1,
    weight_decay=0.1,
    epochs=100,
)


def recorded(ranks, per_epoch=10, accuracy=0.9):
    """A recording of one matrix of size 20, from its ranks by epoch."""
    measurements = []
    for epoch, rank in ranks.items():
        values = (np.arange(20) < rank).astype(float)
        measurements.append(
            Measurement(
                epoch=epoch,
                step=epoch * per_epoch,
                records=(Record("w", Spectrum(values, (20, 20)), {}),),
                logs={"train_accuracy": accuracy, "val_accuracy": 0.5}
                if epoch
                else {},
                learning_rate=0.1,
                steps_per_epoch=per_epoch if epoch else None,
            )
        )
    return Recording(as_measures("rank"), measurements=measurements)


def study(fields, runs, **more):
    """A study of pairs of a spec and ranks by epoch."""
    size = Size((Grid(SPEC),), "A note.", numbers=False)
    figure = Figure(
        name="ours",
        title="ours",
        fields=fields,
        sizes=dict.fromkeys(SIZES, size),
        tolerance=1e-3,
        references={},
        claims=(),
        ours=True,
        **more,
    )
    return gather(
        figure,
        "cpu",
        [(figure.key_of(spec), spec, recorded(ranks)) for spec, ranks in runs],
    )


@pytest.mark.once
class TestEntries:
    def test_there_are_all_controls_of_section_6_3(self):
        assert CONTROLS == [
            "control_epochs",
            "control_momentum",
            "control_optimizers",
            "control_start",
            "control_steps",
            "data_collapse",
        ]

    @pytest.mark.parametrize("name", CONTROLS)
    @pytest.mark.parametrize("size", SIZES)
    def test_specs(self, name, size):
        figure = FIGURES[name]
        specs = figure.sizes[size].specs(seeds=2)
        assert len(specs) == len({spec.id for spec in specs})
        keys = {figure.key_of(spec) for spec in specs}
        # Nothing but seeds shares a point.
        assert 2 * len(keys) == len(specs)
        for spec in specs:
            spec.plan(1000)
            network = {"smoke": (3, 32)}.get(size, (10, 100))
            assert spec.network.keywords == dict(
                zip(("depth", "width"), network, strict=True)
            )
        assert not figure.sizes[size].numbers
        assert not figure.references

    def test_momentum_is_compared_at_equal_steps_and_memories(self):
        for size in FIGURES["control_momentum"].sizes.values():
            for spec in size.specs():
                assert spec.learning_rate / (1 - spec.momentum) == (
                    pytest.approx(size.specs()[0].learning_rate)
                )
        memories = [
            field_of(spec, "memory")
            for spec in FIGURES["control_momentum"].sizes["cpu"].specs()
        ]
        assert memories == [2500, 1250, 2500, 1250, 25000, 12500, 2500, 1250]

    def test_one_share_of_decay_for_all_optimizers(self):
        for name in SIZES:
            size = FIGURES["control_optimizers"].sizes[name]
            shares = {field_of(s, "decay_per_step") for s in size.specs()}
            assert len(shares) == 2 and min(shares) == 0

    def test_the_schedule_is_the_papers_in_proportion(self):
        specs = FIGURES["control_epochs"].sizes["cpu"].specs()
        cut = {s.epochs: s.milestones for s in specs if s.milestones}
        assert cut[500] == (59, 99, 199)
        assert cut[60] == (7, 12, 24)

    def test_a_whole_set_is_one_batch(self):
        for size in FIGURES["control_steps"].sizes.values():
            last = size.specs()[-1]
            samples = last.data.keywords["train_samples"]
            assert last.plan(samples).steps_per_epoch == 1
            counts = {
                spec.plan(samples).steps
                for spec in size.specs()
                if samples % spec.batch_size == 0
            }
            # Rounded up to whole epochs.
            assert max(counts) < 1.01 * min(counts)


@pytest.mark.once
class TestFields:
    @pytest.mark.parametrize(
        "changes, name, expected",
        [
            ({}, "schedule", "constant"),
            ({"milestones": (3,)}, "schedule", "cut"),
            ({}, "initial_weights", "as drawn"),
            (
                {"initial_rank": 3, "initial_scale": 0.1},
                "initial_weights",
                "rank 3, times 0.1",
            ),
            ({}, "coupling", "coupled"),
            ({"decay_convention": "keras"}, "coupling", "decoupled"),
            ({"decay_coupling": "decoupled"}, "coupling", "decoupled"),
            ({"decay_convention": "l2"}, "decay_per_step", 0.02),
            ({}, "memory", 100.0),
            ({"momentum": 0.9}, "memory", 10.0),
            (
                {"momentum": 0.9, "decay_coupling": "decoupled"},
                "memory",
                100.0,
            ),
            ({"weight_decay": 0.0}, "memory", math.inf),
            ({"optimizer": {"name": "sgd"}}, "optimizer", "sgd"),
        ],
        ids=range(13),
    )
    def test_value(self, changes, name, expected):
        assert field_of(SPEC.replace(**changes), name) == expected


@pytest.mark.once
class TestClaims:
    def test_settles(self):
        claim = Settles(statement="it does", after=5.0, share=0.1)
        fall = {0: 20, 10: 15, 20: 12}
        for late, expected in (
            ({50: 8, 60: 7, 100: 8}, "holds"),
            ({50: 8, 60: 5, 100: 8}, "does not hold"),
            ({50: 8}, "not tested here"),
        ):
            made = study(("epochs",), [(SPEC, fall | late)])
            assert claim.judge(made).outcome == expected

    def test_settles_by_the_clock_of_the_run(self):
        # At a fifth of the decay, epoch 60 is at clock 1.2.
        slow = SPEC.replace(weight_decay=0.02)
        made = study(("epochs",), [(slow, {0: 20, 50: 8, 60: 1, 100: 8})])
        claim = Settles(statement="it does", after=5.0, share=0.1)
        assert claim.judge(made).outcome == "not tested here"

    def test_rises_after_cut(self):
        claim = RisesAfterCut(statement="it does", share=0.1)
        cut = SPEC.replace(milestones=(25,))
        for end, expected in ((11, "holds"), (8, "does not hold")):
            ranks = {0: 20, 10: 12, 20: 7, 30: 4, 100: end}
            verdict = claim.judge(study(("schedule",), [(cut, ranks)]))
            assert verdict.outcome == expected
            assert "7.0 after 20 epochs" in verdict.evidence
        made = study(("schedule",), [(SPEC, {0: 20, 100: 9})])
        assert claim.judge(made).outcome == "not tested here"

    def test_falls_below_at_the_largest(self):
        claim = FallsBelow(statement="it does", share=0.5, largest="batch_size")
        for rank, expected in ((9, "holds"), (10, "does not hold")):
            made = study(
                ("batch_size",),
                [
                    (SPEC, {0: 20, 100: 19}),
                    (SPEC.replace(batch_size=64), {0: 20, 100: rank}),
                ],
            )
            assert claim.judge(made).outcome == expected

    def test_same_rank(self):
        other = SPEC.replace(initial_rank=3)
        for ranks, same, expected in (
            ((9, 10), True, "holds"),
            ((9, 10), False, "does not hold"),
            ((9, 14), True, "does not hold"),
            ((9, 14), False, "holds"),
        ):
            claim = SameRank(
                statement="they have",
                fields=("initial_weights",),
                share=0.1,
                same=same,
            )
            made = study(
                ("initial_weights",),
                [
                    (SPEC, {0: 20, 100: ranks[0]}),
                    (other, {0: 3, 100: ranks[1]}),
                ],
            )
            assert claim.judge(made).outcome == expected

    def test_same_rank_once_the_clock_says_so(self):
        claim = SameRank(
            statement="they have",
            fields=("initial_weights",),
            share=0.1,
            after=5.0,
        )
        slow = SPEC.replace(weight_decay=0.02)
        runs = [
            (spec.replace(initial_rank=rank), {0: 20, 100: end})
            for spec, ends in ((SPEC, (9, 10)), (slow, (9, 20)))
            for rank, end in zip((None, 3), ends, strict=True)
        ]
        made = study(("initial_weights", "weight_decay"), runs)
        assert claim.judge(made).outcome == "holds"

    @staticmethod
    def collapse(rank):
        """Runs of three decays, with ranks as a function says."""
        runs = []
        for batch, decay in ((4, 0.1), (8, 0.05), (16, 0.01)):
            spec = SPEC.replace(batch_size=batch, weight_decay=decay)
            taus = {epoch: epoch * decay for epoch in (10, 50, 100)}
            ranks = {e: rank(tau, spec) for e, tau in taus.items()}
            runs.append((spec, {0: 20} | ranks))
        return study(("batch_size", "weight_decay"), runs, kind="clock")

    def test_ordered_by_the_clock(self):
        made = self.collapse(lambda tau, spec: 20 - int(1.5 * tau))
        by = {
            name: OrderedBy(
                statement="it is",
                best=name,
                others=tuple({CLOCK, MEMORY, NOISE} - {name}),
            ).judge(made)
            for name in (CLOCK, MEMORY, NOISE)
        }
        assert by[CLOCK].outcome == "holds"
        assert "clock: 0.9" in by[CLOCK].evidence
        assert "9 measurements of 3 runs" in by[CLOCK].evidence
        assert by[NOISE].outcome == by[MEMORY].outcome == "does not hold"

    def test_ordered_by_what_stays_the_same(self):
        made = self.collapse(lambda tau, spec: 3 + spec.batch_size)
        claim = OrderedBy(
            statement="it is", best=NOISE, others=(CLOCK,), after=0.5
        )
        assert claim.judge(made).outcome == "holds"
        late = OrderedBy(
            statement="it is", best=NOISE, others=(CLOCK,), after=9.0
        )
        assert late.judge(made).outcome == "not tested here"

    def test_an_order_of_names(self):
        runs = [
            (SPEC.replace(optimizer=name), {0: 20, 100: rank})
            for name, rank in (("adam", 10), ("muon", 15), ("sgd", 5))
        ]
        made = study(("optimizer",), runs)
        for order, expected in (
            (("sgd", "adam", "muon"), "holds"),
            (("adam", "sgd", "muon"), "does not hold"),
        ):
            claim = Monotone(
                statement="so", field="optimizer", rises=True, order=order
            )
            assert claim.judge(made).outcome == expected


@pytest.mark.once
class TestOutput:
    def test_further_measures_stand_in_the_table(self):
        made = study(
            ("epochs",), [(SPEC, {0: 20, 100: 4})], also=("stable_rank",)
        )
        (row,) = points_table(made).rows
        assert row["stable_rank"] == pytest.approx(4.0)

    def test_a_control_is_not_held_against_the_paper(self):
        made = study(("epochs",), [(SPEC, {0: 20, 100: 4})])
        text = judge(made).render()
        assert "the paper" not in text.lower()
        assert "nothing left out" in text

    def test_the_collapse_has_a_panel_for_each_order(self):
        made = TestClaims.collapse(lambda tau, spec: 20 - int(tau))
        shown = picture(made)
        assert [panel.x_label for panel in shown.panels] == [
            "decay clock",
            "B / (mu w), samples",
            "mu / B",
        ]
        clock, memory, noise = shown.panels
        assert [line.label for line in clock.lines] == [
            "mu / B = 0.0063",
            "mu / B = 0.013",
            "mu / B = 0.025",
        ]
        assert clock.lines[2].x[0] == pytest.approx(-100 * math.log1p(-0.01))
        assert list(memory.lines[2].x) == [400.0]
        assert list(noise.lines[2].x) == [0.025]

    def test_drawn_as_dots_on_a_logarithm(self):
        pytest.importorskip("matplotlib")
        made = TestClaims.collapse(lambda tau, spec: 20 - int(tau))
        for axes in draw(made).axes:
            assert axes.get_xscale() == "log"
            assert {line.get_linestyle() for line in axes.lines} == {"None"}


class TestCommand:
    @pytest.mark.once  # its runs are those of `test_runs`, on every backend
    def test_smoke(self, tmp_path, capsys):
        command = ["reproduce", "control_start", "--size", "smoke"]
        assert main([*command, "--out", str(tmp_path)]) == 0
        said = " ".join(capsys.readouterr().out.split())
        assert "HOLDS: (iv) without decay it is not" in said
        assert "rank 3" in said and "times 0.1" in said
        assert (tmp_path / "control_start-smoke.png").is_file()
