"""The weight matrices that are measured: whole networks, as kernel shapes.

Shapes alone, so that a process that times one library needs no model of
another; `tests/test_benchmarks.py` holds them to the networks themselves.
"""

import dataclasses
import itertools
import math

import numpy as np


@dataclasses.dataclass(frozen=True)
class Kernel:
    """A kernel as Keras stores it: its inputs first, its outputs last."""

    name: str
    shape: tuple[int, ...]
    embedding: bool = False  # which torch stores as Keras does, rows first

    @property
    def matrix_shape(self) -> tuple[int, int]:
        return math.prod(self.shape[:-1]), self.shape[-1]


def mlp(inputs: int = 3072, depth: int = 10, width: int = 100, classes=10):
    """MLP-BN-`depth`-`width`, by default on CIFAR-10."""
    sizes = [inputs, *[width] * depth]
    hidden = itertools.pairwise(sizes)
    return [
        *(Kernel(f"hidden_{i}", shape) for i, shape in enumerate(hidden)),
        Kernel("classifier", (width, classes)),
    ]


def resnet18(width: int = 64, classes: int = 10):
    """ResNet-18 for images of 32 x 32: the convolutions and the classifier."""
    kernels = [Kernel("conv_0", (3, 3, 3, width))]
    index, channels = 1, width
    for stage in range(4):
        filters = width * 2**stage
        for block in range(2):
            kernels += [
                Kernel(f"conv_{index}", (3, 3, channels, filters)),
                Kernel(f"conv_{index + 1}", (3, 3, filters, filters)),
            ]
            if stage and not block:
                shape = (1, 1, channels, filters)
                kernels.append(Kernel(f"shortcut_{index}", shape))
            index, channels = index + 2, filters
    return [*kernels, Kernel("classifier", (channels, classes))]


def vgg16(classes: int = 10):
    """VGG-16-BN for images of 32 x 32, with one Dense layer."""
    widths = [64] * 2 + [128] * 2 + [256] * 3 + [512] * 6
    sizes = zip([3, *widths], widths, strict=False)
    return [
        *(Kernel(f"conv_{i}", (3, 3, *pair)) for i, pair in enumerate(sizes)),
        Kernel("classifier", (512, classes)),
    ]


def vit_small(width: int = 384, depth: int = 12, patch: int = 16):
    """ViT-S/16 for images of 224 x 224."""
    blocks = [
        Kernel(f"{name}_{block}", shape)
        for block in range(depth)
        for name, shape in [
            *((part, (width, width)) for part in ("query", "key", "value")),
            ("attention", (width, width)),
            ("dense_0", (width, 4 * width)),
            ("dense_1", (4 * width, width)),
        ]
    ]
    return [
        Kernel("patches", (patch, patch, 3, width)),
        Kernel("positions", ((224 // patch) ** 2, width), embedding=True),
        *blocks,
        Kernel("classifier", (width, 1000)),
    ]


def gpt2_small(width: int = 768, depth: int = 12):
    """GPT-2 small: embeddings, and four kernels a block."""
    blocks = [
        Kernel(f"{name}_{block}", shape)
        for block in range(depth)
        for name, shape in [
            ("attention", (width, 3 * width)),
            ("projection", (width, width)),
            ("dense_0", (width, 4 * width)),
            ("dense_1", (4 * width, width)),
        ]
    ]
    return [
        Kernel("tokens", (50257, width), embedding=True),
        Kernel("positions", (1024, width), embedding=True),
        *blocks,
    ]


SETS = {
    "MLP-BN-10-100": mlp(),
    "ResNet-18": resnet18(),
    "VGG-16-BN": vgg16(),
    "ViT-S/16": vit_small(),
    "GPT-2 small": gpt2_small(),
    # No network of ours has short sides above 1024.
    "wide": [
        Kernel("dense_0", (1536, 1536)),
        Kernel("dense_1", (2048, 2048)),
    ],
}

EMBEDDINGS = {
    kernel.matrix_shape
    for kernels in SETS.values()
    for kernel in kernels
    if kernel.embedding
}

KINDS = ("random", "long tail")


def counts(name: str) -> dict[tuple[int, int], int]:
    """How many matrices of each shape a set has."""
    found: dict[tuple[int, int], int] = {}
    for kernel in SETS[name]:
        shape = kernel.matrix_shape
        found[shape] = found.get(shape, 0) + 1
    return found


def random_matrix(shape, seed: int) -> np.ndarray:
    """As torch begins: uniform within one over the root of the inputs."""
    rng = np.random.default_rng((seed, *shape))
    bound = math.prod(shape[:-1]) ** -0.5
    return rng.uniform(-bound, bound, shape).astype(np.float32)


def long_tailed(kernel: np.ndarray) -> np.ndarray:
    """The same, with the small singular values that decay leaves."""
    matrix = kernel.reshape(-1, kernel.shape[-1])
    left, values, right = np.linalg.svd(matrix, full_matrices=False)
    values = values[0] * np.geomspace(1, 1e-5, len(values))
    return (left * values @ right).astype(np.float32).reshape(kernel.shape)


def kernels(name: str, kind: str = "random") -> list[np.ndarray]:
    """All kernels of a set, `"random"` or with a `"long tail"`."""
    made = [
        random_matrix(kernel.shape, seed)
        for seed, kernel in enumerate(SETS[name])
    ]
    return made if kind == "random" else [long_tailed(one) for one in made]


def as_matrix(kernel: np.ndarray) -> np.ndarray:
    """A kernel as `weight_matrices` reads it."""
    return kernel.reshape(-1, kernel.shape[-1])
