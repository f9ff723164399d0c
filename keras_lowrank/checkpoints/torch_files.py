"""`.pt`, `.pth` and `.bin`: what `torch.save` writes, read without torch."""

import functools
import math
from collections.abc import Iterator
from collections.abc import Mapping

import numpy as np

from keras_lowrank.checkpoints.archive import Archive
from keras_lowrank.checkpoints.source import DTYPES
from keras_lowrank.checkpoints.source import Source
from keras_lowrank.checkpoints.source import read_array
from keras_lowrank.checkpoints.stored import Checkpoint
from keras_lowrank.checkpoints.stored import CheckpointError
from keras_lowrank.checkpoints.stored import StoredTensor
from keras_lowrank.checkpoints.stored import printable
from keras_lowrank.checkpoints.unpickle import TensorView
from keras_lowrank.checkpoints.unpickle import read_pickle

# Where training loops put the weights beside the state of the optimizer.
INSIDE = ("state_dict", "model_state_dict", "model", "module", "weights", "net")

# How `torch.save` began before it wrote zip archives.
LEGACY = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."

# Deeper than any state, shallower than Python's own limit.
MAX_DEPTH = 50


def open_torch(archive: Archive) -> Checkpoint:
    """Open what `torch.save` wrote.

    Args:
        archive: `Archive`.

    Returns:
        A `Checkpoint`.

    Raises:
        CheckpointError: for what is no dict of tensors.
    """
    member = next(m for m in archive.members if is_pickle(m))
    prefix = member.removesuffix("data.pkl")
    if f"{prefix}constants.pkl" in archive.members:
        raise CheckpointError(
            "The file holds a TorchScript program, not weights alone. Save "
            "them with `torch.save(torch.jit.load(path).state_dict(), other)`."
        )
    order = "little"
    if f"{prefix}byteorder" in archive.members:
        order = archive.text(f"{prefix}byteorder", 16).decode("latin-1")
    if order not in ("little", "big"):
        raise CheckpointError(
            f"The torch file has an unknown byte order: {printable(order)}. "
            "Expected little or big. It is damaged: save it again."
        )
    state, notes = _state(read_pickle(archive.text(member)))
    tensors = [
        _stored(archive, prefix, order, name, view)
        for name, view in _tensors(state)
    ]
    if not tensors:
        raise _no_tensors(state)
    return Checkpoint("torch", tensors, "torch", notes, archive.close)


def is_pickle(member: str) -> bool:
    """Whether a member of an archive is where torch puts its pickle."""
    return member.split("/")[1:] == ["data.pkl"]


def _state(value):
    """The dict of weights, which may be inside that of a training run."""
    if isinstance(value, TensorView):
        return {"tensor": value}, []
    if not isinstance(value, Mapping):
        raise _no_tensors(value)
    if any(isinstance(item, TensorView) for item in value.values()):
        return value, []
    for key in INSIDE:
        if isinstance(value.get(key), Mapping):
            others = [printable(str(k)) for k in value if k != key]
            notes = [f"The weights are those of '{key}' in the file."]
            if others:
                notes.append(f"Not looked at: {', '.join(others)}")
            return value[key], notes
    return value, []


def _tensors(value, prefix="", depth=0) -> Iterator[tuple[str, TensorView]]:
    if depth > MAX_DEPTH:
        raise CheckpointError(
            f"The torch file nests dicts more than {MAX_DEPTH} deep, or in "
            "itself. Save the weights as one flat `state_dict`."
        )
    for key, item in value.items():
        if isinstance(item, TensorView):
            yield f"{prefix}{key}", item
        elif isinstance(item, Mapping):
            yield from _tensors(item, f"{prefix}{key}.", depth + 1)


def _no_tensors(value) -> CheckpointError:
    found = f"a {type(value).__name__}"
    if isinstance(value, Mapping):
        keys = ", ".join(printable(str(key)[:40]) for key in [*value][:10])
        found = f"a dict with the keys: {keys or 'none'}"
    return CheckpointError(
        "The torch file should hold a `state_dict`, by itself or under one of "
        f"the keys {', '.join(INSIDE)}. Received: {found}. Save it with "
        "`torch.save(model.state_dict(), path)`."
    )


def _stored(archive, prefix, order, name, view) -> StoredTensor:
    member = f"{prefix}data/{view.storage.key}"
    item = np.dtype(DTYPES[view.dtype]).itemsize
    there = archive.size(member) // item
    count = math.prod(view.shape)
    span = 1 + sum(
        (size - 1) * step
        for size, step in zip(view.shape, view.stride, strict=True)
    )
    if count and view.offset + span > there:
        raise CheckpointError(
            f"The tensor '{printable(name)}' reaches entry "
            f"{view.offset + span} of a storage of {there}. The file is "
            "truncated or damaged: save it again."
        )
    if count > span:
        # An expanded tensor: small in the file, of any size in memory.
        raise CheckpointError(
            f"The tensor '{printable(name)}' of shape {view.shape} repeats "
            f"{span} entries. Save it whole, as with `tensor.clone()`."
        )
    read = functools.partial(_read, archive, member, order, view, span)
    return StoredTensor(name, view.shape, view.dtype, read)


def _read(archive, member, order, view, span) -> np.ndarray:
    part: Source = archive.part(member)
    archive.parts.remove(part)
    try:
        if 0 in view.shape:
            return np.zeros(view.shape, DTYPES[view.dtype])
        item = np.dtype(DTYPES[view.dtype]).itemsize
        entries = read_array(
            part, view.offset * item, (span,), view.dtype, order
        )
    finally:
        part.close()
    steps = [step * item for step in view.stride]
    # Its bounds were checked above: `span` is the last entry it reaches.
    return np.lib.stride_tricks.as_strided(entries, view.shape, steps)
