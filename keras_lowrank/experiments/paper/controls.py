"""Controls that the paper does not have, to tell its explanations apart.

The paper trains every network for as many epochs, from full-rank weights. So
smaller batches also mean more steps, and what its theorem says, that decay
keeps a memory of `B / (mu w)` samples, cannot be told from another reason:
that decay has not forgotten the initialisation yet. Each control here varies
one of the two alone.
"""

from keras_lowrank.experiments.paper.claims import Monotone
from keras_lowrank.experiments.paper.dynamics import CLOCK
from keras_lowrank.experiments.paper.dynamics import MEMORY
from keras_lowrank.experiments.paper.dynamics import NOISE
from keras_lowrank.experiments.paper.dynamics import FallsBelow
from keras_lowrank.experiments.paper.dynamics import OrderedBy
from keras_lowrank.experiments.paper.dynamics import RisesAfterCut
from keras_lowrank.experiments.paper.dynamics import SameRank
from keras_lowrank.experiments.paper.dynamics import Settles
from keras_lowrank.experiments.paper.figure import Figure
from keras_lowrank.experiments.paper.figure import Grid
from keras_lowrank.experiments.paper.figure import Size
from keras_lowrank.experiments.paper.mlp import BASE
from keras_lowrank.experiments.paper.sizes import MILESTONES
from keras_lowrank.experiments.paper.sizes import SMOKE_TWIN
from keras_lowrank.experiments.spec import ExperimentSpec

SMOKE_NOTE = (
    "Smoke: a narrow MLP on 512 digits for a few epochs. It shows that "
    "everything works."
)
CPU_NOTE = (
    "The paper's MLP-BN-10-100 on a part of CIFAR-10, with ten times the decay "
    "of its Figure 9, so that the decay clock reaches in minutes what it "
    "reaches there in hours."
)
FULL_NOTE = "The paper's MLP-BN-10-100 on all of CIFAR-10, at lambda 4e-4."

# One step takes the share 4e-4 of the weights, an epoch 0.063 of the clock.
_REDUCED = BASE.replace(
    data={"name": "cifar10", "train_samples": 5000, "test_samples": 1000},
    batch_size=32,
    weight_decay=4e-3,
    milestones=(),
    epochs=160,
    every=10,
)
_WHOLE = BASE.replace(
    batch_size=32, weight_decay=4e-4, milestones=(), epochs=160
)
_SMOKE = SMOKE_TWIN.replace(milestones=(), epochs=40, every=5)


def _size(name: str, *grids: Grid) -> Size:
    note = {"smoke": SMOKE_NOTE, "cpu": CPU_NOTE, "full": FULL_NOTE}[name]
    return Size(
        grids, note, numbers=False, tolerance=0.05 if name == "smoke" else None
    )


def _cut(spec: ExperimentSpec, epochs: int) -> Grid:
    """The paper's schedule, in proportion, over another number of epochs."""
    milestones = tuple(
        max(index + 1, round(epoch * epochs / 500))
        for index, epoch in enumerate(MILESTONES)
    )
    return Grid(spec.replace(epochs=epochs, milestones=milestones))


def _epochs(spec: ExperimentSpec, *epochs: int) -> tuple[Grid, ...]:
    """The paper's schedule over some numbers of epochs, and constant rates."""
    constant = spec.replace(epochs=epochs[-1])
    fifth = constant.replace(learning_rate=constant.learning_rate / 5)
    return (
        *(_cut(spec, count) for count in epochs),
        Grid(constant),
        Grid(fifth),
    )


EPOCHS = Figure(
    name="control_epochs",
    title="MLP-BN-10-100: epochs, and cuts of the learning rate",
    fields=("epochs", "schedule", "learning_rate"),
    sizes={
        "smoke": _size("smoke", *_epochs(_SMOKE, 20, 80)),
        "cpu": _size("cpu", *_epochs(_REDUCED, 60, 125, 250, 500)),
        "full": _size("full", *_epochs(_WHOLE, 60, 125, 250, 500)),
    },
    tolerance=0.03,
    references={},
    claims=(
        Monotone(
            statement="(i) batch size, decay and schedule being equal, fewer "
            "epochs leave a higher rank",
            field="epochs",
            rises=False,
            only={"schedule": "cut"},
        ),
        Settles(
            statement="(i) at a constant learning rate the rank falls until "
            "clock 5, and then stays where it is",
            only={"schedule": "constant", "learning_rate": 0.1},
            after=5.0,
            share=0.06,
        ),
        Monotone(
            statement="(iii) the paper's cuts of the learning rate leave a "
            "higher rank than none, after as many epochs",
            field="schedule",
            rises=True,
            only={"learning_rate": 0.1},
        ),
        Monotone(
            statement="(vi) a lower constant learning rate leaves a higher "
            "rank, after as many epochs",
            field="learning_rate",
            rises=False,
            only={"schedule": "constant"},
        ),
        RisesAfterCut(
            statement="(vi) ranks are higher at the end than at the first cut",
            share=0.02,
        ),
    ),
    kind="curves",
    ours=True,
    notes=(
        "The schedule is the paper's in proportion: cut to a fifth after 12, "
        "20 and 40 % of the epochs.",
    ),
)


