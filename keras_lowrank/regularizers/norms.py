"""Norms of a kernel as penalties."""

import keras
from keras import ops

from keras_lowrank import linalg
from keras_lowrank.measures import MEASURES
from keras_lowrank.measures import Measure
from keras_lowrank.measures import schatten_norm
from keras_lowrank.regularizers.penalty import SpectralRegularizer
from keras_lowrank.regularizers.penalty import check_strength
from keras_lowrank.spectrum import Spectrum


@keras.saving.register_keras_serializable(package="keras_lowrank")
class NuclearNorm(SpectralRegularizer):
    """Penalty `strength * ||W||_*`, the sum of the singular values.

    The convex surrogate of rank. Its gradient `strength * U_1 V_1^T` lowers
    all singular values alike, until they are zero, where it leaves them. With
    gradient steps they end up within `learning_rate * strength` of zero;
    `SingularValueThreshold` makes them zero.

    Args:
        strength: Float >= 0.
        method: `"auto"`, `"gram"`, `"svd"` or `"newton_schulz"`. The last, the
            polar factor, has the gradient to 3e-4 of itself where singular
            values are zero or above 2e-3 of the largest; those between count
            for less. On a CPU it took from half as long as `"gram"`
            (TensorFlow) to a third longer (JAX). See `SpectralRegularizer`.
        matricization: `Matricization` of the kernel, as for
            `SpectralRegularizer`.

    Example:

    >>> layer = keras.layers.Dense(3, kernel_regularizer=NuclearNorm(0.1))
    >>> layer.build((None, 2))
    >>> kernel = layer.kernel.assign([[3.0, 0.0, 0.0], [0.0, 4.0, 0.0]])
    >>> round(float(layer.losses[0]), 5)
    0.7

    Reference:
        [Watson, 1992](https://doi.org/10.1016/0024-3795(92)90407-2):
        the subgradients.
    """

    measure = MEASURES["nuclear_norm"]

    def spectrum_by_products(self, matrix):
        return _single(ops.sum(linalg.polar_factor(matrix) * matrix), matrix)


@keras.saving.register_keras_serializable(package="keras_lowrank")
class SchattenNorm(SpectralRegularizer):
    """Penalty `strength * (sum_i sigma_i^p)^(1/p)`.

    `p=1` is the nuclear norm, `p=2` the Frobenius norm, `p=inf` the spectral
    norm. Below 1 it is not convex, and pushes small singular values harder
    than large ones; values that are not told apart from zero are left there.

    Args:
        strength: Float >= 0.
        p: Float > 0, or `float("inf")`.
        method: `"auto"`, `"gram"`, `"svd"` or `"newton_schulz"`, which is
            there for whole numbers `p` and infinity: to float32 rounding for
            even ones, as for `NuclearNorm` for odd ones and as for
            `SpectralNorm` at infinity. It is what `"auto"` takes for 2 and 4.
        matricization: `Matricization` of the kernel, as for
            `SpectralRegularizer`.

    Raises:
        ValueError: for `p` out of range.

    Example:

    >>> kernel = np.diag([4.0, 3.0]).astype("float32")
    >>> round(float(SchattenNorm(1.0, p=2)(kernel)), 5)
    5.0
    """

    def __init__(self, strength, p=1.0, method="auto", matricization=None):
        super().__init__(strength, method, matricization)
        if not isinstance(p, (int, float)) or not p > 0:
            raise ValueError(
                f"`p` must be a number above 0, or infinity. Received: p={p!r}."
            )
        self.p = float(p)
        self.measure = Measure("schatten_norm", schatten_norm, {"p": self.p})
        self.exact_by_products = self.p in (2.0, 4.0)

    def spectrum_by_products(self, matrix):
        if self.p == float("inf"):
            return _single(_largest(matrix), matrix)
        if self.p != int(self.p):
            return None
        return _single(_whole_schatten(matrix, int(self.p)), matrix)

    def get_config(self):
        # JSON knows no infinity.
        p = "inf" if self.p == float("inf") else self.p
        return super().get_config() | {"p": p}

    @classmethod
    def from_config(cls, config):
        return cls(**config | {"p": float(config["p"])})


