"""The tables and panels of a comparison."""

import math
from typing import TYPE_CHECKING

import numpy as np

from keras_lowrank.experiments.compare.divergence import MARGIN
from keras_lowrank.experiments.compare.divergence import Excess
from keras_lowrank.experiments.compare.divergence import is_variable
from keras_lowrank.experiments.compare.rounding import lost_share
from keras_lowrank.experiments.compare.snapshot import ALL_WEIGHTS
from keras_lowrank.experiments.compare.snapshot import SPECTRUM
from keras_lowrank.experiments.compare.trace import SHADOWS
from keras_lowrank.experiments.compare.trace import SHADOWS_OF_RESTARTS
from keras_lowrank.experiments.compare.trace import UNITS
from keras_lowrank.plots import Line
from keras_lowrank.plots import Panel
from keras_lowrank.plots import measure_curves
from keras_lowrank.plots import spectrum_overlay
from keras_lowrank.tables import Column
from keras_lowrank.tables import Table
from keras_lowrank.tables import number

if TYPE_CHECKING:
    from keras_lowrank.experiments.compare.comparison import Comparison

_DEFINITION = (
    f"expected: the largest of {SHADOWS} shadows of the reference, whose every "
    "step sees and stores each weight off by up to one unit in the last place; "
    f"allowed: {MARGIN:g} times the largest of {SHADOWS} shadows that are off "
    f"by up to {UNITS:g} ({SHADOWS_OF_RESTARTS} shadows where a leg starts "
    "later)"
)


def sides_table(comparison: "Comparison") -> Table:
    """Each side: what it runs on, what it came to, what that cost."""
    rows = []
    for side, run in comparison.runs.items():
        result, backend = run.result, run.backend
        cost = result.get("cost", {})
        share = cost.get("measuring_share")
        peak = cost.get("peak_bytes")
        rows.append(
            {
                "side": side,
                "version": comparison.versions[side].get(backend),
                "loss": result["logs"].get("train_loss"),
                "accuracy": result["logs"].get("val_accuracy"),
                "first": cost.get("first_epoch_seconds"),
                "epoch": cost.get("epoch_seconds"),
                "measuring": None if share is None else 100 * share,
                "peak": None if peak is None else peak / 2**20,
            }
        )
    columns = [
        Column("side", "Side"),
        Column("version", "Version"),
        Column("loss", "Train\nloss", number(4)),
        Column("accuracy", "Test\naccuracy", "{:.4f}".format),
        Column("first", "First epoch\ns", number(3)),
        Column("epoch", "Epoch\ns", number(3)),
        Column("measuring", "Measuring\n%", number(2)),
        Column("peak", "Peak memory\nMiB", "{:.0f}".format),
    ]
    common = comparison.versions[comparison.reference]
    rest = [
        f"{name} {version}"
        for name, version in common.items()
        if name not in ("jax", "torch", "tensorflow")
    ]
    notes = [
        "Epoch: seconds of the updates alone, the median after the first, in "
        "which programs are compiled; measuring: share of the whole fit; peak "
        "memory: of the whole process, its libraries included. One side after "
        "another, in an untraced run. Seconds are of this machine only.",
        f"{comparison.reference} runs on {', '.join(rest)}.",
    ]
    return Table("Sides", columns, rows, notes)


def divergences_table(comparison: "Comparison") -> Table:
    """Each side that leaves, with the variables that do so first."""
    rows = [
        {
            "side": found.side,
            "start": found.start,
            "step": found.step,
            "name": item.name,
            "difference": item.difference,
            "band": item.band,
            "ratio": item.ratio,
            "odd": found.odd or "",
        }
        for found in comparison.divergences
        for item in found.excesses[:8]
    ]
    columns = [
        Column("side", "Side"),
        Column("start", "From\nstep"),
        Column("step", "First\nstep"),
        Column("name", "What", justify="left"),
        Column("difference", "Difference", _short),
        Column("band", "Allowed", _short),
        Column("ratio", "Ratio", number(3)),
        Column("odd", "Odd one", justify="left"),
    ]
    notes = [
        "First traced step of the run at which a side has left, and what has, "
        "variables first, the largest ratio first, eight at most.",
        *(
            f"{found.side}: one step from the same state changes otherwise: "
            f"{'; '.join(found.single_step)}."
            for found in comparison.divergences
            if found.single_step
        ),
    ]
    return Table("Beyond rounding", columns, rows, notes)


