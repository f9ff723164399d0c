"""Ranks of a matrix, soft and hard.

A zero matrix has rank 0 by every definition; a non-finite one NaN. For any
matrix, up to rounding,

    stable rank <= participation ratio <= effective rank <= rank.
"""

import functools

import numpy as np

from keras_lowrank.measures.norms import Scalar
from keras_lowrank.measures.norms import frobenius_norm
from keras_lowrank.measures.norms import nan_if_not_finite
from keras_lowrank.measures.norms import relative_values
from keras_lowrank.measures.norms import spectral_norm
from keras_lowrank.spectrum import Spectrum

NORMS = ("frobenius", "spectral", "absolute")


def numerical_rank(
    spectrum: Spectrum,
    tolerance: float = 1e-3,
    relative_to: str = "frobenius",
) -> Scalar:
    """Numerical rank: how many singular values exceed a threshold.

    The default is the rule behind the figures of Galanti et al.: the matrix
    is divided by its Frobenius norm and values above `1e-3` are counted. That
    count cannot exceed `1 / tolerance**2`, and an isotropic matrix wider than
    that scores 0; the text of the paper divides by the spectral norm instead
    (`relative_to="spectral"`), which never scores a non-zero matrix 0.

    Args:
        spectrum: `Spectrum` of a matrix of shape `(m, n)`.
        tolerance: Float >= 0, the threshold in units of `relative_to`.
        relative_to: `"frobenius"`, `"spectral"` or `"absolute"`: what the
            threshold is a fraction of.

    Returns:
        Scalar: integer between 0 and `min(m, n)`, as a float.

    Raises:
        ValueError: when the threshold lies below what the spectrum resolves,
            where a count would be noise.

    Example:

    >>> spectrum = Spectrum([4.0, 3.0, 0.001], shape=(3, 3))
    >>> float(numerical_rank(spectrum))
    2.0

    Reference:
        [Galanti et al., CPAL 2025](https://arxiv.org/abs/2206.05794), 4.1
    """
    xp = spectrum.xp
    if tolerance < 0:
        raise ValueError(
            f"`tolerance` must not be negative. Received: {tolerance}."
        )
    if relative_to == "absolute":
        threshold = tolerance
    elif relative_to == "spectral":
        threshold = tolerance * spectral_norm(spectrum)
    elif relative_to == "frobenius":
        threshold = tolerance * frobenius_norm(spectrum)
    else:
        raise ValueError(
            f"`relative_to` must be one of {NORMS}. "
            f"Received: relative_to={relative_to!r}."
        )
    if xp is np:
        _check_resolution(spectrum, float(threshold))
    return nan_if_not_finite(
        spectrum, xp.sum(xp.where(spectrum.values > threshold, 1.0, 0.0))
    )


def stable_rank(spectrum: Spectrum) -> Scalar:
    """Stable rank: squared Frobenius norm over squared spectral norm.

    A continuous lower bound on the rank, unchanged when the matrix is
    rescaled: between 1 and `min(m, n)`, or 0 for a zero matrix.

    Args:
        spectrum: `Spectrum` of a matrix of shape `(m, n)`.

    Returns:
        Scalar: a NumPy float64 when measuring, a tensor in a regularizer.

    Example:

    >>> float(stable_rank(Spectrum([2.0, 1.0, 1.0], shape=(3, 5))))
    1.5

    Reference:
        [Rudelson & Vershynin, 2007](https://arxiv.org/abs/math/0503442)
    """
    return spectrum.xp.sum(spectrum.xp.square(relative_values(spectrum)))


def effective_rank(spectrum: Spectrum) -> Scalar:
    """Effective rank: exponential of the entropy of the singular values.

    The singular values divided by their sum are read as probabilities. Between
    1 and the rank, or 0 for a zero matrix. Roy and Vetterli's definition, the
    one RankMe uses; others take the squared values, which gives less.

    Args:
        spectrum: `Spectrum` of a matrix of shape `(m, n)`.

    Returns:
        Scalar, float between 1 and `min(m, n)`, or 0.

    Example:

    >>> round(float(effective_rank(Spectrum([1.0, 1.0, 0.0], (3, 3)))), 6)
    2.0

    Reference:
        [Roy & Vetterli, 2007](https://ieeexplore.ieee.org/document/7098875)
    """
    xp = spectrum.xp
    relative = relative_values(spectrum)
    total = xp.sum(relative)
    weights = relative / xp.where(total > 0, total, 1.0)
    # 0 log 0 is 0; the logarithm of 1 keeps its gradient finite there.
    logarithms = xp.log(xp.where(weights > 0, weights, 1.0))
    entropy = -xp.sum(weights * logarithms)
    # `0 * total` carries NaN through where the comparison would hide it.
    return xp.where(total == 0, 0.0 * total, xp.exp(entropy))


def participation_ratio(spectrum: Spectrum) -> Scalar:
    """Participation ratio of the squared singular values.

    `(sum sigma^2)^2 / sum sigma^4`: how many directions share the energy.
    Between 1 and the rank, or 0 for a zero matrix.

    Args:
        spectrum: `Spectrum` of a matrix of shape `(m, n)`.

    Returns:
        Scalar, float between 1 and `min(m, n)`, or 0.

    Example:

    >>> float(participation_ratio(Spectrum([1.0, 1.0, 0.0], (3, 3))))
    2.0

    Reference:
        [Gao et al., 2017](https://doi.org/10.1101/214262)
    """
    xp = spectrum.xp
    energy = xp.square(relative_values(spectrum))
    fourth = xp.sum(xp.square(energy))
    return xp.square(xp.sum(energy)) / xp.where(fourth == 0, 1.0, fourth)


