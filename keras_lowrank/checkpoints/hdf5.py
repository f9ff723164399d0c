"""HDF5 files: which arrays they hold, read one at a time.

The format can point outside the file, and describe arrays that are not there.
Both are refused: what is followed are hard links, each group once.
"""

import functools
import math
from collections.abc import Iterator
from typing import Any

import h5py
import numpy as np

from keras_lowrank.checkpoints.archive import MAX_EXPANSION
from keras_lowrank.checkpoints.archive import SMALL
from keras_lowrank.checkpoints.source import DTYPES
from keras_lowrank.checkpoints.stored import CheckpointError
from keras_lowrank.checkpoints.stored import printable

MAX_DEPTH = 100


def open_hdf5(source) -> h5py.File:
    """Open an HDF5 file that is read through a `Source`."""
    try:
        return h5py.File(source, "r")
    except (OSError, RuntimeError, ValueError) as error:
        raise CheckpointError(
            f"The HDF5 file cannot be opened: {printable(str(error))[:200]}. "
            "It is truncated or damaged: copy or save it again."
        ) from error


def members(group: h5py.Group) -> dict[str, Any]:
    """Groups and datasets of a group, in order of their numbers.

    Raises:
        CheckpointError: for links to elsewhere.
    """
    found = {}
    try:
        for name in sorted(group, key=_natural):
            link = group.get(name, getlink=True)
            if not isinstance(link, h5py.HardLink):
                raise CheckpointError(
                    f"The HDF5 file has a {type(link).__name__} at "
                    f"'{printable(f'{group.name}/{name}')}', which may lead "
                    "anywhere. Expected hard links, as Keras writes. Save the "
                    "file again."
                )
            found[name] = group[name]
    except (OSError, RuntimeError, KeyError, UnicodeError) as error:
        raise damaged(group, error) from error
    return found


def walk(group: h5py.Group) -> Iterator[tuple[str, h5py.Dataset]]:
    """Every dataset below a group, with its path; a group is entered once."""
    yield from _walk(group, "", {_address(group)}, 0)


def _walk(group, prefix, seen, depth):
    for name, item in members(group).items():
        if isinstance(item, h5py.Dataset):
            yield prefix + name, item
        elif isinstance(item, h5py.Group) and _address(item) not in seen:
            enter(item, seen, depth)
            yield from _walk(item, f"{prefix}{name}/", seen, depth + 1)


def enter(group: h5py.Group, seen: set[int], depth: int) -> None:
    """Note that a group is entered, which may not be inside itself."""
    address = _address(group)
    if address in seen or depth > MAX_DEPTH:
        raise CheckpointError(
            f"The HDF5 file nests '{printable(str(group.name))[:80]}' in "
            f"itself, or more than {MAX_DEPTH} deep. It is damaged or hostile."
        )
    seen.add(address)


def _address(group) -> int:
    return h5py.h5o.get_info(group.id).addr


def kind_of(dataset: h5py.Dataset) -> str:
    """What numbers a dataset holds, as `DTYPES` names them."""
    # Keras marks bfloat16, which HDF5 does not have.
    if attribute(dataset, "dtype") == "bfloat16":
        return "bfloat16"
    try:
        return dataset.dtype.name
    except (TypeError, ValueError, RuntimeError) as error:
        raise damaged(dataset, error) from error


def attribute(item, name: str) -> str | None:
    """An attribute that is a text, or `None`."""
    try:
        value = item.attrs.get(name)
    except (OSError, RuntimeError, TypeError, UnicodeError) as error:
        raise damaged(item, error) from error
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    return value if isinstance(value, str) else None


def reader(dataset: h5py.Dataset, dtype: str):
    """A function that reads a dataset, which was checked before."""
    if dataset.external or dataset.is_virtual:
        raise CheckpointError(
            f"The entries of '{printable(dataset.name)}' lie in another file. "
            "Expected them in this one. Save the model again."
        )
    declared = math.prod(dataset.shape or ()) * dataset.dtype.itemsize
    stored = dataset.id.get_storage_size()
    # Those that are not there, HDF5 would make up as zeros.
    missing = dataset.chunks is None and stored < declared
    if missing or (declared > SMALL and declared > MAX_EXPANSION * stored):
        raise CheckpointError(
            f"'{printable(dataset.name)}' declares {declared} bytes and has "
            f"{stored}. The file is damaged or hostile: save the model again."
        )
    return functools.partial(_read, dataset, dtype)


def _read(dataset, dtype) -> np.ndarray:
    try:
        array = np.empty(dataset.shape, dataset.dtype)
        if array.size:
            dataset.read_direct(array)
    except (OSError, RuntimeError, TypeError, ValueError) as error:
        raise damaged(dataset, error) from error
    if dtype == "bfloat16" and array.dtype.itemsize == 2:
        return array.view(DTYPES["bfloat16"])
    return array


def damaged(item, error) -> CheckpointError:
    """The error for what HDF5 cannot read."""
    return CheckpointError(
        f"'{printable(str(item.name))}' cannot be read from the HDF5 file: "
        f"{printable(str(error))[:200]}. It is truncated or damaged: copy or "
        "save it again."
    )


def _natural(name: str):
    """Order by number where names end in one: `dense_2` before `dense_10`."""
    stem = name.rstrip("0123456789")
    digits = name[len(stem) :]
    return stem.rstrip("_"), int(digits[-18:]) if digits else -1, name
