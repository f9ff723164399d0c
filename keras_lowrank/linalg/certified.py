"""Ranks of matrices too large for all singular values, with error bands.

A rank needs no singular value: by Sylvester's law the signs of a triangular
factorization of `W^T W - t^2 I` count those above `t`. That is a quarter of
the arithmetic of eigenvalues, and all of it matrix products.
"""

import dataclasses
import math
from collections.abc import Iterable
from collections.abc import Iterator
from typing import Any

import numpy as np

from keras_lowrank.linalg.gram import gram_matrix
from keras_lowrank.linalg.gram import largest_entry
from keras_lowrank.linalg.gram import safe_exponent
from keras_lowrank.linalg.gram import tall
from keras_lowrank.linalg.host import host_array
from keras_lowrank.linalg.host import non_finite_reason
from keras_lowrank.linalg.host import single_threaded_blas
from keras_lowrank.linalg.product import Product
from keras_lowrank.linalg.spectra import spectrum
from keras_lowrank.spectrum import Spectrum

EPS = float(np.finfo(np.float64).eps)

# Of shorter sides all singular values take no longer.
CERTIFIED_ABOVE = 2048


@dataclasses.dataclass(frozen=True)
class Band:
    """A number between two others, which are equal where it is certain.

    Args:
        low: Float.
        high: Float, not below `low`.
    """

    low: float
    high: float

    @property
    def value(self) -> float:
        """The middle of the band."""
        return (self.low + self.high) / 2

    @property
    def certain(self) -> bool:
        """Whether the number is known without error."""
        return self.low == self.high

    def __contains__(self, value: float) -> bool:
        return self.low <= value <= self.high

    def __str__(self):
        if self.certain:
            return f"{self.low:g}"
        return f"{self.value:.6g} +- {(self.high - self.low) / 2:.1g}"


