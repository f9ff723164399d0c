"""The paper's figures of ResNet-18: 1 to 5, 12, 14, 15, 18, a notebook."""

import itertools

from keras_lowrank.experiments.paper.claims import Agrees
from keras_lowrank.experiments.paper.claims import Collapses
from keras_lowrank.experiments.paper.claims import Lowest
from keras_lowrank.experiments.paper.claims import Monotone
from keras_lowrank.experiments.paper.claims import NearStart
from keras_lowrank.experiments.paper.figure import Figure
from keras_lowrank.experiments.paper.figure import Grid
from keras_lowrank.experiments.paper.figure import Key
from keras_lowrank.experiments.paper.figure import key
from keras_lowrank.experiments.paper.figure import row
from keras_lowrank.experiments.paper.sizes import MILESTONES
from keras_lowrank.experiments.paper.sizes import full
from keras_lowrank.experiments.paper.sizes import reduced
from keras_lowrank.experiments.paper.sizes import smoke
from keras_lowrank.experiments.paper.special import OneTolerance
from keras_lowrank.experiments.paper.special import RatiosComeTo
from keras_lowrank.experiments.paper.special import SpectraCross
from keras_lowrank.experiments.spec import ExperimentSpec

BASE = ExperimentSpec(
    network="resnet18",
    data="cifar10",
    batch_size=16,
    learning_rate=0.1,
    milestones=MILESTONES,
    weight_decay=5e-4,
    epochs=500,
    every=10,
)
# Figures 1 and 2 are of runs whose log names this activation.
_LEAKY = BASE.replace(network={"name": "resnet18", "activation": "leaky_relu"})
DECAYS = (1e-4, 2e-4, 4e-4, 8e-4, 6e-3)
BATCHES = (4, 8, 16, 32, 64, 128)
RATES = (0.1, 0.5, 1.0, 2.0)

# Of 227.5 at the initialisation: as near as 3 is of 82.5 for the MLP.
_NEAR = Agrees(statement="mean rank within 8 of the paper's", within=8)
_TEST = Agrees(
    statement="test accuracy within 0.02 of the paper's",
    value="test",
    within=0.02,
)
_TRAIN = Agrees(
    statement="train accuracy within 0.02 of the paper's",
    value="train",
    within=0.02,
)
_BY_RATE = Monotone(
    statement="higher learning rates give lower rank, all else being equal",
    field="learning_rate",
    rises=False,
)
_BY_DECAY = Monotone(
    statement="mean rank falls as weight decay grows, all else being equal",
    field="weight_decay",
    rises=False,
)
_BY_BATCH = Monotone(
    statement="smaller batches give lower rank, all else being equal",
    field="batch_size",
    rises=True,
    skip={"weight_decay": 0.0},
)
_COLLAPSE = (
    "Rank 0 in the paper is a network that died: weights underflow or "
    "diverge, and NaN is counted as 0. Such points are reported as collapsed."
)
_REDUCED_DECAYS = (0.0, 5e-3, 2e-2)

