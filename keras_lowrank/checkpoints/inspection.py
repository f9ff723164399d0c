"""`inspect_file`: the rank report of a file."""

import dataclasses
import os
from collections.abc import Callable
from collections.abc import Iterator
from typing import Any

import numpy as np

from keras_lowrank.checkpoints.formats import open_checkpoint
from keras_lowrank.checkpoints.source import FLOATS
from keras_lowrank.checkpoints.stored import Checkpoint
from keras_lowrank.checkpoints.stored import CheckpointError
from keras_lowrank.checkpoints.stored import StoredTensor
from keras_lowrank.checkpoints.stored import damage_as_error
from keras_lowrank.checkpoints.stored import printable
from keras_lowrank.linalg import Product
from keras_lowrank.linalg import certified_spectra
from keras_lowrank.linalg import check_method
from keras_lowrank.linalg import spectra
from keras_lowrank.matricize import Matricization
from keras_lowrank.matricize import Skip
from keras_lowrank.matricize import as_views
from keras_lowrank.matricize import part_name
from keras_lowrank.matricize import seen_parts
from keras_lowrank.measures import as_measures
from keras_lowrank.names import searcher
from keras_lowrank.report import DEFAULT_MEASURES
from keras_lowrank.report import METHODS
from keras_lowrank.report import RankReport
from keras_lowrank.report import certified_notes
from keras_lowrank.report import measured_values
from keras_lowrank.report import status_of

LAYOUTS = ("keras", "torch")
GUESSED = (
    "Kernels of {count} tensors with more than two axes were flattened by the "
    "layout `{layout}`: {what}. Tensors of another meaning are not told apart."
)
FLATTENED = {
    "keras": "the last axis is the output",
    "torch": "the first axis is the output",
}


def inspect_file(
    path,
    measures=None,
    weights: str | None = None,
    views=None,
    layout: str | None = None,
    strict: bool = False,
    method: str = "auto",
    jobs: int = 1,
    progress: Callable[[int, int, str], Any] | None = None,
) -> RankReport:
    """Measure the weight matrices in a file; account for every tensor.

    Tensors are read one at a time, so that a file may be larger than memory:
    what is held is the largest `jobs + 1` matrices. Nothing in the file is
    executed, and neither Keras nor a backend is used. Of a `.keras` file the
    config is read besides, so that kernels and names are those of
    `rank_report`; layers of your own, quantized ones and convolutions of low
    rank are measured as they are applied only in a model that was loaded.

    HDF5 is read by a C library, which some damaged files crash, and a process
    with it, or keep busy for ever; the command `keras-lowrank inspect` reads
    in a child process and makes that an error.

    Args:
        path: String or path of a `.keras`, `.weights.h5`, `.safetensors`,
            `.npz`, `.npy` or torch file, or of the index of its shards.
        measures: What to measure, as in `rank_report`.
        weights: Regular expression searched in names, for which matrices.
        views: How heads, gates, groups and channels are seen, as in
            `rank_report`.
        layout: `"keras"` where the last axis of a kernel is its output,
            `"torch"` where the first one is; by default that of the format.
            Files of Keras say more, and it is of no meaning for them.
        strict: Boolean, whether a tensor whose axes are not known is an error
            rather than a skipped row.
        method: How spectra are computed, as in `rank_report`.
        jobs: Int >= 1, threads to spread the matrices over; one matrix after
            another where `method` is `"certified"`.
        progress: Function called with the number of matrices that are done,
            the number of all, and the name of the last one; first with none
            done, when the file was opened and is understood.

    Returns:
        A `RankReport`, in whose rows `path` says where in the file a tensor
        is, `layer` may be `None` and `trainable` is.

    Raises:
        OSError: when there is no such file.
        checkpoints.CheckpointError: a `ValueError`, for a file that is
            truncated, hostile, or not what its name says.
        ValueError: for an argument that has no meaning, when `weights` selects
            nothing, or, with `strict=True`, for tensors that cannot be read.

    Example:

    >>> import tempfile
    >>> path = f"{tempfile.mkdtemp()}/weights.npz"
    >>> np.savez(path, hidden=np.diag([3.0, 4.0]), bias=np.ones(2))
    >>> report = inspect_file(path, measures=["rank", "spectral_norm"])
    >>> report["hidden"]["spectral_norm"], report["bias"]["reason"]
    (4.0, 'vector')
    """
    check_method(method, METHODS)
    if type(jobs) is not int or jobs < 1:
        raise ValueError(
            f"`jobs` must be an int >= 1. Received: jobs={jobs!r}."
        )
    if layout not in (None, *LAYOUTS):
        raise ValueError(
            f"`layout` must be one of {LAYOUTS}. Received: layout={layout!r}."
        )
    chosen = as_measures(DEFAULT_MEASURES if measures is None else measures)
    choice = as_views(views)
    with open_checkpoint(path) as file:
        plan = _Plan(file, layout or file.layout, choice)
        if strict:
            plan.check_supported()
        if weights is not None:
            plan.select(weights)
        done, total = 0, len(plan.matrices)
        if progress is not None:
            progress(done, total, "")
        if method == "certified":
            results: Iterator = certified_spectra(plan.arrays())
        else:
            results = spectra(plan.arrays(), method, jobs)
        for matrix, spectrum in zip(plan.matrices, results, strict=True):
            row = plan.rows[matrix.row]
            row |= status_of(spectrum) | measured_values(spectrum, chosen)
            done += 1
            if progress is not None:
                progress(done, total, row["name"])
    name = printable(os.path.basename(os.fspath(path)))
    notes = [f"{measure.name}: {measure.definition}" for measure in chosen]
    notes += certified_notes(plan.rows)
    return RankReport(
        title=plan.title(name),
        rows=plan.rows,
        measures=chosen,
        notes=[*notes, *plan.notes],
    )


