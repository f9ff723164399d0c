"""Recordings to plot data: what is drawn, apart from how."""

import dataclasses
from collections.abc import Mapping

import numpy as np

from keras_lowrank.measures import as_measure
from keras_lowrank.records import Recording

MARKS = (
    "measured",
    "certified",
    "vacuous",
    "closed form",
    "beyond",
    "trial",
    "default",
    "end",
)


@dataclasses.dataclass(frozen=True, eq=False)
class Line:
    """One labelled line, or points that no line joins.

    Args:
        label: String for the legend.
        x: Array of shape `(n,)`.
        y: Array of shape `(n,)`.
        faint: Boolean, whether it is a reference rather than the subject.
        mark: String, what points stand for, which gives them their look:
            `"measured"`, `"certified"`, `"vacuous"`, `"closed form"`,
            `"beyond"` for one that lies outside of the axes, `"trial"` of a
            search or its `"default"`, `"end"` of a run, whose colour is that
            of a line. A line joins them by default.
        low: Array of shape `(n,)`, the lower ends of bars, or `None`.
        high: Array of shape `(n,)`, the upper ends, or `None`.
        shade: Float in [0, 1], the place of the line in a sequence of many,
            such as the depth of a layer, which gives it its colour.

    Raises:
        ValueError: for an unknown mark, or bars that do not fit.
    """

    label: str
    x: np.ndarray
    y: np.ndarray
    faint: bool = False
    mark: str = ""
    low: np.ndarray | None = None
    high: np.ndarray | None = None
    shade: float | None = None

    def __post_init__(self):
        if self.mark and self.mark not in MARKS:
            raise ValueError(
                f"`mark` must be one of {MARKS}, or empty for a line. "
                f"Received: mark={self.mark!r}."
            )
        if self.low is not None or self.high is not None:
            self._check_error_bars()

    def _check_error_bars(self):
        low, high = np.asarray(self.low), np.asarray(self.high)
        if low.shape != self.y.shape or high.shape != self.y.shape:
            raise ValueError(
                "`low` and `high` must both have the shape of `y`, "
                f"{self.y.shape}. Received: low={self.low} and "
                f"high={self.high} for line '{self.label}'."
            )
        if np.any(low > self.y) or np.any(high < self.y):
            raise ValueError(
                "`low` must not be above `y`, nor `high` below it: they are "
                f"ends, not lengths. Received: low={low}, y={self.y} and "
                f"high={high} for line '{self.label}'."
            )


@dataclasses.dataclass(frozen=True, eq=False)
class Panel:
    """The lines of one pair of axes.

    Args:
        title: String above the axes.
        x_label: String with the unit of `x`.
        y_label: String with the unit of `y`.
        lines: Tuple of `Line`.
        log_y: Boolean, whether the vertical axis is logarithmic.
        caption: String with the definition of what is drawn.
        rows: Tuple of strings, names of the heights 0, 1, ... from the top, in
            place of a vertical axis of numbers.
        remarks: Tuple of strings, one at the right of each row, or none.
        log_x: Boolean, whether the horizontal axis is logarithmic.
    """

    title: str
    x_label: str
    y_label: str
    lines: tuple[Line, ...]
    log_y: bool = False
    caption: str = ""
    rows: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()
    log_x: bool = False


def measure_curves(runs: Mapping[str, Recording], measure) -> Panel:
    """Mean of a measure over the weight matrices, against epochs.

    Args:
        runs: Dict from a label to the `Recording` of a run.
        measure: Anything `as_measure` takes, computed from the spectra.

    Returns:
        A `Panel` with one line per run.
    """
    measure = as_measure(measure)
    lines = [
        Line(label, np.array(recording.epochs), recording.means(measure))
        for label, recording in runs.items()
    ]
    title = measure.name.replace("_", " ")
    return Panel(
        title=f"Mean {title}",
        x_label="epochs",
        y_label=title,
        lines=tuple(lines),
        caption=measure.definition,
    )


def spectrum_overlay(
    runs: Mapping[str, Recording], weight: str, tolerance: float = 1e-3
) -> Panel:
    """Last spectra of one weight matrix, over that of its initialisation.

    Values are divided by the Frobenius norm of their matrix, so the threshold
    of the default numerical rank is a horizontal line.

    Args:
        runs: Dict from a label to the `Recording` of a run. The first
            measurement of the first run is drawn as the initialisation.
        weight: String, the name of the weight matrix.
        tolerance: Float, where to draw that threshold.

    Returns:
        A `Panel` with one line per run, and faint ones for the start and for
        the threshold.
    """
    lines: list[Line] = []
    for label, recording in runs.items():
        spectra = list(recording.spectra(weight).values())
        if not lines:
            lines.append(_spectrum_line("initialisation", spectra[0], True))
        lines.append(_spectrum_line(label, spectra[-1], False))
    if lines:
        across = np.array([1, max(max(line.x, default=1) for line in lines)])
        level = np.full(2, tolerance)
        lines.append(
            Line(f"rank counts above {tolerance:g}", across, level, True)
        )
    return Panel(
        title=f"Spectrum of {weight}",
        x_label="index of the singular value",
        y_label="singular value / Frobenius norm",
        lines=tuple(lines),
        log_y=True,
        caption="sigma_i / ||W||_F",
    )


def _spectrum_line(label, spectrum, faint) -> Line:
    norm = np.linalg.norm(spectrum.values)
    values = spectrum.values / (norm if norm > 0 else 1.0)
    # Zero has no place on a logarithmic axis.
    shown = values > 0
    return Line(
        label, np.arange(1, len(values) + 1)[shown], values[shown], faint
    )
