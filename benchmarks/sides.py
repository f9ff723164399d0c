"""Times sides of a ratio in turn, in a process of its own.

    python -m benchmarks.sides shapes torch [SET ...]
    python -m benchmarks.sides whole SET KIND
    python -m benchmarks.sides profile SET

prints one line of JSON: seconds of each side, medians, and their ratios to
ours, round by round, so that whatever slows the machine slows both.
"""

import json
import statistics
import sys
import time

import numpy as np

from benchmarks import checkpoints
from benchmarks import machine
from benchmarks import matrices
from benchmarks import rivals

LEAST_ROUNDS, MOST_ROUNDS = 3, 15
BUDGET = 2.0  # seconds for the rounds of one comparison, beyond the least
LONG = 5.0  # seconds of a round that is made no more than twice
LEAST_SECONDS = 5e-3  # of one side of a small matrix, which is repeated
MOST_COPIES = 50
NOT_SPECTRA = ("gram products", "weightwatcher")


def seconds_of(function) -> float:
    began = time.perf_counter()
    function()
    return time.perf_counter() - began


def in_turn(sides: dict) -> dict[str, list[float]]:
    """Seconds of each side by round, one side after another in each.

    Every side must have run before: the first time loads and compiles.
    """
    taken: dict[str, list[float]] = {name: [] for name in sides}
    began = time.perf_counter()
    for index in range(MOST_ROUNDS):
        spent = time.perf_counter() - began
        if index >= LEAST_ROUNDS and spent > BUDGET:
            break
        if index >= 2 and spent > 2 * LONG:
            break
        for name, function in sides.items():
            taken[name].append(seconds_of(function))
    return taken


def summary(taken: dict[str, list[float]], copies: int = 1) -> dict:
    """Median seconds of each side, and of its ratio to ours."""
    return {
        name: {
            "seconds": statistics.median(seconds) / copies,
            "ratio": statistics.median(
                theirs / mine
                for theirs, mine in zip(seconds, taken["ours"], strict=True)
            ),
        }
        for name, seconds in taken.items()
    }


def product_rate(size: int = 1024) -> float:
    """Multiplications and additions a second of a float64 product."""
    square = np.ones((size, size))
    other = square + 1
    square @ other
    return (
        2 * size**3 / min(seconds_of(lambda: square @ other) for _ in "12345")
    )


def warm(sides: dict) -> dict[str, list]:
    """What each side gives when it runs for the first time."""
    return {name: function() for name, function in sides.items()}


def check(found: dict[str, list], expected: list) -> None:
    """All sides must have computed the same, to what float32 can say."""
    for name, spectra in found.items():
        if name not in NOT_SPECTRA:
            _check(name, spectra, expected)


def _check(name: str, spectra: list, expected: list) -> None:
    for values, reference in zip(spectra, expected, strict=True):
        scale = reference[0]
        if not np.allclose(values / scale, reference / scale, atol=1e-4):
            raise AssertionError(f"{name} has other singular values")


def shapes(library: str, sets) -> list[dict]:
    """Every shape of the sets, by the calls of a library and by ours."""
    wanted = sorted({shape for name in sets for shape in matrices.counts(name)})
    known = {"ours": rivals.ours(library), **rivals.calls(library)}
    if library == "torch":
        known["paper"] = rivals.paper
    if library == "numpy":
        known["gram products"] = rivals.gram_products
    rows = []
    for shape in wanted:
        one = [matrices.random_matrix(shape, 0)]
        alone = known["ours"](one)
        alone()
        copies = int(LEAST_SECONDS / seconds_of(alone))
        copies = min(max(copies, 1), MOST_COPIES)
        given = [matrices.random_matrix(shape, i) for i in range(copies)]
        sides = {name: prepare(given) for name, prepare in known.items()}
        found = warm(sides)
        check(found, found["ours"])
        row = {"shape": shape, "sides": summary(in_turn(sides), copies)}
        told = {k: f"{v['seconds']:.3g}" for k, v in row["sides"].items()}
        print(shape, told, file=sys.stderr)
        if library == "numpy":
            row["reduction"] = rivals.reduction_flop(one) / product_rate()
        rows.append(row)
    return rows


def whole(name: str, kind: str) -> dict:
    """All matrices of a network at once: ours, the paper's, WeightWatcher."""
    if kind == "trained":
        kernels = checkpoints.kernels(name)
    else:
        kernels = matrices.kernels(name, kind)
    given = rivals.matrices_of(kernels)
    sides = {
        "ours": rivals.ours("torch")(given),
        "paper": rivals.paper(given),
        "gram products": rivals.gram_products(given),
    }
    if machine.installed("weightwatcher"):
        sides["weightwatcher"] = rivals.weight_watcher(kernels)
    found = warm(sides)
    check(found, found["ours"])
    taken = in_turn(sides)
    return {
        "sides": summary(taken),
        "reduction": rivals.reduction_flop(given) / product_rate(),
        "rounds": len(taken["ours"]),
        "matrices": len(given),
    }


def profile(name: str) -> dict:
    """Where the seconds of ours go, beside what the machine can do.

    The parts are timed bare, in turn with the whole; `rest` is what the whole
    takes beyond them: copies, checks, Python.
    """
    given = rivals.matrices_of(matrices.kernels(name))
    talls = [rivals.tall(matrix) for matrix in given]
    wides = [matrix.astype(np.float64) for matrix in talls]
    grams = [wide.T @ wide for wide in wides]
    parts = {
        "ours": rivals.ours("numpy")(given),
        "cast": lambda: [one.astype(np.float64) for one in talls],
        "product": lambda: [wide.T @ wide for wide in wides],
        "eigenvalues": lambda: [np.linalg.eigvalsh(g) for g in grams],
    }
    warm(parts)
    taken = in_turn(parts)
    flop = {
        "product": sum(len(one) * one.shape[1] ** 2 for one in wides),
        "eigenvalues": rivals.reduction_flop(given),
    }
    return {
        "seconds": {k: statistics.median(v) for k, v in taken.items()},
        "flop": flop,
        "rate": product_rate(),
        "bandwidth": bandwidth(),
    }


def bandwidth(size: int = 2048) -> float:
    """Bytes a second of a matrix-vector product, which half of the reduction
    to tridiagonal form consists of."""
    square, vector = np.ones((size, size)), np.ones(size)
    square @ vector
    best = min(seconds_of(lambda: square @ vector) for _ in range(10))
    return square.nbytes / best


def main(command: str, *arguments: str) -> None:
    machine.hold_to_one_core()
    if command == "shapes":
        library, *sets = arguments
        found = shapes(library, sets or list(matrices.SETS))
    elif command == "whole":
        found = whole(*arguments)
    else:
        found = profile(*arguments)
    print(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
