"""One experiment on several backends, held against each other."""

import itertools
import pathlib
from collections.abc import Sequence

from keras_lowrank.experiments.compare.comparison import Comparison
from keras_lowrank.experiments.compare.divergence import Moment
from keras_lowrank.experiments.compare.divergence import Pair
from keras_lowrank.experiments.compare.divergence import allowed
from keras_lowrank.experiments.compare.divergence import find_divergences
from keras_lowrank.experiments.compare.processes import Report
from keras_lowrank.experiments.compare.processes import train_sides
from keras_lowrank.experiments.compare.rounding import lost_share
from keras_lowrank.experiments.compare.side import Side
from keras_lowrank.experiments.compare.side import as_sides
from keras_lowrank.experiments.compare.snapshot import differences
from keras_lowrank.experiments.compare.trace import Trace
from keras_lowrank.experiments.spec import ExperimentSpec

RUNS = "runs"
STEPS = 200


def compare(
    spec: ExperimentSpec,
    backends: Sequence[str | Side] | None = None,
    out_dir="runs/compare",
    steps: int = STEPS,
    tolerance: float = 0.0,
    report: Report | None = None,
    command: str = "",
) -> Comparison:
    """Train a spec on several backends, and find where they part.

    Each backend has a process of its own, one after another. All begin from
    the same weights and see the same batches in the same order. Each trains
    as `run` does, for what is known of every epoch; then again step by step,
    for the state after single steps: from the initial weights, and again and
    again from a state of the first backend, which is the reference. These legs
    are spread over the run, around every change of the learning rate too.

    No two backends round alike, and training magnifies that: after some
    hundred steps two correct runs may have nothing in common. What is to be
    expected is measured: shadows of the reference, which err by some units in
    the last place at every step, show how far rounding drives each variable.
    A backend that goes further differs by something else.

    A backend may be compared with itself under a change, as of an optimizer
    or a layer: `"jax+module:function"` calls that function on the compiled
    model before it is trained. It may change the model or return another.
    Sides with a change are always trained anew; the others go on where they
    were stopped, and are not trained again when they are complete.

    Args:
        spec: `ExperimentSpec`.
        backends: Names of two backends or more, the reference first; every
            one by default. Those that are not installed are named in the
            report, as those are whose process fails.
        out_dir: Path of a directory. Runs and traces go to `runs` in it.
        steps: Int >= 1, how many steps from the initial weights are traced,
            each of the first and ever fewer later.
        tolerance: Float >= 0, relative difference that is no divergence even
            where rounding does not explain it.
        report: Function told of what is done, as `report(side, doing,
            share)`.
        command: String, for the report: what made it.

    Returns:
        A `Comparison`.

    Raises:
        ValueError: for less than two backends that are installed, or an
            argument out of range.
        RuntimeError: when less than two came to their end, with what the
            others said.

    Example:

    >>> spec = ExperimentSpec("mlp", "digits", epochs=10)  # doctest: +SKIP
    >>> found = compare(spec, ["jax", "torch"])  # doctest: +SKIP
    >>> found.agrees  # doctest: +SKIP
    True
    """
    sides = as_sides(backends)
    if isinstance(steps, bool) or not isinstance(steps, int) or steps < 1:
        raise ValueError(
            f"`steps` must be a whole number from 1 on. Received: {steps!r}."
        )
    if not 0 <= tolerance < float("inf"):
        raise ValueError(
            "`tolerance` must be a relative difference of 0 or more. "
            f"Received: {tolerance!r}."
        )
    runs_dir = pathlib.Path(out_dir) / RUNS
    done = train_sides(spec, sides, runs_dir, steps, report)
    if len(done.complete) < 2:
        said = "\n".join(
            f"{side}: {text}" for side, text in done.failed.items()
        )
        raise RuntimeError(
            "A comparison needs two sides that come to their end. Received: "
            f"{len(done.complete)}. {said}"
        )
    runs = {side.label: side.run(spec, runs_dir) for side in done.complete}
    traces = {label: _trace(run.run_dir) for label, run in runs.items()}
    reference = next(iter(traces.values()))
    apart = _differences(traces)
    expected = reference.expected()
    lost = lost_share(spec.precision)
    band = allowed(reference.shadows(), expected, tolerance, lost)
    layers: dict[str, str] = {}
    for trace in reversed(traces.values()):
        layers |= trace.about["layers"]
    return Comparison(
        spec=spec,
        runs=runs,
        versions={
            label: trace.about["settings"]["versions"]
            for label, trace in traces.items()
        },
        differences=apart,
        expected=expected,
        allowed=band,
        divergences=tuple(find_divergences(apart, band, layers)),
        missing=tuple(side.label for side in done.missing),
        failed=done.failed,
        tolerance=float(tolerance),
        command=command,
    )


def _trace(run_dir) -> Trace:
    found = Trace.open(run_dir)
    assert found is not None, "its process came to its end"
    return found


def _differences(
    traces: dict[str, Trace],
) -> dict[Pair, dict[Moment, dict[str, float]]]:
    """Of every pair of sides, relative to the reference, one step at a time."""
    labels = list(traces)
    reference = traces[labels[0]]
    found: dict[Pair, dict[Moment, dict[str, float]]] = {
        pair: {} for pair in itertools.combinations(labels, 2)
    }
    for start, step in reference.moments.pairs:
        snapshots = {
            label: trace.snapshot(start, step)
            for label, trace in traces.items()
        }
        for one, other in found:
            found[one, other][start, step] = differences(
                snapshots[other], snapshots[one], snapshots[labels[0]]
            )
    return found