@dataclasses.dataclass(frozen=True)
class _Matrix:
    """A matrix to be measured: a tensor of the file, or a part of one."""

    row: int
    tensor: StoredTensor
    how: Matricization
    part: int | None


class _Plan:
    """What of a file becomes which row of the report."""

    def __init__(self, file: Checkpoint, layout: str, views):
        self.rows: list[dict[str, Any]] = []
        self.matrices: list[_Matrix] = []
        self.unsupported: list[dict[str, Any]] = []
        guessed = 0
        for index, tensor in enumerate(file.tensors):
            how = _how(tensor, layout)
            guessed += (
                tensor.how is None
                and isinstance(how, Matricization)
                and len(tensor.shape) > 2
            )
            parts: list[int | None] | Skip
            if isinstance(how, Skip):
                parts = how
            else:
                parts = seen_parts(how, tensor.shape, views)
            if isinstance(parts, Skip) or isinstance(how, Skip):
                assert isinstance(parts, Skip)
                self._skip(index, tensor, parts)
                continue
            for part in parts:
                self.matrices.append(_Matrix(len(self.rows), tensor, how, part))
                name = part_name(tensor.name, how, part)
                row = _common(index, tensor, name)
                shape = how.matrix_shape(tensor.shape, part)
                self.rows.append(
                    row | {"matrix_shape": shape, "note": tensor.note}
                )
        self.notes = list(file.notes)
        if guessed:
            what = FLATTENED[layout]
            note = GUESSED.format(count=guessed, layout=layout, what=what)
            self.notes.append(note)

    def _skip(self, index, tensor, skip: Skip):
        row = _common(index, tensor, tensor.name)
        row |= {"status": "skipped", "reason": skip.reason}
        self.rows.append(row)
        if skip.unsupported:
            self.unsupported.append(row)

    def check_supported(self) -> None:
        """Raise `ValueError` for kernels whose axes are not known."""
        if self.unsupported:
            listing = "; ".join(
                f"'{row['name']}' of shape {row['shape']} ({row['reason']})"
                for row in self.unsupported
            )
            raise ValueError(
                f"`strict=True`, and these tensors cannot be read: {listing}. "
                "Load the model and use `rank_report`, or use `strict=False`."
            )

    def select(self, pattern: str) -> None:
        """Keep the matrices whose names a regular expression is found in."""
        search = searcher(pattern, "weights")
        kept = [m for m in self.matrices if search(self.rows[m.row]["name"])]
        if not kept:
            names = [self.rows[m.row]["name"] for m in self.matrices[:20]]
            raise ValueError(
                f"`weights` selects no matrix. Received: {pattern!r}. "
                f"Names of the first matrices: {names}."
            )
        rows = {matrix.row for matrix in kept}
        for matrix in self.matrices:
            if matrix.row not in rows:
                row = self.rows[matrix.row]
                row.pop("matrix_shape")
                row |= {
                    "status": "skipped",
                    "reason": "not selected by `weights`",
                }
        self.matrices = kept

    def arrays(self) -> Iterator[np.ndarray | Product]:
        """The matrices, each read when it is asked for."""
        tensor: StoredTensor | None = None
        value: np.ndarray | Product | None = None
        for matrix in self.matrices:
            # The parts of one tensor follow each other and share one copy,
            # which goes before the next one is read.
            if matrix.tensor is not tensor:
                tensor, value = matrix.tensor, None
                value = _read(matrix.tensor)
            if isinstance(value, Product):
                yield value
            else:
                yield matrix.how.matrix(value, matrix.part)
            if matrix.part is None:
                tensor, value = None, None

    def title(self, name: str) -> str:
        """The line above the report."""
        seen = {row["index"] for row in self.rows}
        measured = {
            row["index"] for row in self.rows if row["status"] != "skipped"
        }
        count = len(self.matrices)
        parts = f" as {count} matrices" if count > len(measured) else ""
        return (
            f"Rank report of '{name}': {len(measured)} of {len(seen)} tensors "
            f"measured{parts}, {len(seen - measured)} skipped"
        )


