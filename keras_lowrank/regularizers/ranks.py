"""Ranks and surrogates of rank as penalties, and any other measure."""

import keras
from keras import ops

from keras_lowrank import linalg
from keras_lowrank.measures import MEASURES
from keras_lowrank.measures import Measure
from keras_lowrank.measures import as_measure
from keras_lowrank.measures import log_det
from keras_lowrank.measures import measure_config
from keras_lowrank.measures import measure_from_config
from keras_lowrank.regularizers.penalty import SpectralRegularizer
from keras_lowrank.spectrum import Spectrum

COUNTS = ("rank", "energy_rank", "marchenko_pastur_count")


@keras.saving.register_keras_serializable(package="keras_lowrank")
class StableRank(SpectralRegularizer):
    """Penalty `strength * ||W||_F^2 / sigma_1^2`, the stable rank.

    It does not change when the kernel is rescaled, so that the whole of it is
    not lowered by shrinking: the largest singular value grows, the others
    fall. Where several are largest they share its gradient.

    Args:
        strength: Float >= 0.
        method: `"auto"`, `"gram"`, `"svd"` or `"newton_schulz"`, whose largest
            singular value is that of `SpectralNorm`.
        matricization: `Matricization` of the kernel, as for
            `SpectralRegularizer`.

    Example:

    >>> kernel = np.diag([2.0, 1.0, 1.0]).astype("float32")
    >>> round(float(StableRank(1.0)(kernel)), 5)
    1.5

    Reference:
        [Sanyal, Torr & Dokania, 2020](https://arxiv.org/abs/1906.04659)
    """

    measure = MEASURES["stable_rank"]

    def spectrum_by_products(self, matrix):
        # Two values: the largest, and one with the energy of all the others.
        blocks, rows, columns = matrix.shape
        slope = linalg.leading_subgradient(matrix)
        largest = ops.sum(slope * matrix)
        scale = ops.stop_gradient(largest)
        scale = ops.where(scale > 0, scale, ops.ones_like(scale))
        relative = matrix / scale
        rest = ops.sum(ops.square(relative)) - ops.square(largest / scale)
        # What rounding leaves of a matrix of rank one has no slope.
        present = rest > 1e-6
        root = ops.sqrt(ops.where(present, rest, ops.ones_like(rest)))
        root = scale * ops.where(present, root, ops.zeros_like(root))
        # May be the larger of the two: the measure divides by the first.
        values = ops.stack([largest, root])
        return Spectrum(values, (blocks * rows, blocks * columns))


@keras.saving.register_keras_serializable(package="keras_lowrank")
class EffectiveRank(SpectralRegularizer):
    """Penalty `strength * exp(H)`, with the entropy of the singular values.

    The effective rank of Roy and Vetterli, which does not change when the
    kernel is rescaled. Its slope grows like a logarithm as a singular value
    vanishes; one that is not told apart from zero is left there.

    It has no form of matrix products alone: where TensorFlow compiles by XLA
    it raises an error, and `model.compile(jit_compile=False)` is needed.

    Args:
        strength: Float >= 0.
        method: `"auto"`, `"gram"` or `"svd"`.
        matricization: `Matricization` of the kernel, as for
            `SpectralRegularizer`.

    Example:

    >>> kernel = np.diag([1.0, 1.0, 0.0]).astype("float32")
    >>> round(float(EffectiveRank(1.0)(kernel)), 5)
    2.0

    Reference:
        [Roy & Vetterli, 2007](https://ieeexplore.ieee.org/document/7098875)
    """

    measure = MEASURES["effective_rank"]


@keras.saving.register_keras_serializable(package="keras_lowrank")
class LogDet(SpectralRegularizer):
    """Penalty `strength * log det(I + W W^T / epsilon^2)`.

    The sum of `log(1 + (sigma / epsilon)^2)`, a smooth surrogate of rank that
    is not convex: it pushes singular values of the size of `epsilon` hardest,
    those far above it hardly at all.

    Args:
        strength: Float >= 0.
        epsilon: Float > 0, in the units of the kernel: which singular values
            are small.
        method: `"auto"`, `"gram"`, `"svd"` or `"newton_schulz"`: here the
            triangle of Cholesky of `I + W^T W / epsilon^2`, which XLA can
            compile; in float64, so that it is exact. It is what `"auto"`
            takes, since it is faster than a decomposition.
        matricization: `Matricization` of the kernel, as for
            `SpectralRegularizer`.

    Example:

    >>> kernel = np.diag([3.0, 0.0]).astype("float32")
    >>> round(float(LogDet(1.0, epsilon=1.0)(kernel)), 5)
    2.30259

    Reference:
        [Fazel, Hindi & Boyd, 2003](https://doi.org/10.1109/ACC.2003.1243393)
    """

    exact_by_products = True

    def __init__(
        self, strength, epsilon=0.1, method="auto", matricization=None
    ):
        super().__init__(strength, method, matricization)
        self.epsilon = float(epsilon)
        self.measure = Measure("log_det", log_det, {"epsilon": epsilon})
        self.measure(Spectrum([1.0], (1, 1)))  # an error for a wrong epsilon

    def spectrum_by_products(self, matrix):
        # All values alike, in a matrix of the same determinant.
        blocks, rows, columns = matrix.shape
        count = blocks * min(rows, columns)
        value = linalg.log_det(matrix, self.epsilon) / count
        present = value > 0
        grown = ops.expm1(ops.where(present, value, ops.ones_like(value)))
        common = self.epsilon * ops.sqrt(grown)
        common = ops.where(present, common, ops.zeros_like(common))
        values = common * ops.ones((count,), common.dtype)
        return Spectrum(values, (blocks * rows, blocks * columns))

    def get_config(self):
        return super().get_config() | {"epsilon": self.epsilon}


@keras.saving.register_keras_serializable(package="keras_lowrank")
class MeasurePenalty(SpectralRegularizer):
    """Penalty `strength * measure(spectrum)`, for any measure with a slope.

    Args:
        strength: Float >= 0.
        measure: As for `as_measure`: a name out of `MEASURES`, a `Measure`
            with parameters, or a function from a `Spectrum` to a number, which
            gets tensors (`spectrum.xp` is `keras.ops` then). One of your own
            must be known to Keras, by
            `keras.saving.register_keras_serializable`, to be saved.
        method: `"auto"`, `"gram"` or `"svd"`: there is no form of matrix
            products alone, and so none where TensorFlow compiles by XLA.
        matricization: `Matricization` of the kernel, as for
            `SpectralRegularizer`.

    Raises:
        ValueError: for measures that count, which have no slope.

    Example:

    >>> kernel = np.diag([1.0, 1.0, 0.0]).astype("float32")
    >>> round(float(MeasurePenalty(0.5, "participation_ratio")(kernel)), 5)
    1.0
    """

    def __init__(self, strength, measure, method="auto", matricization=None):
        super().__init__(strength, method, matricization)
        self.measure = as_measure(measure_from_config(measure))
        if self.measure.name in COUNTS:
            raise ValueError(
                f"'{self.measure.name}' counts singular values, so that its "
                "gradient is zero and a penalty on it does nothing. Use "
                "`StableRank`, `EffectiveRank` or `NuclearNorm`."
            )

    def get_config(self):
        return super().get_config() | {"measure": measure_config(self.measure)}
