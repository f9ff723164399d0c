"""The rules of Keras' own layers.

Shapes are those of a call with one sample: the first axis has size 1.
"""

import math

from keras import layers

from keras_lowrank.gradients.registry import register_uses


def _positions(layer, shape) -> int:
    """Places of an image or a sequence, without batch and channels."""
    if layer.data_format == "channels_first":
        return math.prod(shape[2:])
    return math.prod(shape[1:-1])


@register_uses(layers.Dense)
def dense(layer, variable, input_shape, output_shape):
    """Once for a vector; for a sequence, once for each token."""
    return math.prod(input_shape[1:-1])


@register_uses(layers.EinsumDense)
def einsum_dense(layer, variable, input_shape, output_shape):
    """Once for each combination of axes that the kernel does not have."""
    inputs, rest = layer.equation.replace(" ", "").split(",")
    kernel, _ = rest.split("->")
    letters = inputs.replace("...", "")
    if "..." in inputs:
        # Ellipses stand for leading axes, the batch among them.
        extra = len(input_shape) - len(letters)
        place = inputs.index("...")
        lengths = dict(
            zip(
                letters,
                input_shape[:place] + input_shape[place + extra :],
                strict=True,
            )
        )
        free = math.prod(input_shape[place : place + extra])
    else:
        lengths = dict(zip(letters, input_shape, strict=True))
        free = 1
    return free * math.prod(
        size for letter, size in lengths.items() if letter not in kernel
    )


@register_uses(
    layers.Conv1D,
    layers.Conv2D,
    layers.Conv3D,
    layers.DepthwiseConv1D,
    layers.DepthwiseConv2D,
    layers.SeparableConv1D,
    layers.SeparableConv2D,
)
def convolution(layer, variable, input_shape, output_shape):
    """Once for each patch, which is a place of the output."""
    return _positions(layer, output_shape)


@register_uses(
    layers.Conv1DTranspose, layers.Conv2DTranspose, layers.Conv3DTranspose
)
def transposed_convolution(layer, variable, input_shape, output_shape):
    """Once for each place of the input."""
    return _positions(layer, input_shape)


@register_uses(layers.Embedding)
def embedding(layer, variable, input_shape, output_shape):
    """Once for each token."""
    return math.prod(input_shape[1:])


@register_uses(layers.RNN)
def recurrent(layer, variable, input_shape, output_shape):
    """Once for each time step, of the kernels of its cell."""
    return input_shape[1]


@register_uses(layers.ConvLSTM1D, layers.ConvLSTM2D, layers.ConvLSTM3D)
def convolutional_recurrent(layer, variable, input_shape, output_shape):
    """At each time step, once for each patch."""
    # Without `return_sequences` the output has no axis of time.
    spatial = len(layer.kernel_size)
    if layer.data_format == "channels_first":
        places = output_shape[-spatial:]
    else:
        places = output_shape[-spatial - 1 : -1]
    return input_shape[1] * math.prod(places)
