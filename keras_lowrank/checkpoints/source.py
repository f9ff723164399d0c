"""Bytes of a file, read where they are wanted and never mapped.

A map of the file would count as memory under a limit on address space, which
is how batch systems bound a process; hence reads at offsets, and no library
that maps a whole file to open it.
"""

import math
import os
from typing import Any

import ml_dtypes
import numpy as np

from keras_lowrank.checkpoints.stored import CheckpointError
from keras_lowrank.checkpoints.stored import printable

# Text that describes tensors: what safetensors allows for its header.
MAX_DESCRIPTION = 100_000_000

# Kinds of numbers by the names that formats give them.
DTYPES: dict[str, Any] = {
    "float64": np.float64,
    "float32": np.float32,
    "float16": np.float16,
    "bfloat16": ml_dtypes.bfloat16,
    "float8_e4m3fn": ml_dtypes.float8_e4m3fn,
    "float8_e5m2": ml_dtypes.float8_e5m2,
    "float8_e4m3fnuz": ml_dtypes.float8_e4m3fnuz,
    "float8_e5m2fnuz": ml_dtypes.float8_e5m2fnuz,
    "int64": np.int64,
    "int32": np.int32,
    "int16": np.int16,
    "int8": np.int8,
    "uint64": np.uint64,
    "uint32": np.uint32,
    "uint16": np.uint16,
    "uint8": np.uint8,
    "bool": np.bool_,
    "complex64": np.complex64,
    "complex128": np.complex128,
}

FLOATS = tuple(name for name in DTYPES if "float" in name)


class Source:
    """A file, or a part of one, that is read at offsets.

    It has what `h5py` and `zipfile` ask of a file that is open.

    Args:
        path: String or path of a file.
        start: Int, where the part begins.
        size: Int, how many bytes it has; to the end by default.
    """

    def __init__(self, path, start: int = 0, size: int | None = None):
        self.path = os.fspath(path)
        self.file = open(self.path, "rb", buffering=0)
        end = self.file.seek(0, os.SEEK_END)
        self.start = start
        self.size = end - start if size is None else size
        self.position = 0
        if start < 0 or self.size < 0 or start + self.size > end:
            self.file.close()
            raise truncated(self.path, start + max(self.size, 0), end)

    def into(self, buffer, offset: int) -> None:
        """Fill a buffer with the bytes from `offset` on."""
        view = memoryview(buffer).cast("B")
        if offset < 0 or offset + len(view) > self.size:
            raise truncated(self.path, offset + len(view), self.size)
        self.file.seek(self.start + offset)
        done = 0
        while done < len(view):
            count = self.file.readinto(view[done:])
            if not count:
                raise truncated(self.path, offset + len(view), offset + done)
            done += count

    def at(self, offset: int, count: int) -> bytes:
        """The `count` bytes from `offset` on."""
        if offset < 0 or count < 0 or offset + count > self.size:
            raise truncated(self.path, offset + count, self.size)
        buffer = bytearray(count)
        self.into(buffer, offset)
        return bytes(buffer)

    # What a file has, for `h5py` and `zipfile`.

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move to an offset, as files do."""
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self.position}.get(
            whence, self.size
        )
        if base + offset < 0:
            raise OSError("An offset before the beginning of the file.")
        self.position = base + offset
        return self.position

    def tell(self) -> int:
        """The offset that is read next."""
        return self.position

    def seekable(self) -> bool:
        """Whether `seek` works: it does."""
        return True

    def readinto(self, buffer) -> int:
        """Fill a buffer from here on, as far as there are bytes."""
        view = memoryview(buffer).cast("B")
        count = min(len(view), max(self.size - self.position, 0))
        self.into(view[:count], self.position)
        self.position += count
        return count

    def read(self, count: int = -1) -> bytes:
        """The next bytes, as files give them."""
        left = max(self.size - self.position, 0)
        found = self.at(
            min(self.position, self.size),
            left if count is None or count < 0 else min(count, left),
        )
        self.position += len(found)
        return found

    def flush(self) -> None:
        """Nothing is written."""

    def close(self) -> None:
        """Close the file."""
        self.file.close()


def truncated(path, wanted: int, there: int) -> CheckpointError:
    """The error for bytes that a file should have and has not."""
    name = printable(os.path.basename(os.fspath(path)))
    return CheckpointError(
        f"'{name}' is truncated or damaged: it describes {wanted} bytes and "
        f"has {there}. Copy or download it again."
    )


def byte_count(shape, dtype: str) -> int:
    """How many bytes a tensor takes; Python's integers do not overflow."""
    return math.prod(shape) * np.dtype(DTYPES[dtype]).itemsize


def read_array(
    source: Source, offset: int, shape, dtype: str, byteorder: str = "little"
) -> np.ndarray:
    """A tensor that lies in a file entry after entry.

    Args:
        source: `Source`.
        offset: Int, where it begins.
        shape: Tuple of ints.
        dtype: String, one of `DTYPES`.
        byteorder: String, `"little"` or `"big"`.

    Returns:
        NumPy array of that shape and kind of numbers.
    """
    kind = np.dtype(DTYPES[dtype])
    count = math.prod(shape) * kind.itemsize
    if count > source.size - offset:  # before memory is asked for
        raise truncated(source.path, offset + count, source.size)
    raw = np.empty(count, np.uint8)
    source.into(raw.data, offset)
    if byteorder == "big" and kind.itemsize > 1:
        size = kind.itemsize // (2 if kind.kind == "c" else 1)
        raw = np.ascontiguousarray(raw.reshape(-1, size)[:, ::-1]).reshape(-1)
    return raw.view(kind).reshape(shape)


def checked_shape(shape, name: str) -> tuple[int, ...]:
    """A shape that a file declares, as ints of which none is negative."""
    good = isinstance(shape, (list, tuple)) and all(
        type(size) is int and size >= 0 for size in shape
    )
    if not good or len(shape) > 32:
        raise CheckpointError(
            f"'{printable(name)}' has no shape that an array can have. "
            f"Received: shape={printable(repr(shape)[:80])}. The file is "
            "damaged: save it again."
        )
    return tuple(shape)