def _steps(spec: ExperimentSpec, steps: int, samples: int) -> Grid:
    data = spec.data.replace(train_samples=samples)
    # Epochs are short at large batches: measured by the logarithm.
    return Grid(
        spec.replace(data=data, steps=steps, every="log"),
        {"batch_size": (8, 32, 128, samples)},
    )


STEPS = Figure(
    name="control_steps",
    title="MLP-BN-10-100: batch size at as many steps, up to the whole set",
    fields=("batch_size",),
    sizes={
        "smoke": _size("smoke", _steps(_SMOKE, 640, 512)),
        "cpu": _size("cpu", _steps(_REDUCED, 15000, 1000)),
        "full": _size("full", _steps(_WHOLE, 150000, 10000)),
    },
    tolerance=0.03,
    references={},
    claims=(
        Monotone(
            statement="(ii) smaller batches give lower rank also at as many "
            "steps, so at one decay clock",
            field="batch_size",
            rises=True,
        ),
        FallsBelow(
            statement="(v) full-batch gradient descent comes to less than half "
            "of the initial rank, too",
            share=0.5,
            largest="batch_size",
        ),
    ),
    ours=True,
    notes=(
        "Steps, learning rate and decay are equal, and with them the decay "
        "clock and the steps that decay remembers. The samples are few, so "
        "that all of them make one batch.",
    ),
)


def _starts(spec: ExperimentSpec, decays, rank: int) -> tuple[Grid, ...]:
    axes = {"weight_decay": decays}
    return (
        Grid(spec, axes),
        Grid(spec.replace(initial_rank=rank), axes),
        Grid(spec.replace(initial_scale=0.1), axes),
    )


START = Figure(
    name="control_start",
    title="MLP-BN-10-100: weights that begin with low rank, or small",
    fields=("weight_decay", "initial_weights"),
    sizes={
        "smoke": _size("smoke", *_starts(_SMOKE, (0.0, 0.05), 3)),
        "cpu": _size("cpu", *_starts(_REDUCED, (0.0, 1e-3, 4e-3), 5)),
        "full": _size("full", *_starts(_WHOLE, (0.0, 1e-4, 4e-4), 5)),
    },
    tolerance=0.03,
    references={},
    claims=(
        SameRank(
            statement="(iv) where the clock passes 5, the rank is the same "
            "from every start",
            fields=("initial_weights",),
            share=0.06,
            after=5.0,
        ),
        SameRank(
            statement="(iv) without decay it is not: the start stays visible",
            fields=("initial_weights",),
            only={"weight_decay": 0.0},
            share=0.06,
            same=False,
        ),
    ),
    kind="curves",
    panels="weight_decay",
    ours=True,
    notes=(
        "Matrices that begin with a lower rank keep the norm of what was "
        "drawn. Batch normalisation makes the function of the network the "
        "same at every scale of the weights, but not its learning rate.",
    ),
)


def _momenta(spec: ExperimentSpec, decays) -> tuple[Grid, ...]:
    """Without momentum, and with, coupled and not, at equal memories."""
    plain = spec.replace(learning_rate=2 * spec.learning_rate)
    heavy = plain.replace(
        optimizer="torch_sgd",
        momentum=0.9,
        learning_rate=plain.learning_rate / 10,
    )
    decoupled = heavy.replace(decay_coupling="decoupled")
    return (
        Grid(plain, {"weight_decay": decays}),
        Grid(heavy, {"weight_decay": decays}),
        Grid(decoupled, {"weight_decay": decays}),
        Grid(decoupled, {"weight_decay": tuple(10 * w for w in decays)}),
    )


