"""What a report says of one matrix, however much of its spectrum is known."""

from collections.abc import Iterable
from typing import Any

from keras_lowrank.linalg import METHODS as EXACT_METHODS
from keras_lowrank.linalg import CertifiedSpectrum
from keras_lowrank.measures import Measure
from keras_lowrank.spectrum import Spectrum

METHODS = (*EXACT_METHODS, "certified")


def status_of(spectrum: Spectrum | CertifiedSpectrum) -> dict[str, Any]:
    """Status of a matrix and its reason, as in the rows of a `RankReport`."""
    if not spectrum.finite:
        return {"status": "not finite", "reason": spectrum.reason}
    if spectrum.zero:
        return {"status": "collapsed", "reason": "every entry is zero"}
    return {"status": "measured", "reason": None}


def measured_values(
    spectrum: Spectrum | CertifiedSpectrum, measures: Iterable[Measure]
) -> dict[str, Any]:
    """Every measure by name; of a certified spectrum with `bands` beside.

    Args:
        spectrum: `Spectrum` or `CertifiedSpectrum`.
        measures: Iterable of `Measure`.

    Returns:
        Dict from names to floats. Of a `CertifiedSpectrum` it is the middle of
        a band, or `None` where all singular values are needed; `bands` then
        has the text of each.
    """
    if isinstance(spectrum, Spectrum):
        return {measure.name: measure(spectrum) for measure in measures}
    values: dict[str, Any] = {}
    bands: dict[str, str] = {}
    for measure in measures:
        function = getattr(measure.function, "__name__", "")
        band = spectrum.measured(function, measure.parameters)
        values[measure.name] = None if band is None else band.value
        bands[measure.name] = "needs all values" if band is None else str(band)
    return values | {"bands": bands}


def certified_notes(rows: Iterable[dict[str, Any]]) -> list[str]:
    """What to know of the rows that are not of whole spectra, if any are."""
    found = [row for row in rows if row.get("bands")]
    if not found:
        return []
    notes = [
        "certified: counts by inertia, norms with bands; what is empty needs "
        "all singular values, method='auto'"
    ]
    for row in found:
        wide = [
            f"{name} {text}"
            for name, text in row["bands"].items()
            if "+-" in text
        ]
        if wide:
            notes.append(f"{row['name']}: {', '.join(wide)}")
    return notes
