"""Recordings to curves: over epochs, over the decay clock, over accuracy."""

from collections.abc import Mapping
from collections.abc import Sequence

import numpy as np

from keras_lowrank.measures import as_measure
from keras_lowrank.plots.data import Line
from keras_lowrank.plots.data import Panel
from keras_lowrank.plots.maps import Map
from keras_lowrank.records import Recording
from keras_lowrank.spectrum import Spectrum

ALL_WEIGHTS = "mean of all"


def weight_curves(
    recording: Recording, measure, weights: Sequence[str] | None = None
) -> Panel:
    """A measure of each weight matrix, against epochs.

    Args:
        recording: `Recording`.
        measure: Anything `as_measure` takes, computed from the spectra.
        weights: Names of weight matrices, all by default.

    Returns:
        A `Panel` with a line per matrix, shaded by its depth in the network.
    """
    measure = as_measure(measure)
    names = _known(recording, weights)
    lines = []
    for name, shade in zip(names, _shades(len(names)), strict=True):
        spectra = recording.spectra(name)
        values = [measure(spectrum) for spectrum in spectra.values()]
        lines.append(
            Line(name, np.array([*spectra]), np.array(values), shade=shade)
        )
    title = _words(measure)
    return Panel(
        title=f"{title.capitalize()} of each weight matrix",
        x_label="epochs",
        y_label=title,
        lines=tuple(lines),
        caption=measure.definition,
    )


def final_values(
    points: Sequence[tuple[float, Recording]],
    measure,
    x_label: str,
    weights: Sequence[str] | None = None,
) -> Panel:
    """A measure at the end of training against a hyperparameter.

    Args:
        points: Sequence of pairs: the value of the hyperparameter, and a
            `Recording`. Those of one value, as of several seeds, become their
            mean, with bars from the least to the largest.
        measure: Anything `as_measure` takes, computed from the spectra.
        x_label: String, the hyperparameter and its unit.
        weights: Names of weight matrices, all by default.

    Returns:
        A `Panel` with a line per weight matrix, shaded by depth, and one for
        their mean. The axis is logarithmic where the values span more than
        a decade, with a place for 0.

    Raises:
        ValueError: when there are no points.
    """
    measure = as_measure(measure)
    _check_points(points, "pairs of a number")
    names = _known(points[0][1], weights)
    places = np.array(sorted({float(place) for place, _ in points}))
    lines = []
    for name, shade in zip(names, _shades(len(names)), strict=True):
        ends = [(place, _last(one, name, measure)) for place, one in points]
        lines.append(_line_of(name, places, ends, shade=shade))
    means = [(place, _last_mean(one, names, measure)) for place, one in points]
    lines.append(_line_of(ALL_WEIGHTS, places, means))
    title = _words(measure)
    return Panel(
        title=f"{title.capitalize()} at the end",
        x_label=x_label,
        y_label=title,
        lines=tuple(lines),
        caption=_bars(measure.definition, len(points) > len(places)),
        log_x=bool(places[-1] > 10 * places[places > 0].min(initial=np.inf)),
    )


def final_map(
    points: Sequence[tuple[float, float, Recording]],
    measure,
    x_label: str,
    y_label: str,
    weights: Sequence[str] | None = None,
) -> Map:
    """A measure at the end of training over a plane of two hyperparameters.

    Args:
        points: Sequence of triples: the values of both hyperparameters, and a
            `Recording`. Those of one place, as of several seeds, are drawn as
            their mean.
        measure: Anything `as_measure` takes, computed from the spectra.
        x_label: String, the first hyperparameter and its unit.
        y_label: String, the second one.
        weights: Names of weight matrices whose mean is drawn, all by default.

    Returns:
        A `Map`, whose axes are logarithmic where all values are above 0 and
        span more than a decade.

    Raises:
        ValueError: when there are no points.
    """
    measure = as_measure(measure)
    _check_points(points, "triples of two numbers")
    names = _known(points[0][2], weights)
    x, y = (np.array([point[axis] for point in points]) for axis in (0, 1))
    ends = [_last_mean(recording, names, measure) for *_, recording in points]
    title = _words(measure)
    return Map(
        title=f"{title.capitalize()} at the end",
        x_label=x_label,
        y_label=y_label,
        value_label=title,
        x=x,
        y=y,
        values=np.array(ends),
        log_x=_spans_decades(x),
        log_y=_spans_decades(y),
        caption=measure.definition,
    )


