"""The sizes that stand in for the paper's own, on small machines."""

from keras_lowrank.experiments.paper.figure import Grid
from keras_lowrank.experiments.paper.figure import Size
from keras_lowrank.experiments.spec import ExperimentSpec

# The paper's schedule: its milestones count epochs from 1.
MILESTONES = (59, 99, 199)

SMOKE_NOTE = (
    "Smoke: a narrow MLP on 512 digits for a few epochs, with stronger decay, "
    "in the place of the paper's network. It shows that everything works, and "
    "which way ranks go; its numbers are not the paper's."
)
REDUCED_NOTE = (
    "Reduced: the paper's network on a few thousand images for a few epochs, "
    "with stronger decay and a coarser tolerance. It has NOT been shown that "
    "this gives the paper's numbers, so that only directions are judged, of "
    "the reduced runs."
)
CPU_NOTE = (
    "The paper's network, data and schedule, at some points of its grid, and "
    "fewer seeds. Nothing else is reduced."
)
FULL_NOTE = "The paper's own grid."

SMOKE_TWIN = ExperimentSpec(
    network={"name": "mlp", "depth": 3, "width": 32},
    data={"name": "digits", "train_samples": 512},
    batch_size=16,
    learning_rate=0.1,
    milestones=(14, 17),
    weight_decay=0.03,
    epochs=20,
    every=5,
)


def smoke(axes, **changes) -> Size:
    """A size of seconds: a narrow MLP on the digits.

    Args:
        axes: Dict from fields to their values.
        **changes: Fields of the spec.

    Returns:
        `Size`.
    """
    spec = SMOKE_TWIN.replace(**changes) if changes else SMOKE_TWIN
    return Size(
        (Grid(spec, axes),),
        SMOKE_NOTE,
        numbers=False,
        tolerance=0.05,
        title="a narrow MLP on digits in the place of the paper's network",
    )


def reduced(spec: ExperimentSpec, axes, **changes) -> Size:
    """A size of hours on two cores for a convolutional network.

    Args:
        spec: `ExperimentSpec` of the paper's run.
        axes: Dict from fields to their values.
        **changes: Further fields.

    Returns:
        `Size`.
    """
    fields = {
        "data": {
            "name": spec.data.name,
            "train_samples": 2000,
            "test_samples": 1000,
        },
        "milestones": (8, 10) if spec.milestones else (),
        "epochs": 12,
        "every": 2,
    }
    if spec.network.name == "resnet18":
        # A sixteenth of the work, and so enough epochs to forget the start.
        fields |= {
            "network": spec.network.replace(width=16),
            "milestones": (28, 34) if spec.milestones else (),
            "epochs": 40,
            "every": 4,
        }
    fields |= changes
    network = spec.network
    spec = spec.replace(**fields)
    note = REDUCED_NOTE
    if spec.network != network:
        note = note.replace(
            "the paper's network", "a smaller network of the paper's kind"
        )
    return Size(
        (Grid(spec, axes),),
        note,
        numbers=False,
        tolerance=0.05,
        title=f"{spec.network.name} on a part of {spec.data.name}, a few "
        "epochs",
    )


def full(*grids: Grid) -> Size:
    """The paper's own size."""
    return Size(grids, FULL_NOTE, numbers=True)
