"""Choosing among the matrices of a model."""

import re

import keras

from keras_lowrank.names import searcher
from keras_lowrank.weights.matrices import WeightMatrix


def select(weights, matrices, skipped) -> set[int]:
    """Positions of the matrices that a filter chooses.

    Args:
        weights: As in `weight_matrices`.
        matrices: List of `WeightMatrix`.
        skipped: List of `SkippedWeight`, for the error message.

    Returns:
        Set of positions in `matrices`.

    Raises:
        ValueError: when a part of the filter chooses nothing.
        TypeError: for a filter of an unknown kind.
    """
    filters = weights if isinstance(weights, (list, tuple, set)) else [weights]
    chosen: set[int] = set()
    for one in filters:
        found = _positions(one, matrices)
        if not found:
            raise ValueError(_nothing_found(one, matrices, skipped))
        chosen |= found
    if not filters:
        raise ValueError(
            "`weights` is an empty list and selects no matrix. Use "
            "`weights=None` for all of them."
        )
    return chosen


def _positions(one, matrices: list[WeightMatrix]) -> set[int]:
    if isinstance(one, (str, re.Pattern)):
        return _matching(one, matrices)
    if isinstance(one, keras.Variable):
        return _where(matrices, lambda m: m.variable is one)
    if isinstance(one, keras.layers.Layer):
        inside = {id(variable) for variable in one.weights}
        return _where(matrices, lambda m: id(m.variable) in inside)
    if callable(one) and not isinstance(one, type):
        return _where(matrices, one)
    raise TypeError(
        "`weights` must be a regular expression, a name, a variable, a layer, "
        "a list of these, or a function from a `WeightMatrix` to a boolean. "
        f"Received: {one!r} (of type {type(one)})."
    )


def _where(matrices, condition) -> set[int]:
    return {i for i, matrix in enumerate(matrices) if condition(matrix)}


def _matching(pattern, matrices) -> set[int]:
    # The name of a part holds brackets, which a pattern reads otherwise.
    exact = _where(matrices, lambda m: m.name == pattern)
    if exact:
        return exact
    search = searcher(pattern, "weights")
    # Paths hold numbers that change with each process, so names come first.
    named = _where(matrices, lambda m: search(m.name))
    return named or _where(matrices, lambda m: search(m.path))


def _nothing_found(one, matrices, skipped) -> str:
    message = (
        f"`weights` selects no matrix. Received: {one!r}. "
        f"Names of the matrices: {[matrix.name for matrix in matrices]}."
    )
    near = [f"'{s.name}' ({s.reason})" for s in skipped if _means(one, s)]
    if near:
        message += f" Skipped: {', '.join(near)}."
    return message


def _means(one, skipped) -> bool:
    if isinstance(one, keras.layers.Layer):
        return any(weight is skipped.variable for weight in one.weights)
    if isinstance(one, str):
        return one in skipped.name
    return one is skipped.variable