FIG1 = Figure(
    name="fig1",
    title="ResNet-18 on CIFAR-10: contours of the mean rank",
    fields=("learning_rate", "weight_decay", "batch_size"),
    sizes={
        "smoke": smoke(
            {"weight_decay": (0.0, 0.03), "learning_rate": (0.05, 0.2)},
            batch_size=8,
        ),
        "cpu": reduced(
            _LEAKY,
            {"weight_decay": (0.0, 1e-2), "learning_rate": (0.1, 0.5)},
        ),
        "full": full(
            Grid(  # (a), (b)
                _LEAKY,
                {
                    "batch_size": (8, 16),
                    "learning_rate": RATES,
                    "weight_decay": (1e-4, 3e-4, 5e-4),
                },
            ),
            Grid(  # (c)
                _LEAKY.replace(learning_rate=0.5),
                {
                    "batch_size": BATCHES,
                    "weight_decay": (0.0, 2e-3, 4e-3, 6e-3),
                },
            ),
            Grid(  # (d)
                _LEAKY.replace(weight_decay=6e-3),
                {
                    "batch_size": BATCHES,
                    "learning_rate": (0.001, 0.2, 0.5, 0.7, 1.0),
                },
            ),
        ),
    },
    tolerance=1e-3,
    references={},
    claims=(
        _BY_DECAY,
        Monotone(
            statement="higher learning rates give lower rank, with decay",
            field="learning_rate",
            rises=False,
            skip={"weight_decay": 0.0},
        ),
        _BY_BATCH,
        NearStart(
            statement="without decay the rank is full at every batch size: "
            "within 1 % of that of the initialisation",
            only={"weight_decay": 0.0},
            share=0.01,
            exact=True,
        ),
        Lowest(
            statement="at batch size 8 and weight decay 5e-4 the lowest mean "
            "rank is 69, within 8",
            only={"batch_size": 8, "weight_decay": 5e-4},
            rank=69,
            within=8,
        ),
        Lowest(
            statement="at batch size 16 and weight decay 5e-4 the lowest mean "
            "rank is 160, within 8",
            only={"batch_size": 16, "weight_decay": 5e-4},
            rank=160,
            within=8,
        ),
    ),
    panels="batch_size",
    notes=(
        "The figure shows contours; the grid is that of the paper's log, and "
        "of its numbers only the extremes can be read.",
        _COLLAPSE,
    ),
)

FIG2 = Figure(
    name="fig2",
    title="ResNet-18 on CIFAR-10: learning rate and batch size",
    fields=("learning_rate", "batch_size"),
    sizes={
        "smoke": smoke({"batch_size": (8, 32), "learning_rate": (0.05, 0.2)}),
        "cpu": reduced(
            _LEAKY,
            {"batch_size": (16, 64), "learning_rate": (0.1, 0.5)},
            weight_decay=1e-2,
        ),
        "full": full(
            Grid(_LEAKY, {"batch_size": (4, 8, 16), "learning_rate": RATES})
        ),
    },
    tolerance=1e-3,
    references=row(
        "learning_rate",
        RATES,
        {"batch_size": 4},
        rank="221.8 183.8 75.7 0",
        train="1 .998 .989 .100",
        test=".866 .839 .813 .100",
    )
    | row(
        "learning_rate",
        RATES,
        {"batch_size": 8},
        rank="226.3 197.4 169.4 69.1",
        train="1 1 .994 .982",
        test=".890 .859 .841 .783",
    )
    | row(
        "learning_rate",
        RATES,
        {"batch_size": 16},
        rank="227.5 204.2 178.2 160.3",
        train="1 1 1 .998",
        test=".888 .885 .886 .853",
    ),
    claims=(
        _BY_RATE,
        _BY_BATCH,
        _NEAR,
        _TRAIN,
        _TEST,
        Collapses(),
    ),
    notes=(
        "The paper has five trials of each and shows no spread: `--seeds 5`.",
        _COLLAPSE,
    ),
)

FIG3 = Figure(
    name="fig3",
    title="ResNet-18 on CIFAR-10: weight decay and batch size",
    fields=("weight_decay", "batch_size"),
    sizes={
        "smoke": smoke(
            {"batch_size": (8, 32), "weight_decay": (0.0, 0.01, 0.03)}
        ),
        "cpu": reduced(
            BASE, {"batch_size": (16, 64), "weight_decay": _REDUCED_DECAYS}
        ),
        "full": full(
            Grid(
                BASE.replace(learning_rate=1.0),
                {"batch_size": (8, 16, 32), "weight_decay": DECAYS},
            )
        ),
    },
    tolerance=1e-3,
    references=row(
        "weight_decay",
        DECAYS,
        {"batch_size": 8},
        rank="207.3 190.2 162.1 98.3 0",
        train="1 .998 .997 .989 .1",
        test=".860 .852 .840 .815 .1",
    )
    | row(
        "weight_decay",
        DECAYS,
        {"batch_size": 16},
        rank="222.6 213.0 184.5 142.9 0",
        train="1 1 1 .996 .1",
        test=".890 .891 .884 .837 .1",
    )
    | row(
        "weight_decay",
        DECAYS,
        {"batch_size": 32},
        rank="225.3 222.8 202.2 182.8 0",
        train="1 1 1 1 .1",
        test=".882 .894 .888 .894 .1",
    ),
    claims=(_BY_DECAY, _BY_BATCH, _NEAR, _TRAIN, _TEST, Collapses()),
    notes=(
        "The caption says learning rate 1.5. The paper's log has no ResNet at "
        "1.5, and the point missing in Figure 12 is the one missing in the "
        "log at 1.0, which is trained here.",
        "At batch size 16 and lambda 8e-4 layer 8 of the paper's network is "
        "zero, at 0.996 train accuracy.",
        _COLLAPSE,
    ),
)

