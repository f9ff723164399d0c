"""The device route against the host's, where there is a GPU.

    make bench FILE=benchmarks/test_gpu.py

Needs a JAX or a torch that was built for the GPU; skipped where neither finds
one. The tables bear the name of the card.
"""

import pytest

from benchmarks import checkpoints
from benchmarks import fits
from benchmarks import machine
from benchmarks import matrices
from benchmarks.results import Target
from keras_lowrank.tables import Column
from keras_lowrank.tables import Table
from keras_lowrank.tables import number

TIMES = number(3)
COMMAND = "make bench FILE=benchmarks/test_gpu.py"
# What a wrong choice may cost, which noise and the deciding calls are within.
WORST_CHOICE = 1.2


def run(*arguments, backend):
    return machine.alone(
        "devices", *arguments, backend=backend, one_thread=False
    )


@pytest.fixture(scope="module")
def cards() -> dict[str, str]:
    """The card that each backend trains on."""
    found = {
        backend: run("card", backend=backend)
        for backend in ("jax", "torch")
        if machine.installed(backend)
    }
    found = {backend: card for backend, card in found.items() if card}
    if not found:
        pytest.skip(
            "needs a GPU that JAX or torch was built for: `jax.devices()` and "
            "`torch.cuda` have none"
        )
    return found


def notes(cards) -> list[str]:
    told = [f"{card} ({backend})" for backend, card in cards.items()]
    return [f"{', '.join(told)}; `{COMMAND}`; threads as a user finds them."]


def test_routes(cards, keep, targets):
    """All matrices of a network, by the host, by the device, and by choice."""
    rows = []
    for name in matrices.SETS:
        for backend in cards:
            found = run("routes", name, backend=backend)
            seconds = {k: v["seconds"] for k, v in found["sides"].items()}
            best = min(seconds["host"], seconds["device"])
            rows.append(
                {
                    "name": name,
                    "backend": backend,
                    "host": 1e3 * seconds["host"],
                    "device": 1e3 * seconds["device"],
                    "auto": 1e3 * seconds["ours"],
                    "ratio": seconds["host"] / seconds["device"],
                    "choice": seconds["ours"] / best,
                }
            )
    columns = [
        Column("name", "network"),
        Column("backend", justify="left"),
        Column("host", "host, ms", TIMES),
        Column("device", "device, ms", TIMES),
        Column("auto", "by choice, ms", TIMES),
        Column("ratio", "host / device", TIMES),
        Column("choice", "by choice / better", TIMES),
    ]
    table = Table("Routes on a GPU", columns, rows, notes(cards))
    keep(table, "gpu_routes")
    for row in rows:
        targets.append(
            Target(
                f"choice / better route, {row['name']} on {row['backend']}, "
                f"{cards[row['backend']]}",
                row["choice"],
                at_most=WORST_CHOICE,
                limit="the two routes differ by less than they vary",
            )
        )


@pytest.mark.skipif(
    checkpoints.cifar10() is None, reason=checkpoints.NO_CIFAR10
)
def test_in_fit(cards, keep):
    """What `RankTracker` takes of `fit`, by each route."""
    rows = []
    for name in fits.NETWORKS:
        for backend in cards:
            found = run("fits", name, backend=backend)["settings"]
            for label, taken in found.items():
                rows.append(
                    {
                        "name": name,
                        "backend": backend,
                        "route": label,
                        "each": 1e3 * taken["own"] / taken["measured"],
                        "fit": taken["fit"],
                        "share": taken["own"] / taken["fit"],
                    }
                )
    columns = [
        Column("name", "network"),
        Column("backend", justify="left"),
        Column("route", justify="left"),
        Column("each", "ms a measurement", TIMES),
        Column("fit", "fit, s", TIMES),
        Column("share", "share of fit", "{:.2%}".format),
    ]
    told = "RankTracker in `fit` on a GPU, measured after every short epoch"
    keep(Table(told, columns, rows, notes(cards)), "gpu_fits")