class CertifiedSpectrum:
    """What is known of singular values that were not all computed.

    Args:
        shape: Tuple `(m, n)`.
        gram: Float64 array of the short side, overwritten by nothing.
        exponent: Int, `gram` is that of the matrix over `2**exponent`.
        reason: String that says why nothing is known, or `None`.

    Attributes:
        frobenius_norm: Float.
        spectral_norm: `Band`, from Lanczos iterations; its upper end from a
            factorization that shows that no singular value lies above.

    Example:

    >>> found = certified(np.diag([4.0, 3.0, 1e-3, 0.0]))
    >>> found.numerical_rank().value, found.frobenius_norm
    (2.0, 5.000000...)
    """

    def __init__(self, shape, gram, exponent=0, reason=None):
        self.shape = tuple(shape)
        self.reason = reason
        self._gram = gram
        self._exponent = exponent
        trace = float(np.trace(gram))
        # What rounding moves eigenvalues by, to first order: sums of so many
        # products in the Gram matrix, and as many in its factorization.
        self._noise = EPS * (max(shape) + min(shape)) * trace
        self.frobenius_norm = math.ldexp(math.sqrt(trace), exponent)
        self.spectral_norm = self._spectral_norm()

    def count_above(self, threshold: float) -> Band:
        """How many singular values exceed a threshold.

        Args:
            threshold: Float >= 0, in the units of the matrix.

        Returns:
            `Band` of two whole numbers, equal unless a singular value is so
            near the threshold that float64 cannot tell on which side it is.

        Raises:
            ValueError: for a threshold that a Gram matrix does not resolve.
        """
        if self.reason:
            return Band(math.nan, math.nan)
        square = math.ldexp(threshold, -self._exponent) ** 2
        if square <= self._noise:
            least = math.ldexp(math.sqrt(self._noise), self._exponent)
            raise ValueError(
                f"A Gram matrix resolves singular values above {least:.3g} "
                f"here. Received: threshold={threshold:g}. Compute all of them "
                "exactly, by `linalg.spectrum(matrix, 'svd')`."
            )
        low, noise = self._positive(square + self._noise)
        high, _ = self._positive(square - max(self._noise, noise))
        if noise > self._noise:  # the factorization grew: ask further out
            low, _ = self._positive(square + noise)
        return Band(float(low), float(high))

    def numerical_rank(
        self, tolerance: float = 1e-3, relative_to: str = "frobenius"
    ) -> Band:
        """Numerical rank, as `keras_lowrank.measures.numerical_rank`.

        Args:
            tolerance: Float > 0.
            relative_to: `"frobenius"`, `"spectral"` or `"absolute"`.

        Returns:
            `Band` of two whole numbers.
        """
        norms = {
            "frobenius": Band(self.frobenius_norm, self.frobenius_norm),
            "spectral": self.spectral_norm,
            "absolute": Band(1.0, 1.0),
        }
        if relative_to not in norms:
            raise ValueError(
                f"`relative_to` must be one of {tuple(norms)}. "
                f"Received: relative_to={relative_to!r}."
            )
        norm = norms[relative_to]
        if self.frobenius_norm == 0:
            return Band(0.0, 0.0)
        if norm.certain:
            return self.count_above(tolerance * norm.value)
        return Band(
            self.count_above(tolerance * norm.high).low,
            self.count_above(tolerance * norm.low).high,
        )

    @property
    def finite(self) -> bool:
        """Whether the matrix was finite, so that bands mean something."""
        return self.reason is None

    @property
    def zero(self) -> bool:
        """Whether every entry of the matrix is zero."""
        return self.frobenius_norm == 0

    def measured(self, function: str, parameters) -> Band | None:
        """The band of a measure, or `None` of one that needs all values.

        Args:
            function: String, the name of a function of `keras_lowrank`:
                `"numerical_rank"`, `"stable_rank"`, `"spectral_norm"` or
                `"frobenius_norm"`.
            parameters: Dict of what it is called with.
        """
        if function == "numerical_rank":
            return self.numerical_rank(**parameters)
        if function == "frobenius_norm":
            return Band(self.frobenius_norm, self.frobenius_norm)
        if function in ("stable_rank", "spectral_norm"):
            return getattr(self, function)
        return None

    @property
    def stable_rank(self) -> Band:
        """Squared Frobenius norm over squared spectral norm, as a `Band`."""
        if self.frobenius_norm == 0:
            return Band(0.0, 0.0)
        whole, norm = self.frobenius_norm, self.spectral_norm
        return Band((whole / norm.high) ** 2, (whole / norm.low) ** 2)

    def _spectral_norm(self) -> Band:
        if self.reason:
            return Band(math.nan, math.nan)
        if self.frobenius_norm == 0:
            return Band(0.0, 0.0)
        value, residual = _largest(self._gram)
        error = residual + self._noise
        above = value + 2 * error
        while self._positive(above)[0]:
            # Lanczos found another than the largest.
            error = 2 * (above - value)
            above = value + error
        low, high = (math.sqrt(end) for end in (max(value - error, 0), above))
        return Band(
            math.ldexp(low, self._exponent), math.ldexp(high, self._exponent)
        )

    def _positive(self, shift: float) -> tuple[int, float]:
        """Eigenvalues of the Gram matrix above `shift`, and the rounding."""
        shifted = np.array(self._gram, order="F")
        side = len(shifted)
        shifted[np.diag_indices(side)] -= shift
        lapack = _scipy("linalg.lapack")
        size = int(lapack.dsytrf_lwork(side, lower=1)[0])
        factors, pivots, _ = lapack.dsytrf(
            shifted, lower=1, lwork=size, overwrite_a=1
        )
        eigenvalues = _block_eigenvalues(factors, pivots)
        noise = EPS * side * float(np.max(np.abs(eigenvalues), initial=0.0))
        return int(np.sum(eigenvalues > 0)), noise


