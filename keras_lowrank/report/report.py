"""`rank_report`: what `model.summary()` would say about rank."""

from typing import TYPE_CHECKING
from typing import Any

import rich.console
import rich.text

from keras_lowrank.linalg import check_method
from keras_lowrank.measures import as_measures
from keras_lowrank.report.layout import heading
from keras_lowrank.report.layout import report_lines
from keras_lowrank.report.values import METHODS
from keras_lowrank.report.values import certified_notes
from keras_lowrank.report.values import measured_values
from keras_lowrank.report.values import status_of
from keras_lowrank.tables import Column
from keras_lowrank.tables import Table
from keras_lowrank.tables import number
from keras_lowrank.tables import shape_text

if TYPE_CHECKING:
    from keras_lowrank.weights import SkippedWeight
    from keras_lowrank.weights import WeightMatrices
    from keras_lowrank.weights import WeightMatrix

DEFAULT_MEASURES = (
    "rank",
    "stable_rank",
    "effective_rank",
    "energy_rank",
    "frobenius_norm",
    "spectral_norm",
)


def rank_report(
    model,
    measures=None,
    weights=None,
    views=None,
    strict: bool = False,
    method: str = "auto",
) -> "RankReport":
    """Measure every weight matrix of a model; account for every variable.

    Works on any built model, trained or not, and changes nothing in it. Every
    variable of `model.weights` is either measured or listed with the reason
    why it is not.

    Args:
        model: Built Keras model, or a layer.
        measures: What to measure: names, functions from a `Spectrum` to a
            number, a list or a dict of these. By default rank, stable,
            effective and energy rank, Frobenius and spectral norm.
        weights: Which matrices, as in `weight_matrices`.
        views: How heads, gates, groups and channels are seen, as in
            `weight_matrices`.
        strict: Boolean, whether a kernel whose axes are not known is an error
            rather than a skipped row.
        method: How spectra are computed, as in `linalg.spectrum`; or
            `"certified"`, which computes no spectrum of matrices whose short
            side is above 2048. Ranks are counted by inertia and norms have
            error bands, which a row has as `bands`; measures that need all
            singular values are `None`. Needs SciPy.

    Returns:
        A `RankReport`: print it, show it in a notebook, or take
        `to_frame()`, `to_json()`, `rows` or `report["dense/kernel"]`.

    Raises:
        TypeError: when `model` is no Keras model or layer.
        ValueError: when it is not built, for unknown measures, when
            `weights` selects nothing and, with `strict=True`, for kernels
            that cannot be read.

    Example:

    >>> import keras
    >>> layer = keras.layers.Dense(3, kernel_initializer="identity")
    >>> model = keras.Sequential([keras.Input((3,)), layer], name="small")
    >>> report = rank_report(model, measures=["rank", "stable_rank"])
    >>> report["dense/kernel"]["rank"]
    3.0
    >>> report.print(line_length=60)
    Rank report of 'small': 1 of 2 variables measured, 1 skipped
    ──────────────────────────────────
                                stable
                  matrix  rank    rank
    ──────────────────────────────────
    dense/kernel   3 x 3     3       3
    ──────────────────────────────────
    Skipped, bias: dense/bias
    rank: numerical_rank(tolerance=0.001,
      relative_to='frobenius')
    stable_rank: stable_rank()
    """
    # Reports of files are made without Keras, which these import.
    from keras_lowrank.channels import channel_rows
    from keras_lowrank.weights import weight_matrices

    check_method(method, METHODS)
    chosen = as_measures(DEFAULT_MEASURES if measures is None else measures)
    matrices = weight_matrices(model, weights, views, strict)
    place = {id(variable): i for i, variable in enumerate(model.weights)}
    rows = []
    spectra = matrices.spectra(method)
    channels = channel_rows(model, matrices)
    for matrix, spectrum, counts in zip(
        matrices, spectra, channels, strict=True
    ):
        row = _measured_row(matrix, spectrum)
        row |= measured_values(spectrum, chosen)
        row["dead"] = _dead(row, counts)
        rows.append({"index": place[id(matrix.variable)]} | row)
    for weight in matrices.skipped:
        row = _skipped_row(weight)
        rows.append({"index": place[id(weight.variable)]} | row)
    rows.sort(key=lambda row: row["index"])
    return RankReport(
        title=_title(model, rows),
        rows=rows,
        measures=chosen,
        notes=_notes(matrices, chosen, rows) + certified_notes(rows),
    )


