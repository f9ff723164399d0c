"""Matrices set: in the variable, or in the factors, that they are read of."""

import keras
import numpy as np

from keras_lowrank.linalg import Product
from keras_lowrank.linalg import host_array
from keras_lowrank.matricize import Factored
from keras_lowrank.weights.applied import Applied


def reason_against_setting(applied: Applied, variable, made, part) -> str:
    """Why a matrix cannot be set, or an empty string.

    Args:
        applied: `Applied`, what the layer applies.
        variable: The variable that the matrix is named after.
        made: `Factored`, or `None` for a matrix that is no product.
        part: Int, the part of the kernel, or `None` for the whole.
    """
    factors = (variable,)
    if made is not None:
        if made.split is None:
            return "it is a product whose factors are those of another matrix"
        if part is not None:
            return "it is a part of a product"
        factors = tuple(factor for _, factor in made.factors)
    stored = len(applied.sources) == len(factors) and all(
        source is factor
        for source, factor in zip(applied.sources, factors, strict=False)
    )
    floats = all(keras.backend.is_float_dtype(f.dtype) for f in factors)
    if not stored or not floats:
        return f"the layer does not store it ({applied.note})"
    return ""


def set_part(variable, matricization, part, value) -> None:
    """Set the matrix, or a part of it, that is read of a variable."""
    array = np.array(host_array(variable))
    # The same reading of the positions says where each entry belongs.
    positions = np.arange(array.size).reshape(array.shape)
    where = matricization.matrix(positions, part)
    array.reshape(-1)[where.reshape(-1)] = np.reshape(value, -1)
    variable.assign(array)


def set_product(made: Factored, product: Product) -> None:
    """Set the factors of a kernel."""
    assert made.split is not None
    for (_, variable), array in zip(
        made.factors, made.split(product), strict=True
    ):
        variable.assign(array)