# (a), (b), (c) of Figure 4: learning rate and weight decay.
_PAIRS = ((1e-3, 6e-3), (5e-3, 6e-3), (1e-2, 4e-4))


def _fig4() -> dict[Key, dict[str, float]]:
    found: dict[Key, dict[str, float]] = {}
    for (rate, decay), rank, test in zip(
        _PAIRS,
        (
            "78.1 91.9 116.9 122.7 124.0 124.1",
            "61.5 63.8 72.2 85.3 110.9 122.3",
            "84.9 91.6 110.5 120.8 122.8 123.6",
        ),
        (
            ".874 .864 .819 .743 .698 .653",
            ".884 .887 .884 .874 .836 .758",
            ".870 .866 .861 .836 .814 .772",
        ),
        strict=True,
    ):
        found |= row(
            "batch_size",
            BATCHES,
            {"learning_rate": rate, "weight_decay": decay},
            rank=rank,
            train="1 1 1 1 1 1",
            test=test,
        )
    return found


FIG4 = Figure(
    name="fig4",
    title="ResNet-18 on CIFAR-10: batch size, where all train to 1.000",
    fields=("batch_size", "learning_rate", "weight_decay"),
    sizes={
        "smoke": smoke({"batch_size": (8, 16, 64)}),
        "cpu": reduced(
            BASE.replace(learning_rate=0.05, weight_decay=1e-2),
            {"batch_size": (8, 32, 128)},
        ),
        "full": full(
            *(
                Grid(
                    BASE.replace(learning_rate=rate, weight_decay=decay),
                    {"batch_size": BATCHES},
                )
                for rate, decay in _PAIRS
            )
        ),
    },
    tolerance=0.05,
    references=_fig4(),
    claims=(
        _BY_BATCH,
        Monotone(
            statement="smaller batches give better test accuracy, all else "
            "being equal",
            field="batch_size",
            rises=False,
            value="test",
            slack=0.005,
        ),
        _NEAR,
        _TRAIN,
        _TEST,
    ),
    notes=(
        "The caption says tolerance 1e-3; the numbers are those of 0.05.",
        "Epochs are equal, so smaller batches also take more steps: this "
        "figure cannot tell the two apart.",
    ),
)

RATIO_CLAIMS = (
    RatiosComeTo(
        statement="norm ratios tend to 1, as Theorem 3.3 assumes", decay=False
    ),
    RatiosComeTo(
        statement="norm ratios tend to exp(-tau), what decay alone leaves",
        decay=True,
    ),
)
RATIO_NOTE = (
    "The paper's plots look like 1. Its plateaus are exp(-tau) to four digits: "
    "gradients have vanished and decay goes on, so that the assumption of the "
    "theorem, a ratio of 1, is not met."
)

FIG5 = Figure(
    name="fig5",
    title="ResNet-18 on CIFAR-10: ratios of norms, 10 epochs apart",
    fields=("learning_rate",),
    sizes={
        "smoke": smoke({"learning_rate": (0.05, 0.2)}, every=1),
        "cpu": reduced(
            BASE.replace(batch_size=32, weight_decay=5e-3),
            {"learning_rate": (0.1, 0.5)},
            every=1,
        ),
        "full": full(
            Grid(
                BASE.replace(batch_size=8),
                {"learning_rate": (0.01, 0.1, 0.5, 1.0)},
            )
        ),
    },
    tolerance=1e-3,
    references={},
    claims=RATIO_CLAIMS,
    kind="norm_ratios",
    notes=(
        RATIO_NOTE,
        "The paper's plateaus at learning rate 0.01: 0.9395, 0.9876, 0.9975.",
    ),
)

