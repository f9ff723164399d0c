"""What a layer applies, where that is not the variable it stores.

A layer with LoRA applies its kernel plus the product of two factors; a
quantized layer applies integers over a scale; a low-rank layer applies a
product. They are put together here on the host, in float64, and rounded to
the precision of the kernel once.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from keras_lowrank.linalg import Product
from keras_lowrank.linalg import host_array
from keras_lowrank.matricize import Factored
from keras_lowrank.matricize import Skip
from keras_lowrank.matricize import einsum_axes

INTEGER_MODES = ("int8", "int4")
CALIBRATED = {"gptq": "is_gptq_calibrated", "awq": "is_awq_calibrated"}
SCALES = (
    "_scale",
    "_zero",
    "zero_point",
    "_amax_history",
    "g_idx",
    "awq_scales",
)
MATRICES = ("kernel", "embeddings", "reverse_embeddings")
QUANTIZABLE = (
    keras.layers.Dense,
    keras.layers.EinsumDense,
    keras.layers.Embedding,
)


@dataclasses.dataclass(frozen=True)
class Applied:
    """The tensor that a layer applies in place of a variable.

    Args:
        shape: Tuple of ints.
        read: Function without arguments that gives it as a NumPy array.
        note: String that says how it differs from the variable, or `""`.
        sources: Tuple of the variables it is made of.
        product: Function without arguments that gives its matrix as a
            `Product`, where it is one.
        stored: Boolean, whether it is just what the variable holds.
    """

    shape: tuple[int, ...]
    read: Callable[[], np.ndarray]
    note: str = ""
    sources: tuple[Any, ...] = ()
    product: Callable[[], Product] | None = None
    stored: bool = False


def applied_tensor(layer, variable) -> Applied | Skip:
    """What `layer` applies where it stores `variable`.

    Args:
        layer: Keras layer that owns the variable.
        variable: Keras variable.

    Returns:
        An `Applied`, or a `Skip` for a variable that is only a part of one,
        that holds no real numbers, or that cannot be read exactly.

    Example:

    >>> layer = keras.layers.Dense(3)
    >>> layer.build((None, 4))
    >>> layer.enable_lora(2)
    >>> applied_tensor(layer, layer.weights[0]).note
    'with LoRA'
    >>> applied_tensor(layer, layer.lora_kernel_a).reason
    'LoRA factor, part of the merged `kernel`'
    """
    mode = layer.quantization_mode
    base = _lora_base(layer, variable)
    if base is not None:
        return Skip(f"LoRA factor, part of the merged `{base}`")
    if mode and variable.name.endswith(SCALES):
        return Skip("quantization scale")
    dtype = keras.backend.standardize_dtype(variable.dtype)
    if dtype.startswith("complex"):
        return Skip(
            f"{dtype} entries: measure real and imaginary parts by themselves",
            unsupported=True,
        )
    if not keras.backend.is_float_dtype(dtype):
        stored = _dequantized(layer, variable, mode, dtype)
    elif mode == "float8" and variable.name == "kernel":
        stored = Applied(
            tuple(variable.shape),
            lambda: _through_float8(layer, variable),
            "float8",
            (variable,),
        )
    else:
        stored = Applied(
            tuple(variable.shape),
            lambda: host_array(variable),
            sources=(variable,),
            stored=True,
        )
    if isinstance(stored, Skip):
        return stored
    return _with_lora(layer, variable, stored)


def applied_product(made: Factored) -> Applied | Skip:
    """The kernel that a layer makes of its factors, as each is applied.

    Args:
        made: `Factored`.

    Returns:
        An `Applied`, or a `Skip` where a factor cannot be read.
    """
    parts = [
        applied_tensor(layer, variable) for layer, variable in made.factors
    ]
    for part in parts:
        if isinstance(part, Skip):
            return dataclasses.replace(
                part, reason=f"a factor of `{made.name}` is: {part.reason}"
            )
    factors = [part for part in parts if isinstance(part, Applied)]

    def product():
        return made.join(*(factor.read() for factor in factors))

    def read():
        # As the tensor it stands for, so that its parts can be taken.
        return made.matricization.tensor(product().to_numpy(), made.shape)

    notes = {factor.note: None for factor in factors if factor.note}
    return Applied(
        tuple(made.shape),
        read,
        " ".join([made.note, *notes]),
        tuple(s for factor in factors for s in factor.sources),
        product,
    )


def _lora_base(layer, variable) -> str | None:
    for name in ("kernel", "embeddings"):
        for factor in _lora_factors(layer, name):
            if variable is factor:
                return name
    return None


def _lora_factors(layer, name: str) -> tuple:
    if not getattr(layer, "lora_enabled", False):
        return ()
    factors = (f"lora_{name}_a", f"lora_{name}_b")
    return tuple(getattr(layer, f) for f in factors if hasattr(layer, f))


def _with_lora(layer, variable, stored: Applied) -> Applied:
    factors = _lora_factors(layer, variable.name)
    if not factors:
        return stored

    def read():
        kernel = stored.read()
        left, right = (host_array(f).astype(np.float64) for f in factors)
        scale = layer.lora_alpha / layer.lora_rank
        return (kernel + scale * (left @ right)).astype(kernel.dtype)

    note = f"{stored.note} with LoRA".strip()
    sources = (*stored.sources, *factors)
    return dataclasses.replace(
        stored, read=read, note=note, sources=sources, stored=False
    )


def _through_float8(layer, variable) -> np.ndarray:
    kernel = keras.ops.cast(variable, layer.compute_dtype)
    return host_array(
        keras.quantizers.quantize_and_dequantize(
            kernel, layer.kernel_scale, "float8_e4m3fn", layer.compute_dtype
        )
    )


def _dequantized(layer, variable, mode, dtype) -> Applied | Skip:
    calibrated = mode in CALIBRATED and getattr(layer, CALIBRATED[mode], False)
    matrix = variable.name in MATRICES
    if mode in CALIBRATED and matrix and not calibrated:
        return Skip("quantized kernel, not in use before calibration")
    if mode not in INTEGER_MODES and not calibrated:
        return Skip(f"{dtype} entries, no weights")
    if not matrix or not isinstance(layer, QUANTIZABLE):
        return Skip(
            f"{mode} kernel that cannot be read exactly: measure the layer "
            "before quantizing it",
            unsupported=True,
        )
    shape = _logical_shape(layer, variable, mode)

    def read():
        if mode in CALIBRATED:
            values = _calibrated(layer, variable)
        elif mode == "int8" and isinstance(layer, keras.layers.EinsumDense):
            values = _int8_einsum(layer, variable)
        else:
            values = _scaled(layer, variable, mode, shape)
        return values.reshape(shape).astype(np.float32)

    return Applied(shape, read, mode, (variable,))


def _logical_shape(layer, variable, mode) -> tuple[int, ...]:
    """Shape of the kernel, which may be stored flat, turned or packed."""
    if mode == "int8":
        return tuple(variable.shape)
    if isinstance(layer, keras.layers.EinsumDense):
        return tuple(layer.original_kernel_shape)
    if isinstance(layer, keras.layers.Embedding):
        shape = (layer.input_dim, layer.output_dim)
        return shape if variable.name == "embeddings" else shape[::-1]
    inputs = variable.shape[1 if mode in CALIBRATED else 0]
    return inputs, layer.units


def _scaled(layer, variable, mode, shape) -> np.ndarray:
    """The matrix of int8 and int4 entries, over a scale or in groups."""
    name = variable.name
    # An embedding has a scale per row and shares it along columns, as bytes
    # of int4 are; the others have one per column.
    axis = 1 if name == "embeddings" else 0
    integers = host_array(variable)
    if mode == "int4":
        packed = 0 if name == "reverse_embeddings" else 1
        size = shape[packed]
        if isinstance(layer, keras.layers.EinsumDense):
            size = math.prod(shape) // variable.shape[0]
        integers = _unpacked(variable, size, packed, "int8")
    scale = _attribute(layer, f"{name}_scale")
    if not hasattr(layer, f"{name}_zero"):
        return integers / np.expand_dims(scale, axis)
    zero = _attribute(layer, f"{name}_zero")
    return _in_groups(layer, integers, scale, zero, axis)


def _calibrated(layer, variable) -> np.ndarray:
    """The matrix of GPTQ and AWQ, which is stored turned."""
    scale, zero = (_attribute(layer, f"kernel_{s}") for s in ("scale", "zero"))
    integers = host_array(variable)
    if len(integers) != len(scale):  # two entries of 4 bits in a byte
        integers = _unpacked(variable, len(scale), 0, "uint8")
    values = _in_groups(layer, integers, scale, zero, 1).T
    if layer.quantization_mode == "awq":
        values = values / _attribute(layer, "awq_scales")[:, None]
    return values


def _in_groups(layer, integers, scale, zero, axis) -> np.ndarray:
    groups = _attribute(layer, "g_idx").astype(int)
    return (integers - zero.take(groups, axis)) * scale.take(groups, axis)


def _unpacked(variable, size, axis, dtype) -> np.ndarray:
    packed = keras.ops.convert_to_tensor(variable)
    return host_array(
        keras.quantizers.unpack_int4(packed, size, axis=axis, dtype=dtype)
    )


def _attribute(layer, name) -> np.ndarray:
    return host_array(getattr(layer, name)).astype(np.float64)


def _int8_einsum(layer, variable) -> np.ndarray:
    integers = host_array(variable)
    scale = _attribute(layer, "kernel_scale")
    return integers / _einsum_scale(layer.equation, integers, scale)


def _einsum_scale(equation: str, kernel, scale) -> np.ndarray:
    """The scale, which Keras lays out as the output, along the kernel."""
    rows, _, _ = einsum_axes(equation)
    operands, output = equation.replace(" ", "").split("->")
    letters = operands.split(",")[1]
    sizes = dict(zip(letters, kernel.shape, strict=True))
    kept = [letter for letter in output if letter in sizes]
    scale = scale.reshape([sizes[letter] for letter in kept])
    along = [letter for letter in letters if letter in kept]
    scale = scale.transpose([kept.index(letter) for letter in along])
    return np.expand_dims(scale, rows)