def rank_and_metric(
    runs: Mapping[str, Recording], measure, metric: str = "val_accuracy"
) -> Panel:
    """How a measure and a metric of training went together, run by run.

    Args:
        runs: Dict from a label to the `Recording` of a run.
        measure: Anything `as_measure` takes; its mean over the weight
            matrices is drawn, from the spectra.
        metric: String, a key of the logs of the epochs.

    Returns:
        A `Panel` with a mark per run for its end, and faint lines for the way
        there.

    Raises:
        ValueError: when no run has logged the metric.
    """
    measure = as_measure(measure)
    ways: list[Line] = []
    ends: list[Line] = []
    for label, recording in runs.items():
        means = recording.means(measure)
        pairs = [
            (item.logs[metric], mean)
            for item, mean in zip(recording.measurements, means, strict=True)
            if metric in item.logs
        ]
        if pairs:
            x, y = np.array(pairs, float).T
            ways.append(Line("" if ways else "on the way", x, y, faint=True))
            ends.append(Line(label, x[-1:], y[-1:], mark="end"))
    if not ends:
        logged = {
            key
            for recording in runs.values()
            for item in recording.measurements
            for key in item.logs
        }
        raise ValueError(
            f"`metric` must have been logged. Received: metric={metric!r}. "
            f"Logged: {', '.join(sorted(logged)) or 'nothing'}."
        )
    title = _words(measure)
    return Panel(
        title=f"Mean {title} and {metric.replace('_', ' ')}",
        x_label=metric.replace("_", " "),
        y_label=f"mean {title}",
        lines=(*ways, *ends),
        caption=measure.definition,
    )


def clock_curves(
    runs: Mapping[str, tuple[np.ndarray, Recording]], measure
) -> Panel:
    """Means of a measure against the decay clock.

    Where decay is what lowers the rank, runs of different learning rates and
    decays fall on one curve.

    Args:
        runs: Dict from a label to a pair: the decay clock at each measurement,
            and the `Recording` of the run.
        measure: Anything `as_measure` takes, computed from the spectra.

    Returns:
        A `Panel` with a line per run, from the first measurement whose clock
        is above zero; runs without decay have no place in it.
    """
    measure = as_measure(measure)
    lines = []
    for label, (clock, recording) in runs.items():
        shown = clock > 0
        if shown.any():
            means = recording.means(measure)
            lines.append(Line(label, clock[shown], means[shown]))
    title = _words(measure)
    return Panel(
        title=f"Mean {title} on the decay clock",
        x_label="decay clock, sum of learning rate * decay",
        y_label=f"mean {title}",
        lines=tuple(lines),
        caption=measure.definition,
        log_x=True,
    )


def norm_ratios(recording: Recording) -> np.ndarray:
    """Frobenius norms at each measurement over those at the one before.

    Args:
        recording: `Recording` of `n` measurements of the same weights.

    Returns:
        Float64 array of shape `(n - 1, weights)`, NaN after a zero norm.
    """
    norms = np.array(
        [
            [np.linalg.norm(record.spectrum.values) for record in item.records]
            for item in recording.measurements
        ]
    )
    with np.errstate(divide="ignore", invalid="ignore"):
        return norms[1:] / norms[:-1]


