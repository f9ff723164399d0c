"""Indexes: one set of weights in several files of a directory."""

import dataclasses
import pathlib
from collections.abc import Callable

from keras_lowrank.checkpoints.description import parse_json
from keras_lowrank.checkpoints.keras_files import open_keras_weights
from keras_lowrank.checkpoints.source import MAX_DESCRIPTION
from keras_lowrank.checkpoints.source import Source
from keras_lowrank.checkpoints.stored import Checkpoint
from keras_lowrank.checkpoints.stored import CheckpointError
from keras_lowrank.checkpoints.stored import closing_on_error
from keras_lowrank.checkpoints.stored import printable


def open_index(path, open_file: Callable[[pathlib.Path], Checkpoint]):
    """Open an index and the shards that it names.

    Args:
        path: Path of `model.safetensors.index.json` or the like.
        open_file: Function that opens a shard.

    Returns:
        A `Checkpoint` of all shards.

    Raises:
        CheckpointError: when a shard is missing, is to lie elsewhere, or
            lacks what the index says it holds.
    """
    index = _index(path)
    shards: dict[str, set[str]] = {}
    for name, files in index.items():
        for file in files if isinstance(files, list) else [files]:
            shards.setdefault(_plain(file), set()).add(name)
    for shard in shards:
        if not path.with_name(shard).is_file():
            raise CheckpointError(
                f"The shard '{printable(shard)}' of the index is missing. "
                f"Expected it in '{path.parent}'. Download it too."
            )
    if any(shard.endswith(".h5") for shard in shards):
        return open_keras_weights([path.with_name(shard) for shard in shards])
    opened: list[Checkpoint] = []

    def close():
        for shard in opened:
            shard.close()

    tensors = []
    with closing_on_error(close):
        for shard, wanted in shards.items():
            opened.append(open_file(path.with_name(shard)))
            there = {t.name: t for t in opened[-1].tensors}
            missing = sorted(wanted - set(there))
            if missing:
                raise CheckpointError(
                    f"The shard '{printable(shard)}' lacks "
                    f"{len(missing)} of the tensors that the index says it "
                    f"holds, '{printable(missing[0])}' for one. Download "
                    "index and shards of the same version."
                )
            tensors += [t for name, t in there.items() if name in wanted]
    order = {name: place for place, name in enumerate(index)}
    tensors.sort(key=lambda tensor: order[tensor.name])
    return dataclasses.replace(opened[0], tensors=tensors, close=close)


def _index(path) -> dict:
    source = Source(path)
    try:
        if source.size > MAX_DESCRIPTION:
            raise CheckpointError(
                f"An index has at most {MAX_DESCRIPTION} bytes. Received: one "
                f"of {source.size}."
            )
        index = parse_json(source.at(0, source.size), "The index")
    finally:
        source.close()
    names = index.get("weight_map")
    if not isinstance(names, dict) or not names:
        raise CheckpointError(
            "The JSON file has no `weight_map`, so it is no index of shards. "
            "Give the file that holds the weights."
        )
    return names


def _plain(file) -> str:
    good = (
        isinstance(file, str)
        and file not in ("", ".", "..")
        and not any(mark in file for mark in "/\\\0:")
    )
    if not good:
        raise CheckpointError(
            f"The index names the shard {printable(repr(file)[:100])}. "
            "Expected a file of the same directory, so this may lead "
            "elsewhere and is refused."
        )
    return file
