"""ResNet-18 and batch sizes: Figures 4, 5 and 18, and a notebook."""

import itertools

from keras_lowrank.experiments.paper.claims import Monotone
from keras_lowrank.experiments.paper.claims import NearStart
from keras_lowrank.experiments.paper.figure import Figure
from keras_lowrank.experiments.paper.figure import Grid
from keras_lowrank.experiments.paper.figure import Key
from keras_lowrank.experiments.paper.figure import key
from keras_lowrank.experiments.paper.figure import row
from keras_lowrank.experiments.paper.numbers import Agrees
from keras_lowrank.experiments.paper.numbers import Collapses
from keras_lowrank.experiments.paper.resnet import BASE
from keras_lowrank.experiments.paper.resnet import BATCHES
from keras_lowrank.experiments.paper.resnet import BY_BATCH
from keras_lowrank.experiments.paper.resnet import COLLAPSE
from keras_lowrank.experiments.paper.resnet import NEAR
from keras_lowrank.experiments.paper.resnet import TEST
from keras_lowrank.experiments.paper.resnet import TRAIN
from keras_lowrank.experiments.paper.sizes import full
from keras_lowrank.experiments.paper.sizes import reduced
from keras_lowrank.experiments.paper.sizes import smoke
from keras_lowrank.experiments.paper.special import RatiosComeTo
from keras_lowrank.experiments.paper.special import SpectraCross

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
        BY_BATCH,
        Monotone(
            statement="smaller batches give better test accuracy, all else "
            "being equal",
            field="batch_size",
            rises=False,
            value="test",
            slack=0.005,
        ),
        NEAR,
        TRAIN,
        TEST,
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
        NEAR,
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
        COLLAPSE,
    ),
)

FIGURES = (FIG4, FIG5, FIG18, NOTEBOOK)
