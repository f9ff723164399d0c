"""What is to become of one layer, and what that costs and gains."""

import dataclasses
import math
from typing import Any

import numpy as np

from keras_lowrank.spectrum import Spectrum


@dataclasses.dataclass(frozen=True)
class LayerPlan:
    """One layer of a plan: its spectrum, the rank chosen, what follows.

    Costs are linear in the rank: of a matrix `(m, n)` there are `m * n`
    weights, and of its factors `rank * (m + n)`.

    Args:
        name: String, the name of the layer relative to the model.
        kind: String, its class.
        kernel_shape: Tuple of ints, of the kernel.
        matrix_shape: Tuple of two ints, of the matrix that is factored (of
            one block, if it has several).
        blocks: Int, how many diagonal blocks it has. Each gets the rank.
        scheme: String, how a convolution is factored, or `None`.
        values: Tuple of floats, the singular values of that matrix, largest
            first (of several blocks, the roots of the sums of squares); with
            calibration those of the outputs. Empty for layers that stay.
        parameters: Int, weights of the kernel.
        flops: Float, what the kernel costs for one sample, two for each
            multiplication and addition; `None` where it is not known.
        flops_per_rank: Float, what each rank of the factors costs.
        rank: Int, or `None` for a layer that stays as it is.
        reason: String, why it stays.
    """

    name: str
    kind: str
    kernel_shape: tuple[int, ...]
    matrix_shape: tuple[int, ...] = ()
    blocks: int = 1
    scheme: str | None = None
    values: tuple[float, ...] = ()
    parameters: int = 0
    flops: float | None = None
    flops_per_rank: float | None = None
    rank: int | None = None
    reason: str = ""

    @property
    def full_rank(self) -> int:
        """The largest rank there is, 0 for a layer without low-rank form."""
        return len(self.values)

    @property
    def spectrum(self) -> Spectrum:
        """The singular values with the shape of their matrix."""
        rows, columns = self.matrix_shape
        return Spectrum(list(self.values), (rows, columns))

    @property
    def parameters_per_rank(self) -> int:
        """Weights of the factors for each rank."""
        return self.blocks * sum(self.matrix_shape)

    @property
    def largest_paying_rank(self) -> int:
        """The largest rank whose factors have fewer weights; 0 if none."""
        if not self.values:
            return 0
        return min(
            self.full_rank, (self.parameters - 1) // self.parameters_per_rank
        )

    @property
    def parameters_after(self) -> int:
        """Weights of the kernel or of the factors in its place."""
        if self.rank is None:
            return self.parameters
        return self.rank * self.parameters_per_rank

    @property
    def flops_after(self) -> float | None:
        """What the kernel costs then, for one sample."""
        if self.rank is None or self.flops is None:
            return self.flops
        return self.rank * (self.flops_per_rank or 0.0)

    def error_at(self, rank: int) -> float:
        """Relative error at a rank, `sqrt(sum_{i>rank} s_i^2 / sum s_i^2)`."""
        squares = np.square(self.values)
        total = float(squares.sum())
        # The small ones first, or they would vanish beside the large.
        tail = float(np.sum(squares[rank:][::-1]))
        return math.sqrt(tail / total) if total else 0.0

    @property
    def error(self) -> float:
        """Relative error of the kernel, or, calibrated, of the outputs."""
        return 0.0 if self.rank is None else self.error_at(self.rank)

    def with_rank(self, rank: int) -> "LayerPlan":
        """The same layer at another rank, or as it is where none pays.

        Args:
            rank: Int from 1 to `full_rank`.

        Returns:
            A `LayerPlan`, whose `reason` says so if `rank` does not pay.

        Raises:
            ValueError: when `rank` is out of range, or the layer has no
                low-rank form.
        """
        if not self.values:
            raise ValueError(
                f"'{self.name}' ({self.kind}) stays as it is: {self.reason}. "
                f"Received: rank={rank}."
            )
        whole = isinstance(rank, (int, np.integer)) and not isinstance(
            rank, bool
        )
        if not whole or not 1 <= rank <= self.full_rank:
            raise ValueError(
                f"`rank` must be a whole number from 1 to {self.full_rank}, "
                f"the smaller side of the matrix of '{self.name}'. Received: "
                f"rank={rank!r}."
            )
        if rank > self.largest_paying_rank:
            reason = (
                f"rank {rank} does not pay: "
                f"{rank * self.parameters_per_rank} weights in place of "
                f"{self.parameters}"
            )
            return dataclasses.replace(self, rank=None, reason=reason)
        return dataclasses.replace(self, rank=int(rank), reason="")

    def kept(self, reason: str) -> "LayerPlan":
        """The same layer, left as it is for a reason."""
        return dataclasses.replace(self, rank=None, reason=reason)

    @property
    def options(self) -> dict[str, Any]:
        """What `from_layer` takes beside the layer."""
        options: dict[str, Any] = {"rank": self.rank}
        return options | ({"scheme": self.scheme} if self.scheme else {})

    def to_row(self) -> dict[str, Any]:
        """The layer as the row of a table."""
        return {
            "name": self.name,
            "layer": self.kind,
            "kernel": self.kernel_shape,
            "matrix": self.matrix_shape,
            "blocks": self.blocks,
            "scheme": self.scheme,
            "rank": self.rank,
            "full_rank": self.full_rank or None,
            "largest_paying_rank": self.largest_paying_rank,
            "parameters": self.parameters,
            "parameters_after": self.parameters_after,
            "flops": self.flops,
            "flops_after": self.flops_after,
            "error": None if self.rank is None else self.error,
            "reason": self.reason,
        }