class RankReport(Table):
    """Measured and skipped variables of a model, one row each.

    Every row has `index` (the place of the variable in `model.weights`),
    `name`, `path`, `layer`, `shape`, `dtype`, `trainable` and `status`:
    `"measured"`, `"collapsed"` for a matrix of zeros, `"not finite"`, or
    `"skipped"`. Measured rows have `matrix_shape` and the measures besides;
    the others a `reason`. `dead` says which of the channels of a matrix carry
    nothing, as `dead_channels` counts them, and is `None` where all do. With
    split views a variable has several rows.

    Args:
        title: String printed above the table.
        rows: Sequence of dicts.
        measures: Sequence of `Measure`.
        notes: Sequence of strings printed below the table.
    """

    def __init__(self, title, rows, measures, notes=()):
        self.measures = tuple(measures)
        columns = [
            Column("name"),
            Column("shape", "variable", shape_text),
            Column("matrix_shape", "matrix", shape_text),
            *(
                Column(measure.name, heading(measure), number())
                for measure in self.measures
            ),
            Column("status"),
            Column("reason"),
        ]
        if any(row.get("dead") for row in rows):
            columns.append(Column("dead"))
        super().__init__(title, columns, rows, notes)

    @property
    def measured(self) -> list[dict[str, Any]]:
        """The rows of the matrices."""
        return [row for row in self.rows if row["status"] != "skipped"]

    @property
    def skipped(self) -> list[dict[str, Any]]:
        """The rows of the variables that were skipped."""
        return [row for row in self.rows if row["status"] == "skipped"]

    @property
    def skipped_by_reason(self) -> dict[str, list[str]]:
        """Names of the skipped variables under each reason."""
        names: dict[str, list[str]] = {}
        for row in self.skipped:
            names.setdefault(row["reason"], []).append(row["name"])
        return names

    def __getitem__(self, name: str) -> dict[str, Any]:
        for row in self.rows:
            if row["name"] == name:
                return row
        raise KeyError(
            f"No row is named {name!r}. Names: "
            f"{[row['name'] for row in self.rows]}."
        )

    def renderable(self) -> Any:
        """The report as a `rich` object, for live displays."""
        return self  # what is printed depends on the width of the console

    def __rich_console__(self, console, options):
        yield rich.text.Text(self.render(options.max_width))

    def render(self, line_length: int | None = None) -> str:
        """The report as plain text, at most `line_length` characters wide."""
        width = line_length or rich.console.Console().width
        return "\n".join(report_lines(self, width))


def _measured_row(matrix: "WeightMatrix", spectrum) -> dict[str, Any]:
    row = _common(matrix, matrix.trainable) | status_of(spectrum)
    return row | {"matrix_shape": matrix.matrix_shape, "note": matrix.note}


def _skipped_row(weight: "SkippedWeight") -> dict[str, Any]:
    row = _common(weight, bool(weight.variable.trainable))
    return row | {"status": "skipped", "reason": weight.reason}


def _common(weight, trainable: bool) -> dict[str, Any]:
    return {
        "name": weight.name,
        "path": weight.path,
        "layer": type(weight.layer).__name__,
        "shape": weight.shape,
        "dtype": str(weight.variable.dtype),
        "trainable": trainable,
    }


def _title(model, rows) -> str:
    measured = {r["index"] for r in rows if r["status"] != "skipped"}
    matrices = sum(row["status"] != "skipped" for row in rows)
    seen = {row["index"] for row in rows}
    parts = f" as {matrices} matrices" if matrices > len(measured) else ""
    return (
        f"Rank report of '{model.name}': {len(measured)} of {len(seen)} "
        f"variables measured{parts}, {len(seen - measured)} skipped"
    )


def _dead(row, counts) -> str | None:
    """Which channels are dead, where others live."""
    if row["status"] != "measured":
        return None
    sides = (
        (counts["dead_outputs"], counts["outputs"], "outputs"),
        (counts["dead_inputs"], counts["inputs"], "inputs"),
    )
    return (
        ", ".join(f"{n} of {of} {side}" for n, of, side in sides if n) or None
    )


def _notes(matrices: "WeightMatrices", measures, rows) -> list[str]:
    from keras_lowrank.channels import THRESHOLD

    notes = [f"{measure.name}: {measure.definition}" for measure in measures]
    if any(row.get("dead") for row in rows):
        notes.append(
            "dead: channels that carry nothing, "
            f"dead_channels(threshold={THRESHOLD:g})"
        )
    if matrices.unbuilt:
        notes.append(
            "Not built, so without variables yet: "
            f"{', '.join(matrices.unbuilt)}"
        )
    return notes
