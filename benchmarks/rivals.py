"""The ways to singular values that ours is timed against.

A *side* is a function of matrices, oriented as Keras stores them, that makes
ready what is given (a conversion, a transposition, a compilation) and returns
a function without arguments, which is timed and gives the singular values.
Only ours is handed the tensors of the library as they are.
"""

from collections.abc import Callable
from collections.abc import Sequence

import numpy as np

from benchmarks.matrices import EMBEDDINGS
from benchmarks.matrices import as_matrix

LIBRARIES = ("numpy", "scipy", "torch", "jax", "tensorflow")
BACKENDS = {"numpy": "jax", "scipy": "jax"}  # of Keras, where it is another

Side = Callable[[Sequence[np.ndarray]], Callable[[], list]]


def tall(matrix: np.ndarray) -> np.ndarray:
    """The orientation that LAPACK is fastest with, contiguous."""
    rows, columns = matrix.shape
    return np.ascontiguousarray(matrix if rows >= columns else matrix.T)


def tensor_of(library: str) -> Callable:
    """From NumPy to a tensor of the library."""
    if library == "torch":
        import torch

        return torch.tensor
    if library == "jax":
        import jax.numpy as jnp

        return jnp.array
    if library == "tensorflow":
        import tensorflow as tf

        return tf.constant
    return np.array


def ours(library: str) -> Side:
    """`keras_lowrank.linalg.spectra` of tensors of the library."""
    from keras_lowrank import linalg

    tensor = tensor_of(library)

    def prepare(matrices):
        tensors = [tensor(matrix) for matrix in matrices]
        return lambda: [one.values for one in linalg.spectra(tensors)]

    return prepare


def per_matrix(tensor: Callable, values: Callable) -> Side:
    """A side that takes tall tensors one by one."""

    def prepare(matrices):
        tensors = [tensor(tall(matrix)) for matrix in matrices]
        return lambda: [np.asarray(values(one)) for one in tensors]

    return prepare


def calls(library: str) -> dict[str, Side]:
    """The best calls of a library for singular values, by name.

    Its singular value decomposition without vectors, in float32; and, called
    `gram64`, what we do ourselves, written down in that library by hand.
    """
    return _CALLS[library]()


def _numpy() -> dict[str, Side]:
    def gram64(matrix):
        wide = matrix.astype(np.float64)
        return np.sqrt(np.abs(np.linalg.eigvalsh(wide.T @ wide)))[::-1]

    def svd(matrix):
        return np.linalg.svd(matrix, compute_uv=False)

    return {
        "numpy.linalg.svd": per_matrix(np.array, svd),
        "numpy gram64": per_matrix(np.array, gram64),
    }


def _scipy() -> dict[str, Side]:
    import scipy.linalg
    from scipy.linalg.blas import dsyrk

    def svdvals(matrix):
        return scipy.linalg.svdvals(matrix, check_finite=False)

    def gram64(matrix):
        # Of the transpose, whose columns lie as BLAS wants them.
        gram = dsyrk(1.0, matrix.T.astype(np.float64, order="F"), lower=1)
        values = scipy.linalg.eigvalsh(
            gram, driver="evd", overwrite_a=True, check_finite=False
        )
        return np.sqrt(np.abs(values))[::-1]

    return {
        "scipy.linalg.svdvals": per_matrix(np.array, svdvals),
        "scipy gram64": per_matrix(np.array, gram64),
    }


def _torch() -> dict[str, Side]:
    import torch

    torch.set_num_threads(1)

    def gram64(matrix):
        wide = matrix.double()
        values = torch.linalg.eigvalsh(wide.T @ wide)
        return values.abs().sqrt().flip(0)

    return {
        "torch.linalg.svdvals": per_matrix(torch.tensor, torch.linalg.svdvals),
        "torch gram64": per_matrix(torch.tensor, gram64),
        "keras.ops.svd on torch": per_matrix(torch.tensor, _keras_svd()),
    }


