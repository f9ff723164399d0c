"""A matrix as the product of two factors, never formed."""

import dataclasses

import numpy as np


@dataclasses.dataclass(frozen=True, eq=False)
class Product:
    """A matrix that is kept as the product of two factors.

    Its spectrum is computed without forming it: the factors are reduced to
    their triangles by QR, whose small product has the same singular values.

    Args:
        left: NumPy array of shape `(m, r)`, or `(b, m, r)` for the blocks of
            a block-diagonal matrix.
        right: NumPy array of shape `(r, n)`, or `(b, r, n)`.

    Example:

    >>> from keras_lowrank.linalg import spectrum
    >>> product = Product(np.array([[3.0], [4.0]]), np.array([[2.0, 0.0]]))
    >>> spectrum(product)
    <Spectrum of a 2 x 2 matrix: [10.]>
    """

    left: np.ndarray
    right: np.ndarray

    def __post_init__(self):
        left, right = self.left.shape, self.right.shape
        fits = len(left) == len(right) and len(left) in (2, 3)
        if not fits or (*left[:-2], left[-1]) != right[:-1]:
            raise ValueError(
                "A product has factors of shapes (m, r) and (r, n), or "
                f"(b, m, r) and (b, r, n). Received: {left} and {right}."
            )

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape `(m, n)` or `(b, m, n)`."""
        return (*self.left.shape[:-1], self.right.shape[-1])

    def to_numpy(self) -> np.ndarray:
        """The matrix, multiplied in float64, as float32 where both were."""
        array = self.left.astype(np.float64) @ self.right.astype(np.float64)
        return array.astype(np.result_type(self.left, self.right))
