"""Kernels that a layer does not store, but makes by multiplying."""

import dataclasses
from collections.abc import Callable
from typing import Any

from keras_lowrank.matricize.matricization import Matricization


@dataclasses.dataclass(frozen=True, eq=False)
class Factored:
    """A kernel that a layer applies as the product of two variables.

    It is measured as one matrix, under the name that it would have as a
    variable, and its factors are not.

    Args:
        name: String, what the product is called, such as `"kernel"`.
        factors: Tuple of two pairs, each a layer and its variable: the left
            factor and the right one, as `layer.weights` has them.
        shape: Tuple of ints, of the tensor they make.
        matricization: `Matricization` of that tensor.
        join: Function from the NumPy arrays of the two variables to a
            `linalg.Product`, whose product is the matrix.
        note: String that says how the matrix differs from a variable.
        split: The reverse of `join`, from a `linalg.Product` to the arrays of
            the two variables, so that the matrix can be set; or `None`.
    """

    name: str
    factors: tuple[tuple[Any, Any], ...]
    shape: tuple[int, ...]
    matricization: Matricization
    join: Callable[..., Any]
    note: str = "factored"
    split: Callable[[Any], tuple[Any, Any]] | None = None


FactoredRule = Callable[[Any], Factored | None]

_RULES: dict[type, FactoredRule] = {}


def register_factored(
    *layer_classes: type,
) -> Callable[[FactoredRule], FactoredRule]:
    """Say which kernel your own layer makes of two variables.

    The product is then measured in place of its factors, without being
    formed. Holds for subclasses that have no rule of their own.

    Args:
        *layer_classes: Subclasses of `keras.layers.Layer`.

    Returns:
        A decorator for a function `rule(layer)` that returns a `Factored`, or
        `None` for a layer that has no factors now.

    Raises:
        TypeError: for anything but layer classes.

    Example:

    >>> from keras_lowrank.linalg import Product
    >>> class Bottleneck(keras.layers.Layer):
    ...     def build(self, input_shape):
    ...         self.down = self.add_weight(shape=(6, 2), name="down")
    ...         self.up = self.add_weight(shape=(2, 6), name="up")
    >>> @register_factored(Bottleneck)
    ... def bottleneck(layer):
    ...     return Factored(
    ...         name="kernel",
    ...         factors=((layer, layer.down), (layer, layer.up)),
    ...         shape=(6, 6),
    ...         matricization=Matricization(rows=(0,), columns=(1,)),
    ...         join=Product,
    ...     )
    >>> layer = Bottleneck()
    >>> layer.build((None, 6))
    >>> factored_by([layer], layer.up)[1].name
    'kernel'
    """
    import keras

    if not layer_classes or not all(
        isinstance(layer_class, type)
        and issubclass(layer_class, keras.layers.Layer)
        for layer_class in layer_classes
    ):
        raise TypeError(
            "`register_factored` takes subclasses of `keras.layers.Layer`, as "
            "in `@register_factored(MyLayer)`. "
            f"Received: {layer_classes!r}."
        )

    def register(rule: FactoredRule) -> FactoredRule:
        for layer_class in layer_classes:
            _RULES[layer_class] = rule
        return rule

    return register


def factored_by(layers, variable) -> tuple[Any, Factored] | None:
    """The layer that makes a kernel of a variable, and the kernel.

    Args:
        layers: Sequence of layers, the one that owns the variable first, then
            those around it, going outwards.
        variable: Keras variable.

    Returns:
        Tuple of the layer and its `Factored`, or `None` for a variable that
        is no factor.
    """
    for layer in layers:
        for parent in type(layer).__mro__:
            if parent in _RULES:
                made = _RULES[parent](layer)
                if made is not None and any(
                    variable is factor for _, factor in made.factors
                ):
                    return layer, made
                break
    return None