def log_det(spectrum: Spectrum, epsilon: float = 0.1) -> Scalar:
    """Log-determinant `log det(I + W W^T / epsilon^2)`, a surrogate of rank.

    The sum of `log(1 + (sigma / epsilon)^2)`: a value well above `epsilon`
    counts by its logarithm, one well below hardly at all. Smooth everywhere,
    unlike the nuclear norm, but not convex.

    Args:
        spectrum: `Spectrum` of a matrix of shape `(m, n)`.
        epsilon: Float > 0, in the units of the matrix: which singular values
            are small.

    Returns:
        Scalar >= 0, and 0 for a zero matrix only.

    Example:

    >>> round(float(log_det(Spectrum([3.0, 0.0], (2, 2)), epsilon=1.0)), 6)
    2.302585

    Reference:
        [Fazel, Hindi & Boyd, 2003](https://doi.org/10.1109/ACC.2003.1243393)
    """
    if not epsilon > 0:
        raise ValueError(
            "`epsilon` must be positive, a singular value that is small. "
            f"Received: epsilon={epsilon}."
        )
    xp = spectrum.xp
    return xp.sum(xp.log1p(xp.square(spectrum.values / epsilon)))


def energy_rank(spectrum: Spectrum, energy: float = 0.99) -> Scalar:
    """Energy rank: how many leading values hold a share of the energy.

    The smallest `k` with `sum_{i<=k} sigma_i^2 >= energy * ||W||_F^2`. The
    best approximation of rank `k` then has a relative Frobenius error of at
    most `sqrt(1 - energy)`.

    Args:
        spectrum: `Spectrum` of a matrix of shape `(m, n)`.
        energy: Float in (0, 1], the share to hold; 0.99 by default.

    Returns:
        Scalar: integer between 1 and `min(m, n)`, as a float, or 0.

    Example:

    >>> float(energy_rank(Spectrum([3.0, 1.0, 0.1], (3, 3)), energy=0.9))
    2.0
    """
    if not 0 < energy <= 1:
        raise ValueError(
            "`energy` must be a share in (0, 1], such as 0.99. "
            f"Received: energy={energy}."
        )
    xp = spectrum.xp
    held = xp.cumsum(xp.square(relative_values(spectrum)))
    # Counting what falls short, plus one; the last sum is the whole energy.
    if held.shape[0] == 0:
        return xp.sum(held)
    total = held[-1]
    # Rounding in the running sum must not demand one value more. It is of
    # the order of the entries times the unit of their precision.
    slack = 1.0 - held.shape[0] * float(np.finfo(_dtype(held)).eps)
    missing = xp.where(held < energy * slack * total, 1.0, 0.0)
    rank = xp.where(total > 0, xp.sum(missing) + 1.0, 0.0 * total)
    return rank


def marchenko_pastur_count(
    spectrum: Spectrum, scale: float | None = None
) -> Scalar:
    """Marchenko-Pastur edge count: values no random matrix would have.

    A matrix of shape `(m, n)` with independent entries of standard deviation
    `s` has its singular values below `s * (sqrt(m) + sqrt(n))` once it is
    large. Values above that edge stand out of the noise.

    Args:
        spectrum: `Spectrum` of a matrix of shape `(m, n)`.
        scale: Float > 0, the standard deviation `s` of the noise. By default
            it is estimated from the median singular value, which a few
            outliers do not move.

    Returns:
        Scalar: integer between 0 and `min(m, n)`, as a float.

    Example:

    >>> rng = np.random.default_rng(0)
    >>> noise = rng.normal(size=(100, 200))
    >>> spiked = noise + 50 * np.outer(np.ones(100), np.ones(200)) / 100
    >>> values = np.linalg.svd(spiked, compute_uv=False)
    >>> float(marchenko_pastur_count(Spectrum(values, (100, 200))))
    1.0

    Reference:
        [Gavish & Donoho, 2014](https://arxiv.org/abs/1305.5870)
    """
    if scale is not None and not scale > 0:
        raise ValueError(f"`scale` must be positive. Received: scale={scale}.")
    xp = spectrum.xp
    rows, columns = spectrum.shape
    if spectrum.values.shape[0] == 0:
        return xp.sum(spectrum.values)
    if scale is None:
        median = xp.median(spectrum.values)
        scale = median / _median_singular_value(*sorted((rows, columns)))
    edge = scale * (rows**0.5 + columns**0.5)
    above = xp.where(spectrum.values > edge, 1.0, 0.0)
    return nan_if_not_finite(spectrum, xp.sum(above))


@functools.cache
def _median_singular_value(short: int, long: int) -> float:
    """Median of the Marchenko-Pastur law for unit variance entries."""
    ratio = short / long
    low, high = (1 - ratio**0.5) ** 2, (1 + ratio**0.5) ** 2
    # x = low + (high - low) sin^2(t) makes the density smooth at both ends.
    angle = (np.arange(200_000) + 0.5) * (np.pi / 2 / 200_000)
    x = low + (high - low) * np.sin(angle) ** 2
    density = np.sin(angle) ** 2 * np.cos(angle) ** 2 / x
    share = np.cumsum(density) / np.sum(density)
    return float(np.sqrt(long * x[np.searchsorted(share, 0.5)]))


def _dtype(values) -> str:
    if isinstance(values, np.ndarray):
        return values.dtype.name
    from keras import backend

    return backend.standardize_dtype(values.dtype)


def _check_resolution(spectrum: Spectrum, threshold: float) -> None:
    if threshold < spectrum.resolution:
        raise ValueError(
            f"The threshold {threshold:.3g} lies below the resolution "
            f"{spectrum.resolution:.3g} of this spectrum, where values are "
            "noise and cannot be counted. Use a larger `tolerance`, or compute "
            'the spectrum with `method="svd"`.'
        )
