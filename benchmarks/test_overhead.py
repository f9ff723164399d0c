"""What `RankTracker` and `TheoryTracker` take of `fit`, on each backend.

The demo on its digits, the others on real CIFAR-10, whose path
`KERAS_LOWRANK_CIFAR10` gives. ResNet-18 trains on a part of it, as the tables
say, and with `--full-epochs` on all of it too.
"""

import pytest

from benchmarks import checkpoints
from benchmarks import fits
from benchmarks import machine
from benchmarks.results import Target
from keras_lowrank.tables import Column
from keras_lowrank.tables import Table
from keras_lowrank.tables import number

BACKENDS = [
    backend
    for backend in ("jax", "torch", "tensorflow")
    if machine.installed(backend)
]
TIMES = number(3)


def percent(value: float) -> str:
    return f"{100 * value:.2f} %"


def signed(values) -> str:
    low, middle, high = (100 * value for value in values)
    return f"{middle:+.1f} % ({low:+.1f} to {high:+.1f})"


def networks():
    """Those whose data are at hand."""
    if checkpoints.cifar10() is None:
        return ["demo MLP"]
    return list(fits.NETWORKS)


def missing() -> list[str]:
    if checkpoints.cifar10() is None:
        return [f"MLP-BN-10-100 and ResNet-18: {checkpoints.NO_CIFAR10}."]
    return []


def share_row(found: dict) -> dict:
    """One row: a `fit`, and what its measurements are of a full epoch."""
    default, every = found["default"], found.get("every", {})
    row = {
        "network": found["network"],
        "backend": found["backend"],
        "images": found["images"],
        "epochs": found["epochs"],
        "epoch": default["epoch"],
        "measured": default["measured"],
        "one_ms": 1e3 * default["own"] / default["measured"],
        "default": default["overhead"],
        "every": every.get("overhead"),
        "full": found["full"],
        "first": found["first"],
    }
    if not found["full"]:
        steps = -(-fits.CIFAR10_IMAGES // 32)
        row["full_epoch"] = default["epoch"] * steps / found["steps"]
        own = default["own"] / default["measured"]
        row["of_full"] = own / (own + row["full_epoch"])
    return row


def _measurements(row: dict) -> str:
    which = ", the first and the last alone," if row["measured"] == 2 else ""
    return (
        f"{row['measured']} measurements{which} of {row['one_ms']:.3g} ms in "
        f"{row['epochs']} epochs of {1e3 * row['epoch']:.3g} ms"
    )


def shares(names, backends, *options) -> list[dict]:
    """Rows of what `RankTracker` takes of `fit`."""
    return [
        share_row(
            machine.alone(
                "fits",
                "share",
                name,
                *options,
                backend=backend,
                one_thread=False,
            )
        )
        for name in names
        for backend in backends
    ]


def test_rank_tracker(keep, targets):
    rows = shares(networks(), BACKENDS)
    columns = [
        Column("network"),
        Column("backend", justify="left"),
        Column("images"),
        Column("epochs"),
        Column("epoch", "s an epoch", TIMES),
        Column("measured", "measured"),
        Column("one_ms", "ms each", TIMES),
        Column("default", "share of fit, default", percent),
        Column("every", "share, every=1", percent),
        Column("first", "first fit, s", TIMES),
        Column("full_epoch", "full epoch, s", TIMES),
        Column("of_full", "share of full epochs", percent),
    ]
    notes = [
        "Share: `tracker.overhead`, seconds in the hooks of the tracker over "
        "those of a `fit` that is compiled already, the first measurement and "
        "the last included; threads as a user finds them.",
        "First fit: seconds of the tracker in the first fit of a process, of "
        "two measurements and whatever is loaded once.",
        "Where epochs are of a part of the images, the seconds of a full one "
        "are those of its 1563 steps at the rate of the part, and the share "
        "is that of one measurement in each. `ARGS=--full-epochs` trains one.",
        *missing(),
    ]
    keep(Table("RankTracker in `fit`", columns, rows, notes), "overhead_rank")
    for row in rows:
        part = "" if row["full"] else ", one measurement a full epoch"
        targets.append(
            Target(
                f"RankTracker, {row['network']} on {row['backend']}{part}",
                100 * (row["default"] if row["full"] else row["of_full"]),
                at_most=1,
                unit=" %",
                limit=_measurements(row),
            )
        )


@pytest.fixture(scope="module")
def full_rows():
    """Rows of the full epochs so far; half an hour each is soon lost."""
    return []


@pytest.mark.parametrize("backend", BACKENDS)
def test_full_epoch(backend, full_rows, keep, targets, request):
    names = [name for name in networks() if name in fits.PART]
    if not names or not request.config.getoption("--full-epochs"):
        pytest.skip("half an hour, for those who ask by --full-epochs")
    rows = shares(names, [backend], "full")
    full_rows += rows
    columns = [
        Column("network"),
        Column("backend", justify="left"),
        Column("images"),
        Column("epoch", "s an epoch", TIMES),
        Column("measured", "measured"),
        Column("one_ms", "ms each", TIMES),
        Column("default", "share of fit", percent),
    ]
    notes = ["One epoch, measured before and after, as by default."]
    table = Table(
        "RankTracker in `fit`, a full epoch", columns, full_rows, notes
    )
    keep(table, "overhead_rank_full_epoch")
    for row in rows:
        targets.append(
            Target(
                f"RankTracker, {row['network']} on {backend}, a full epoch",
                100 * row["default"],
                at_most=1,
                unit=" %",
                limit=_measurements(row),
            )
        )


@pytest.mark.parametrize("tracker", fits.TRACKERS)
def test_in_turn(tracker, keep, targets):
    """Epochs with a tracker and without, one after another."""
    rows = [
        machine.alone(
            "fits", "pairs", name, tracker, backend=backend, one_thread=False
        )
        for name in networks()
        for backend in BACKENDS
    ]
    columns = [
        Column("network"),
        Column("backend", justify="left"),
        Column("pairs"),
        Column("steps", "steps an epoch"),
        Column("step_ms", "ms a step", TIMES),
        Column("steps_more", "steps take more", signed),
        Column("wall_more", "epochs take more", signed),
        Column("processor_more", "processor seconds more", signed),
    ]
    title = "RankTracker" if tracker == "rank" else "TheoryTracker"
    notes = [
        "Epochs that took turns in one process: those of the fastest quarter "
        "of either side, and in brackets the quartiles of pairs, which say how "
        "uneven the machine is; steps end before the tracker does what it does "
        "after an "
        "epoch. Epochs are short, so that what is done once in each weighs "
        "more than in full ones.",
        *missing(),
    ]
    keep(
        Table(f"{title}, epochs in turn", columns, rows, notes),
        f"overhead_{tracker}_in_turn",
    )
    for row in rows:
        low, middle, high = row["steps_more"]
        targets.append(
            Target(
                f"{title}, steps of {row['network']} on {row['backend']}",
                100 * middle,
                at_most=2 if tracker == "theory" else None,
                unit=" %",
                limit=f"quartiles {100 * low:.1f} to {100 * high:.1f} %, of "
                f"steps of {row['step_ms']:.3g} ms",
            )
        )