MOMENTUM = Figure(
    name="control_momentum",
    title="MLP-BN-10-100: momentum, with coupled and with decoupled decay",
    fields=("memory", "momentum", "coupling"),
    sizes={
        "smoke": _size("smoke", *_momenta(_SMOKE, (0.01, 0.03))),
        "cpu": _size(
            "cpu", *_momenta(_REDUCED.replace(epochs=80), (2e-3, 4e-3))
        ),
        "full": _size("full", *_momenta(_WHOLE, (2e-4, 4e-4))),
    },
    tolerance=0.03,
    references={},
    claims=(
        SameRank(
            statement="ranks are equal where the memory of decay is, in steps: "
            "with momentum, coupled decay w is decoupled w / (1 - momentum)",
            fields=("momentum", "coupling"),
            share=0.06,
        ),
        Monotone(
            statement="longer memories leave higher ranks, with momentum and "
            "without, coupled and decoupled",
            field="memory",
            rises=True,
        ),
    ),
    ours=True,
    notes=(
        "The learning rate with momentum 0.9 is a tenth of that without, so "
        "that steps are as large in the long run. Memory is 1 / (mu w), and "
        "(1 - momentum) / (mu w) where decay is coupled.",
    ),
)

# Each with a learning rate at which it trains well, and the same share of the
# weights that one step takes.
_SHARES = {"smoke": 3e-3, "cpu": 4e-4, "full": 4e-5}
_OPTIMIZERS = (
    ("sgd", 0.1),
    ("adam", 1e-3),
    ({"name": "muon", "exclude_layers": ["classifier"]}, 2e-3),
)


def _optimizers(name: str, spec: ExperimentSpec) -> Size:
    return _size(
        name,
        *(
            Grid(
                spec.replace(
                    optimizer=optimizer,
                    learning_rate=rate,
                    decay_convention="keras",
                ),
                {"weight_decay": (0.0, _SHARES[name] / rate)},
            )
            for optimizer, rate in _OPTIMIZERS
        ),
    )


_ORDER = tuple(
    item if isinstance(item, str) else item["name"] for item, _ in _OPTIMIZERS
)

OPTIMIZERS = Figure(
    name="control_optimizers",
    title="MLP-BN-10-100: SGD, AdamW and Muon, with one share of decay a step",
    fields=("decay_per_step", "optimizer"),
    sizes={
        "smoke": _optimizers("smoke", _SMOKE),
        "cpu": _optimizers("cpu", _REDUCED),
        "full": _optimizers("full", _WHOLE),
    },
    tolerance=0.03,
    references={},
    claims=(
        Monotone(
            statement="decay lowers the rank under every optimizer",
            field="decay_per_step",
            rises=False,
        ),
        Monotone(
            statement="with decay, ranks rise from SGD to AdamW to Muon",
            field="optimizer",
            rises=True,
            order=_ORDER,
            skip={"decay_per_step": 0.0},
        ),
        Monotone(
            statement="with decay, stable ranks rise from SGD to AdamW to Muon",
            field="optimizer",
            value="stable_rank",
            rises=True,
            slack=0.1,
            order=_ORDER,
            skip={"decay_per_step": 0.0},
        ),
    ),
    also=("stable_rank",),
    ours=True,
    notes=(
        "Decay is decoupled, so Adam with it is AdamW. Lemma 3.1 holds for "
        "SGD; Adam's updates have any rank, and those of Muon the rank of its "
        "momentum.",
        "Muon leaves the classifier and all vectors to AdamW.",
    ),
)


def _collapse(spec: ExperimentSpec, epochs: int, batches, decays) -> Grid:
    return Grid(
        spec.replace(epochs=epochs),
        {
            "batch_size": batches,
            "learning_rate": (0.025, 0.1, 0.4),
            "weight_decay": decays,
        },
    )


DATA_COLLAPSE = Figure(
    name="data_collapse",
    title="MLP-BN-10-100: what orders ranks, clock, memory or noise",
    fields=("batch_size", "learning_rate", "weight_decay"),
    sizes={
        "smoke": _size("smoke", _collapse(_SMOKE, 20, (8, 32), (0.01, 0.03))),
        "cpu": _size(
            "cpu", _collapse(_REDUCED, 80, (8, 32, 128), (1e-3, 4e-3))
        ),
        "full": _size(
            "full", _collapse(_WHOLE, 160, (8, 32, 128), (1e-4, 4e-4))
        ),
    },
    tolerance=0.03,
    references={},
    claims=(
        OrderedBy(
            statement="before clock 5 the decay clock orders ranks best",
            best=CLOCK,
            others=(MEMORY, NOISE),
            before=5.0,
        ),
        OrderedBy(
            statement="from clock 5 on the memory B / (mu w) orders ranks "
            "best, as Theorem 3.3 has it",
            best=MEMORY,
            others=(CLOCK, NOISE),
            after=5.0,
        ),
    ),
    kind="clock",
    ours=True,
    notes=(
        "Learning rates are constant, so that clock, memory and noise are "
        "three things, and one run passes many clocks.",
    ),
)

FIGURES = (EPOCHS, STEPS, START, MOMENTUM, OPTIMIZERS, DATA_COLLAPSE)