def steps_table(comparison: "Comparison") -> Table:
    """Differences from the reference after each traced step."""
    rows = []
    for moment, expected in comparison.expected.items():
        allowed = comparison.allowed.get(moment)
        row: dict[str, object] = {"start": moment[0], "step": moment[1]}
        for key, size in _SIZES.items():
            row[f"{key} expected"] = size(expected)
            row[f"{key} allowed"] = None if allowed is None else size(allowed)
        near = []
        for side in comparison.others:
            found = comparison.differences[comparison.reference, side][moment]
            row |= {
                f"{key} {side}": size(found) for key, size in _SIZES.items()
            }
            if allowed is not None:
                near.append((furthest(found, allowed), side))
        row["nearest"] = "not judged"
        if near:
            item, side = max(near, key=lambda pair: pair[0].ratio)
            row["nearest"] = f"{item.name} ({side}, {item.ratio:.2g})"
        rows.append(row)
    columns = [Column("start", "From\nstep", str), Column("step", "Step", str)]
    for key in _SIZES:
        columns += [
            Column(f"{key} {what}", f"{key.capitalize()}\n{what}", _short)
            for what in ("expected", "allowed", *comparison.others)
        ]
    columns.append(Column("nearest", "Nearest to its limit", justify="left"))
    notes = [
        f"Relative to {comparison.reference}. Weights: ||a - b|| / ||b|| over "
        "all variables of the model; spectra: max |sigma_a - sigma_b| / "
        f"sigma_1, the largest over the weight matrices; {_DEFINITION}.",
        "Nearest to its limit: the variable whose difference is the largest "
        "multiple of what is allowed to it, its side, and that multiple; "
        "above 1 it has left. Not judged: a shadow has moved all weights by "
        f"{lost_share(comparison.spec.precision):.2g} or more, so that runs "
        "may have come apart.",
    ]
    return Table("Step by step", columns, rows, notes)


def epochs_table(comparison: "Comparison") -> Table:
    """Loss, accuracy, ranks and spectra of all sides at each epoch."""
    histories = {side: run.recording for side, run in comparison.runs.items()}
    series = {side: item.history for side, item in histories.items()}
    first = histories[comparison.reference]
    measure = f"{first.measures[0].name}_mean" if first.measures else ""
    shown = {
        "train_loss": ("Train loss", number(4)),
        "val_accuracy": ("Test accuracy", "{:.4f}".format),
        measure: (f"Mean {measure.removesuffix('_mean')}", number(4)),
    }
    kept = ("loss", "train_accuracy", "val_loss", *shown)
    kept += tuple(f"{item.name}_mean" for item in first.measures)
    rows = []
    for index, epoch in enumerate(first.epochs):
        row: dict[str, object] = {"epoch": epoch}
        for side, history in series.items():
            for key in dict.fromkeys(kept):
                value = history.get(key, [None] * len(first.epochs))[index]
                row[f"{key} {side}"] = value
            if side != comparison.reference:
                row[f"spectra {side}"] = _spectra_apart(
                    first.measurements[index],
                    histories[side].measurements[index],
                )
        rows.append(row)
    columns = [Column("epoch", "Epoch", str)]
    for key, (title, form) in shown.items():
        columns += [
            Column(f"{key} {side}", f"{title}\n{side}", form)
            for side in comparison.runs
        ]
    columns += [
        Column(f"spectra {side}", f"Spectra\n{side}", _short)
        for side in comparison.others
    ]
    notes = [
        f"Mean {item.name}: {item.definition}, over the weight matrices."
        for item in first.measures[:1]
    ]
    notes.append(
        f"Spectra: max |sigma - sigma of {comparison.reference}| / sigma_1, "
        "the largest over the weight matrices."
    )
    return Table("Epoch by epoch", columns, rows, notes)


