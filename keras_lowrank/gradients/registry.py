"""One rule per layer class: how many vectors of a sample a matrix meets."""

from collections.abc import Callable
from typing import Any

import keras

# A rule says, of one call of a layer, how many vectors of one sample its
# variable multiplies; or `None` where it has no opinion.
Rule = Callable[[Any, Any, tuple, tuple], "int | None"]

_RULES: dict[type, Rule] = {}


def register_uses(*layer_classes: type) -> Callable[[Rule], Rule]:
    """Say how often your own layer uses its matrices.

    Args:
        *layer_classes: Subclasses of `keras.layers.Layer`. A rule holds for
            subclasses that have none of their own.

    Returns:
        A decorator for a function `rule(layer, variable, input_shape,
        output_shape)`, which is told the shapes of one call with one sample,
        and returns how many vectors of it the variable multiplies, as a
        matrix, or `None` where it has no opinion.

    Raises:
        TypeError: for anything but layer classes.

    Example:

    >>> class Twice(keras.layers.Layer):
    ...     def build(self, input_shape):
    ...         self.kernel = self.add_weight(shape=(4, 4), name="kernel")
    ...     def call(self, x):
    ...         return x @ self.kernel @ self.kernel
    >>> @register_uses(Twice)
    ... def twice(layer, variable, input_shape, output_shape):
    ...     return 2
    """
    for layer_class in layer_classes:
        if not isinstance(layer_class, type) or not issubclass(
            layer_class, keras.layers.Layer
        ):
            raise TypeError(
                "`register_uses` takes subclasses of `keras.layers.Layer`, as "
                f"in `@register_uses(MyLayer)`. Received: {layer_class!r}."
            )
    if not layer_classes:
        raise TypeError(
            "`register_uses` needs at least one layer class, as in "
            "`@register_uses(MyLayer)`. Received: none."
        )

    def register(rule: Rule) -> Rule:
        for layer_class in layer_classes:
            _RULES[layer_class] = rule
        return rule

    return register


def rule_of(layer_class: type) -> Rule | None:
    """The rule of a class, its own or that of the nearest parent."""
    for parent in layer_class.__mro__:
        if parent in _RULES:
            return _RULES[parent]
    return None