def _how(tensor: StoredTensor, layout: str) -> Matricization | Skip:
    """Rows and columns of a tensor, by what the file says or by its layout."""
    if tensor.dtype.startswith("complex"):
        return Skip(
            f"{tensor.dtype} entries: measure real and imaginary parts by "
            "themselves",
            unsupported=True,
        )
    if tensor.dtype not in FLOATS and not isinstance(tensor.how, Skip):
        return Skip(f"{printable(tensor.dtype)} entries, no weights")
    if tensor.how is not None:
        return tensor.how
    if 0 in tensor.shape:
        return Skip("empty: no entries")
    if len(tensor.shape) < 2:
        return Skip("vector" if tensor.shape else "scalar")
    axes = tuple(range(len(tensor.shape)))
    if layout == "torch" and len(axes) > 2:
        return Matricization(rows=axes[:1], columns=axes[1:])
    return Matricization(rows=axes[:-1], columns=axes[-1:])


def _read(tensor: StoredTensor) -> np.ndarray | Product:
    try:
        with damage_as_error(printable(tensor.name)):
            return tensor.read()
    except MemoryError as error:
        raise CheckpointError(
            f"There is not enough memory for '{printable(tensor.name)}' of "
            f"shape {tensor.shape} and dtype {tensor.dtype}. Leave it out "
            "with `weights`, or use fewer `jobs` or a larger machine."
        ) from error


def _common(index: int, tensor: StoredTensor, name: str) -> dict[str, Any]:
    return {
        "index": index,
        "name": printable(name),
        "path": printable(tensor.path or tensor.name),
        "layer": None if tensor.layer is None else printable(tensor.layer),
        "shape": tensor.shape,
        "dtype": tensor.dtype,
        "trainable": None,
    }
