"""Where the variables of a model live, under names that do not change."""

import dataclasses
from typing import Any

from keras_lowrank.names import automatic_name
from keras_lowrank.names import sibling_names


@dataclasses.dataclass(frozen=True)
class Location:
    """One variable of a model and where it was found.

    Args:
        name: String, relative to the model, the same in every process.
        variable: Keras variable.
        layers: Tuple of layers, the owner first, then those around it.
    """

    name: str
    variable: Any
    layers: tuple[Any, ...]

    def name_in(self, layer, name: str) -> str:
        """What a variable of `layer`, one of `layers`, would be called."""
        inside = next(i for i, one in enumerate(self.layers) if one is layer)
        prefix = self.name.split("/")[: -1 - inside]
        return "/".join([*prefix, name])


def locate_variables(model) -> list[Location]:
    """Every variable of `model.weights`, once and in that order.

    Keras numbers automatic names through the life of a process: the first
    `Dense` of a second model is `dense_3`. Here the numbers restart among the
    layers that stand side by side: `dense`, `dense_1`, ... in their order. A
    name of that form counts as automatic even when it was given, since a
    model that was loaded cannot tell; any other name stays.

    Args:
        model: Built Keras model or layer.

    Returns:
        List of `Location`, as long as `model.weights`.

    Example:

    >>> import keras
    >>> layer = keras.layers.Dense(2)  # uses up the name "dense"
    >>> model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    >>> [location.name for location in locate_variables(model)]
    ['dense/kernel', 'dense/bias']
    """
    found: dict[int, Location] = {}
    _visit(model, "", (), found, set())
    return [
        found.get(id(variable), Location(variable.name, variable, (model,)))
        for variable in model.weights
    ]


def locate_layers(model, kind: type) -> dict[str, Any]:
    """Every layer of a kind in a model, by a name that does not change.

    Args:
        model: Keras model or layer, which is looked through at any depth.
        kind: Class of the layers.

    Returns:
        Dict from the name, relative to the model as those of variables, to
        the layer. A layer that is shared appears once.

    Example:

    >>> import keras
    >>> block = keras.Sequential([keras.layers.Dropout(0.1)], name="block")
    >>> model = keras.Sequential([keras.Input((3,)), block])
    >>> list(locate_layers(model, keras.layers.Dropout))
    ['block/dropout']
    """
    found: dict[str, Any] = {}
    _visit_layers(model, "", kind, found, set())
    return found


def _visit_layers(layer, prefix, kind, found, seen):
    if id(layer) in seen:
        return
    seen.add(id(layer))
    for child, name in zip(*_named_layers(layer), strict=True):
        if isinstance(child, kind) and id(child) not in seen:
            found[prefix + name] = child
        _visit_layers(child, f"{prefix}{name}/", kind, found, seen)


def unbuilt_layers(model) -> list[str]:
    """Names of the layers of a model that have no variables yet."""
    # A layer inside an unbuilt one is reported with it.
    names = []
    for layer, name in zip(*_named_layers(model), strict=True):
        if not layer.built:
            names.append(name)
        else:
            names += [f"{name}/{inner}" for inner in unbuilt_layers(layer)]
    return names


def _visit(layer, prefix, around, found, seen):
    if id(layer) in seen:
        return
    seen.add(id(layer))
    children, names = _named_layers(layer)
    # What a wrapper refers to, as `SpectralNormalization` does to the kernel
    # of its layer, belongs to the layer inside.
    inside = {id(weight) for child in children for weight in child.weights}
    own = [weight for weight in layer.weights if id(weight) not in inside]
    own_names = sibling_names((weight.name, "Variable") for weight in own)
    chain = (layer, *around)
    for weight, name in zip(own, own_names, strict=True):
        location = Location(prefix + name, weight, chain)
        found.setdefault(id(weight), location)
    for child, name in zip(children, names, strict=True):
        _visit(child, f"{prefix}{name}/", chain, found, seen)


def _named_layers(layer):
    # Only models have a public list of their layers, and it leaves some out.
    children = layer._flatten_layers(include_self=False, recursive=False)
    named = ((child.name, _class_name(child)) for child in children)
    return children, sibling_names(named)


def _class_name(layer) -> str:
    # A low-rank layer may bear the automatic name of the one it replaced.
    full = getattr(layer, "full_class", None)
    if full is not None and automatic_name(layer.name, full.__name__):
        return full.__name__
    return type(layer).__name__
