"""The tree of layers in what Keras saves, from one HDF5 file or several.

Each object that Keras saves is a group named after the attribute that holds
it, with its variables in a group `vars`: numbered, not named. Lists of objects
are groups too, whose members are named after their classes.
"""

import dataclasses
from typing import Any

import h5py

from keras_lowrank.checkpoints.hdf5 import attribute
from keras_lowrank.checkpoints.hdf5 import enter
from keras_lowrank.checkpoints.hdf5 import members
from keras_lowrank.checkpoints.keras_layers import class_of_name
from keras_lowrank.checkpoints.stored import CheckpointError
from keras_lowrank.checkpoints.stored import printable

# Lists that Keras' own models and layers hold.
LISTS = ("layers", "cells")


@dataclasses.dataclass(eq=False)
class Node:
    """An object that Keras saved, or a list of such.

    Args:
        path: String, where in the file it is.
        name: String, its name in the process that saved it, or `None`.
        variables: Dict from numbers, as texts, to datasets.
        children: Dict from keys to nodes.
        others: Dict from names to datasets that are no variables of Keras.
        saved: Boolean, whether it has a group of variables, maybe empty.
    """

    path: str = ""
    name: str | None = None
    variables: dict[str, h5py.Dataset] = dataclasses.field(default_factory=dict)
    children: dict[str, "Node"] = dataclasses.field(default_factory=dict)
    others: dict[str, h5py.Dataset] = dataclasses.field(default_factory=dict)
    saved: bool = False

    @property
    def any_saved(self) -> bool:
        """Whether Keras saved something here or below."""
        return self.saved or any(c.any_saved for c in self.children.values())

    def is_list(self, key: str) -> bool:
        """Whether this is a list of objects, held under `key`."""
        if key in LISTS:
            return True
        return (
            bool(self.children)
            and not self.saved
            and all(
                class_of_name(child) or child.startswith("container")
                for child in self.children
            )
        )


def add_file(root: Node, file: h5py.File) -> None:
    """Add what an HDF5 file holds to a tree.

    Args:
        root: `Node`.
        file: Open file; variables are read from it later.

    Raises:
        CheckpointError: for links to elsewhere, groups inside themselves, and
            variables that are there already.
    """
    seen: set[int] = set()
    enter(file, seen, 0)
    _add(root, file, seen, 0)


def _add(node: Node, group, seen, depth):
    for key, item in members(group).items():
        if isinstance(item, h5py.Dataset):
            node.others[key] = item
        elif not isinstance(item, h5py.Group):
            raise CheckpointError(
                f"The HDF5 file holds a {type(item).__name__} at "
                f"'{printable(str(item.name))}'. Expected groups and arrays."
            )
        elif key == "vars":
            enter(item, seen, depth)
            node.saved = True
            node.name = attribute(item, "name") or node.name
            _add_variables(node.variables, item)
        else:
            enter(item, seen, depth)
            path = f"{node.path}/{key}".lstrip("/")
            child = node.children.setdefault(key, Node(path))
            _add(child, item, seen, depth + 1)


def _add_variables(variables: dict[str, Any], group):
    for key, item in members(group).items():
        if not isinstance(item, h5py.Dataset) or key in variables:
            raise CheckpointError(
                f"'{printable(f'{group.name}/{key}')}' is no array, or is in "
                "two files. Expected each variable once. Save the model again."
            )
        variables[key] = item
