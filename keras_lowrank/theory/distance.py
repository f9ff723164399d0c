"""How far a matrix is from those of a rank: the measured side of a bound."""

import numpy as np

from keras_lowrank.spectrum import Spectrum

NORMS = ("frobenius", "spectral", "nuclear")


def distance_to_rank(
    spectrum: Spectrum, rank: int, norm: str = "frobenius"
) -> float:
    """Distance of `W / norm(W)` from the matrices of a rank.

    The best approximation cuts the spectrum after `rank` values, in each of
    these norms (Eckart, Young and Mirsky), so it is the norm of the rest.

    Args:
        spectrum: `Spectrum` of `W`, of shape `(m, n)`.
        rank: Int >= 0.
        norm: `"frobenius"`, `"spectral"` or `"nuclear"`, of both.

    Returns:
        Float from 0 to 1; 0 for a zero matrix, NaN where it is not finite.

    Raises:
        ValueError: for an unknown norm or a negative rank.

    Example:

    >>> spectrum = Spectrum(np.array([2.0, 1.0, 1.0]), shape=(3, 5))
    >>> distance_to_rank(spectrum, 1, "spectral")
    0.5

    Reference:
        [Galanti et al., CPAL 2025](https://arxiv.org/abs/2206.05794), the
        left side of Lemma 3.2.
    """
    if rank < 0:
        raise ValueError(f"`rank` must be 0 or more. Received: rank={rank}.")
    distances = distances_to_ranks(spectrum, norm)
    return float(distances[min(rank, len(distances) - 1)])


def epsilon_rank(
    spectrum: Spectrum, tolerance: float, norm: str = "frobenius"
) -> int | float:
    """The least rank of a matrix within `tolerance` of `W / norm(W)`.

    In the spectral norm it is `numerical_rank(relative_to="spectral")`; in
    the Frobenius norm, `energy_rank` of the share `1 - tolerance ** 2`.

    Args:
        spectrum: `Spectrum` of `W`, of shape `(m, n)`.
        tolerance: Float in [0, 1).
        norm: As for `distance_to_rank`.

    Returns:
        Int from 0 to `min(m, n)`; NaN where the matrix is not finite.

    Raises:
        ValueError: for an unknown norm, or a tolerance out of range.

    Example:

    >>> epsilon_rank(Spectrum(np.array([2.0, 1.0, 1.0]), shape=(3, 5)), 0.5)
    2
    """
    if not 0 <= tolerance < 1:
        raise ValueError(
            "`tolerance` must be from 0 on, and below 1. "
            f"Received: tolerance={tolerance}."
        )
    distances = distances_to_ranks(spectrum, norm)
    if np.isnan(distances).any():
        return np.nan
    return int(np.argmax(distances <= tolerance))


def distances_to_ranks(
    spectrum: Spectrum, norm: str = "frobenius"
) -> np.ndarray:
    """`distance_to_rank` of every rank at once, the curve of a matrix.

    Args:
        spectrum: `Spectrum` of `W`, of shape `(m, n)`.
        norm: As for `distance_to_rank`.

    Returns:
        Float64 array of shape `(k + 1,)`, for the ranks from 0 to `k`, the
        number of values; NaN where the matrix is not finite.

    Raises:
        ValueError: for an unknown norm.

    Example:

    >>> spectrum = Spectrum(np.array([2.0, 1.0, 1.0]), shape=(3, 5))
    >>> distances_to_ranks(spectrum, "spectral")
    array([1. , 0.5, 0.5, 0. ])
    """
    if norm not in NORMS:
        raise ValueError(f"`norm` must be one of {NORMS}. Received: {norm!r}.")
    values = np.asarray(spectrum.values, np.float64)
    if not values.size or not values[0]:
        return np.zeros(len(values) + 1)
    values = values / values[0]
    if norm == "spectral":
        return np.append(values, 0.0)
    # Summed from the small end, so that small tails are exact.
    power = 2 if norm == "frobenius" else 1
    sums = np.append(np.cumsum(values[::-1] ** power)[::-1], 0.0)
    return (sums / sums[0]) ** (1 / power)