def certified(matrix) -> CertifiedSpectrum:
    """Spectral norm, stable rank and numerical ranks, without the spectrum.

    For matrices whose short side is several thousand, where all eigenvalues
    take minutes. What is not counted is banded; ranks are exact wherever no
    singular value is within rounding of the threshold.

    Args:
        matrix: Array, tensor or Keras variable of shape `(m, n)`.

    Returns:
        A `CertifiedSpectrum`.

    Raises:
        ImportError: without SciPy.
        ValueError: for another number of dimensions.

    Example:

    >>> matrix = np.outer(np.arange(1.0, 5.0), np.ones(6))
    >>> found = certified(matrix)
    >>> found.numerical_rank().certain, 1.0 in found.stable_rank
    (True, True)
    """
    array = host_array(matrix)
    if array.ndim != 2:
        raise ValueError(
            "`certified` takes a matrix of shape (m, n). "
            f"Received: shape={array.shape}."
        )
    side = tall(array)
    largest = largest_entry(array)
    if not math.isfinite(largest):
        nothing = np.full((side.shape[1],) * 2, math.nan)
        return CertifiedSpectrum(
            array.shape, nothing, reason=non_finite_reason(array)
        )
    if largest == 0.0:
        return CertifiedSpectrum(array.shape, np.zeros((1, 1)))
    exponent = safe_exponent(largest)
    with single_threaded_blas():
        gram = gram_matrix(side, exponent)
        return CertifiedSpectrum(array.shape, gram, exponent)


def certified_spectra(
    matrices: Iterable,
) -> Iterator[Spectrum | CertifiedSpectrum]:
    """Certified spectra of large matrices, exact ones of all others.

    Args:
        matrices: Iterable as for `spectra`, consumed one at a time.

    Yields:
        A `CertifiedSpectrum` of each matrix whose short side is above 2048,
        and a `Spectrum` of each that is smaller, a `Product` or in blocks.
    """
    for matrix in matrices:
        large = len(matrix.shape) == 2 and min(matrix.shape) > CERTIFIED_ABOVE
        if large and not isinstance(matrix, Product):
            yield certified(matrix)
        else:
            yield spectrum(matrix)


def _largest(gram: np.ndarray) -> tuple[float, float]:
    """Largest eigenvalue found, and the norm of its residual."""
    if len(gram) < 3:  # too small to iterate on
        return float(np.linalg.eigvalsh(gram)[-1]), 0.0
    start = np.random.default_rng(0).standard_normal(len(gram))
    lanczos = _scipy("sparse.linalg").eigsh
    _, vectors = lanczos(gram, k=1, which="LA", v0=start, tol=1e-10)
    vector = vectors[:, 0] / np.linalg.norm(vectors[:, 0])
    value = float(vector @ gram @ vector)
    return value, float(np.linalg.norm(gram @ vector - value * vector))


def _block_eigenvalues(factors: np.ndarray, pivots: np.ndarray) -> np.ndarray:
    """Eigenvalues of the blocks of 1 and 2 rows that Bunch and Kaufman leave.

    Two equal negative pivots mark the rows of a block of two.
    """
    diagonal = np.diagonal(factors).copy()
    below = np.diagonal(factors, -1)
    (pairs,) = np.nonzero(pivots < 0)
    first = pairs[::2]
    mean = (diagonal[first] + diagonal[first + 1]) / 2
    half = (diagonal[first] - diagonal[first + 1]) / 2
    radius = np.hypot(half, below[first])
    diagonal[first], diagonal[first + 1] = mean - radius, mean + radius
    return diagonal


def _scipy(name: str) -> Any:
    import importlib

    try:
        return importlib.import_module(f"scipy.{name}")
    except ImportError as error:
        raise ImportError(
            "`linalg.certified` needs SciPy. Install it with `pip install "
            "scipy`, or compute all singular values with `linalg.spectrum`."
        ) from error
