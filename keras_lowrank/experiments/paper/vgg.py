"""The paper's figures of VGG-16 on CIFAR-10: 13, 17 and 19."""

from keras_lowrank.experiments.paper.claims import Monotone
from keras_lowrank.experiments.paper.figure import Figure
from keras_lowrank.experiments.paper.figure import Grid
from keras_lowrank.experiments.paper.resnet import BASE as RESNET
from keras_lowrank.experiments.paper.resnet import BATCHES
from keras_lowrank.experiments.paper.resnet_batches import CROSSING
from keras_lowrank.experiments.paper.resnet_batches import RATIO_CLAIMS
from keras_lowrank.experiments.paper.resnet_batches import RATIO_NOTE
from keras_lowrank.experiments.paper.sizes import full
from keras_lowrank.experiments.paper.sizes import reduced
from keras_lowrank.experiments.paper.sizes import smoke

BASE = RESNET.replace(network="vgg16")

_PAIRS = ((1e-3, 6e-3), (5e-3, 5e-4), (1e-2, 4e-4))

FIG13 = Figure(
    name="fig13",
    title="VGG-16 on CIFAR-10: batch size",
    fields=("batch_size", "learning_rate", "weight_decay"),
    sizes={
        "smoke": smoke({"batch_size": (8, 16, 64)}),
        "cpu": reduced(
            BASE.replace(learning_rate=0.05, weight_decay=1e-2),
            {"batch_size": (16, 64)},
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
    references={},
    claims=(
        Monotone(
            statement="smaller batches give lower rank, all else being equal",
            field="batch_size",
            rises=True,
        ),
        Monotone(
            statement="smaller batches give better test accuracy, all else "
            "being equal",
            field="batch_size",
            rises=False,
            value="test",
            slack=0.005,
        ),
    ),
    notes=(
        "The paper's numbers of this figure are not at hand, only what it "
        "says: the same as of Figure 4.",
        "Matrices 512 wide begin near rank 118 at this tolerance, since they "
        "are wide: read ranks beside those of the initialisation.",
    ),
)

FIG17 = Figure(
    name="fig17",
    title="VGG-16 on CIFAR-10: ratios of norms, 10 epochs apart",
    fields=("batch_size",),
    sizes={
        "smoke": smoke({"batch_size": (8, 32)}, every=1),
        "cpu": reduced(
            BASE.replace(learning_rate=0.05, weight_decay=5e-3),
            {"batch_size": (16, 64)},
            every=1,
        ),
        "full": full(
            Grid(
                BASE.replace(learning_rate=5e-3, weight_decay=5e-4),
                {"batch_size": (8, 16, 32, 64)},
            )
        ),
    },
    tolerance=0.05,
    references={},
    claims=RATIO_CLAIMS,
    kind="norm_ratios",
    notes=(
        RATIO_NOTE,
        "The paper's plateaus: 0.9693 and 0.9938 at batch size 8, 0.9845 and "
        "0.9969 at 16, 0.9922 and 0.9984 at 32, 0.9961 and 0.9992 at 64. The "
        "last lies above exp(-tau), since float32 rounds part of the decay "
        "away.",
    ),
)

FIG19 = Figure(
    name="fig19",
    title="VGG-16 on CIFAR-10: spectra of each layer, of Figure 13 (c)",
    fields=("batch_size",),
    sizes={
        "smoke": smoke({"batch_size": (8, 64)}),
        "cpu": FIG13.sizes["cpu"],
        "full": full(
            Grid(
                BASE.replace(learning_rate=1e-2, weight_decay=4e-4),
                {"batch_size": BATCHES},
            )
        ),
    },
    tolerance=0.05,
    references={},
    claims=(CROSSING,),
    kind="spectra",
)

FIGURES = (FIG13, FIG17, FIG19)
