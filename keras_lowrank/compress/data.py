"""Data as users have it, one batch after another."""

import functools
from collections.abc import Iterator
from typing import Any

import keras


def batches(
    data, batch_size: int = 256, labels: bool = True
) -> Iterator[tuple[Any, Any]]:
    """Batches of inputs and targets.

    Args:
        data: A tuple `(x, y)` of arrays (or of lists or dicts of arrays); or
            what can be gone through more than once and gives batches
            `(x, y)`: a `tf.data.Dataset`, a torch `DataLoader`, a
            `keras.utils.PyDataset`, a list. Without `labels` also the inputs
            alone.
        batch_size: Int, for arrays.
        labels: Boolean, whether targets are needed.

    Yields:
        Pairs of inputs, as the model takes them, and targets (or `None`).

    Raises:
        TypeError: for a generator, which gives its data once.
        ValueError: when there are no targets, or no data.
    """
    if hasattr(data, "__next__"):
        raise TypeError(
            "`data` is gone through several times. Received: a generator or "
            f"iterator (of type {type(data)}), which gives its data once. "
            "Pass arrays `(x, y)`, a data set, or a list of batches."
        )
    empty = True
    for batch in _items(data, batch_size, labels):
        x, y = batch
        if labels and y is None:
            raise ValueError(
                "`data` needs targets: a tuple `(x, y)`, or batches of two. "
                f"Received: {type(data)} without."
            )
        empty = False
        yield x, y
    if empty:
        raise ValueError("`data` holds no batch.")


def _items(data, batch_size, labels):
    if isinstance(data, keras.utils.PyDataset):
        for index in range(len(data)):
            yield _pair(data[index])
        return
    if not _is_arrays(data, labels):
        for batch in data:
            yield _pair(batch) if labels or _is_pair(batch) else (batch, None)
        return
    x, y = data[:2] if labels else (data, None)
    count = len(keras.tree.flatten(x)[0])
    if y is not None and len(keras.tree.flatten(y)[0]) != count:
        raise ValueError(
            "`data` must have a target for each input. Received: "
            f"{count} inputs and {len(keras.tree.flatten(y)[0])} targets."
        )
    for start in range(0, count, batch_size):
        part = slice(start, start + batch_size)
        cut = functools.partial(_cut, part=part)
        targets = None if y is None else keras.tree.map_structure(cut, y)
        yield keras.tree.map_structure(cut, x), targets


def _cut(array, part):
    return array[part]


def _is_arrays(data, labels) -> bool:
    if labels:
        return isinstance(data, tuple) and len(data) in (2, 3)
    flat = keras.tree.flatten(data)
    return bool(flat) and all(hasattr(one, "shape") for one in flat)


def _is_pair(batch) -> bool:
    return isinstance(batch, (tuple, list)) and len(batch) in (2, 3)


def _pair(batch):
    if not _is_pair(batch):
        return batch, None
    return batch[0], batch[1]