FIG12 = Figure(
    name="fig12",
    title="ResNet-18 on CIFAR-10: weight decay, another tolerance",
    fields=("weight_decay", "batch_size"),
    sizes={
        "smoke": FIG3.sizes["smoke"],
        "cpu": FIG3.sizes["cpu"],
        "full": full(
            Grid(
                BASE.replace(learning_rate=1.0),
                {"batch_size": (4, 8), "weight_decay": DECAYS},
            )
        ),
    },
    tolerance=0.01,
    references=row(
        "weight_decay",
        DECAYS,
        {"batch_size": 4},
        rank="166.2 129.3 65.4 0 -",
    )
    | row(
        "weight_decay",
        DECAYS,
        {"batch_size": 8},
        rank="185.4 168.6 144.8 89.5 0",
        train="1 .998 .997 .989 .1",
        test=".860 .852 .840 .815 .1",
    ),
    claims=(
        _BY_DECAY,
        _BY_BATCH,
        OneTolerance(
            statement="one tolerance gives all of the paper's ranks, within 8",
            low=1e-3,
            high=0.05,
            within=8,
        ),
        Collapses(),
    ),
    notes=(
        "The tolerance is not stated, and larger than the 1e-3 of Figure 3, "
        "with which this shares its runs at batch size 8. Ranks are shown at "
        "0.01; which tolerance fits best is among the verdicts.",
        "The caption says learning rate 1.5; see fig3. The paper has no point "
        "at batch size 4 and lambda 6e-3. Its lower panels are mislabelled.",
        _COLLAPSE,
    ),
)


def _datasets(name: str, title: str, tables, foreign: str) -> Figure:
    references: dict[Key, dict[str, float]] = {}
    for data, rank, test in tables:
        references |= row(
            "learning_rate", RATES, {"data": data}, rank=rank, test=test
        )
    names = tuple(data for data, _, _ in tables)
    if "places365" in names:
        references[key(learning_rate=2.0, data="places365")]["train"] = 0.113
    ours = tuple(item for item in names if item not in foreign.split(", "))
    return Figure(
        name=name,
        title=title,
        fields=("learning_rate", "data"),
        sizes={
            "smoke": smoke({"learning_rate": (0.05, 0.2)}, batch_size=8),
            "cpu": reduced(
                BASE.replace(data=ours[0], batch_size=32, weight_decay=1e-2),
                {"learning_rate": (0.1, 0.5)},
            ),
            "full": full(Grid(BASE, {"data": names, "learning_rate": RATES})),
        },
        tolerance=1e-3,
        references=references,
        claims=(
            _BY_RATE,
            _NEAR,
            _TEST,
        ),
        notes=(
            f"The library has no loader for {foreign}: give them as `.npz` "
            "files of 32 x 32 images, a size the paper does not state, in a "
            "directory, with `--data`.",
        ),
    )


FIG14 = _datasets(
    "fig14",
    "ResNet-18 on SVHN, Food101 and Imagenette: learning rate",
    (
        ("svhn", "225.2 179.1 150.9 100.8", ".963 .958 .948 .947"),
        ("food101", "227.5 220.4 193.5 109.9", ".417 .464 .410 .301"),
        ("imagenette", "227.5 227.4 207.1 167.6", ".740 .742 .746 .750"),
    ),
    "food101, imagenette",
)

FIG15 = _datasets(
    "fig15",
    "ResNet-18 on MNIST, Fashion-MNIST and Places365: learning rate",
    (
        ("mnist", "216.3 177.4 99.7 32.6", ".996 .994 .995 .993"),
        ("fashion_mnist", "226.0 188.8 139.9 47.5", ".940 .940 .940 .922"),
        ("places365", "227.5 223.1 182.5 84.2", ".156 .159 .165 .095"),
    ),
    "places365",
)

