"""Which normalization scales the channels that a layer gives."""

import collections
from collections.abc import Iterator
from typing import Any

from keras import layers

CONVOLUTIONS = (
    layers.Conv1D,
    layers.Conv2D,
    layers.Conv3D,
    layers.DepthwiseConv1D,
    layers.DepthwiseConv2D,
    layers.SeparableConv1D,
    layers.SeparableConv2D,
)
TRANSPOSED = (
    layers.Conv1DTranspose,
    layers.Conv2DTranspose,
    layers.Conv3DTranspose,
)
# The attribute of each that has one entry per channel.
_GAINS = {
    layers.BatchNormalization: "gamma",
    layers.GroupNormalization: "gamma",
    layers.LayerNormalization: "gamma",
    layers.RMSNormalization: "scale",
}


def gains_after(model) -> dict[int, Any]:
    """What multiplies the channels that a layer gives, where it is certain.

    That is the gain of a normalization, where the graph of a functional or
    Sequential model says so: the layer is called once, and its output goes to
    one normalization of the same channels and nowhere else. Whatever else a
    model does is not guessed at.

    Args:
        model: Built Keras model, or a layer.

    Returns:
        Dict from the `id` of a layer to a variable of shape `(channels,)`.

    Example:

    >>> model = keras.Sequential([
    ...     keras.Input((4,)), keras.layers.Dense(3, use_bias=False),
    ...     keras.layers.BatchNormalization(),
    ... ])
    >>> [gain] = gains_after(model).values()
    >>> gain is model.layers[1].gamma
    True
    """
    containers = model._flatten_layers()
    parents = collections.Counter(
        id(child)
        for container in containers
        for child in container._flatten_layers(
            include_self=False, recursive=False
        )
    )
    return {
        id(layer): gain
        for container in containers
        for layer, gain in _pairs(container)
        if parents[id(layer)] == 1
    }


def _pairs(container) -> Iterator[tuple[Any, Any]]:
    """Layers of one graph, each with the gain after it."""
    graph = getattr(container, "_functional", None) or container
    depths = getattr(graph, "_nodes_by_depth", None)
    # A subclass may call its layers in a way of its own.
    if not depths or not type(container).call.__module__.startswith("keras."):
        return
    nodes = [node for level in depths.values() for node in level]
    calls = collections.Counter(id(node.operation) for node in nodes)
    readers = collections.defaultdict(list)
    for node in nodes:
        for tensor in node.input_tensors:
            readers[id(tensor)].append(node)
    given = {id(tensor) for tensor in graph.outputs}
    for node in nodes:
        axis = _channel_axis(node.operation)
        if axis is None or calls[id(node.operation)] > 1:
            continue
        (output,) = node.outputs
        if id(output) in given or len(readers[id(output)]) != 1:
            continue
        (reader,) = readers[id(output)]
        gain = _gain(reader.operation, output.shape, axis)
        if gain is not None:
            yield node.operation, gain


def _channel_axis(layer) -> int | None:
    """The axis of the output that the columns of the kernel are, if any."""
    if isinstance(layer, layers.Dense):
        return -1
    if isinstance(layer, (*CONVOLUTIONS, *TRANSPOSED)):
        return -1 if layer.data_format == "channels_last" else 1
    return None


def _gain(layer, shape, axis):
    """What a layer multiplies the channels of a tensor with, if it does."""
    for kind, name in _GAINS.items():
        if not isinstance(layer, kind):
            continue
        axes = layer.axis if isinstance(layer.axis, list) else [layer.axis]
        variable = getattr(layer, name, None)
        if variable is None or len(axes) != 1:
            return None
        if axes[0] % len(shape) != axis % len(shape):
            return None
        return variable if tuple(variable.shape) == (shape[axis],) else None
    return None
