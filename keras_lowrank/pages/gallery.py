"""Which figures recorded runs allow, and what each of them shows."""

import dataclasses
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Sequence

from keras_lowrank.experiments.found import FoundRun
from keras_lowrank.measures import Measure
from keras_lowrank.measures import as_measures
from keras_lowrank.names import searcher
from keras_lowrank.pages.fields import NotAtHandError
from keras_lowrank.pages.fields import chosen_fields
from keras_lowrank.pages.fields import ends_at
from keras_lowrank.pages.fields import in_words
from keras_lowrank.plots import Heat
from keras_lowrank.plots import Map
from keras_lowrank.plots import Panel
from keras_lowrank.plots import certified_curves
from keras_lowrank.plots import certified_ranks
from keras_lowrank.plots import clock_curves
from keras_lowrank.plots import compressibility_curves
from keras_lowrank.plots import draw_panels
from keras_lowrank.plots import final_map
from keras_lowrank.plots import final_values
from keras_lowrank.plots import measure_curves
from keras_lowrank.plots import norm_ratio_curves
from keras_lowrank.plots import rank_and_metric
from keras_lowrank.plots import spectrum_over_time
from keras_lowrank.plots import spectrum_overlay
from keras_lowrank.plots import weight_curves
from keras_lowrank.thinning import some

COLUMNS = 3  # panels in a row
# Panels and lines that can be told apart; of more, evenly chosen ones.
MOST_PANELS = 6
MOST_RUNS = 6


@dataclasses.dataclass(frozen=True, eq=False)
class Picture:
    """One figure of recorded runs.

    Args:
        kind: String, one of `KINDS`.
        title: String above it.
        says: String, what to look for, in a sentence or two.
        panels: Tuple of what is drawn.
    """

    kind: str
    title: str
    says: str
    panels: tuple[Panel | Heat | Map, ...]

    def draw(self):
        """The `matplotlib.figure.Figure`, to be saved with `savefig`."""
        return draw_panels(self.panels, self.title, columns=COLUMNS)


@dataclasses.dataclass(frozen=True, eq=False)
class _Wanted:
    """What of the runs is to be shown."""

    runs: Sequence[FoundRun]
    measures: tuple[Measure, ...]
    weights: tuple[str, ...]
    metric: str
    against: str | None

    @property
    def recordings(self):
        return {run.name: run.recording for run in some(self.runs, MOST_RUNS)}


def gallery(
    runs: Sequence[FoundRun],
    kinds: Sequence[str] | None = None,
    measures=None,
    weights: str | None = None,
    metric: str = "val_accuracy",
    against: str | None = None,
) -> Iterator[Picture]:
    """The figures of some runs.

    Args:
        runs: Sequence of `FoundRun`.
        kinds: Sequence of names out of `KINDS`; by default all for which the
            runs hold what is needed.
        measures: What to draw, as `as_measures` takes it; by default what the
            first run recorded.
        weights: Regular expression searched in the names of weight matrices,
            for those that are drawn one by one.
        metric: String, the log that ranks are drawn against.
        against: String, the field of the specs that final ranks are drawn
            against, or two with a comma between for contours; by default the
            numbers in which they differ.

    Yields:
        A `Picture` for each.

    Raises:
        ValueError: for an unknown kind, for one that the runs do not allow,
            and when `weights` selects nothing.
    """
    unknown = [kind for kind in kinds or () if kind not in KINDS]
    if unknown:
        raise ValueError(
            f"`kinds` must be out of {', '.join(KINDS)}. "
            f"Received: {unknown[0]!r}."
        )
    first = runs[0].recording
    wanted = _Wanted(
        runs,
        first.measures if measures is None else as_measures(measures),
        _selected(first.weights, weights),
        metric,
        against,
    )
    for kind in kinds or KINDS:
        try:
            yield from KINDS[kind](wanted)
        except NotAtHandError as error:
            if kinds is not None:
                raise ValueError(
                    f"There is no figure '{kind}': {error}"
                ) from error


def _selected(names: Sequence[str], pattern: str | None) -> tuple[str, ...]:
    if pattern is None:
        return tuple(names)
    found = tuple(filter(searcher(pattern, "weights"), names))
    if not found:
        raise ValueError(
            f"`weights` selects no matrix. Received: {pattern!r}. "
            f"Recorded: {', '.join(names)}."
        )
    return found


def _ranks(wanted: _Wanted) -> Iterator[Picture]:
    yield Picture(
        "ranks",
        "Means over the weight matrices",
        "Falling lines: the rank that training keeps is lower than the one it "
        "began with. Lines that lie apart: what differs between the runs "
        "matters.",
        tuple(
            measure_curves(wanted.recordings, measure)
            for measure in wanted.measures
        ),
    )


def _weights(wanted: _Wanted) -> Iterator[Picture]:
    measure = wanted.measures[0]
    panels = [
        dataclasses.replace(
            weight_curves(run.recording, measure, wanted.weights),
            title=run.name,
        )
        for run in some(wanted.runs, MOST_PANELS)
    ]
    yield Picture(
        "weights",
        f"{measure.name.replace('_', ' ').capitalize()} of each weight matrix",
        "A mean hides which layers fall; from dark to bright the lines go from "
        "the first layer to the last.",
        tuple(panels),
    )


def _spectra(wanted: _Wanted) -> Iterator[Picture]:
    yield Picture(
        "spectra",
        "Spectra at the end, and at the start",
        "Where a line crosses the threshold is the rank. A knee says that the "
        "rank hardly depends on the threshold, a slope that it does.",
        tuple(
            spectrum_overlay(wanted.recordings, weight)
            for weight in some(wanted.weights, MOST_PANELS)
        ),
    )