def _jax() -> dict[str, Side]:
    import jax
    import jax.numpy as jnp

    @jax.jit
    def svd(matrix):
        return jnp.linalg.svd(matrix, compute_uv=False)

    @jax.jit
    def gram64_of(matrix):
        wide = matrix.astype(jnp.float64)
        return jnp.sqrt(jnp.abs(jnp.linalg.eigvalsh(wide.T @ wide)))[::-1]

    def gram64(matrix):
        with jax.enable_x64(True):
            return np.asarray(gram64_of(matrix))

    return {
        "jax.numpy.linalg.svd": per_matrix(jnp.array, svd),
        "jax gram64": per_matrix(jnp.array, gram64),
        "keras.ops.svd on jax": per_matrix(jnp.array, _keras_svd()),
    }


def _tensorflow() -> dict[str, Side]:
    import tensorflow as tf

    def svd(matrix):
        return tf.linalg.svd(matrix, compute_uv=False)

    def gram64(matrix):
        wide = tf.cast(matrix, tf.float64)
        gram = tf.matmul(wide, wide, transpose_a=True)
        return tf.sqrt(tf.abs(tf.linalg.eigvalsh(gram)))[::-1]

    return {
        "tf.linalg.svd": per_matrix(tf.constant, svd),
        "tensorflow gram64": per_matrix(tf.constant, gram64),
        "keras.ops.svd on tensorflow": per_matrix(tf.constant, _keras_svd()),
    }


def _keras_svd():
    from keras import ops

    return lambda matrix: ops.svd(matrix, compute_uv=False)


_CALLS: dict[str, Callable[[], dict[str, Side]]] = {
    "numpy": _numpy,
    "scipy": _scipy,
    "torch": _torch,
    "jax": _jax,
    "tensorflow": _tensorflow,
}


def paper(matrices):
    """The paper's code: two decompositions of each matrix, in torch.

    Of a kernel as torch stores it, outputs first (but for embeddings), it
    takes the rank of the normalised matrix and then its singular values.
    """
    import torch

    torch.set_num_threads(1)
    stored = [torch.tensor(_as_torch_stores(matrix)) for matrix in matrices]

    def run():
        found = []
        for matrix in stored:
            torch.linalg.matrix_rank(matrix / torch.norm(matrix), tol=1e-3)
            found.append(torch.linalg.svdvals(matrix).numpy())
        return found

    return run


def _as_torch_stores(matrix: np.ndarray) -> np.ndarray:
    if matrix.shape in EMBEDDINGS:
        return matrix
    return np.ascontiguousarray(matrix.T)


def gram_products(matrices):
    """The bare float64 Gram products of the short sides: half of the floor.

    The values are the traces, which hold the squares of all singular values.
    """
    wides = [tall(matrix).astype(np.float64) for matrix in matrices]
    return lambda: [np.trace(wide.T @ wide) for wide in wides]


def reduction_flop(matrices) -> float:
    """4/3 n^3 for each: what its eigenvalues take at the least."""
    return sum(4 / 3 * min(matrix.shape) ** 3 for matrix in matrices)


def weight_watcher(kernels):
    """`WeightWatcher.analyze` of the same weights, as layers of torch."""
    import logging

    import torch
    import weightwatcher

    torch.set_num_threads(1)
    logging.disable(logging.WARNING)  # it warns of each layer it leaves out
    layers = [_layer(kernel) for kernel in kernels]
    watcher = weightwatcher.WeightWatcher(model=torch.nn.Sequential(*layers))
    return lambda: watcher.analyze()


def _layer(kernel: np.ndarray):
    import torch

    values = torch.tensor(kernel)
    if kernel.ndim == 4:
        height, width, inputs, outputs = kernel.shape
        layer = torch.nn.Conv2d(inputs, outputs, (height, width), bias=False)
        values = values.permute(3, 2, 0, 1)
    else:
        layer = torch.nn.Linear(*kernel.shape, bias=False)
        values = values.T
    with torch.no_grad():
        layer.weight.copy_(values)
    return layer


def matrices_of(kernels) -> list[np.ndarray]:
    return [as_matrix(kernel) for kernel in kernels]
