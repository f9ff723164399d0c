"""How a tensor of some shape is read as one matrix or as several."""

import dataclasses
import math
import operator

import numpy as np

from keras_lowrank.matricize.views import DEFAULT_VIEWS
from keras_lowrank.matricize.views import PART_NAMES


@dataclasses.dataclass(frozen=True)
class Skip:
    """The decision to leave a variable out, with the reason.

    Args:
        reason: String shown in reports, such as `"bias"`.
        unsupported: Boolean, whether the variable is a matrix that we cannot
            read, which `strict=True` turns into an error.
    """

    reason: str
    unsupported: bool = False


@dataclasses.dataclass(frozen=True)
class Matricization:
    """Which axes of a tensor are rows, columns and blocks.

    Every axis is named once. Several row axes make one long row index, and
    several blocks one block-diagonal matrix. The parts of a tensor (heads,
    gates, groups) can be seen as one matrix or each as its own.

    Args:
        rows: Tuple of ints, axes that index rows; negative ones count from
            the end.
        columns: Tuple of ints, axes that index columns.
        blocks: Tuple of ints, axes that index diagonal blocks.
        split: Tuple of ints, a shape the tensor is reshaped to first, for
            axes that hold two things; axes are then those of this shape.
        parts: Tuple of ints, the axes that index parts: some of the axes
            above. The blocks by default.
        view: String, the kind of the parts and so the key of `views` that
            chooses between them and the whole: `"heads"`, `"gates"`,
            `"groups"` or `"channels"`.
        labels: Tuple of strings, names of the parts; `head_0`, ... by default.

    Example:

    The kernel of a convolution, `(height, width, input, output)`:

    >>> convolution = Matricization(rows=(0, 1, 2), columns=(3,))
    >>> convolution.matrix(np.zeros((3, 3, 16, 32))).shape
    (144, 32)

    The kernel of an LSTM, whose last axis holds four gates:

    >>> lstm = Matricization(rows=(0,), columns=(1, 2), split=(8, 4, 5),
    ...                      parts=(1,), view="gates", labels=tuple("ifco"))
    >>> kernel = np.arange(160.0).reshape(8, 20)
    >>> bool(np.all(lstm.matrix(kernel) == kernel))
    True
    >>> bool(np.all(lstm.matrix(kernel, part=1) == kernel[:, 5:10]))
    True
    """

    rows: tuple[int, ...]
    columns: tuple[int, ...]
    blocks: tuple[int, ...] = ()
    split: tuple[int, ...] | None = None
    parts: tuple[int, ...] | None = None
    view: str = "groups"
    labels: tuple[str, ...] = ()

    def __post_init__(self):
        for field in ("rows", "columns", "blocks", "split", "parts"):
            axes = getattr(self, field)
            if axes is None and field in ("split", "parts"):
                continue
            try:
                axes = tuple(operator.index(axis) for axis in axes)
            except TypeError as error:
                raise TypeError(
                    f"`{field}` must be a tuple of ints, such as (0, 1). "
                    f"Received: {field}={axes!r}."
                ) from error
            object.__setattr__(self, field, axes)
        object.__setattr__(self, "labels", tuple(self.labels))
        if self.parts is None:
            object.__setattr__(self, "parts", self.blocks)
        if self.view not in DEFAULT_VIEWS:
            raise ValueError(
                f"`view` must be one of {tuple(DEFAULT_VIEWS)}. "
                f"Received: view={self.view!r}."
            )

    def check(self, shape: tuple[int, ...]) -> None:
        """Raise `ValueError` unless a tensor of `shape` can be read so."""
        sizes = tuple(shape) if self.split is None else self.split
        if math.prod(sizes) != math.prod(shape):
            raise ValueError(
                f"`split` must hold as many entries as the tensor. Received: "
                f"split={self.split} for a tensor of shape {tuple(shape)}."
            )
        named = (*self.blocks, *self.rows, *self.columns)
        count = len(sizes)
        inside = all(-count <= axis < count for axis in named)
        once = sorted(axis % count for axis in named) == list(range(count))
        if not (inside and once and self.rows and self.columns):
            raise ValueError(
                "`rows`, `columns` and `blocks` together must name every axis "
                "once, with at least one row and one column axis. Received: "
                f"rows={self.rows}, columns={self.columns}, "
                f"blocks={self.blocks} for a tensor of shape {sizes}."
            )
        if not all(-count <= axis < count for axis in self._parts):
            raise ValueError(
                f"`parts` must be some of the axes of {sizes}. "
                f"Received: parts={self.parts}."
            )
        if self.labels and len(self.labels) != self.count(shape):
            raise ValueError(
                f"`labels` must name every part. Received: {self.labels} for "
                f"{self.count(shape)} parts of a tensor of shape {sizes}."
            )

    def reads_as(self, other: "Matricization", shape: tuple[int, ...]) -> bool:
        """Whether both make one matrix of a tensor, up to permutations.

        Args:
            other: `Matricization`.
            shape: Tuple of ints, the shape of the tensor.

        Returns:
            Boolean: whether rows, columns and blocks are the same axes, so
            that the singular values are the same.
        """
        if self.split != other.split:
            return False
        count = len(self._sizes(shape))
        return all(
            {axis % count for axis in one} == {axis % count for axis in another}
            for one, another in (
                (self.rows, other.rows),
                (self.columns, other.columns),
                (self.blocks, other.blocks),
            )
        )

    @property
    def _parts(self) -> tuple[int, ...]:
        return self.parts or ()

    def _sizes(self, shape, part=None) -> list[int]:
        sizes = list(shape if self.split is None else self.split)
        if part is not None:
            for axis in self._parts:
                sizes[axis] = 1
        return sizes

    def count(self, shape: tuple[int, ...]) -> int:
        """How many parts a tensor of `shape` has; 1 without part axes."""
        sizes = self._sizes(shape)
        return math.prod(sizes[axis] for axis in self._parts)

    def label(self, part: int) -> str:
        """Name of a part, as in `head_0` or `gate_i`."""
        kind = PART_NAMES[self.view]
        return f"{kind}_{self.labels[part] if self.labels else part}"

    def matrix_shape(
        self, shape: tuple[int, ...], part: int | None = None
    ) -> tuple[int, int]:
        """Shape `(m, n)` of the matrix, block-diagonal ones in full."""
        sizes = self._sizes(shape, part)
        blocks = math.prod(sizes[axis] for axis in self.blocks)
        rows = math.prod(sizes[axis] for axis in self.rows)
        columns = math.prod(sizes[axis] for axis in self.columns)
        return blocks * rows, blocks * columns

    def matrix(self, array, part: int | None = None, xp=np):
        """The tensor as a matrix.

        Args:
            array: NumPy array of the shape this matricization is meant for, or
                a tensor.
            part: Int, the position of one part; the whole by default.
            xp: What to compute with, `numpy` or, for a tensor, `keras.ops`.

        Returns:
            Array of shape `(m, n)`, or `(b, m, n)` for the `b` blocks of a
            block-diagonal matrix, as `linalg.spectrum` takes them.
        """
        array = xp.reshape(array, self._sizes(array.shape))
        if part is not None:
            counts = [array.shape[axis] for axis in self._parts]
            window = [slice(None)] * len(array.shape)
            position = np.unravel_index(part, counts)
            for axis, index in zip(self._parts, position, strict=True):
                window[axis] = slice(int(index), int(index) + 1)
            array = array[tuple(window)]
        sizes = list(array.shape)
        order = [a % len(sizes) for a in self.blocks + self.rows + self.columns]
        array = xp.transpose(array, order)
        blocks = math.prod(sizes[axis] for axis in self.blocks)
        rows = math.prod(sizes[axis] for axis in self.rows)
        stack = xp.reshape(array, (blocks, rows, -1))
        return stack[0] if blocks == 1 else stack

    def tensor(self, matrix: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        """The tensor of a matrix: the reverse of `matrix`, for the whole.

        Args:
            matrix: NumPy array of shape `(m, n)` or `(b, m, n)`.
            shape: Tuple of ints, the shape of the tensor.

        Returns:
            NumPy array of that shape.
        """
        sizes = self._sizes(shape)
        order = [a % len(sizes) for a in self.blocks + self.rows + self.columns]
        array = matrix.reshape([sizes[axis] for axis in order])
        return array.transpose(np.argsort(order)).reshape(shape)