@keras.saving.register_keras_serializable(package="keras_lowrank")
class SpectralNorm(SpectralRegularizer):
    """Penalty `strength * sigma_1`, the largest singular value.

    Where several are largest, its gradient is the mean of their `u v^T`: all
    are lowered together.

    Args:
        strength: Float >= 0.
        method: `"auto"`, `"gram"`, `"svd"` or `"newton_schulz"`: the Gram
            matrix squared twelve times, to 1e-3 of the gradient where the
            largest value is above the next by 1e-3 of itself; between 1e-3
            and 1e-5 the next ones take part by degrees.
        matricization: `Matricization` of the kernel, as for
            `SpectralRegularizer`.

    Example:

    >>> kernel = np.diag([4.0, 3.0]).astype("float32")
    >>> round(float(SpectralNorm(0.5)(kernel)), 5)
    2.0

    Reference:
        [Yoshida & Miyato, 2017](https://arxiv.org/abs/1705.10941), for the
        squared norm.
    """

    measure = MEASURES["spectral_norm"]

    def spectrum_by_products(self, matrix):
        return _single(_largest(matrix), matrix)


@keras.saving.register_keras_serializable(package="keras_lowrank")
class SquaredFrobeniusNorm(keras.regularizers.L2):
    """Penalty `strength * ||W||_F^2`, the paper's `lambda ||W||^2`.

    The sum of the squares of all entries, and so of all singular values: what
    `keras.regularizers.L2(strength)` is, computed in float32 at least. One
    step of SGD takes `2 * learning_rate * strength` of a weight; see
    `convert_weight_decay` for the other names of it. In a low-rank layer it is
    the norm of the product, Frobenius decay.

    Args:
        strength: Float >= 0, the paper's lambda. Of a weight decay `w` in
            torch's convention it is half.

    Example:

    >>> kernel = np.array([[3.0, 4.0]], "float32")
    >>> float(SquaredFrobeniusNorm(2.0)(kernel))
    50.0

    Reference:
        [Galanti et al., CPAL 2025](https://arxiv.org/abs/2206.05794),
        equation (1)
    """

    def __init__(self, strength):
        super().__init__(check_strength(strength))
        self.strength = float(strength)

    def __call__(self, kernel):
        kernel = ops.convert_to_tensor(kernel)
        if keras.backend.standardize_dtype(kernel.dtype) != "float64":
            kernel = ops.cast(kernel, "float32")
        return super().__call__(kernel)

    def of_product(self, left, right):
        """The penalty on `left @ right`, as for `SpectralRegularizer`."""
        return self.strength * linalg.squared_norm_of_product(left, right)

    def get_config(self):
        return {"strength": self.strength}


def _single(value, matrix) -> Spectrum:
    """A spectrum of one value, which is its norm whatever the norm."""
    blocks, rows, columns = matrix.shape
    return Spectrum(value[None], (blocks * rows, blocks * columns))


def _largest(matrix):
    """The largest singular value, with the gradient of all that share it."""
    return ops.sum(linalg.leading_subgradient(matrix) * matrix)


def _whole_schatten(matrix, p: int):
    """`(tr |W|^p)^(1/p)`, from powers of the Gram matrix and the polar factor.

    Of the norm of a block-diagonal matrix the gradient is `|W|^(p-1)` turned
    by the polar factor, over the norm to the power `p - 1`.
    """
    fixed = ops.stop_gradient(matrix)
    largest = ops.max(ops.abs(fixed))
    largest = ops.where(largest > 0, largest, ops.ones_like(largest))
    fixed = fixed / largest
    wide = fixed.shape[-2] < fixed.shape[-1]
    tall = ops.swapaxes(fixed, -1, -2) if wide else fixed
    gram = ops.swapaxes(tall, -1, -2) @ tall
    slope = tall if p % 2 == 0 else linalg.polar_factor(tall)
    for _ in range((p - 1) // 2):
        slope = slope @ gram
    total = ops.sum(slope * tall)
    total = ops.where(total > 0, total, ops.ones_like(total))
    slope = slope / total ** (1 - 1 / p)
    slope = ops.swapaxes(slope, -1, -2) if wide else slope
    return ops.sum(slope * matrix)