def spectra_table(comparison: "Comparison") -> Table:
    """The spectrum of every weight matrix at the end, side by side."""
    last = {
        side: {
            record.weight: record
            for record in run.recording.measurements[-1].records
        }
        for side, run in comparison.runs.items()
    }
    measures = comparison.runs[comparison.reference].recording.measures[:2]
    rows = []
    for weight in last[comparison.reference]:
        row: dict[str, object] = {"weight": weight}
        for side, records in last.items():
            values = records[weight].spectrum.values
            row[f"largest {side}"] = values[0]
            row[f"median {side}"] = float(np.median(values))
            for item in measures:
                row[f"{item.name} {side}"] = records[weight].values[item.name]
        rows.append(row)
    columns = [Column("weight", "Weight")]
    for key, title in (
        ("largest", "Largest"),
        ("median", "Median"),
        *((item.name, item.name.capitalize()) for item in measures),
    ):
        columns += [
            Column(
                f"{key} {side}", f"{title.replace('_', ' ')}\n{side}", number(4)
            )
            for side in comparison.runs
        ]
    return Table(
        "Spectra at the end",
        columns,
        rows,
        ["Largest and median singular value of each weight matrix, and ranks."],
    )


def panels(comparison: "Comparison") -> list[Panel]:
    """What the figure shows."""
    runs = {side: run.recording for side, run in comparison.runs.items()}
    first = runs[comparison.reference]
    middle = first.weights[len(first.weights) // 2]
    found = [_growth(comparison), _single_steps(comparison)]
    if first.measures:
        found.append(measure_curves(runs, first.measures[0]))
    return [*found, spectrum_overlay(runs, middle)]


# In place of the reference, whose colour no other side may take.
_NO_LINE = Line("", np.array([], int), np.array([]))


def _growth(comparison: "Comparison") -> Panel:
    def line(label, values, faint=False):
        steps = sorted(step for start, step in values if not start)
        y = [max(values[0, step][ALL_WEIGHTS], 1e-10) for step in steps]
        return Line(label, np.array(steps), np.array(y), faint=faint)

    return Panel(
        f"All weights, against {comparison.reference}",
        "steps from the initial weights",
        "relative difference",
        (
            line("expected", comparison.expected, faint=True),
            line("allowed", comparison.allowed, faint=True),
            _NO_LINE,
            *(
                line(side, comparison.differences[comparison.reference, side])
                for side in comparison.others
            ),
        ),
        log_y=True,
        log_x=True,
        caption="||a - b|| / ||b||",
    )


def _single_steps(comparison: "Comparison") -> Panel:
    moments = sorted(
        (step, start) for start, step in comparison.allowed if step == start + 1
    )
    x = np.array([step for step, _ in moments])
    lines = [Line("allowed", x, np.ones(len(x)), faint=True), _NO_LINE]
    for side in comparison.others:
        values = comparison.differences[comparison.reference, side]
        y = [
            furthest(values[start, step], comparison.allowed[start, step]).ratio
            for step, start in moments
        ]
        # What is 0 or has no bound stays in the picture.
        lines.append(Line(side, x, np.clip(y, 1e-3, 1e9)))
    return Panel(
        "Single steps from one state",
        "step",
        "difference / allowed",
        tuple(lines),
        log_y=True,
        log_x=True,
        caption="largest over all variables",
    )


def _largest_of_spectra(values) -> float | None:
    found = [v for name, v in values.items() if name.startswith(SPECTRUM)]
    return max(found, default=None)


# What a table tells of the differences at a moment.
_SIZES = {
    "weights": lambda values: values[ALL_WEIGHTS],
    "spectra": _largest_of_spectra,
}


def furthest(values, band) -> Excess:
    """The variable that is the largest multiple of what is expected of it."""
    found = [
        Excess(name, value, band[name])
        for name, value in values.items()
        if name in band and is_variable(name)
    ]
    return max(found, key=lambda item: item.ratio)


def _spectra_apart(one, other) -> float:
    """The largest relative difference of spectra of two measurements."""
    spectra = {item.weight: item.spectrum.values for item in other.records}
    apart = [
        float(np.abs(item.spectrum.values - spectra[item.weight]).max())
        / (float(item.spectrum.values[0]) or 1.0)
        for item in one.records
        if item.weight in spectra
    ]
    return max(apart, default=math.nan)


def _short(value: float) -> str:
    return f"{value:.1e}" if value else "0"
