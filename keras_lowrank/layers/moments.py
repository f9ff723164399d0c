"""Sums of outer products of features, in double precision, on the device.

Beside `linalg` and `gradients.autodiff` the one file that knows backends. A
sum of outer products squares the features, so float32 would blur every
singular value below 1e-4 of the largest: the sums are float64 throughout.
"""

import hashlib

import keras
import numpy as np
from keras import ops

from keras_lowrank import linalg
from keras_lowrank.spectrum import Spectrum

# JAX has no float64 variables unless a global setting is changed, so a number
# is kept there as three of float32, which hold its 53 bits as 24, 24 and 5.
PARTS = 3


class Moments:
    """Sum of outer products, sum and count of feature vectors, in one pass.

    Args:
        size: Int, the length `d` of a feature vector.

    Attributes:
        variables: List of the Keras variables that hold the sums, of shapes
            `(d, d)`, `(d,)` and `()`: float64, or on JAX float32 with an axis
            of length 3 in front.
    """

    def __init__(self, size: int):
        self.size = size
        self.variables = [
            _make_variable(name, shape)
            for name, shape in (
                ("outer", (size, size)),
                ("total", (size,)),
                ("count", ()),
            )
        ]
        self._known: tuple[str, bool, Spectrum] | None = None

    def add(self, features, valid=None) -> None:
        """Add the rows of a batch.

        Args:
            features: Tensor of shape `(n, d)`, of any real dtype.
            valid: Boolean tensor of shape `(n,)`, which rows count; all by
                default.
        """
        with linalg.float64():
            wide = ops.cast(features, "float64")
            if valid is None:
                count = ops.cast(ops.shape(wide)[0], "float64")
            else:
                # Not a product: what is left out may be NaN.
                wide = ops.where(valid[:, None], wide, ops.zeros_like(wide))
                count = ops.sum(ops.cast(valid, "float64"))
            added = (
                # `ops.matmul` would give float32 on torch.
                ops.transpose(wide) @ wide,
                ops.sum(wide, axis=0),
                count,
            )
            sums = [
                _split(_whole(variable) + more)
                for variable, more in zip(self.variables, added, strict=True)
            ]
        for variable, value in zip(self.variables, sums, strict=True):
            variable.assign(value)

    def reset(self) -> None:
        """Begin anew."""
        for variable in self.variables:
            variable.assign(ops.zeros(variable.shape, variable.dtype))

    @property
    def samples(self) -> int:
        """How many feature vectors have been added since the last reset."""
        return int(_read(self.variables[2]))

    def spectrum(self, centered: bool) -> Spectrum:
        """Singular values of the matrix of all features, computed on the host.

        Args:
            centered: Boolean, whether the mean is taken off first.

        Returns:
            A `Spectrum` of a matrix of shape `(samples, d)`.
        """
        sums = [_read(variable) for variable in self.variables]
        digest = hashlib.blake2b(
            b"".join(one.tobytes() for one in sums)
        ).hexdigest()
        if self._known is not None and self._known[:2] == (digest, centered):
            # Asked for each measure, and by a tracker after Keras.
            return self._known[2]
        outer, total, count = sums
        noise = 0.0
        if centered and count:
            outer = outer - np.outer(total, total / count)
            noise = float(np.sqrt(total @ total / count))
        found = linalg.gram_spectrum(outer, int(count), noise)
        self._known = (digest, centered, found)
        return found


def _make_variable(name: str, shape: tuple[int, ...]):
    on_jax = keras.backend.backend() == "jax"
    return keras.Variable(
        "zeros",
        shape=(PARTS, *shape) if on_jax else shape,
        dtype="float32" if on_jax else "float64",
        trainable=False,
        autocast=False,
        # Each replica adds its own samples, as those of Keras' metrics do.
        aggregation="sum",
        synchronization="on_read",
        name=name,
    )


def _whole(variable):
    """The value of a variable as one float64 tensor."""
    value = ops.cast(variable.value, "float64")
    if keras.backend.backend() != "jax":
        return value
    return value[0] + value[1] + value[2]


def _split(value):
    """What a variable keeps of a float64 tensor, without loss."""
    if keras.backend.backend() != "jax":
        return value
    parts = []
    for _ in range(PARTS):
        parts.append(ops.cast(value, "float32"))
        value = value - ops.cast(parts[-1], "float64")
    return ops.stack(parts)


def _read(variable) -> np.ndarray:
    """The value of a variable as float64 on the host."""
    array = linalg.host_array(variable).astype(np.float64)
    if keras.backend.backend() != "jax":
        return array
    return array[0] + array[1] + array[2]
