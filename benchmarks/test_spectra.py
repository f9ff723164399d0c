"""What exact spectra cost, against the ways they are taken elsewhere.

`make bench` runs this. The ratio of a row to another is the result; both are
taken in one process, with BLAS and torch held to one thread on either side.
"""

import statistics
import time

import numpy as np
import pytest
import threadpoolctl

from keras_lowrank import linalg

# The kernels of ResNet-18 that the paper tracks, as (window * input, output).
RESNET_18 = (
    [(27, 64)]
    + [(576, 64)] * 4
    + [(576, 128)]
    + [(1152, 128)] * 3
    + [(1152, 256)]
    + [(2304, 256)] * 3
    + [(2304, 512)]
    + [(4608, 512)] * 3
)


def random_kernels():
    rng = np.random.default_rng(0)
    return [
        rng.uniform(-1, 1, size=shape).astype(np.float32) / shape[0] ** 0.5
        for shape in RESNET_18
    ]


def trained_like(kernels):
    """The same, with the long tail of small values that decay leaves."""
    changed = []
    for kernel in kernels:
        left, values, right = np.linalg.svd(kernel, full_matrices=False)
        values = values[0] * np.geomspace(1, 1e-5, len(values))
        changed.append((left * values @ right).astype(np.float32))
    return changed


def ours(kernels):
    return [spectrum.values for spectrum in linalg.spectra(kernels)]


def numpy_svd(kernels):
    return [np.linalg.svd(kernel, compute_uv=False) for kernel in kernels]


def paper(kernels):
    """Two decompositions of each matrix, of its wide view."""
    import torch

    found = []
    for kernel in kernels:
        wide = torch.from_numpy(kernel).T
        torch.linalg.matrix_rank(wide / torch.norm(wide), tol=1e-3)
        found.append(torch.linalg.svdvals(wide))
    return found


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    torch = pytest.importorskip("torch")
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    with threadpoolctl.threadpool_limits(1):
        yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("route", [ours, numpy_svd, paper])
@pytest.mark.parametrize("kind", ["random", "trained-like"])
def test_resnet_18(benchmark, route, kind):
    kernels = random_kernels()
    if kind == "trained-like":
        kernels = trained_like(kernels)
    benchmark.group = f"ResNet-18, {kind}"
    benchmark.pedantic(route, (kernels,), rounds=5, warmup_rounds=1)


def test_ours_is_faster_than_the_paper_s_way():
    kernels = random_kernels()
    ratios = []
    for _ in range(3):
        seconds = []
        for route in (ours, paper):
            began = time.perf_counter()
            route(kernels)
            seconds.append(time.perf_counter() - began)
        ratios.append(seconds[1] / seconds[0])
    assert statistics.median(ratios) > 5
