"""What all spectral regularizers are: a strength times a measure."""

import dataclasses
import math
import numbers
from typing import Any

import keras
from keras import ops

from keras_lowrank import linalg
from keras_lowrank.matricize import Matricization
from keras_lowrank.measures import Measure
from keras_lowrank.spectrum import Spectrum

METHODS = ("auto", "gram", "svd", "newton_schulz")


class SpectralRegularizer(keras.regularizers.Regularizer):
    """Base of the spectral regularizers: `strength * measure(spectrum)`.

    The measure is the function that `RankTracker` reports, on a spectrum of
    tensors (`linalg.tensor_spectrum`): gradients are `U diag(g) V^T`, finite
    at zero, repeated and vanishing singular values, and the same on every
    backend. Computed in float32 at least, whatever the dtype policy.

    Args:
        strength: Float >= 0, what the measure is multiplied by.
        method: `"gram"` and `"svd"`: by a decomposition, as for
            `linalg.tensor_spectrum`. `"newton_schulz"`: by matrix products
            alone, where the measure has such a form: what accelerators are
            made for, and the only way where TensorFlow compiles by XLA.
            `"auto"`: that one there, and for measures of which it is as exact
            as a decomposition; a decomposition everywhere else.
        matricization: `Matricization` that says which axes of the kernel are
            rows; all but the last by default, as of dense layers and
            convolutions. Of an `EinsumDense` that makes several axes it is
            not how `rank_report` reads the kernel: for heads say
            `Matricization(rows=(0,), columns=(1, 2))`. A low-rank layer reads
            its kernel itself.
    """

    #: The measure, with its parameters.
    measure: Measure
    #: Whether its form of matrix products is as exact as a decomposition.
    exact_by_products = False

    def __init__(self, strength, method="auto", matricization=None):
        self.strength = check_strength(strength)
        if method not in METHODS:
            raise ValueError(
                f"`method` must be one of {METHODS}. "
                f"Received: method={method!r}."
            )
        self.method = method
        if isinstance(matricization, dict):  # as `get_config` has it
            matricization = Matricization(**matricization)
        if not isinstance(matricization, (Matricization, type(None))):
            raise TypeError(
                "`matricization` must be a `Matricization`, such as "
                "`Matricization(rows=(0,), columns=(1, 2))`. "
                f"Received: {matricization!r}."
            )
        self.matricization = matricization

    def spectrum_by_products(self, matrix) -> Spectrum | None:
        """A spectrum of which the measure is that of `matrix`.

        It may have fewer values than `matrix` has, if only the measure of
        them is the same, with the same gradient.

        Args:
            matrix: Finite float32 or float64 tensor of shape `(b, m, n)`.

        Returns:
            A `Spectrum` of tensors, from matrix products alone, or `None` for
            a measure that has no such form.
        """
        return None

    def __call__(self, kernel):
        """The penalty on a kernel.

        Args:
            kernel: Keras variable or tensor of two axes or more.

        Returns:
            Scalar tensor, float32 or, for a float64 kernel, float64.
        """
        return self._penalty(self.matrix(kernel))

    def of_product(self, left, right):
        """The penalty on `left @ right`, which is not formed.

        Args:
            left: Tensor of shape `(m, r)`, or `(b, m, r)` for the blocks of a
                block-diagonal matrix.
            right: Tensor of shape `(r, n)`, or `(b, r, n)`.

        Returns:
            Scalar tensor.
        """
        decomposed = self.method != "newton_schulz" and not (
            self.method == "auto" and linalg.compiled_by_xla()
        )
        basis = linalg.triangular_basis if decomposed else linalg.polar_factor
        rows, columns = left.shape[-2], right.shape[-1]
        blocks = left.shape[0] if len(left.shape) == 3 else 1
        return self._penalty(
            linalg.product_core(left, right, basis),
            (blocks * rows, blocks * columns),
        )

    def matrix(self, kernel):
        """A kernel as its matrix, or as a stack of diagonal blocks."""
        kernel = ops.convert_to_tensor(kernel)
        shape = tuple(kernel.shape)
        how = self.matricization
        if how is None:
            if len(shape) < 2:
                raise ValueError(
                    f"`{type(self).__name__}` regularizes matrices, kernels of "
                    f"two axes or more. Received: shape={shape}. Give it to a "
                    "kernel, not to a bias."
                )
            return ops.reshape(kernel, (math.prod(shape[:-1]), shape[-1]))
        how.check(shape)
        return how.matrix(kernel, xp=ops)

    def get_config(self) -> dict[str, Any]:
        """The arguments as plain values, for saving."""
        how = self.matricization
        return {
            "strength": self.strength,
            "method": self.method,
            "matricization": None if how is None else dataclasses.asdict(how),
        }

    def _penalty(self, matrix, shape=None):
        spectrum = self._spectrum(matrix, shape)
        value = self.measure.function(spectrum, **self.measure.parameters)
        return ops.cast(self.strength, value.dtype) * value

    def _by_products(self) -> bool:
        if self.method == "auto":
            return self.exact_by_products or linalg.compiled_by_xla()
        return self.method == "newton_schulz"

    def _spectrum(self, matrix, shape) -> Spectrum:
        if not self._by_products():
            return linalg.tensor_spectrum(matrix, self.method, shape)
        blocks, finite = linalg.finite_blocks(matrix)
        with linalg.full_precision():
            spectrum = self.spectrum_by_products(blocks)
        if spectrum is None:
            raise ValueError(
                f"`{type(self).__name__}` with {self.measure.definition} has "
                "no form of matrix products alone, the only one that is fast "
                "where TensorFlow compiles by XLA. Received: "
                f"method={self.method!r}. Use `model.compile("
                'jit_compile=False)`, and method="auto".'
            )
        values = ops.where(finite, spectrum.values, float("nan"))
        return dataclasses.replace(spectrum, values=values)


def check_strength(strength) -> float:
    """`strength` as a float, or an error that says what one is."""
    if isinstance(strength, bool) or not isinstance(strength, numbers.Real):
        raise TypeError(
            "`strength` must be a number, 0 or larger. "
            f"Received: {strength!r} (of type {type(strength).__name__})."
        )
    if not math.isfinite(strength) or strength < 0:
        raise ValueError(
            "`strength` must be finite, and 0 or larger. "
            f"Received: strength={strength}."
        )
    return float(strength)
