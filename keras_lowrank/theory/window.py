"""Lemma 3.2 on a real run: what its last steps certify of the rank."""

import dataclasses
import math

import numpy as np


@dataclasses.dataclass(frozen=True)
class Certificate:
    """What is certain of the rank of a matrix, without its spectrum.

    Args:
        rank: Int: the normalised matrix is within the tolerance of one of
            this rank.
        steps: Int, the number of last steps that show it.
        remainder: Float, the bound on the distance that they give.
        vacuous: Boolean, whether it says nothing: the rank is `min(m, n)`.
    """

    rank: int
    steps: int
    remainder: float
    vacuous: bool


@dataclasses.dataclass(frozen=True, eq=False)
class Window:
    """The last steps before a moment, seen from one weight matrix.

    Lemma 3.2 with the run's own learning rates, batch sizes and norms: for
    every `n`, the matrix over its norm is within `remainders[n]` of a matrix
    of rank `budgets[n]`. Nothing is assumed, and nothing is asked to be late.

    All arrays have one entry for each number of steps back that is looked at,
    `n`, in increasing order; a subset of all `n` gives a valid certificate.

    Args:
        back: Int array of the `n`.
        remainders: Float array, `|p[n] W[T-n] + q[n] v[T-n]| / |W[T]|`.
        budgets: Int array, `uses * samples` of the last `n` steps, at most
            `min(m, n)`.
        full_rank: Int, `min(m, n)`.

    Example:

    >>> window = Window.of_norms(
    ...     norms=[1.0, 0.5, 0.4, 0.4], clock=[0.0, 1.0, 2.0, 3.0],
    ...     batch_sizes=[2, 2, 2], uses=1, shape=(10, 10),
    ... )
    >>> window.remainders.round(3)
    array([1.   , 0.368, 0.169, 0.124])
    >>> window.certificate(0.2)
    Certificate(rank=4, steps=2, remainder=0.16916910404576588, vacuous=False)

    Reference:
        [Galanti et al., CPAL 2025](https://arxiv.org/abs/2206.05794), Lemma
        3.2
    """

    back: np.ndarray
    remainders: np.ndarray
    budgets: np.ndarray
    full_rank: int

    @classmethod
    def of_norms(
        cls, norms, clock, batch_sizes, uses: int, shape: tuple[int, int]
    ) -> "Window":
        """The window of a run without momentum.

        Args:
            norms: Array of shape `(steps + 1,)`, the norm of the matrix
                before the first step and after each. NaN where it is not
                known, but for the last.
            clock: Array of the same shape, as `decay_clock` gives it.
            batch_sizes: Array of shape `(steps,)`, samples of each update; of
                all replicas, and of all batches that one update accumulates.
            uses: Int >= 0, vectors of a sample that the matrix multiplies.
            shape: Tuple `(m, n)`.

        Returns:
            A `Window`.
        """
        clock = np.asarray(clock, np.float64)
        left = np.exp(-(clock[-1] - clock))[::-1]
        past = left * np.asarray(norms, np.float64)[::-1]
        return cls.of_past(past, batch_sizes, uses, shape)

    @classmethod
    def of_past(
        cls, past, batch_sizes, uses: int, shape: tuple[int, int]
    ) -> "Window":
        """The window of any run, from what is left of its past.

        Args:
            past: Array of shape `(steps + 1,)`, newest first: the norm of
                `p[n] W[T-n] + q[n] v[T-n]`, or a bound on it such as
                `|p[n]| |W[T-n]| + |q[n]| |v[T-n]|`, with the coefficients of
                `memory`. NaN where it is not known, but for the first, which
                is the norm of the matrix now.
            batch_sizes: As for `of_norms`.
            uses: As for `of_norms`.
            shape: As for `of_norms`.

        Returns:
            A `Window`.

        Raises:
            ValueError: when lengths do not fit.
        """
        past = np.asarray(past, np.float64)
        batch_sizes = np.asarray(batch_sizes)
        if np.any(batch_sizes < 1) or np.any(batch_sizes % 1):
            raise ValueError(
                "`batch_sizes` must be whole numbers of samples, 1 or more. "
                f"Received: {batch_sizes.min()} to {batch_sizes.max()}."
            )
        if len(past) != len(batch_sizes) + 1:
            raise ValueError(
                "There must be one norm more than batch sizes. Received: "
                f"{len(past)} norms and {len(batch_sizes)} batch sizes."
            )
        samples = np.concatenate([[0], np.cumsum(batch_sizes[::-1])])
        samples = samples.astype(np.int64)
        known = np.flatnonzero(~np.isnan(past))
        full_rank = min(shape)
        with np.errstate(divide="ignore", invalid="ignore"):
            remainders = past[known] / past[0]
        return cls(
            back=known,
            remainders=remainders,
            budgets=np.minimum(uses * samples[known], full_rank),
            full_rank=full_rank,
        )

    def certificate(self, tolerance: float) -> Certificate:
        """The least rank that is certain, at a tolerance.

        Args:
            tolerance: Float in (0, 1), distance of the normalised matrix from
                those of the rank, in the norm that was logged. Values over
                the Frobenius norm that exceed it are no more than the rank,
                too, if that is the Frobenius norm.

        Returns:
            A `Certificate`.

        Raises:
            ValueError: for a tolerance out of range.
        """
        if not 0 < tolerance < 1:
            raise ValueError(
                "`tolerance` must be above 0 and below 1. "
                f"Received: tolerance={tolerance}."
            )
        # Budgets grow with n, so the first that is close enough is the least.
        enough = np.flatnonzero(
            (self.remainders <= tolerance) & (self.budgets < self.full_rank)
        )
        if not len(enough):
            return Certificate(self.full_rank, 0, math.nan, vacuous=True)
        first = enough[0]
        return Certificate(
            rank=int(self.budgets[first]),
            steps=int(self.back[first]),
            remainder=float(self.remainders[first]),
            vacuous=False,
        )
