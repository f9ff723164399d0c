"""A study as panels, and these as a figure with the paper's points."""

import dataclasses
import textwrap

import numpy as np

from keras_lowrank.experiments.paper.curves import norm_ratios
from keras_lowrank.experiments.paper.dynamics import CLOCK
from keras_lowrank.experiments.paper.dynamics import MEMORY
from keras_lowrank.experiments.paper.dynamics import NOISE
from keras_lowrank.experiments.paper.dynamics import coordinate
from keras_lowrank.experiments.paper.dynamics import noise_scale
from keras_lowrank.experiments.paper.figure import label
from keras_lowrank.experiments.paper.figure import text
from keras_lowrank.experiments.paper.points import Point
from keras_lowrank.experiments.paper.points import Study
from keras_lowrank.plots import Line
from keras_lowrank.plots import Panel
from keras_lowrank.plots import draw_panels
from keras_lowrank.plots import measure_curves
from keras_lowrank.plots import spectrum_overlay
from keras_lowrank.thinning import some

# Lines that can be told apart; of more, evenly chosen ones are drawn.
_LINES = 8
_PANELS = 6


@dataclasses.dataclass(frozen=True, eq=False)
class Picture:
    """What is drawn of a study.

    Args:
        panels: Tuple of `Panel`.
        paper: Tuple with a dict for each panel, from the label of a line to
            the `Line` of the paper's points of it.
        x_scale: `"log"`, `"symlog"` for a logarithm that has a 0, both with
            ticks at the values of a grid; `"decades"`, a logarithm with ticks
            of its own; or `"linear"`.
        dots: Boolean, whether points are left unconnected.
    """

    panels: tuple[Panel, ...]
    paper: tuple[dict[str, Line], ...]
    x_scale: str = "linear"
    dots: bool = False


def picture(study: Study) -> Picture:
    """What is drawn of a study, by the kind of its figure.

    Args:
        study: `Study`.

    Returns:
        `Picture`; points that collapsed are left out of it.
    """
    kinds = {
        "curves": _curves,
        "norm_ratios": _norm_ratios,
        "spectra": _spectra,
        "clock": _clock,
    }
    if study.figure.kind in kinds and any(p.alive for p in study.points):
        return kinds[study.figure.kind](study)
    return _final(study)


def draw(study: Study):
    """A study as a Matplotlib figure.

    Args:
        study: `Study`.

    Returns:
        A `matplotlib.figure.Figure`; the paper's points have hollow markers.

    Raises:
        ImportError: when Matplotlib is not installed.
    """
    shown = picture(study)
    title = textwrap.fill(title_of(study), 45 * len(shown.panels))
    figure = draw_panels(shown.panels, title)
    for axes, panel, paper in zip(
        figure.axes, shown.panels, shown.paper, strict=True
    ):
        for drawn, line in zip(list(axes.lines), panel.lines, strict=True):
            if len(line.x) < 30 and not line.faint:
                drawn.set(marker="o", markersize=4)
            if shown.dots:
                drawn.set(marker="o", markersize=3, linestyle="none", alpha=0.7)
            if line.label in paper:
                axes.plot(
                    paper[line.label].x,
                    paper[line.label].y,
                    color=drawn.get_color(),
                    linestyle="none",
                    marker="o",
                    markersize=8,
                    markerfacecolor="none",
                    label=f"paper, {line.label}",
                )
        _scale(axes, panel, paper, shown.x_scale)
        if panel.lines:
            axes.legend(fontsize=6, loc="best")
        if study.figure.kind == "norm_ratios":
            axes.set_ylim(auto=True)
            axes.autoscale(axis="y")
    return figure


def title_of(study: Study) -> str:
    """What a figure shows, which need not be what the paper's does."""
    figure, size = study.figure, study.figure.sizes[study.size]
    return f"{figure.name}, {study.size}: {size.title or figure.title}"


def _scale(axes, panel: Panel, paper, x_scale: str) -> None:
    """Room for all points, and ticks at the values of a grid."""
    lines = [*panel.lines, *paper.values()]
    highest = max((y for line in lines for y in line.y), default=1.0)
    if not panel.log_y:
        axes.set_ylim(0, 1.08 * highest)
    if x_scale == "linear":
        return
    if x_scale == "decades":
        axes.set_xscale("log")
        return
    values = sorted({float(x) for line in lines for x in line.x})
    if x_scale == "symlog":
        least = min((x for x in values if x > 0), default=1.0)
        axes.set_xscale("symlog", linthresh=least)
    else:
        axes.set_xscale("log")
    axes.autoscale(axis="x")
    axes.set_xticks(values, [f"{x:g}" for x in values], fontsize=7, rotation=30)
    axes.set_xticks([], minor=True)