def _time(wanted: _Wanted) -> Iterator[Picture]:
    for run in some(wanted.runs, 3):
        weights = some(wanted.weights, MOST_PANELS)
        yield Picture(
            "time",
            f"Spectra over time, {run.name}",
            "Each column is a spectrum, largest value on top. Dark growing "
            "from below: the small singular values die.",
            tuple(spectrum_over_time(run.recording, name) for name in weights),
        )


def _norms(wanted: _Wanted) -> Iterator[Picture]:
    panels = [
        norm_ratio_curves(run.recording, run.clock, run.name)
        for run in some(wanted.runs, MOST_PANELS)
        if run.clock is not None and len(run.recording) > 1
    ]
    if not panels:
        raise NotAtHandError(
            "no run knows its decay clock at two measurements."
        )
    yield Picture(
        "norms",
        "Norms from one measurement to the next",
        "On the line of decay alone gradients add nothing, and the theorem "
        "has something to say; at 1 gradients and decay are in balance.",
        tuple(panels),
    )


def _accuracy(wanted: _Wanted) -> Iterator[Picture]:
    logged = {
        key
        for recording in wanted.recordings.values()
        for item in recording.measurements
        for key in item.logs
    }
    if wanted.metric not in logged:
        raise NotAtHandError(
            f"no run has logged '{wanted.metric}'. Logged: "
            f"{', '.join(sorted(logged)) or 'nothing'}."
        )
    yield Picture(
        "accuracy",
        "Rank and accuracy",
        "Down and to the right is what one wants: less rank at no less "
        "accuracy. Marks are the ends of the runs.",
        (
            rank_and_metric(
                wanted.recordings, wanted.measures[0], wanted.metric
            ),
        ),
    )


def _collapse(wanted: _Wanted) -> Iterator[Picture]:
    runs = {
        run.name: (run.clock, run.recording)
        for run in some(wanted.runs, MOST_RUNS)
        if run.clock is not None and run.clock[-1] > 0
    }
    if len(runs) < 2:
        raise NotAtHandError("it takes two runs with a known weight decay.")
    yield Picture(
        "collapse",
        "Ranks on the decay clock",
        "Runs that fall on one curve differ in nothing but the pace of their "
        "decay; runs that do not, differ in their noise as well.",
        (clock_curves(runs, wanted.measures[0]),),
    )


def _final(wanted: _Wanted) -> Iterator[Picture]:
    fields = chosen_fields(wanted.runs, wanted.against, 1)
    points = ends_at(wanted.runs, fields)
    (word,) = in_words(fields)
    yield Picture(
        "final",
        f"Final ranks against {word}",
        "One line per layer: whether all layers answer alike, or only some.",
        tuple(
            final_values(points, measure, word, wanted.weights)
            for measure in wanted.measures
        ),
    )


def _contours(wanted: _Wanted) -> Iterator[Picture]:
    fields = chosen_fields(wanted.runs, wanted.against, 2)
    points = ends_at(wanted.runs, fields)
    one, other = in_words(fields)
    yield Picture(
        "contours",
        f"Final ranks over {one} and {other}",
        "Along a line the rank is the same: what one of the two does to it, "
        "the other can make up for.",
        tuple(
            final_map(points, measure, one, other, wanted.weights)
            for measure in wanted.measures
        ),
    )


def _theory(wanted: _Wanted) -> Iterator[Picture]:
    found = {run.name: run.certificates for run in wanted.runs}
    known = {name: one for name, one in found.items() if one and one.rows}
    if not known:
        raise NotAtHandError(
            "no `TheoryTracker` wrote beside the records. Give it the "
            "`run_dir` of the `RankTracker`."
        )
    for name, certificates in known.items():
        panels = [
            certified_curves(certificates, weight)
            for weight in some(certificates.weights, MOST_PANELS)
        ]
        if certificates.final:
            ends = certified_ranks(certificates.final, certificates.tolerance)
            panels.insert(0, ends)
        yield Picture(
            "theory",
            f"What the theorem certifies of {name}",
            "Filled marks are measured. Grey ones are vacuous: the lemma says "
            "nothing, whatever the rank is.",
            tuple(panels),
        )


def _compressibility(wanted: _Wanted) -> Iterator[Picture]:
    panels = []
    for run in some(wanted.runs, MOST_PANELS):
        last = run.recording.measurements[-1]
        spectra = {
            record.weight: record.spectrum
            for record in last.records
            if record.weight in wanted.weights
            and record.spectrum.finite
            and not record.collapsed
        }
        panel = compressibility_curves(spectra)
        if panel.lines:
            panels.append(dataclasses.replace(panel, title=run.name))
    if not panels:
        raise NotAtHandError("no matrix is large enough for factors to pay.")
    yield Picture(
        "compressibility",
        "What truncation would save and err",
        "A curve that falls steeply is a layer that a product of two small "
        "ones replaces at little error; what that does to the accuracy "
        "`compress_and_verify` says.",
        tuple(panels),
    )


KINDS: dict[str, Callable[[_Wanted], Iterator[Picture]]] = {
    "ranks": _ranks,
    "weights": _weights,
    "spectra": _spectra,
    "time": _time,
    "norms": _norms,
    "accuracy": _accuracy,
    "collapse": _collapse,
    "final": _final,
    "contours": _contours,
    "theory": _theory,
    "compressibility": _compressibility,
}
