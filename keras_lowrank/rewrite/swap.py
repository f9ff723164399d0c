"""Layers swapped for others, wherever a model holds them.

Keras has no call for it, so this file knows its internals: nodes of a graph,
and the lists in which layers are tracked. Nothing else in the library does.
"""

from collections.abc import Mapping
from typing import Any

import keras
from keras.src.models.functional import Functional
from keras.src.ops.function import map_graph

# Where Keras, torch and TensorFlow keep books on attributes. They follow from
# the attributes themselves.
_BOOKS = (
    "_inbound_nodes",
    "_layers",
    "_modules",
    "_operations",
    "_operations_by_depth",
    "_outbound_nodes",
    "_self_",
    "_tracker",
)


def swap_layers(model, replacements: Mapping[Any, Any]) -> None:
    """Put layers in the places of others, in a model that stays the same.

    Args:
        model: Keras model or layer.
        replacements: Dict from a layer to another.

    Raises:
        ValueError: when the model holds a layer nowhere that is known. It is
            unchanged then.
    """
    holders = model._flatten_layers(include_self=True, recursive=True)
    for old in replacements:
        if not any(_holds(holder, old) for holder in holders):
            raise ValueError(
                "Only a layer that a model holds in its graph, an attribute, "
                "a list or a dict can be replaced. Received: "
                f"'{old.name}' ({type(old).__name__}), which '{model.name}' "
                "does not hold so."
            )
    for old, new in replacements.items():
        _move_nodes(old, new)
        for holder in holders:
            if _holds(holder, old):
                _swap_in(holder, old, new)
    # From the inside out, since torch lists what is within as well.
    for holder in reversed(holders):
        if hasattr(holder, "_torch_params"):
            holder._track_variables()


def is_graph(layer) -> bool:
    """Whether a layer is saved as the graph of its layers, and no more."""
    return type(layer) in (keras.Sequential, Functional)


def _holds(holder, layer) -> bool:
    return holder is not layer and any(one is layer for one in holder._layers)


def _move_nodes(old, new):
    """Let every call of `old` in a graph be one of `new`."""
    for node in old._inbound_nodes:
        node.operation = new
        for tensor in node.outputs:
            history = tensor._keras_history
            if history.operation is old:
                tensor._keras_history = history._replace(operation=new)
    new._inbound_nodes, old._inbound_nodes = old._inbound_nodes, []
    new._outbound_nodes, old._outbound_nodes = old._outbound_nodes, []


def _swap_in(holder, old, new):
    tracker = holder._tracker
    if tracker.is_in_store("layers", old):
        tracker.replace_tracked_value("layers", old, new)
    for name, value in _attributes(holder).items():
        if value is old:
            setattr(holder, name, new)
        else:
            replaced = _replaced(value, old, new)
            if replaced is not value:
                setattr(holder, name, replaced)
    # That of a `Sequential` is another list than the one of its tracker.
    for index, layer in enumerate(holder._layers):
        if layer is old:
            holder._layers[index] = new
    graph = getattr(holder, "_functional", None) or holder
    if isinstance(graph, Functional):
        if graph is not holder and graph._tracker.is_in_store("layers", old):
            graph._tracker.replace_tracked_value("layers", old, new)
        (
            graph._nodes,
            graph._nodes_by_depth,
            graph._operations,
            graph._operations_by_depth,
        ) = map_graph(graph._inputs, graph._outputs)


def _attributes(holder) -> dict[str, Any]:
    # Torch keeps layers apart from other attributes.
    attributes = dict(vars(holder))
    attributes |= attributes.get("_modules", {})
    return {
        name: value
        for name, value in attributes.items()
        if not name.startswith(_BOOKS)
    }


def _replaced(value, old, new):
    """A list, tuple or dict with `new` for `old`: itself if it can change."""
    if isinstance(value, dict):
        items = dict(value)
    elif isinstance(value, (list, tuple)):
        items = dict(enumerate(value))
    else:
        return value
    changed: dict[Any, Any] = {}
    for key, item in items.items():
        found = new if item is old else _replaced(item, old, new)
        if found is not item:
            changed[key] = found
    if not changed:
        return value
    if isinstance(value, tuple):
        parts = (items | changed).values()
        named = hasattr(value, "_fields")
        return type(value)(*parts) if named else type(value)(parts)
    for key, item in changed.items():
        value[key] = item
    return value
