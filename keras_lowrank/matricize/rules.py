"""The rules of Keras' own layers."""

from keras_lowrank.matricize.matricization import Matricization
from keras_lowrank.matricize.matricization import Skip
from keras_lowrank.matricize.registry import of_keras

LSTM_GATES = ("i", "f", "c", "o")
GRU_GATES = ("z", "r", "h")


@of_keras("Conv1D", "Conv2D", "Conv3D")
def convolution(layer, variable):
    """Kernel (*window, input, output) as (window * input, output)."""
    if variable.name != "kernel":
        return None
    rows = tuple(range(len(variable.shape) - 1))
    if layer.groups == 1:
        return Matricization(rows=rows, columns=(-1,))
    *window, inputs, outputs = variable.shape
    # Output channels come group after group, each fed by its own inputs.
    return Matricization(
        rows=rows,
        columns=(-1,),
        blocks=(-2,),
        split=(*window, inputs, layer.groups, outputs // layer.groups),
    )


@of_keras("Conv1DTranspose", "Conv2DTranspose", "Conv3DTranspose")
def transposed_convolution(layer, variable):
    """Kernel (*window, output, input) as (window * output, input)."""
    if variable.name != "kernel":
        return None
    rows = tuple(range(len(variable.shape) - 1))
    return Matricization(rows=rows, columns=(-1,))


@of_keras("DepthwiseConv1D", "DepthwiseConv2D")
def depthwise_convolution(layer, variable):
    """Kernel (*window, channels, multiplier), one matrix per channel."""
    return _depthwise(variable) if variable.name == "kernel" else None


@of_keras("SeparableConv1D", "SeparableConv2D")
def separable_convolution(layer, variable):
    """A depthwise kernel and a pointwise one, which is a convolution's."""
    if variable.name == "depthwise_kernel":
        return _depthwise(variable)
    if variable.name == "pointwise_kernel":
        rows = tuple(range(len(variable.shape) - 1))
        return Matricization(rows=rows, columns=(-1,))
    return None


def _depthwise(variable):
    window = tuple(range(len(variable.shape) - 2))
    return Matricization(
        rows=window, columns=(-1,), blocks=(-2,), view="channels"
    )


@of_keras("EinsumDense")
def einsum_dense(layer, variable):
    """Contracted axes are rows, new ones columns, kept ones blocks."""
    if variable.name != "kernel":
        return None
    return einsum_matricization(layer.equation)


def einsum_matricization(equation: str) -> Matricization | Skip:
    """How the kernel of an einsum layer becomes a matrix.

    Where two axes are rows, or else two are columns, the first of them is that
    of the heads, as in Keras' attention layers: `(heads, head_dim, dim)` and
    `(dim, heads, head_dim)`.

    Args:
        equation: String as `keras.layers.EinsumDense` takes it.

    Returns:
        A `Matricization`, or a `Skip` where there are no rows or no columns.
    """
    rows, columns, blocks = einsum_axes(equation)
    if not rows or not columns:
        return Skip("scale: no sum over one axis gives another")
    several = [axes for axes in (rows, columns) if len(axes) == 2]
    if several and not blocks:
        return Matricization(rows, columns, parts=several[0][:1], view="heads")
    return Matricization(rows, columns, blocks)


def einsum_axes(equation: str):
    """Row, column and block axes of the kernel in an einsum equation.

    Args:
        equation: String as `keras.layers.EinsumDense` takes it.

    Returns:
        Tuple of three tuples of ints: axes summed over with the input, in its
        order; axes that only the output has, and axes that input and output
        both have, in the order of the output.

    Example:

    >>> einsum_axes("abc,cde->abde")
    ((0,), (1, 2), ())
    """
    operands, output = equation.replace(" ", "").split("->")
    inputs, kernel = operands.split(",")
    new = [letter for letter in output if letter not in inputs]
    kept = [letter for letter in output if letter in inputs]
    summed = [letter for letter in inputs if letter not in output]
    rows, columns, blocks = (
        tuple(kernel.index(letter) for letter in letters if letter in kernel)
        for letters in (summed, new, kept)
    )
    return rows, columns, blocks


@of_keras("LSTMCell")
def lstm_cell(layer, variable):
    """Kernels (input, 4 * units), gate after gate."""
    return _gated(variable, LSTM_GATES)


@of_keras("GRUCell")
def gru_cell(layer, variable):
    """Kernels (input, 3 * units), gate after gate."""
    return _gated(variable, GRU_GATES)


# Keras keeps the cell of these private, so they speak for it.
@of_keras("ConvLSTM1D", "ConvLSTM2D", "ConvLSTM3D", inner=True)
def convolutional_lstm(layer, variable):
    """Kernels (*window, input, 4 * filters), gate after gate."""
    return _gated(variable, LSTM_GATES)


def _gated(variable, gates):
    if variable.name not in ("kernel", "recurrent_kernel"):
        return None
    *inputs, outputs = variable.shape
    gate = len(inputs)
    return Matricization(
        rows=tuple(range(gate)),
        columns=(gate, gate + 1),
        split=(*inputs, len(gates), outputs // len(gates)),
        parts=(gate,),
        view="gates",
        labels=gates,
    )


@of_keras(
    "BatchNormalization",
    "GroupNormalization",
    "LayerNormalization",
    "Normalization",
    "RMSNormalization",
)
def normalization(layer, variable):
    """Gains, offsets and statistics act on each feature by itself."""
    return Skip("normalization")


@of_keras("SpectralNormalization")
def spectral_normalization(layer, variable):
    """The wrapper's own vector is an estimate, not a weight."""
    return Skip("normalization") if variable.name == "vector_u" else None


@of_keras("PReLU")
def prelu(layer, variable):
    """One slope per feature, whatever the axes are."""
    return Skip("slopes of an activation")


@of_keras("STFTSpectrogram")
def spectrogram(layer, variable):
    """A Fourier basis that training does not change."""
    return Skip("fixed Fourier basis")
