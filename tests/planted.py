"""Matrices whose singular values are known."""

import numpy as np


def planted(values, shape, seed=0):
    """A float64 matrix of `shape` with the singular values `values`."""
    rng = np.random.default_rng(seed)
    rows, columns = shape
    size = min(shape)
    values = np.asarray(values, float)
    assert values.shape == (size,)
    left, _ = np.linalg.qr(rng.normal(size=(rows, size)))
    right, _ = np.linalg.qr(rng.normal(size=(columns, size)))
    return (left * values) @ right.T


def families(size):
    """Spectra that are easy and hard, each with largest value 1."""
    half = size // 2
    return {
        "geometric 1e-8": np.geomspace(1, 1e-8, size),
        "geometric 1e-4": np.geomspace(1, 1e-4, size),
        "power law": np.arange(1, size + 1) ** -1.5,
        "flat": np.ones(size),
        "half flat, long tail": np.r_[
            np.ones(size - half), np.geomspace(1e-2, 1.2e-4, half)
        ],
        "repeated": np.repeat([1.0, 0.1, 0.01, 0.002], -(-size // 4))[:size],
        "deficient": np.r_[np.linspace(1, 0.01, size - half), np.zeros(half)],
        "rank one": np.r_[1.0, np.zeros(size - 1)],
        "cluster at 1e-3": np.r_[
            np.ones(size - half), 1e-3 * (1 + 1e-3 * np.linspace(-1, 1, half))
        ],
    }