def norm_ratio_curves(
    recording: Recording, clock: np.ndarray, title: str = "Norm ratios"
) -> Panel:
    """How much of its norm a weight matrix keeps, beside what decay leaves.

    Once the ratio is that of decay alone, `exp(-dtau)`, gradients add nothing;
    at 1, gradients and decay are in balance.

    Args:
        recording: `Recording` of `n >= 2` measurements.
        clock: Array of shape `(n,)`, the decay clock at each.
        title: String.

    Returns:
        A `Panel` with the median over the weight matrices, with bars from the
        least to the largest, and the line of decay alone.

    Reference:
        [Galanti et al., CPAL 2025](https://arxiv.org/abs/2206.05794), figure
        of norm ratios
    """
    values = norm_ratios(recording)
    epochs = np.array(recording.epochs[1:])
    return Panel(
        title=title,
        x_label="epochs",
        y_label="norm / norm at the measurement before",
        lines=(
            Line(
                "median of the weights",
                epochs,
                np.median(values, axis=1),
                low=np.min(values, axis=1),
                high=np.max(values, axis=1),
            ),
            Line("decay alone", epochs, np.exp(-np.diff(clock)), faint=True),
        ),
        caption="||W(after)||_F / ||W(before)||_F, and exp(-dtau)",
    )


def compressibility_curves(spectra: Mapping[str, Spectrum]) -> Panel:
    """What truncating each weight matrix saves, and what it errs.

    Args:
        spectra: Dict from the names of weight matrices to their `Spectrum`.

    Returns:
        A `Panel` with a line per matrix: for each rank the parameters of both
        factors over those of the matrix, and the relative Frobenius error.
        Beyond 1 factors are larger than what they replace.
    """
    lines = []
    for (name, spectrum), shade in zip(
        spectra.items(), _shades(len(spectra)), strict=True
    ):
        rows, columns = spectrum.shape
        squares = np.asarray(spectrum.values) ** 2
        total = squares.sum()
        left = np.cumsum(squares[::-1])[::-1]  # of all from a value on
        ranks = np.arange(1, len(squares))
        shown = (left[1:] > 0) & (ranks * (rows + columns) <= rows * columns)
        if shown.any():
            lines.append(
                Line(
                    name,
                    ranks[shown] * (rows + columns) / (rows * columns),
                    np.sqrt(left[1:][shown] / total),
                    shade=shade,
                )
            )
    return Panel(
        title="What truncation saves and errs",
        x_label="parameters of the factors / of the matrix",
        y_label="relative Frobenius error",
        lines=tuple(lines),
        log_y=True,
        caption="||W - W_r||_F / ||W||_F at r (m + n) / (m n)",
    )


def _known(recording: Recording, weights: Sequence[str] | None) -> list[str]:
    names = recording.weights
    if weights is None:
        return names
    unknown = [name for name in weights if name not in names]
    if unknown:
        raise ValueError(
            "`weights` must be names of recorded weight matrices. "
            f"Received: {unknown[0]!r}. Recorded: {', '.join(names)}."
        )
    return list(weights)


def _last(recording: Recording, weight: str, measure) -> float:
    return float(measure([*recording.spectra(weight).values()][-1]))


def _check_points(points: Sequence, what: str) -> None:
    if not points:
        raise ValueError(
            f"`points` must be {what} and a `Recording`. Received: none."
        )


def _last_mean(recording: Recording, weights, measure) -> float:
    return float(np.mean([_last(recording, name, measure) for name in weights]))


def _spans_decades(values: np.ndarray) -> bool:
    return bool(np.min(values) > 0 and np.max(values) > 10 * np.min(values))


def _line_of(name, places, ends, **style) -> Line:
    """Means at each place, with bars where there are several values."""
    groups = [
        [value for place, value in ends if place == wanted] for wanted in places
    ]
    y = np.array([np.mean(group) for group in groups])
    if all(len(group) == 1 for group in groups):
        return Line(name, places, y, **style)
    low = np.array([min(group) for group in groups])
    high = np.array([max(group) for group in groups])
    return Line(name, places, y, low=low, high=high, **style)


def _bars(definition: str, several: bool) -> str:
    return f"{definition}; bars: all seeds" if several else definition


def _shades(count: int) -> list[float]:
    return [index / max(count - 1, 1) for index in range(count)]


def _words(measure) -> str:
    return measure.name.replace("_", " ")
