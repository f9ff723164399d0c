"""How time and memory grow with the width of a matrix and with their number.

Tables and a plot: `results/growth_width.md`, `growth_depth.md`, `growth.png`.
"""

import math

import pytest

from benchmarks import growth
from benchmarks import machine
from benchmarks import results
from keras_lowrank.plots.log_axis import make_logarithmic
from keras_lowrank.tables import Column
from keras_lowrank.tables import Table
from keras_lowrank.tables import number

TIMES = number(3)
NOTE = (
    "One core, BLAS held to one thread. Memory: the peak of the process "
    "beyond what it held with the weights before the first measurement."
)


def exponents(rows) -> None:
    """How fast each row grew since the last: the slope between the logs."""
    for row, before in zip(rows[1:], rows, strict=False):
        ratio = math.log(row["size"] / before["size"])
        for key in ("seconds", "mebibytes"):
            if before[key] > 0 and row[key] > 0:
                slope = math.log(row[key] / before[key]) / ratio
                row[f"{key}_slope"] = slope


@pytest.fixture(scope="module")
def points():
    found = {
        "width": [machine.alone("growth", "width", n) for n in growth.WIDTHS],
        "depth": [machine.alone("growth", "depth", n) for n in growth.DEPTHS],
    }
    for rows in found.values():
        exponents(rows)
    return found


def test_width(points, keep):
    columns = [
        Column("size", "width"),
        Column("matrix", "matrix, MiB", TIMES),
        Column("seconds", "seconds", TIMES),
        Column("seconds_slope", "grows as width to the", TIMES),
        Column("mebibytes", "memory, MiB", TIMES),
        Column("mebibytes_slope", "grows as width to the", TIMES),
    ]
    title = "One square float32 matrix, `linalg.spectrum`"
    keep(Table(title, columns, points["width"], [NOTE]), "growth_width")


def test_depth(points, keep):
    columns = [
        Column("size", "matrices"),
        Column("matrix", "weights, MiB", TIMES),
        Column("seconds", "seconds", TIMES),
        Column("seconds_slope", "grows as depth to the", TIMES),
        Column("mebibytes", "memory, MiB", TIMES),
        Column("finding", "`weight_matrices`, s", TIMES),
    ]
    title = f"Dense layers of {growth.SIDE} x {growth.SIDE}, `linalg.spectra`"
    keep(Table(title, columns, points["depth"], [NOTE]), "growth_depth")


def test_plot(points):
    pyplot = pytest.importorskip("matplotlib.pyplot")
    figure, axes = pyplot.subplots(1, 2, figsize=(9, 3.6), layout="tight")
    for axis, (name, unit) in zip(
        axes,
        (("width", "width of a square matrix"), ("depth", "matrices")),
        strict=True,
    ):
        rows = points[name]
        sizes = [row["size"] for row in rows]
        axis.loglog(sizes, [r["seconds"] for r in rows], "o-", label="seconds")
        axis.loglog(
            sizes,
            [max(r["mebibytes"], 1e-2) / 1024 for r in rows],
            "s--",
            label="memory, GiB",
        )
        power = 3 if name == "width" else 1
        last = rows[-1]
        axis.loglog(
            sizes,
            [last["seconds"] * (n / last["size"]) ** power for n in sizes],
            ":",
            color="grey",
            label=f"{name}$^{power}$" if power > 1 else name,
        )
        make_logarithmic(axis.xaxis, sizes)
        axis.set_xlabel(unit)
        axis.legend()
    results.DIRECTORY.mkdir(exist_ok=True)
    figure.savefig(results.DIRECTORY / "growth.png", dpi=120)
    pyplot.close(figure)
    assert (results.DIRECTORY / "growth.png").stat().st_size > 0
