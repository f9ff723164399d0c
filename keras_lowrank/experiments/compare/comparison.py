"""What a comparison came to: tables, text, JSON and plot data."""

import dataclasses
import json
from typing import Any

from keras_lowrank.experiments.compare import report
from keras_lowrank.experiments.compare.divergence import Divergence
from keras_lowrank.experiments.compare.divergence import Moment
from keras_lowrank.experiments.compare.divergence import Pair
from keras_lowrank.experiments.compare.tables import epochs_table
from keras_lowrank.experiments.runs import Run
from keras_lowrank.experiments.spec import ExperimentSpec
from keras_lowrank.tables import plain


@dataclasses.dataclass(frozen=True, eq=False)
class Comparison:
    """One experiment on several sides, and where they part.

    Made by `compare`. `render`, `to_markdown`, `to_json` and `save` are the
    report.

    Args:
        spec: `ExperimentSpec` that all sides trained.
        runs: Dict from the label of each side to its complete `Run`, the
            reference first.
        versions: Dict from labels to dicts of versions.
        differences: Dict from pairs of labels to dicts from `(start, step)` to
            dicts from names to relative differences.
        expected: Dict from `(start, step)` to dicts from names to what
            rounding by one unit in the last place makes of them.
        allowed: Dict from the `(start, step)` that are judged, since rounding
            has not driven runs apart there, to dicts from names to the
            largest difference that it explains, infinite for a variable that
            consists of rounding.
        divergences: Tuple of `Divergence`, of the sides that leave.
        missing: Tuple of labels whose backend is not installed.
        failed: Dict from labels to what their process said.
        tolerance: Float, relative difference that was accepted in any case.
        command: String that makes the same report from a shell.
    """

    spec: ExperimentSpec
    runs: dict[str, Run]
    versions: dict[str, dict[str, str]]
    differences: dict[Pair, dict[Moment, dict[str, float]]]
    expected: dict[Moment, dict[str, float]]
    allowed: dict[Moment, dict[str, float]]
    divergences: tuple[Divergence, ...]
    missing: tuple[str, ...] = ()
    failed: dict[str, str] = dataclasses.field(default_factory=dict)
    tolerance: float = 0.0
    command: str = ""

    @property
    def reference(self) -> str:
        """Label of the side that the others are compared with."""
        return next(iter(self.runs))

    @property
    def others(self) -> list[str]:
        """Labels of the other sides that came to their end."""
        return list(self.runs)[1:]

    @property
    def agrees(self) -> bool:
        """Whether no side leaves what rounding and the tolerance allow."""
        return not self.divergences

    @property
    def told_until(self) -> int:
        """The last step from the initial weights at which sides are told."""
        return max(
            (step for start, step in self.allowed if not start), default=0
        )

    def verdict(self) -> list[str]:
        """What came out, in sentences."""
        found = [item.describe() for item in self.divergences]
        left = {item.side for item in self.divergences}
        agreeing = [side for side in self.others if side not in left]
        if not self.allowed:
            return [
                "Nothing could be judged: in every leg the first step already "
                "moves the weights by rounding alone."
            ]
        if agreeing:
            found.append(
                f"{' and '.join(agreeing)} "
                f"{'agrees' if len(agreeing) == 1 else 'agree'} with "
                f"{self.reference}: no variable differs by more than rounding "
                "explains, at any step that was judged."
            )
        last = max(
            (step for start, step in self.expected if not start), default=0
        )
        starts = sorted({start for start, _ in self.allowed if start})
        text = f"Judged were {self.told_until} steps from the initial weights"
        if self.told_until < last:
            text += ", after which rounding alone may drive two runs apart"
        if starts:
            text += (
                "; and the steps that follow the state of the reference at "
                f"{len(starts)} others, from step {starts[0]} to {starts[-1]}"
            )
        found.append(f"{text}.")
        found += [f"{side} is not installed." for side in self.missing]
        found += [
            f"{side} failed; what it said stands below." for side in self.failed
        ]
        return found

    def print(self, line_length: int | None = None, print_fn=None) -> None:
        """Print the report, with long tables thinned out.

        Args:
            line_length: Int, the width to print at; the terminal's by default.
            print_fn: Function called with the whole text, `print` by default.
        """
        (print_fn or print)(self.render(line_length))

    def render(self, line_length: int | None = None) -> str:
        """The report as plain text, with long tables thinned out."""
        return report.to_text(self, line_length)

    def to_markdown(self) -> str:
        """The whole report as Markdown."""
        return report.to_markdown(self)

    def save(self, out_dir) -> dict[str, Any]:
        """Write `report.md`, `report.html`, `report.json` and `figure.png`.

        Args:
            out_dir: Path of a directory.

        Returns:
            Dict from the names of the files to their paths. Without
            Matplotlib there is no figure.
        """
        return report.save(self, out_dir)

    def to_dict(self) -> dict[str, Any]:
        """All that is known, as plain values.

        `moments`, each a start, a step and whether it is judged, and `names`
        are the axes of `expected`, `allowed` and `differences` of each pair:
        a row for every moment, a number for every name. Differences
        have two significant digits.
        """
        moments = list(self.expected)
        names = list(
            dict.fromkeys(n for m in moments for n in self.expected[m])
        )

        def rows(values):
            return [
                [_short(values.get(m, {}).get(name)) for name in names]
                for m in moments
            ]

        return {
            "agrees": self.agrees,
            "verdict": self.verdict(),
            "command": self.command,
            "spec": self.spec.to_dict(),
            "reference": self.reference,
            "tolerance": self.tolerance,
            "missing": list(self.missing),
            "failed": self.failed,
            "divergences": [
                plain(dataclasses.asdict(item)) for item in self.divergences
            ],
            "sides": {
                side: {
                    "versions": self.versions[side],
                    "result": plain(
                        {
                            key: run.result[key]
                            for key in ("logs", "cost", "epochs", "steps")
                        }
                    ),
                }
                for side, run in self.runs.items()
            },
            "epochs": epochs_table(self).to_dict()["rows"],
            "names": names,
            "moments": [[*m, m in self.allowed] for m in moments],
            "expected": rows(self.expected),
            "allowed": rows(self.allowed),
            "differences": {
                f"{one} - {other}": rows(values)
                for (one, other), values in self.differences.items()
            },
        }

    def to_json(self) -> str:
        """`to_dict()` as JSON, a line for each entry."""
        entries = [
            f"{json.dumps(key)}: {json.dumps(value, allow_nan=False)}"
            for key, value in plain(self.to_dict()).items()
        ]
        return "{\n" + ",\n".join(entries) + "\n}\n"

    def __repr__(self):
        state = "agree" if self.agrees else "differ"
        return f"<Comparison: {', '.join(self.runs)} {state}>"


def _short(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.2g}")
