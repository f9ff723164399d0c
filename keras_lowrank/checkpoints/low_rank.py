"""Kernels that are stored as two factors, by our own low-rank layers."""

from collections.abc import Callable
from typing import Any

from keras_lowrank.checkpoints.hdf5 import kind_of
from keras_lowrank.checkpoints.hdf5 import reader
from keras_lowrank.checkpoints.keras_tree import Node
from keras_lowrank.checkpoints.stored import StoredTensor
from keras_lowrank.linalg import Product
from keras_lowrank.linalg import host_array
from keras_lowrank.matricize import Matricization
from keras_lowrank.matricize import Skip

# What they call the kernel that their factors make, where that is a matrix.
KERNELS = {"LowRankDense": "kernel", "LowRankEmbedding": "embeddings"}

NOT_READ = Skip(
    "factor of a kernel that only its layer puts together: measure the loaded "
    "model",
    unsupported=True,
)


def is_low_rank(config: Any) -> bool:
    """Whether a config is that of a low-rank layer of this library."""
    name = config.get("registered_name") if isinstance(config, dict) else None
    return isinstance(name, str) and name.startswith("keras_lowrank>LowRank")


def product_tensor(
    node: Node, class_name: str | None, prefix: str
) -> StoredTensor | None:
    """The kernel that a low-rank layer applies, made of its two factors.

    Args:
        node: `Node` of the layer.
        class_name: String, its class.
        prefix: String, what the names of its variables begin with.

    Returns:
        A `StoredTensor` that is read as a `linalg.Product`, or `None` for a
        layer whose kernel is no product of two matrices.
    """
    name = KERNELS.get(class_name or "")
    factors = [
        node.children[key].variables["0"]
        for key in ("reduce", "expand")
        if key in node.children and "0" in node.children[key].variables
    ]
    if name is None or len(factors) != 2:
        return None
    left, right = (tuple(factor.shape or ()) for factor in factors)
    dtypes = [kind_of(factor) for factor in factors]
    whole = len(left) == len(right) == 2 and left[1] == right[0]
    if not whole or not all("float" in dtype for dtype in dtypes):
        return None
    reads = [
        reader(factor, dtype)
        for factor, dtype in zip(factors, dtypes, strict=True)
    ]
    return StoredTensor(
        prefix + name,
        (left[0], right[1]),
        dtypes[0],
        _product(reads),
        Matricization(rows=(0,), columns=(1,)),
        class_name,
        f"{node.path}/reduce/vars/0",
        f"rank {left[1]}",
    )


def _product(reads) -> Callable[[], Product]:
    return lambda: Product(*(host_array(read()) for read in reads))
