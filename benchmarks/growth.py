"""How time and memory grow, each point in a process of its own.

    python -m benchmarks.growth width N
    python -m benchmarks.growth depth N

prints one line of JSON: seconds, and how many MiB the process holds at its
peak beyond what it held before.
"""

import json
import pathlib
import resource
import sys
import time

import numpy as np

from benchmarks import machine
from benchmarks.matrices import random_matrix

WIDTHS = (256, 512, 1024, 2048, 4096, 8192)
DEPTHS = (10, 30, 100, 300, 1000)
SIDE = 256  # of the matrices of a deep network
ROUNDS = 3
STATUS = pathlib.Path("/proc/self/status")
RESET = pathlib.Path("/proc/self/clear_refs")
LONG = 10.0  # seconds, above which once is enough


def forget_peak() -> None:
    """Let the peak begin anew, where the system can (Linux)."""
    if RESET.exists():
        RESET.write_text("5")


def mebibytes(key: str) -> float:
    """What the process holds (`VmRSS`), or held at its peak (`VmHWM`)."""
    if not STATUS.exists():  # not Linux, where only the peak is known
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak / (2**20 if sys.platform == "darwin" else 2**10)
    for line in STATUS.read_text().splitlines():
        if line.startswith(key):
            return int(line.split()[1]) / 2**10
    raise KeyError(f"{STATUS} has no line {key!r}.")


def measured(function) -> dict:
    """The least seconds of a few calls, and the memory at their peak."""
    forget_peak()
    before = mebibytes("VmRSS")
    seconds = []
    while not seconds or (len(seconds) < ROUNDS and seconds[-1] < LONG):
        began = time.perf_counter()
        function()
        seconds.append(time.perf_counter() - began)
    return {
        "seconds": min(seconds),
        "mebibytes": mebibytes("VmHWM") - before,
    }


def width(size: int) -> dict:
    """One square matrix."""
    from keras_lowrank import linalg

    # The same layout of calls, so that what is loaded once is loaded.
    linalg.spectrum(random_matrix((64, 64), 0))
    matrix = np.random.default_rng(0).standard_normal(
        (size, size), dtype=np.float32
    )
    return {
        "size": size,
        "matrix": matrix.nbytes / 2**20,
        **measured(lambda: linalg.spectrum(matrix)),
    }


def depth(count: int) -> dict:
    """A network of many small matrices: to find them, and to measure them."""
    import keras

    from keras_lowrank import linalg
    from keras_lowrank import weight_matrices

    # Keras walks the graph of a model by calls within calls.
    sys.setrecursionlimit(20 * count + 1000)
    model = keras.Sequential(
        [
            keras.Input((SIDE,)),
            *(keras.layers.Dense(SIDE) for _ in range(count)),
        ]
    )
    linalg.spectrum(random_matrix((64, 64), 0))
    began = time.perf_counter()
    found = weight_matrices(model)
    finding = time.perf_counter() - began

    def run():
        variables = [weight.variable for weight in found]
        for _ in linalg.spectra(variables):
            pass

    return {
        "size": count,
        "matrix": count * SIDE**2 * 4 / 2**20,
        "finding": finding,
        **measured(run),
    }


def main(command: str, size: str) -> None:
    machine.hold_to_one_core()
    found = width(int(size)) if command == "width" else depth(int(size))
    print(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
