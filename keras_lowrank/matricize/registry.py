"""One rule per layer class, Keras' own and yours."""

import types
from collections.abc import Callable
from typing import Any

from keras_lowrank.matricize.matricization import Matricization
from keras_lowrank.matricize.matricization import Skip

Rule = Callable[[Any, Any], "Matricization | Skip | None"]

_RULES: dict[type, tuple[Rule, bool]] = {}

# Keras' own layers go by name, since a file is read without importing Keras.
_KERAS_RULES: dict[str, tuple[Rule, bool]] = {}

NORMALIZATION_NAMES = ("gamma", "beta", "moving_mean", "moving_variance")

UNSUPPORTED = (
    "unknown axes: say which are rows and columns with `register_matricization`"
)


def register_matricization(
    *layer_classes: type, inner: bool = False
) -> Callable[[Rule], Rule]:
    """Say how the variables of your own layer become matrices.

    Two-dimensional variables of unknown layers are measured as they are,
    unless they are named as biases or as `gamma` and `beta`; a rule is needed
    for kernels with more axes, and can be used to leave variables out. It
    holds for subclasses that have no rule of their own, except for kernels it
    does not fit, and replaces an earlier rule of the same class.

    Args:
        *layer_classes: Subclasses of `keras.layers.Layer`.
        inner: Boolean, whether the rule is also asked about the variables of
            layers inside this one whose classes have no rule, as a recurrent
            layer speaks for its cell.

    Returns:
        A decorator for a function `rule(layer, variable)` that returns a
        `Matricization`, a `Skip`, or `None` where it has no opinion, as for
        biases.

    Raises:
        TypeError: for anything but layer classes.

    Example:

    >>> class Bilinear(keras.layers.Layer):
    ...     def build(self, input_shape):
    ...         self.kernel = self.add_weight(shape=(4, 4, 6), name="kernel")
    >>> @register_matricization(Bilinear)
    ... def bilinear(layer, variable):
    ...     if variable.name == "kernel":
    ...         return Matricization(rows=(0, 1), columns=(2,))
    >>> layer = Bilinear()
    >>> layer.build((None, 4))
    >>> matricize([layer], layer.kernel).rows
    (0, 1)
    """
    import keras

    for layer_class in layer_classes:
        if not isinstance(layer_class, type) or not issubclass(
            layer_class, keras.layers.Layer
        ):
            raise TypeError(
                "`register_matricization` takes subclasses of "
                "`keras.layers.Layer`, as in "
                "`@register_matricization(MyLayer)`. "
                f"Received: {layer_class!r}."
            )
    if not layer_classes:
        raise TypeError(
            "`register_matricization` needs at least one layer class, as in "
            "`@register_matricization(MyLayer)`. Received: none."
        )

    def register(rule: Rule) -> Rule:
        for layer_class in layer_classes:
            _RULES[layer_class] = (rule, inner)
        return rule

    return register


def of_keras(*class_names: str, inner: bool = False) -> Callable[[Rule], Rule]:
    """Register a rule for layers of Keras itself, by the names of classes.

    Args:
        *class_names: Strings, such as `"Conv2D"`.
        inner: Boolean, as for `register_matricization`.

    Returns:
        A decorator for a rule. It may ask a layer only for what its config
        says, and a variable for `name` and `shape`.
    """

    def register(rule: Rule) -> Rule:
        for name in class_names:
            _KERAS_RULES[name] = (rule, inner)
        return rule

    return register


