"""ResNet-18 on other data sets: Figures 14 and 15."""

from keras_lowrank.experiments.paper.figure import Figure
from keras_lowrank.experiments.paper.figure import Grid
from keras_lowrank.experiments.paper.figure import Key
from keras_lowrank.experiments.paper.figure import key
from keras_lowrank.experiments.paper.figure import row
from keras_lowrank.experiments.paper.resnet import BASE
from keras_lowrank.experiments.paper.resnet import BY_RATE
from keras_lowrank.experiments.paper.resnet import NEAR
from keras_lowrank.experiments.paper.resnet import RATES
from keras_lowrank.experiments.paper.resnet import TEST
from keras_lowrank.experiments.paper.sizes import full
from keras_lowrank.experiments.paper.sizes import reduced
from keras_lowrank.experiments.paper.sizes import smoke


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
            BY_RATE,
            NEAR,
            TEST,
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

FIGURES = (FIG14, FIG15)
