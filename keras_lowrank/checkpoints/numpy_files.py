"""`.npy` and `.npz`: NumPy's formats, without pickles."""

import functools
import io
import math
import tokenize

import numpy as np

from keras_lowrank.checkpoints.archive import Archive
from keras_lowrank.checkpoints.archive import read_exactly
from keras_lowrank.checkpoints.source import DTYPES
from keras_lowrank.checkpoints.source import Source
from keras_lowrank.checkpoints.source import checked_shape
from keras_lowrank.checkpoints.source import read_array
from keras_lowrank.checkpoints.source import truncated
from keras_lowrank.checkpoints.stored import Checkpoint
from keras_lowrank.checkpoints.stored import CheckpointError
from keras_lowrank.checkpoints.stored import StoredTensor
from keras_lowrank.checkpoints.stored import closing_on_error
from keras_lowrank.checkpoints.stored import printable

MAGIC = b"\x93NUMPY"
# Headers are a few hundred bytes; NumPy reads no longer ones either.
MAX_HEADER = 10_000


def open_npy(path) -> Checkpoint:
    """Open a `.npy` file, an array by itself."""
    source = Source(path)
    with closing_on_error(source.close):
        head = source.at(0, min(source.size, MAX_HEADER + 16))
        layout = _Layout(head, "array", source.size)
        read = functools.partial(layout.read, source)
    tensor = StoredTensor("array", layout.shape, layout.dtype, read)
    return Checkpoint("npy", [tensor], "keras", close=source.close)


def open_npz(archive: Archive) -> Checkpoint:
    """Open the arrays of a `.npz` file.

    Args:
        archive: `Archive`.

    Returns:
        A `Checkpoint`.
    """
    tensors = []
    for member in archive.members:
        size = archive.size(member)
        with archive.open(member) as file:
            count = min(size, MAX_HEADER + 16)
            layout = _Layout(read_exactly(file, count, member), member, size)
        read = functools.partial(_read_member, archive, member, layout)
        name = member.removesuffix(".npy")
        tensors.append(
            StoredTensor(name, layout.shape, layout.dtype, read, path=member)
        )
    return Checkpoint("npz", tensors, "keras", close=archive.close)


def _read_member(archive, member, layout):
    if archive.stored(member):
        part = archive.part(member)
        archive.parts.remove(part)
        try:
            return layout.read(part)
        finally:
            part.close()
    count = layout.size - layout.offset
    with archive.open(member) as file:
        read_exactly(file, layout.offset, member)
        raw = bytearray(read_exactly(file, count, member))
    return layout.shaped(np.frombuffer(raw, layout.kind))


class _Layout:
    """Where the entries of an `.npy` are, and how they are arranged."""

    def __init__(self, head: bytes, name: str, size: int):
        self.size = size
        if not head.startswith(MAGIC):
            raise _bad(name, f"it begins with {head[:8]!r}")
        file = io.BytesIO(head)
        try:
            version = np.lib.format.read_magic(file)
            read_header = {
                (1, 0): np.lib.format.read_array_header_1_0,
                (2, 0): np.lib.format.read_array_header_2_0,
            }.get(version)
            if read_header is None:
                raise _bad(name, f"its version is {version}")
            shape, self.fortran, self.kind = read_header(
                file, max_header_size=MAX_HEADER
            )
        except (
            ValueError,
            SyntaxError,
            TypeError,
            RecursionError,
            tokenize.TokenError,
        ) as error:
            if isinstance(error, CheckpointError):
                raise
            raise _bad(name, printable(str(error))[:200]) from error
        except MemoryError as error:  # the parser's, for deep nesting
            raise _bad(name, "its header is nested too deep") from error
        self.shape = checked_shape(shape, name)
        if self.kind.hasobject:
            raise CheckpointError(
                f"The array '{printable(name)}' holds Python objects, which "
                "only a pickle can read and a pickle can execute anything. "
                "Save it as numbers, as with `array.astype('float32')`."
            )
        self.offset = file.tell()
        self.dtype = self.kind.name
        wanted = self.offset + math.prod(self.shape) * self.kind.itemsize
        if wanted > size:
            raise truncated(name, wanted, size)
        self.size = wanted

    def read(self, source: Source) -> np.ndarray:
        """The array, from its file or its part of one."""
        native = self.kind.newbyteorder("=").name
        order = "big" if self.kind.str.startswith(">") else "little"
        if native not in DTYPES:
            raise CheckpointError(f"Entries of {native} are no numbers.")
        return self.shaped(
            read_array(
                source, self.offset, (math.prod(self.shape),), native, order
            )
        )

    def shaped(self, entries: np.ndarray) -> np.ndarray:
        """The entries as the array that they are."""
        return entries.reshape(self.shape, order="F" if self.fortran else "C")


def _bad(name: str, why: str) -> CheckpointError:
    return CheckpointError(
        f"'{printable(name)}' is no array in NumPy's format: {why}. Save it "
        "with `numpy.save` or `numpy.savez`."
    )
