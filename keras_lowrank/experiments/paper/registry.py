"""The figures by name."""

from keras_lowrank.experiments.paper import controls
from keras_lowrank.experiments.paper import mlp
from keras_lowrank.experiments.paper import others
from keras_lowrank.experiments.paper import resnet
from keras_lowrank.experiments.paper import resnet_batches
from keras_lowrank.experiments.paper import resnet_data
from keras_lowrank.experiments.paper import vgg
from keras_lowrank.experiments.paper import vit
from keras_lowrank.experiments.paper.figure import SIZES
from keras_lowrank.experiments.paper.figure import Figure
from keras_lowrank.tables import Column
from keras_lowrank.tables import Table


def _place(figure: Figure) -> tuple[int, str]:
    number = figure.name.removeprefix("fig")
    if number.isdigit():
        return int(number), ""
    return 200 if figure.ours else 100, figure.name


FIGURES: dict[str, Figure] = {
    figure.name: figure
    for figure in sorted(
        (
            *resnet.FIGURES,
            *resnet_batches.FIGURES,
            *resnet_data.FIGURES,
            *mlp.FIGURES,
            *vgg.FIGURES,
            *vit.FIGURES,
            *others.FIGURES,
            *controls.FIGURES,
        ),
        key=_place,
    )
}


def find_figure(name: str) -> Figure:
    """A figure by its name.

    Args:
        name: String, out of `FIGURES`.

    Returns:
        `Figure`.

    Raises:
        ValueError: for an unknown name, with those there are.

    Example:

    >>> find_figure("fig8").tolerance
    0.03
    """
    if name not in FIGURES:
        raise ValueError(
            f"A figure must be one of {', '.join(FIGURES)}. Received: {name!r}."
        )
    return FIGURES[name]


def figures_table() -> Table:
    """All figures and controls, with the runs of each size for a seed."""
    columns = [Column("name", "Name"), Column("title", "What", justify="left")]
    columns += [Column(size, f"Runs,\n{size}") for size in SIZES]
    rows = [
        {
            "name": figure.name,
            "title": figure.title,
            **{size: len(figure.sizes[size].specs()) for size in SIZES},
        }
        for figure in FIGURES.values()
    ]
    return Table(
        "Figures of the paper, and controls that it lacks", columns, rows
    )
