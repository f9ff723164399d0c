"""Composite layers that are saved with the low-rank layers put into them."""

import functools
from typing import Any

import keras

from keras_lowrank.layers import FactoredLayer
from keras_lowrank.rewrite.swap import swap_layers
from keras_lowrank.weights import locate_layers

NAME = "Rewritten"


class Rewritten:
    """Mixed into the class of a layer after layers in it were replaced.

    The config of a composite layer, such as `MultiHeadAttention`, a block of
    one's own or a subclassed model, makes it as its class says, with full
    layers. This one says in addition which of them are of low rank, so that
    saving, loading and cloning keep them. The object stays the same, as does
    the name of its class, and it is an instance of that class still; torch's
    parametrizations change the class of a module for the same reason.

    Nothing but `import keras_lowrank` is needed to load such a layer, beyond
    what its own class needs.
    """

    plain_class: type
    built: bool

    def get_config(self):
        """The config of the layer, and those of the low-rank layers in it."""
        serialize = keras.saving.serialize_keras_object
        factored = locate_layers(self, FactoredLayer)
        marked = type(self)
        # Keras asks the class of an object what to save it as.
        object.__setattr__(self, "__class__", self.plain_class)
        try:
            plain = serialize(self)
        finally:
            object.__setattr__(self, "__class__", marked)
        plain.pop("compile_config", None)
        return {
            "layer": plain,
            "build": {
                name: layer.get_build_config()
                for name, layer in locate_layers(self, keras.Layer).items()
                if any(inner.startswith(f"{name}/") for inner in factored)
            },
            "low_rank": {
                name: serialize(layer) for name, layer in factored.items()
            },
        }

    @classmethod
    def from_config(cls, config, custom_objects=None):
        """The layer with its low-rank layers in place.

        Args:
            config: Dict from `get_config`.
            custom_objects: Dict of classes by name, as in Keras.
        """
        revive = functools.partial(
            keras.saving.deserialize_keras_object,
            custom_objects=custom_objects,
        )
        layer = revive(config["layer"])
        # What holds them may make them when it is built, and a layer of one's
        # own is often built by its first call only.
        for name, built_for in config["build"].items():
            inner = locate_layers(layer, keras.Layer).get(name)
            if inner is not None and not inner.built and built_for:
                inner.build_from_config(built_for)
        found = locate_layers(layer, keras.Layer)
        missing = [name for name in config["low_rank"] if name not in found]
        if missing:
            raise ValueError(
                f"'{layer.name}' ({type(layer).__name__}) was saved with "
                f"low-rank layers in the places of {missing}. Received: a "
                f"layer that has {list(found)} once it is made from its "
                "config and built. Create layers in `__init__` or `build`, "
                "under the names they had."
            )
        swap_layers(
            layer,
            {
                found[name]: revive(item)
                for name, item in config["low_rank"].items()
            },
        )
        mark_rewritten(layer)
        return layer

    def build_from_config(self, config):
        """Keras builds what it loads; this was built before its layers."""
        if not self.built:
            super().build_from_config(config)  # type: ignore[misc]


# Found under this name in a file whatever layer was rewritten: each class
# made below is registered under it as well, and reads any such config.
keras.saving.register_keras_serializable("keras_lowrank", NAME)(Rewritten)


def mark_rewritten(layer) -> None:
    """Have a composite layer saved with the low-rank layers in it."""
    if not isinstance(layer, Rewritten):
        plain: Any = type(layer)
        object.__setattr__(layer, "__class__", _rewritten(plain))


@functools.cache
def _rewritten(plain: Any) -> type:
    members = {
        "plain_class": plain,
        "__module__": plain.__module__,
        "__qualname__": plain.__qualname__,
        "__doc__": plain.__doc__,
    }
    marked = type(plain.__name__, (Rewritten, plain), members)
    return keras.saving.register_keras_serializable("keras_lowrank", NAME)(
        marked
    )
