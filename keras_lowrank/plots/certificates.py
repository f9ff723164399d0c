"""What the theory certifies of ranks, beside the ranks: as plot data."""

import math
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

import numpy as np

from keras_lowrank.plots.data import Line
from keras_lowrank.plots.data import Panel
from keras_lowrank.records import Certificates
from keras_lowrank.spectrum import Spectrum
from keras_lowrank.theory import Window
from keras_lowrank.theory import distances_to_ranks
from keras_lowrank.theory import epsilon_rank

# What each mark is called in the legend, in its order.
LABELS = {
    "measured": "measured",
    "certified": "certified",
    "vacuous": "vacuous: nothing certified",
    "closed form": "Theorem 3.3",
    "beyond": "Theorem 3.3, above min(m, n)",
}


def certified_ranks(
    rows: Sequence[Mapping[str, Any]], tolerance: float
) -> Panel:
    """Measured and certified rank of each weight matrix, as a picture.

    Ranks are drawn as shares of `min(m, n)`, so that matrices of all sizes
    can be read together; the numbers stand beside them. A certificate that
    says nothing is marked *vacuous*, and never drawn as one.

    Args:
        rows: Sequence of dicts with `weight`, `measured`, `certified`,
            `closed_form`, `full` and `vacuous`, one per weight matrix, as in
            `TheoryTracker.table().rows`.
        tolerance: Float, the one that they are for.

    Returns:
        A `Panel` with a row per weight matrix.

    Example:

    >>> row = {"weight": "dense/kernel", "measured": 11, "certified": 20,
    ...        "closed_form": 130.0, "full": 24, "vacuous": False}
    >>> panel = certified_ranks([row], tolerance=0.5)
    >>> panel.rows, panel.remarks
    (('dense/kernel',), ('11 of 24, certified 20',))
    >>> [line.label for line in panel.lines]
    ['min(m, n)', 'measured', 'certified', 'Theorem 3.3, above min(m, n)']
    """
    points: dict[str, list[tuple[float, int]]] = {mark: [] for mark in LABELS}
    for height, row in enumerate(rows):
        for mark, rank in _ranks(row):
            if math.isfinite(rank):
                points[mark].append((rank / row["full"], height))
    edges = np.array([-0.5, len(rows) - 0.5])
    lines = [Line("min(m, n)", np.ones(2), edges, faint=True)]
    for mark, places in points.items():
        if places:
            x, y = np.array(places, float).T
            lines.append(Line(LABELS[mark], x, y, mark=mark))
    return Panel(
        title="Ranks, measured and certified",
        x_label="rank / min(m, n)",
        y_label="",
        lines=tuple(lines),
        caption=(
            f"epsilon_rank(tolerance={tolerance:g}), and its bound by Lemma 3.2"
        ),
        rows=tuple(row["weight"] for row in rows),
        remarks=tuple(_remark(row) for row in rows),
    )


def certified_curves(certificates: Certificates, weight: str) -> Panel:
    """What was certified of one weight matrix, epoch by epoch.

    Args:
        certificates: `Certificates`, as `read_certificates` gives them.
        weight: String, the name of the weight matrix.

    Returns:
        A `Panel` with the certified rank where there is one, `min(m, n)`
        marked as vacuous where the lemma says nothing, and the rank that was
        measured at the end.
    """
    rows = [row for row in certificates.rows if row["weight"] == weight]
    marks: dict[str, list] = {"certified": [], "vacuous": []}
    for row in rows:
        mark = "vacuous" if row["vacuous"] else "certified"
        rank = row["full"] if row["vacuous"] else row["certified"]
        marks[mark].append((row["epoch"], rank))
    for row in certificates.final:
        if row["weight"] == weight and math.isfinite(row["measured"]):
            end = certificates.epochs[-1]
            marks["measured"] = [(end, row["measured"])]
    lines = []
    for mark, places in marks.items():
        if places:
            x, y = np.array(places, float).T
            lines.append(Line(LABELS[mark], x, y, mark=mark))
    return Panel(
        title=weight,
        x_label="epochs",
        y_label=f"rank at tolerance {certificates.tolerance:g}",
        lines=tuple(lines),
        caption="Lemma 3.2 with the norms and rates of the run",
    )


