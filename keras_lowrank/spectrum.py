"""The one value that travels through the library."""

import dataclasses
from typing import Any

import numpy as np


@dataclasses.dataclass(frozen=True, eq=False)
class Spectrum:
    """Singular values of one matrix, with the shape of that matrix.

    Every measure takes a `Spectrum`, so the question "singular values or
    eigenvalues, sorted which way?" is answered once, here: singular values,
    largest first, never squared.

    Args:
        values: Singular values of shape `(k,)`, largest first, never squared:
            a NumPy float64 array, or a tensor where a regularizer wants
            gradients. All NaN when the matrix held a non-finite entry.
        shape: Tuple of two ints, the shape `(m, n)` of the matrix. `k` is
            `min(m, n)`; for a block-diagonal matrix (a grouped convolution
            seen as one) it may be smaller, and the missing values are zero.
        resolution: Float, absolute and in the units of `values`. Values at or
            below it are not told apart from zero by the method that computed
            them. `0.0` means that every value counts.
        reason: String that says why `values` are NaN, or `None`.

    Example:

    >>> spectrum = Spectrum([3.0, 2.0, 1e-12], shape=(3, 5), resolution=3e-7)
    >>> spectrum.resolved
    array([ True,  True, False])
    """

    values: Any
    shape: tuple[int, int]
    resolution: float = 0.0
    reason: str | None = None

    def __post_init__(self):
        if isinstance(self.values, (list, tuple)):
            object.__setattr__(self, "values", np.asarray(self.values, float))
        shape = tuple(int(size) for size in self.shape)
        object.__setattr__(self, "shape", shape)
        if len(shape) != 2 or min(shape) < 0:
            raise ValueError(
                "`shape` must be the shape (m, n) of a matrix. "
                f"Received: shape={self.shape}."
            )
        if len(self.values.shape) != 1 or self.values.shape[0] > min(shape):
            raise ValueError(
                "`values` must be one-dimensional, with at most min(shape) "
                f"entries. Received: values of shape "
                f"{tuple(self.values.shape)} for a matrix of shape {shape}."
            )
        if isinstance(self.values, np.ndarray):
            self._check_order()

    def _check_order(self):
        values = self.values
        ordered = (values[1:] <= values[:-1]).all()
        positive = not values.size or values[-1] >= 0
        if not (ordered and positive) and self.finite:
            raise ValueError(
                "`values` must be singular values: none negative, largest "
                f"first. Received: values={values}. Sort them with "
                "`np.sort(values)[::-1]`; take the square root first if "
                "they are eigenvalues of a Gram matrix."
            )

    @property
    def xp(self):
        """Namespace to compute with: `numpy`, or `keras.ops` for tensors."""
        if isinstance(self.values, np.ndarray):
            return np
        from keras import ops

        return ops

    @property
    def finite(self) -> bool:
        """Whether the matrix was finite, so that measures mean something."""
        return bool(np.isfinite(self.values).all())

    @property
    def zero(self) -> bool:
        """Whether every singular value is zero."""
        return not np.any(self.values)

    @property
    def resolved(self):
        """Mask of shape `(k,)`: which values lie above the resolution."""
        return self.values > self.resolution

    def __repr__(self):
        rows, columns = self.shape
        return (
            f"<Spectrum of a {rows} x {columns} matrix: "
            f"{self.reason or np.array2string(self.values[:4], precision=4)}"
            f"{', ...' if self.values.shape[0] > 4 and self.finite else ''}>"
        )
