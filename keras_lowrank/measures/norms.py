"""Norms of a matrix and ratios of its singular values.

One function per measure: a `Spectrum` in, a number out. On NumPy values it is
a float64, on tensors a tensor. A zero matrix measures 0 everywhere; a
non-finite one measures NaN.
"""

from typing import Any

import numpy as np

from keras_lowrank.spectrum import Spectrum

Scalar = Any


def nuclear_norm(spectrum: Spectrum) -> Scalar:
    """Nuclear norm: the sum of the singular values.

    Args:
        spectrum: `Spectrum` of a matrix of shape `(m, n)`.

    Returns:
        Scalar >= 0, in the units of the matrix.

    Example:

    >>> float(nuclear_norm(Spectrum([4.0, 3.0], (2, 2))))
    7.0
    """
    return spectrum.xp.sum(spectrum.values)


def frobenius_norm(spectrum: Spectrum) -> Scalar:
    """Frobenius norm: square root of the summed squared singular values.

    Args:
        spectrum: `Spectrum` of a matrix of shape `(m, n)`.

    Returns:
        Scalar >= 0, in the units of the matrix.

    Example:

    >>> float(frobenius_norm(Spectrum([4.0, 3.0], (2, 2))))
    5.0
    """
    return schatten_norm(spectrum, p=2)


def spectral_norm(spectrum: Spectrum) -> Scalar:
    """Spectral norm: the largest singular value.

    Args:
        spectrum: `Spectrum` of a matrix of shape `(m, n)`.

    Returns:
        Scalar >= 0, in the units of the matrix.

    Example:

    >>> float(spectral_norm(Spectrum([4.0, 3.0], (2, 2))))
    4.0
    """
    if spectrum.values.shape[0] == 0:
        return spectrum.xp.sum(spectrum.values)
    return spectrum.values[0]


def schatten_norm(spectrum: Spectrum, p: float = 1.0) -> Scalar:
    """Schatten norm: the `p`-norm of the singular values.

    `p=1` is the nuclear norm, `p=2` the Frobenius norm, `p=inf` the spectral
    norm. Below 1 it is a quasi-norm, closer to the rank the smaller `p` is.

    Args:
        spectrum: `Spectrum` of a matrix of shape `(m, n)`.
        p: Float > 0, or `float("inf")`.

    Returns:
        Scalar >= 0, in the units of the matrix.

    Example:

    >>> float(schatten_norm(Spectrum([4.0, 3.0], (2, 2)), p=2))
    5.0
    """
    if not p > 0:
        raise ValueError(f"`p` must be positive. Received: p={p}.")
    if p == float("inf"):
        return spectral_norm(spectrum)
    xp = spectrum.xp
    relative = relative_values(spectrum)
    # Below p = 1 the power of zero has an infinite slope, and so has the root
    # of zero: they are taken of 1 instead.
    present = relative != 0
    # `xp.power` would round the exponent to float32 on torch.
    powers = xp.where(present, relative, 1.0) ** p
    total = xp.sum(xp.where(present, powers, relative))
    root = xp.where(total > 0, total, 1.0) ** (1.0 / p)
    return spectral_norm(spectrum) * root


def condition_number(spectrum: Spectrum) -> Scalar:
    """Condition number: the largest over the smallest singular value.

    Infinite when the smallest value is zero or lies below the resolution of
    the spectrum; measure with `method="svd"` to resolve more.

    Args:
        spectrum: `Spectrum` of a matrix of shape `(m, n)`.

    Returns:
        Scalar >= 1, infinity, or 0 for a zero matrix.

    Example:

    >>> float(condition_number(Spectrum([4.0, 2.0], (2, 2))))
    2.0
    """
    xp = spectrum.xp
    values = spectrum.values
    if values.shape[0] == 0:
        return xp.sum(values)
    largest, smallest = values[0], values[-1]
    if values.shape[0] < min(spectrum.shape):
        smallest = 0.0 * smallest  # the values that are missing are zero
    resolved = smallest > spectrum.resolution
    ratio = largest / xp.where(resolved, smallest, 1.0)
    infinite = xp.where(largest > 0, float("inf"), 0.0 * largest)
    return nan_if_not_finite(spectrum, xp.where(resolved, ratio, infinite))


def spectral_gap(spectrum: Spectrum, index: int = 1) -> Scalar:
    """Spectral gap: one singular value minus the next, over the largest.

    Args:
        spectrum: `Spectrum` of a matrix of shape `(m, n)`.
        index: Int >= 1, the position of the gap: 1 is that between the first
            and the second value. Values beyond the last are zero.

    Returns:
        Scalar in [0, 1], or 0 for a zero matrix.

    Example:

    >>> float(spectral_gap(Spectrum([4.0, 1.0], (2, 2))))
    0.75
    """
    if index < 1 or index != int(index):
        raise ValueError(
            "`index` must be a whole number from 1 on, the position of the "
            f"gap. Received: index={index}."
        )
    xp = spectrum.xp
    relative = relative_values(spectrum)
    here, following = relative[index - 1 : index], relative[index : index + 1]
    return xp.sum(here) - xp.sum(following)


def relative_values(spectrum: Spectrum):
    """Singular values over the largest, of shape `(k,)`; zeros stay zeros."""
    # Dividing by the largest keeps squares away from under- and overflow;
    # dividing a zero matrix by 1 keeps its gradient finite on every backend.
    xp = spectrum.xp
    values = spectrum.values
    if values.shape[0] == 0:
        return values
    largest = values[0]
    return values / xp.where(largest == 0, 1.0, largest)


def nan_if_not_finite(spectrum: Spectrum, value):
    """`value`, or NaN where the spectrum is that of a non-finite matrix."""
    # Comparisons turn NaN into False, and a count of those would be a lie.
    xp = spectrum.xp
    return value + 0.0 * xp.sum(spectrum.values) if xp is np else value