def certificate_curve(
    spectrum: Spectrum,
    window: Window | None,
    tolerance: float,
    title: str = "",
) -> Panel:
    """Both sides of Lemma 3.2 for one weight matrix, rank by rank.

    For each number of last steps the lemma allows a rank, and bounds the
    distance from it. The measured distance is below that bound at every rank,
    whatever the run; how far below is what the lemma gives away.

    Args:
        spectrum: `Spectrum` of the matrix.
        window: `Window` before the same moment, or `None` where the lemma
            says nothing.
        tolerance: Float in (0, 1), where both ranks are read off.
        title: String, the name of the matrix.

    Returns:
        A `Panel` with the measured distance, the bound, and their ranks.
        Distances below the resolution of the spectrum are cut off there.

    Example:

    >>> window = Window.of_norms(
    ...     norms=[1.0, 0.5, 0.4, 0.4], clock=[0.0, 1.0, 2.0, 3.0],
    ...     batch_sizes=[2, 2, 2], uses=1, shape=(10, 10),
    ... )
    >>> spectrum = Spectrum(0.01 ** np.arange(10), shape=(10, 10))
    >>> panel = certificate_curve(spectrum, window, tolerance=0.2)
    >>> for line in panel.lines:
    ...     print(line.label, line.x[:3])
    tolerance 0.2 [ 0 10]
    measured distance [0 1 2]
    bound of Lemma 3.2 [0 2 4]
    measured rank 1 [1]
    certified rank 4 [4]
    """
    full = min(spectrum.shape)
    least = _resolved_distance(spectrum)
    level = np.full(2, tolerance)
    across = Line(
        f"tolerance {tolerance:g}", np.array([0, full]), level, faint=True
    )
    lines, marks = [across, _measured_line(spectrum, least)], []
    measured = epsilon_rank(spectrum, tolerance)
    if math.isfinite(measured):
        marks.append(("measured", f"measured rank {measured}", measured))
    certificate = None
    if window is not None:
        # At `min(m, n)` it says nothing, however small it is.
        shown = (window.budgets < full) & (window.remainders > least)
        bound = window.budgets[shown], window.remainders[shown]
        lines.append(Line("bound of Lemma 3.2", *bound))
        certificate = window.certificate(tolerance)
    if certificate is None or certificate.vacuous:
        marks.append(("vacuous", LABELS["vacuous"], full))
    else:
        label = f"certified rank {certificate.rank}"
        marks.append(("certified", label, certificate.rank))
    lines += [
        Line(label, np.array([rank]), level[:1], mark=mark)
        for mark, label, rank in marks
    ]
    return Panel(
        title=f"Lemma 3.2 on {title}" if title else "Lemma 3.2",
        x_label=f"rank, of {full}",
        y_label="distance / Frobenius norm",
        lines=tuple(lines),
        log_y=True,
        caption="distance_to_rank(rank), and R(n) at rank uses * samples",
    )


def _ranks(row: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """What is marked of a weight matrix, and at which rank."""
    yield "measured", row["measured"]
    yield "vacuous" if row["vacuous"] else "certified", row["certified"]
    bound, full = row["closed_form"], row["full"]
    if bound is not None:
        yield "beyond" if bound > full else "closed form", min(bound, full)


def _remark(row: Mapping[str, Any]) -> str:
    """The numbers of a row, as ranks rather than shares."""
    if not math.isfinite(row["measured"]):
        text = "not finite"
    elif not row["measured"]:
        text = "collapsed"
    else:
        text = f"{row['measured']} of {row['full']}"
    certified = f"certified {row['certified']}"
    return f"{text}, {'vacuous' if row['vacuous'] else certified}"


def _resolved_distance(spectrum: Spectrum) -> float:
    """The distance below which rounding decides, relative to the norm."""
    norm = np.linalg.norm(spectrum.values)
    return float(spectrum.resolution / norm) if norm > 0 else 0.0


def _measured_line(spectrum: Spectrum, least: float) -> Line:
    distances = distances_to_ranks(spectrum)[:-1]  # at the last it is 0
    # It falls; what comes after the first that is too small is left out.
    count = 1 + np.count_nonzero(distances > least)
    distances = np.maximum(distances[:count], least)
    shown = distances > 0  # zero has no place on a logarithmic axis
    return Line(
        "measured distance",
        np.arange(len(distances))[shown],
        distances[shown],
    )
