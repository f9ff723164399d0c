"""The paper's mixed residual network, Figure 16, and a notebook's ConvNet."""

from keras_lowrank.experiments.paper.claims import Monotone
from keras_lowrank.experiments.paper.claims import NearStart
from keras_lowrank.experiments.paper.curves import HALF_RANK
from keras_lowrank.experiments.paper.figure import Figure
from keras_lowrank.experiments.paper.figure import Grid
from keras_lowrank.experiments.paper.figure import Key
from keras_lowrank.experiments.paper.figure import key
from keras_lowrank.experiments.paper.numbers import Agrees
from keras_lowrank.experiments.paper.resnet import BASE as RESNET
from keras_lowrank.experiments.paper.sizes import full
from keras_lowrank.experiments.paper.sizes import reduced
from keras_lowrank.experiments.paper.sizes import smoke
from keras_lowrank.experiments.paper.special import DropsAtOneClock
from keras_lowrank.experiments.spec import ExperimentSpec

_MIXED = RESNET.replace(network="mixed_resnet", learning_rate=0.01)

FIG16 = Figure(
    name="fig16",
    title="Mixed residual network on CIFAR-10: weight decay and batch size",
    fields=("weight_decay", "batch_size"),
    sizes={
        "smoke": smoke(
            {"batch_size": (8, 32), "weight_decay": (0.0, 0.01, 0.03)}
        ),
        "cpu": reduced(
            _MIXED,
            {"weight_decay": (1e-3, 3e-2)},
            network={
                "name": "mixed_resnet",
                "conv_blocks": 2,
                "dense_blocks": 2,
                "width": 32,
            },
            learning_rate=0.1,
        ),
        "full": full(
            Grid(
                _MIXED,
                {
                    "batch_size": (16, 32, 64),
                    "weight_decay": (1e-4, 2e-4, 4e-4, 8e-4),
                },
            )
        ),
    },
    tolerance=0.05,
    references={
        key(batch_size=16, weight_decay=1e-4): {"conv": 206.0, "dense": 128.0},
        key(batch_size=16, weight_decay=8e-4): {"conv": 179.0, "dense": 128.0},
    },
    claims=(
        Monotone(
            statement="at batch size 16 the ranks of convolutions fall as "
            "weight decay grows",
            field="weight_decay",
            rises=False,
            value="conv",
            only={"batch_size": 16},
        ),
        NearStart(
            statement="the ranks of dense matrices stay within 5 % of those "
            "of the initialisation",
            value="dense",
            share=0.05,
            exact=True,
        ),
        NearStart(
            statement="at batch size 32 the ranks of convolutions stay within "
            "5 % of those of the initialisation",
            value="conv",
            only={"batch_size": 32},
            share=0.05,
            exact=True,
        ),
        NearStart(
            statement="at batch size 64 the ranks of convolutions stay within "
            "5 % of those of the initialisation",
            value="conv",
            only={"batch_size": 64},
            share=0.05,
            exact=True,
        ),
        Agrees(
            statement="mean rank of convolutions within 8 of the paper's",
            value="conv",
            within=8,
        ),
        Agrees(
            statement="mean rank of dense matrices within 5 of the paper's",
            value="dense",
            within=5,
        ),
    ),
    parts={"conv": r"^conv_\d", "dense": r"^hidden_\d"},
    notes=(
        "That dense ranks lie below those of convolutions is no finding: at "
        "the initialisation they are 129 and 214 at this tolerance, a square "
        "matrix and one of 1 to 9.",
        "The flattened size the paper states contradicts its channels; ours "
        "is 256 * 32 * 32.",
    ),
)

_CONVNET = ExperimentSpec(
    network="convnet",
    data="cifar10",
    batch_size=128,
    learning_rate=0.1,
    epochs=2000,
    every=10,
    # The five that the plateau of 802 is the mean of, of seven.
    weights=r"^conv_[0-4]/",
)


def _drops() -> dict[Key, dict[str, float]]:
    return {
        key(
            learning_rate=rate, weight_decay=decay, loss="mean_squared_error"
        ): {HALF_RANK: epoch}
        for rate, decay, epoch in (
            (0.01, 1e-3, 1410.0),
            (0.1, 1e-3, 145.0),
            (0.1, 1e-4, 1260.0),
            (0.5, 1e-4, 255.0),
            (1.0, 1e-4, 130.0),
        )
    }


_LOSSES = ("cross_entropy", "mean_squared_error")

NOTEBOOK = Figure(
    name="notebook_convnet",
    title="ConvNet-5-1000 on CIFAR-10, constant learning rate, a notebook",
    fields=("weight_decay", "learning_rate", "loss"),
    sizes={
        "smoke": smoke(
            {"learning_rate": (0.25, 0.5), "weight_decay": (0.0, 0.006)},
            network={
                "name": "mlp",
                "depth": 2,
                "width": 32,
                "batch_norm": False,
            },
            milestones=(),
            epochs=60,
            every=1,
            loss="mean_squared_error",
        ),
        "cpu": reduced(
            _CONVNET,
            {"learning_rate": (0.1, 0.5), "weight_decay": (1e-3, 5e-2)},
            network={"name": "convnet", "depth": 3, "width": 64},
            loss="mean_squared_error",
            batch_size=32,
            epochs=30,
        ),
        "full": full(
            Grid(
                _CONVNET,
                {
                    "loss": _LOSSES,
                    "learning_rate": (0.001, 0.01, 0.1, 0.5, 1.0),
                    "weight_decay": (0.0, 1e-6, 1e-5, 1e-4, 1e-3),
                },
            )
        ),
    },
    tolerance=1e-3,
    references=_drops(),
    claims=(
        DropsAtOneClock(
            statement="with squared error the rank falls to half at one decay "
            "clock (the paper: 4.9 to 5.7), within a factor of 1.5",
            only={"loss": "mean_squared_error"},
        ),
        Agrees(
            statement="the epoch of half the rank is within 40 of the paper's",
            value=HALF_RANK,
            within=40,
        ),
        NearStart(
            statement="without decay the rank is full: within 1 % of that of "
            "the initialisation",
            only={"weight_decay": 0.0},
            share=0.01,
            exact=True,
        ),
    ),
    half_rank=True,
    panels="loss",
    kind="curves",
    notes=(
        "The plateau of 802 is a mean over five of the seven convolutions, as "
        "is ours.",
        "Lemma 3.1 limits no update here: 64 * 128 is more than the width. "
        "What drops is what is left of the initialisation.",
    ),
)

FIGURES = (FIG16, NOTEBOOK)
