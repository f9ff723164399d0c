"""What a compression cost and gained, as measured."""

import dataclasses
from collections.abc import Sequence
from typing import Any

from keras_lowrank.compress.latency import Latency
from keras_lowrank.compress.plan import CompressionPlan
from keras_lowrank.compress.scores import Change
from keras_lowrank.tables import Column
from keras_lowrank.tables import Table


@dataclasses.dataclass(frozen=True)
class Rollback:
    """A layer that was put back to what it was, and why.

    Args:
        name: String, the name of the layer.
        reason: String.
    """

    name: str
    reason: str


class Verification(Table):
    """A compressed model, with what it cost and what it gained.

    Made by `compress_and_verify`; print it, or take `rows`, `to_frame()` and
    `to_json()`. Each row has a quantity `before` and `after`, and `change`.

    Args:
        model: The compressed Keras model.
        plan: The `CompressionPlan` that was left of the one given.
        change: `Change` of the score.
        tolerance: Float, how much of the score might be lost.
        parameters: Tuple of two ints, before and after.
        bytes_on_disk: Tuple of two ints, of the files of weights.
        latencies: Sequence of `Latency`.
        rolled_back: Sequence of `Rollback`.
        fine_tuned: Boolean, whether the compressed model was trained.
    """

    def __init__(
        self,
        model,
        plan: CompressionPlan,
        change: Change,
        tolerance: float,
        parameters: tuple[int, int],
        bytes_on_disk: tuple[int, int],
        latencies: Sequence[Latency],
        rolled_back: Sequence[Rollback] = (),
        fine_tuned: bool = False,
    ):
        self.model = model
        self.plan = plan
        self.change = change
        self.tolerance = tolerance
        self.parameters = parameters
        self.bytes_on_disk = bytes_on_disk
        self.latencies = tuple(latencies)
        self.rolled_back = tuple(rolled_back)
        self.fine_tuned = fine_tuned
        columns = [
            Column("quantity"),
            Column("before"),
            Column("after"),
            Column("change", justify="left"),
        ]
        super().__init__(
            f"Verification of '{model.name}': {self._sentence()}",
            columns,
            self._rows(),
            self._lines(),
        )

    @property
    def verdict(self) -> str:
        """`"holds"`, `"not shown"` or `"fails"`, as `Change.verdict` says."""
        if not self.plan.compressed:
            return "holds"  # it is the model as it was
        return self.change.verdict(self.tolerance)

    @property
    def faster(self) -> bool:
        """Whether the new model is faster at some batch size, and how sure."""
        return any(latency.faster for latency in self.latencies)

    def _sentence(self) -> str:
        if not self.plan.compressed:
            return "nothing was left to compress"
        fewer = self.parameters[0] / max(self.parameters[1], 1)
        speed = min(self.latencies, key=lambda latency: latency.ratio)
        quick = (
            f"{1 / speed.ratio:.2f}x faster at batch size {speed.batch_size}"
            if speed.faster
            else "not faster"
        )
        lost = {
            "holds": "no more than {} of the score lost",
            "not shown": "a loss of more than {} of the score not ruled out",
            "fails": "more than {} of the score lost",
        }[self.verdict].format(f"{self.tolerance:g}")
        return f"{fewer:.2f}x fewer parameters, {quick}, {lost}"

    def _rows(self) -> list[dict[str, Any]]:
        before, after = self.parameters
        small, large = self.bytes_on_disk[1], self.bytes_on_disk[0]
        change = self.change
        rows = [
            {
                "quantity": "score",
                "before": f"{change.before:.4f}",
                "after": f"{change.after:.4f}",
                "change": f"{change.difference:+.4f} "
                f"[{change.low:+.4f}, {change.high:+.4f}]",
            },
            {
                "quantity": "parameters",
                "before": f"{before:,}",
                "after": f"{after:,}",
                "change": f"{before / max(after, 1):.2f}x fewer",
            },
            {
                "quantity": "weights on disk",
                "before": f"{large / 1e3:,.0f} kB",
                "after": f"{small / 1e3:,.0f} kB",
                "change": f"{large / small:.2f}x smaller",
            },
        ]
        if self.plan.flops and self.plan.flops_after:
            now, then = self.plan.flops, self.plan.flops_after
            rows.append(
                {
                    "quantity": "FLOPs of a sample",
                    "before": f"{now / 1e6:,.3g} M",
                    "after": f"{then / 1e6:,.3g} M",
                    "change": f"{now / then:.2f}x fewer",
                }
            )
        for latency in self.latencies:
            rows.append(
                {
                    "quantity": f"latency, batch of {latency.batch_size}",
                    "before": f"{1e3 * latency.before:.3g} ms",
                    "after": f"{1e3 * latency.after:.3g} ms",
                    "change": f"x {latency.ratio:.2f} "
                    f"[{latency.low:.2f}, {latency.high:.2f}]",
                }
            )
        return rows

    def _lines(self) -> list[str]:
        trained = "after fine-tuning" if self.fine_tuned else "not fine-tuned"
        lines = [
            f"verdict: {self.verdict} (tolerance {self.tolerance:g}, "
            f"{self.change.samples} samples, {trained})",
            "score: mean over the samples, change with its paired 95 % "
            "interval",
            "latency: medians of predict_on_batch taken in turns, change with "
            "the quartiles of the ratio",
        ]
        lines += [
            f"rolled back: {one.name}: {one.reason}" for one in self.rolled_back
        ]
        kept = ", ".join(
            f"{layer.name} (rank {layer.rank})"
            for layer in self.plan.compressed
        )
        return [*lines, f"compressed: {kept or 'no layer'}"]
