"""What a file is, by how it begins, and whether its name says the same."""

import pathlib

from keras_lowrank.checkpoints.archive import Archive
from keras_lowrank.checkpoints.keras_files import CONFIG
from keras_lowrank.checkpoints.keras_files import WEIGHTS
from keras_lowrank.checkpoints.keras_files import open_keras
from keras_lowrank.checkpoints.keras_files import open_keras_weights
from keras_lowrank.checkpoints.numpy_files import MAGIC
from keras_lowrank.checkpoints.numpy_files import open_npy
from keras_lowrank.checkpoints.numpy_files import open_npz
from keras_lowrank.checkpoints.safetensors import open_safetensors
from keras_lowrank.checkpoints.shards import open_index
from keras_lowrank.checkpoints.source import Source
from keras_lowrank.checkpoints.stored import Checkpoint
from keras_lowrank.checkpoints.stored import CheckpointError
from keras_lowrank.checkpoints.stored import closing_on_error
from keras_lowrank.checkpoints.stored import damage_as_error
from keras_lowrank.checkpoints.stored import printable
from keras_lowrank.checkpoints.torch_files import LEGACY
from keras_lowrank.checkpoints.torch_files import is_pickle
from keras_lowrank.checkpoints.torch_files import open_torch

# What a name promises; other names promise nothing.
SUFFIXES = {
    ".keras": "keras",
    ".h5": "hdf5",
    ".hdf5": "hdf5",
    ".safetensors": "safetensors",
    ".npz": "npz",
    ".npy": "npy",
    ".pt": "torch",
    ".pth": "torch",
    ".json": "index",
}

HDF5 = b"\x89HDF\r\n\x1a\n"
KNOWN = (
    "`.keras`, `.weights.h5`, `.safetensors`, `.npz`, `.npy`, torch's `.pt`, "
    "and indexes of shards"
)


def open_checkpoint(path) -> Checkpoint:
    """Open a file of weights, of any format that is known here.

    No tensor is read before it is asked for, and nothing in the file is
    executed.

    Args:
        path: String or path.

    Returns:
        A `Checkpoint`, a context manager that closes the file.

    Raises:
        OSError: when there is no such file.
        CheckpointError: when it is damaged, hostile, or not what its name
            says.
    """
    path = pathlib.Path(path)
    if not path.exists():
        raise FileNotFoundError(
            f"There is no file '{printable(str(path))}'. Give the path of a "
            "file of weights, or of the index of its shards."
        )
    with damage_as_error(printable(path.name)):
        return _open(path)


def _open(path: pathlib.Path) -> Checkpoint:
    if path.is_dir():
        raise CheckpointError(
            f"'{path}' is a directory. Expected a file of weights, or the "
            "index of its shards."
        )
    source = Source(path)
    try:
        head = source.at(0, min(16, source.size))
        size = source.size
    finally:
        source.close()
    if head[:4] in (b"PK\x03\x04", b"PK\x05\x06"):
        archive = Archive(path)
        with closing_on_error(archive.close):
            kind = _kind_of_archive(archive)
            _check_name(path, kind)
            open_members = {
                "keras": open_keras,
                "torch": open_torch,
                "npz": open_npz,
            }[kind]
            return open_members(archive)
    kind = _kind(path, head, size)
    _check_name(path, kind)
    if kind == "hdf5":
        return open_keras_weights([path])
    if kind == "npy":
        return open_npy(path)
    if kind == "index":
        return open_index(path, _open_shard)
    return open_safetensors(path)


def _open_shard(path) -> Checkpoint:
    source = Source(path)
    try:
        begins = source.at(0, min(64, source.size)).lstrip()
    finally:
        source.close()
    if begins.startswith(b"{"):
        raise CheckpointError(
            f"The index names '{printable(path.name)}' as a shard, which is "
            "an index too, maybe the same. Expected a file of weights."
        )
    return open_checkpoint(path)


def _kind_of_archive(archive: Archive) -> str:
    names = list(archive.members)
    if CONFIG in names and WEIGHTS in names:
        return "keras"
    if any(is_pickle(name) for name in names):
        return "torch"
    if names and all(name.endswith(".npy") for name in names):
        return "npz"
    some = ", ".join(names[:5])
    raise CheckpointError(
        f"The zip archive holds no weights known here. Expected {KNOWN}. "
        f"Received an archive of: {printable(some) or 'nothing'}."
    )


def _kind(path: pathlib.Path, head: bytes, size: int) -> str:
    if head.startswith(HDF5):
        return "hdf5"
    if head.startswith(MAGIC):
        return "npy"
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") <= size:
        return "safetensors"
    if head.lstrip()[:1] == b"{":
        return "index"
    if head.startswith(LEGACY[: len(head)]) and len(head) > 4:
        raise CheckpointError(
            "The file was written by torch before 1.6, as a bare pickle, or "
            "with `_use_new_zipfile_serialization=False`. Load it with "
            "`torch.load(path, weights_only=True)` and save it again."
        )
    if path.suffix == ".safetensors" and head:
        return "safetensors"  # whose reader says what is wrong with it
    what = f"It begins with {head!r}" if head else "It is empty"
    raise CheckpointError(
        f"'{printable(path.name)}' is no file of weights known here. {what}. "
        f"Expected {KNOWN}."
    )


def _check_name(path: pathlib.Path, kind: str) -> None:
    promised = SUFFIXES.get(path.suffix.lower(), kind)
    if promised != kind:
        right = next(s for s, name in SUFFIXES.items() if name == kind)
        raise CheckpointError(
            f"'{printable(path.name)}' is named as a {promised} file, and is a "
            f"{kind} file by what is in it. Rename it to `*{right}` if you "
            "trust it."
        )
