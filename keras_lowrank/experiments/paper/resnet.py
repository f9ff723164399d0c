"""The paper's figures of ResNet-18 on CIFAR-10: 1 to 3, and 12."""

from keras_lowrank.experiments.paper.claims import Monotone
from keras_lowrank.experiments.paper.claims import NearStart
from keras_lowrank.experiments.paper.figure import Figure
from keras_lowrank.experiments.paper.figure import Grid
from keras_lowrank.experiments.paper.figure import row
from keras_lowrank.experiments.paper.numbers import Agrees
from keras_lowrank.experiments.paper.numbers import Collapses
from keras_lowrank.experiments.paper.numbers import Lowest
from keras_lowrank.experiments.paper.sizes import MILESTONES
from keras_lowrank.experiments.paper.sizes import full
from keras_lowrank.experiments.paper.sizes import reduced
from keras_lowrank.experiments.paper.sizes import smoke
from keras_lowrank.experiments.paper.special import OneTolerance
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
NEAR = Agrees(statement="mean rank within 8 of the paper's", within=8)
TEST = Agrees(
    statement="test accuracy within 0.02 of the paper's",
    value="test",
    within=0.02,
)
TRAIN = Agrees(
    statement="train accuracy within 0.02 of the paper's",
    value="train",
    within=0.02,
)
BY_RATE = Monotone(
    statement="higher learning rates give lower rank, all else being equal",
    field="learning_rate",
    rises=False,
)
BY_DECAY = Monotone(
    statement="mean rank falls as weight decay grows, all else being equal",
    field="weight_decay",
    rises=False,
)
BY_BATCH = Monotone(
    statement="smaller batches give lower rank, all else being equal",
    field="batch_size",
    rises=True,
    skip={"weight_decay": 0.0},
)
COLLAPSE = (
    "Rank 0 in the paper is a network that died: weights underflow or "
    "diverge, and NaN is counted as 0. Such points are reported as collapsed."
)
REDUCED_DECAYS = (0.0, 5e-3, 2e-2)

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
        BY_DECAY,
        Monotone(
            statement="higher learning rates give lower rank, with decay",
            field="learning_rate",
            rises=False,
            skip={"weight_decay": 0.0},
        ),
        BY_BATCH,
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
        COLLAPSE,
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
        BY_RATE,
        BY_BATCH,
        NEAR,
        TRAIN,
        TEST,
        Collapses(),
    ),
    notes=(
        "The paper has five trials of each and shows no spread: `--seeds 5`.",
        COLLAPSE,
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
            BASE, {"batch_size": (16, 64), "weight_decay": REDUCED_DECAYS}
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
    claims=(BY_DECAY, BY_BATCH, NEAR, TRAIN, TEST, Collapses()),
    notes=(
        "The caption says learning rate 1.5. The paper's log has no ResNet at "
        "1.5, and the point missing in Figure 12 is the one missing in the "
        "log at 1.0, which is trained here.",
        "At batch size 16 and lambda 8e-4 layer 8 of the paper's network is "
        "zero, at 0.996 train accuracy.",
        COLLAPSE,
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
        BY_DECAY,
        BY_BATCH,
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
        COLLAPSE,
    ),
)


FIGURES = (FIG1, FIG2, FIG3, FIG12)
