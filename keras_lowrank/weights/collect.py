"""From a model to its weight matrices."""

import keras

from keras_lowrank.matricize import Matricization
from keras_lowrank.matricize import Skip
from keras_lowrank.matricize import as_views
from keras_lowrank.matricize import factored_by
from keras_lowrank.matricize import matricize
from keras_lowrank.matricize import part_name
from keras_lowrank.matricize import seen_parts
from keras_lowrank.weights.applied import Applied
from keras_lowrank.weights.applied import applied_product
from keras_lowrank.weights.applied import applied_tensor
from keras_lowrank.weights.filters import select
from keras_lowrank.weights.matrices import SkippedWeight
from keras_lowrank.weights.matrices import WeightMatrices
from keras_lowrank.weights.matrices import WeightMatrix
from keras_lowrank.weights.naming import locate_variables
from keras_lowrank.weights.naming import unbuilt_layers

NOT_SELECTED = "not selected by `weights`"


def weight_matrices(
    model, weights=None, views=None, strict: bool = False
) -> WeightMatrices:
    """Every weight of a model, as a matrix or with the reason why not.

    A layer or variable that is shared appears once. Layers with LoRA and
    quantized layers give the matrix they apply, not the pieces they store.
    Names are relative to the model and the same in every process, unlike
    Keras' automatic `sequential_1/dense_3`: numbers restart in each model.

    Args:
        model: Built Keras model, or a layer.
        weights: What to keep: a regular expression searched in names (and,
            where no name has it, in Keras' paths), a name, a variable, a
            layer, a list of these, or a function from a `WeightMatrix` to a
            boolean. Everything by default.
        views: Dict such as `{"heads": "split"}`: whether heads, gates, groups
            and channels are seen as one matrix or one by one. See
            `keras_lowrank.matricize.views`.
        strict: Boolean, whether a kernel whose axes are not known is an error
            rather than skipped.

    Returns:
        A `WeightMatrices`: a sequence of `WeightMatrix`, with the rest of
        `model.weights` in its `skipped`.

    Raises:
        TypeError: when `model` is no Keras model or layer.
        ValueError: when it is not built, when `weights` selects nothing, or,
            with `strict=True`, for kernels that cannot be read.

    Example:

    >>> import keras
    >>> model = keras.Sequential([
    ...     keras.Input((8, 8, 3)),
    ...     keras.layers.Conv2D(16, 3),
    ...     keras.layers.GlobalAveragePooling2D(),
    ...     keras.layers.Dense(10, name="head"),
    ... ])
    >>> matrices = weight_matrices(model)
    >>> matrices
    <WeightMatrices: 2 matrices, 2 skipped>
      conv2d/kernel: 27 x 16
      head/kernel: 16 x 10
    >>> [(weight.name, weight.reason) for weight in matrices.skipped]
    [('conv2d/bias', 'bias'), ('head/bias', 'bias')]
    """
    _check_model(model)
    choice = as_views(views)
    matrices: list[WeightMatrix] = []
    skipped: list[SkippedWeight] = []
    for location in locate_variables(model):
        answer = _matrices_of(location, choice)
        if isinstance(answer, Skip):
            skipped.append(_skipped(location, location.layers[0], answer))
        else:
            matrices += answer
    if strict:
        _check_supported(skipped)
    if weights is not None:
        kept = select(weights, matrices, skipped)
        skipped += [
            _skipped(matrix, matrix.layer, Skip(NOT_SELECTED))
            for position, matrix in enumerate(matrices)
            if position not in kept
        ]
        matrices = [matrices[position] for position in sorted(kept)]
    return WeightMatrices(matrices, skipped, unbuilt_layers(model))


def _matrices_of(location, views) -> list[WeightMatrix] | Skip:
    variable, layer, name = location.variable, location.layers[0], location.name
    how: Matricization | Skip
    found = factored_by(location.layers, variable)
    if found is not None:
        layer, made = found
        name = location.name_in(layer, made.name)
        if variable is not made.factors[0][1]:
            return Skip(f"factor of `{made.name}`, measured as a product")
        applied = applied_product(made)
        how = made.matricization
    else:
        applied = applied_tensor(layer, variable)
        if isinstance(applied, Applied):
            how = matricize(location.layers, variable, applied.shape)
    if isinstance(applied, Skip):
        return applied
    if isinstance(how, Skip):
        return how
    parts = seen_parts(how, applied.shape, views)
    if isinstance(parts, Skip):
        return parts
    return [
        WeightMatrix(
            name=part_name(name, how, part),
            variable=variable,
            layer=layer,
            matricization=how,
            part=part,
        )
        for part in parts
    ]


def _skipped(where, layer, skip: Skip) -> SkippedWeight:
    variable = where.variable
    return SkippedWeight(
        name=where.name,
        path=variable.path,
        shape=tuple(variable.shape),
        reason=skip.reason,
        variable=variable,
        layer=layer,
        unsupported=skip.unsupported,
    )


def _check_model(model) -> None:
    if not isinstance(model, keras.layers.Layer):
        raise TypeError(
            "`model` must be a Keras model or layer. "
            f"Received: {model!r} (of type {type(model)}). Of a torch wrapper "
            "such as DistributedDataParallel give the `module`."
        )
    if not model.built:
        raise ValueError(
            f"'{model.name}' is not built, so its weights do not exist yet. "
            "Call `model.build(input_shape)`, or call the model on a batch of "
            "data once."
        )


def _check_supported(skipped: list[SkippedWeight]) -> None:
    unsupported = [weight for weight in skipped if weight.unsupported]
    if unsupported:
        listing = "; ".join(
            f"'{weight.name}' of shape {weight.shape} in a "
            f"`{type(weight.layer).__name__}` ({weight.reason})"
            for weight in unsupported
        )
        raise ValueError(
            f"`strict=True`, and these weights cannot be read: {listing}. "
            "Give their layers a rule with `register_matricization`, or use "
            "`strict=False` to skip them."
        )