def _final(study: Study) -> Picture:
    figure, abscissa = study.figure, study.figure.fields[0]
    measure = figure.measure(study.size)
    panels, paper, zero = [], [], False
    for value, members in _grouped(study.points, figure.panels):
        lines: list[Line] = []
        theirs: dict[str, Line] = {}
        leave_out = [abscissa, figure.panels or ""]
        groups: dict[str, list[Point]] = {}
        for point in members:
            groups.setdefault(label(point.key, leave_out), []).append(point)
        for name, points in groups.items():
            points = sorted(points, key=lambda point: point.field(abscissa))
            alive = [point for point in points if point.alive]
            name = name or "ours"
            lines.append(
                _line(
                    name,
                    [
                        (p.field(abscissa), p.estimate("rank").mean)
                        for p in alive
                    ],
                )
            )
            # Collapsed networks are no low rank, theirs no more than ours.
            reported = [
                p
                for p in points
                if "rank" in p.reference and not p.collapsed_in_paper
            ]
            if reported:
                theirs[name] = _line(
                    name,
                    [
                        (p.field(abscissa), p.reference["rank"])
                        for p in reported
                    ],
                )
            zero |= any(point.field(abscissa) == 0 for point in points)
        title = "Mean rank" + (f", {value}" if value else "")
        panels.append(
            Panel(
                title,
                abscissa.replace("_", " "),
                "rank",
                tuple(lines),
                caption=measure.definition,
            )
        )
        paper.append(theirs)
    return Picture(tuple(panels), tuple(paper), "symlog" if zero else "log")


def _line(name: str, pairs) -> Line:
    values = np.array([*pairs], float).reshape(-1, 2)
    return Line(name, values[:, 0], values[:, 1])


def _grouped(points, field: str | None):
    """Points by the value of a field, in words."""
    groups: dict[str, list[Point]] = {}
    for point in points:
        name = f"{field} {text(point.field(field))}" if field else ""
        groups.setdefault(name, []).append(point)
    return groups.items()


def _recordings(points, leave_out=()):
    return {
        label(point.key, leave_out): point.alive[0].recording
        for point in points
        if point.alive
    }


def _curves(study: Study) -> Picture:
    figure = study.figure
    field = figure.panels or (
        figure.fields[-1] if len(figure.fields) > 1 else None
    )
    panels, paper = [], []
    for value, members in _grouped(study.points, field):
        leave_out = [field or ""]
        known = [*_recordings(members, leave_out).items()]
        runs = dict(some(known, _LINES))
        panel = measure_curves(runs, figure.measure(study.size))
        if value:
            panel = dataclasses.replace(panel, title=value)
        panels.append(panel)
        theirs = {}
        for point in members:
            reported = _curve_in_paper(point, figure.epochs)
            if point.alive and reported:
                name = label(point.key, leave_out)
                theirs[name] = _line(name, reported)
        paper.append(theirs)
    chosen = some(range(len(panels)), _PANELS)
    return Picture(
        tuple(panels[index] for index in chosen),
        tuple(paper[index] for index in chosen),
    )


def _curve_in_paper(point: Point, epochs) -> list[tuple[float, float]]:
    """The ranks that the paper reports of a run, by epoch."""
    if point.collapsed_in_paper or not point.alive:
        return []
    found = [
        (float(epoch), point.reference[f"rank after {epoch} epochs"])
        for epoch in epochs
        if f"rank after {epoch} epochs" in point.reference
    ]
    if "rank" in point.reference:
        last = point.alive[0].recording.epochs[-1]
        found.append((float(last), point.reference["rank"]))
    return found


def _norm_ratios(study: Study) -> Picture:
    panels = []
    for point in some([p for p in study.points if p.alive], _PANELS):
        outcome = point.alive[0]
        ratios = norm_ratios(outcome.spec, outcome.recording)
        panels.append(
            Panel(
                label(point.key),
                "epochs",
                "norm / norm before",
                (
                    Line(
                        "median over the weights",
                        ratios.epochs,
                        np.median(ratios.values, axis=1),
                    ),
                    Line("decay alone", ratios.epochs, ratios.decay, True),
                ),
                caption="||W(after)||_F / ||W(before)||_F",
            )
        )
    return Picture(tuple(panels), tuple({} for _ in panels))


def _clock(study: Study) -> Picture:
    """Ranks of all runs, against what may order them."""
    measure = study.figure.measure(study.size)
    found: dict[str, dict[str, list[tuple[float, float]]]] = {}
    outcomes = [item for point in study.points for item in point.alive]
    outcomes.sort(key=lambda item: noise_scale(item.spec))
    for outcome in outcomes:
        spec, recording = outcome.spec, outcome.recording
        ranks = recording.means(measure)
        line = f"{NOISE} = {noise_scale(spec):.2g}"
        for name in (CLOCK, MEMORY, NOISE):
            values = coordinate(name, spec, recording)
            # All of a run on its clock, its end on what stays the same.
            chosen = slice(1, None) if name == CLOCK else slice(-1, None)
            found.setdefault(name, {}).setdefault(line, []).extend(
                zip(values[chosen], ranks[chosen], strict=True)
            )
    titles = {
        CLOCK: ("At every measurement", "decay clock"),
        MEMORY: ("At the end", "B / (mu w), samples"),
        NOISE: ("At the end", "mu / B"),
    }
    panels = tuple(
        Panel(
            titles[name][0],
            titles[name][1],
            "mean rank",
            tuple(_line(line, pairs) for line, pairs in lines.items()),
            caption=measure.definition,
        )
        for name, lines in found.items()
    )
    return Picture(
        panels, tuple({} for _ in panels), x_scale="decades", dots=True
    )


def _spectra(study: Study) -> Picture:
    runs = _recordings(study.points)
    weights = next(iter(runs.values())).weights
    tolerance = study.figure.measure(study.size).parameters["tolerance"]
    panels = tuple(
        spectrum_overlay(runs, weight, tolerance) for weight in some(weights, 3)
    )
    return Picture(panels, tuple({} for _ in panels))