def matricize(layers, variable, shape=None) -> Matricization | Skip:
    """How a variable becomes a matrix, or why it does not.

    Args:
        layers: Sequence of layers, the one that owns the variable first, then
            those around it, going outwards.
        variable: Keras variable.
        shape: Tuple of ints, the shape of what the layer applies where it is
            not that of the variable, as for packed int4 kernels.

    Returns:
        A `Matricization` or a `Skip`.

    Raises:
        TypeError: when a rule returns something else.
        ValueError: when a rule does not fit the shape of a variable of the
            class it was registered for.

    Example:

    >>> layer = keras.layers.Dense(3)
    >>> layer.build((None, 4))
    >>> matricize([layer], layer.bias)
    Skip(reason='bias', unsupported=False)
    """
    shape = tuple(variable.shape if shape is None else shape)
    if 0 in shape:
        return Skip("empty: no entries")
    for position, layer in enumerate(layers):
        rule, inner, rule_class = _rule_of(type(layer))
        if rule is None or (position > 0 and not inner):
            continue
        answer = rule(layer, variable)
        if isinstance(answer, Matricization):
            try:
                answer.check(shape)
            except ValueError as error:
                # A subclass may arrange a kernel in a way of its own.
                if rule_class is not type(layer):
                    continue
                raise ValueError(
                    f"The matricization rule of `{type(layer).__name__}` does "
                    f"not fit variable '{variable.path}': {error}"
                ) from error
        if isinstance(answer, (Matricization, Skip)):
            return answer
        if answer is not None:
            raise TypeError(
                "A matricization rule must return a `Matricization`, a "
                f"`Skip` or `None`. Received: {answer!r} (of type "
                f"{type(answer)}) from the rule of "
                f"`{type(layer).__name__}` for variable '{variable.path}'."
            )
    return _without_rule(variable.name, shape)


def _rule_of(layer_class: type) -> tuple[Rule | None, bool, type]:
    for parent in layer_class.__mro__:
        if parent in _RULES:
            return (*_RULES[parent], parent)
        of_keras_itself = parent.__module__.startswith("keras.")
        if of_keras_itself and parent.__name__ in _KERAS_RULES:
            return (*_KERAS_RULES[parent.__name__], parent)
    return None, False, layer_class


def matricize_stored(layers, name: str, shape) -> Matricization | Skip:
    """How a variable in a file becomes a matrix, or why it does not.

    Args:
        layers: Sequence of pairs, the class name of a layer of Keras (or
            `None` for one that is not known) and an object with what its
            config says as attributes; the owner of the variable first.
        name: String, what the layer calls the variable.
        shape: Tuple of ints.

    Returns:
        A `Matricization` or a `Skip`, as `matricize` gives for the layers.

    Raises:
        ValueError: when a config does not fit the shape.

    Example:

    >>> from types import SimpleNamespace
    >>> layer = ("Conv1D", SimpleNamespace(groups=1))
    >>> matricize_stored([layer], "kernel", (3, 4, 8)).columns
    (-1,)
    """
    if 0 in shape:
        return Skip("empty: no entries")
    variable = types.SimpleNamespace(name=name, shape=shape)
    for position, (class_name, layer) in enumerate(layers):
        rule, inner = _KERAS_RULES.get(class_name, (None, False))
        if rule is None or (position > 0 and not inner):
            continue
        try:
            answer = rule(layer, variable)
            if isinstance(answer, Matricization):
                answer.check(shape)
        except (
            ArithmeticError,
            AttributeError,
            TypeError,
            ValueError,
        ) as error:
            raise ValueError(
                f"the config of a `{class_name}` does not fit its `{name}` of "
                f"shape {tuple(shape)}: {error}"
            ) from error
        if answer is not None:
            return answer
    return _without_rule(name, tuple(shape))


def _without_rule(name: str, shape: tuple[int, ...]) -> Matricization | Skip:
    if name == "bias" or name.endswith("_bias"):
        return Skip("bias")
    if name in NORMALIZATION_NAMES:
        return Skip("normalization")
    if len(shape) == 2:
        return Matricization(rows=(0,), columns=(1,))
    long = [axis for axis, size in enumerate(shape) if size > 1]
    if not shape:
        return Skip("scalar")
    if len(long) < 2:
        return Skip("vector")
    # An axis of size 1 does not matter, unless it is the last: the kernel of
    # a convolution with one output is one column.
    if len(long) == 2 and long[1] == len(shape) - 1:
        others = tuple(a for a in range(len(shape)) if a not in long)
        return Matricization(rows=(*others, long[0]), columns=(long[1],))
    return Skip(UNSUPPORTED, unsupported=True)