CROSSING = SpectraCross(
    statement="spectra of small and large batches cross: large values grow "
    "and small ones shrink, in three of four matrices"
)

FIG18 = Figure(
    name="fig18",
    title="ResNet-18 on CIFAR-10: spectra of each layer, of Figure 4 (b)",
    fields=("batch_size",),
    sizes={
        "smoke": smoke({"batch_size": (8, 64)}),
        "cpu": reduced(
            BASE.replace(learning_rate=0.05, weight_decay=1e-2),
            {"batch_size": (8, 32, 128)},
        ),
        "full": full(
            Grid(
                BASE.replace(learning_rate=5e-3, weight_decay=6e-3),
                {"batch_size": BATCHES},
            )
        ),
    },
    tolerance=0.05,
    references=row(
        "batch_size",
        BATCHES,
        {},
        rank="61.5 63.8 72.2 85.3 110.9 122.3",
        conv_1="31 32 37 52 64 64",
    ),
    claims=(
        CROSSING,
        _NEAR,
        Agrees(
            statement="rank of layer 1 within 4 of the paper's",
            value="conv_1",
            within=4,
        ),
    ),
    parts={"conv_1": r"^conv_1/"},
    kind="spectra",
)

_LOGGED_RATES = (0.001, 0.005, 0.01, 0.1, 0.5, 1.0, 2.0, 5.0)
_LOGGED_DECAYS = (0.0, 1e-4, 2e-4, 4e-4, 8e-4, 6e-3)


def _large_batch() -> dict[Key, dict[str, float]]:
    found = {
        key(learning_rate=rate, weight_decay=decay): {"rank": 227.5}
        for rate, decay in itertools.product(
            _LOGGED_RATES[:6], _LOGGED_DECAYS[:5]
        )
    }
    found |= row(
        "learning_rate",
        (0.5, 1.0, 2.0, 5.0),
        {"weight_decay": 6e-3},
        rank="170 80 20 0",
    )
    for decay in (4e-4, 8e-4):
        found |= row(
            "learning_rate", (5.0,), {"weight_decay": decay}, rank="155"
        )
    return found


NOTEBOOK = Figure(
    name="notebook_resnet",
    title="ResNet-18 on CIFAR-10 with batches of 1024, from a notebook",
    fields=("weight_decay", "learning_rate"),
    sizes={
        "smoke": smoke(
            {"learning_rate": (0.5, 2.0), "weight_decay": (0.0, 0.03)},
            batch_size=128,
        ),
        "cpu": reduced(
            BASE.replace(batch_size=256),
            {"learning_rate": (0.5,), "weight_decay": (0.0, 1e-2, 5e-2)},
        ),
        "full": full(
            Grid(
                BASE.replace(batch_size=1024),
                {
                    "learning_rate": _LOGGED_RATES,
                    "weight_decay": _LOGGED_DECAYS,
                },
            )
        ),
    },
    tolerance=1e-3,
    references=_large_batch(),
    claims=(
        Agrees(
            statement="mean rank within 15 of the paper's, which were read "
            "to about 10",
            within=15,
        ),
        NearStart(
            statement="without decay the rank is full: within 1 % of that of "
            "the initialisation",
            only={"weight_decay": 0.0},
            share=0.01,
            exact=True,
        ),
        Monotone(
            statement="at weight decay 6e-3 higher learning rates give lower "
            "rank, at large batches too",
            field="learning_rate",
            rises=False,
            only={"weight_decay": 6e-3},
        ),
        Collapses(),
    ),
    notes=(
        "The grid is that of the paper's log. Its curves say: full rank up to "
        "learning rate 1 and weight decay 8e-4.",
        _COLLAPSE,
    ),
)

FIGURES = (
    FIG1,
    FIG2,
    FIG3,
    FIG4,
    FIG5,
    FIG12,
    FIG14,
    FIG15,
    FIG18,
    NOTEBOOK,
)
