"""The state of an optimizer, carried from kernels to their factors."""

import dataclasses
import warnings
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_lowrank.linalg import Product
from keras_lowrank.linalg import host_array
from keras_lowrank.tables import KerasLowrankWarning

# What the lists of an optimizer hold, one entry for each variable: means of
# gradients, of their squares, the largest gradients, or means of weights.
MEAN, SQUARE, LARGEST, WEIGHTS = "mean", "square", "largest", "weights"

_ADAM = {
    "_momentums": MEAN,
    "_velocities": SQUARE,
    "_velocity_hats": SQUARE,
}
_SLOTS: dict[type, dict[str, str]] = {
    keras.optimizers.SGD: {"momentums": MEAN},
    keras.optimizers.Adam: _ADAM,
    keras.optimizers.Nadam: _ADAM,
    keras.optimizers.Lamb: _ADAM,
    keras.optimizers.Lion: _ADAM,
    keras.optimizers.Adamax: {"_m": MEAN, "_u": LARGEST},
    keras.optimizers.Adagrad: {"_accumulators": SQUARE},
    # Its momentum is one of steps that were made, not of gradients.
    keras.optimizers.RMSprop: {
        "_average_gradients": MEAN,
        "_velocities": SQUARE,
    },
    keras.optimizers.Muon: {"momentums": MEAN, "adam_velocities": SQUARE},
}
_OF_ALL = {
    "_accumulated_gradients": MEAN,
    "_model_variables_moving_average": WEIGHTS,
}


def check_optimizer(model) -> None:
    """Raise `ValueError` if the state of its optimizer cannot be carried."""
    optimizer = getattr(model, "optimizer", None)
    if isinstance(optimizer, keras.optimizers.MultiOptimizer):
        raise ValueError(
            "The layers of a model that trains with a `MultiOptimizer` cannot "
            "be replaced while it is compiled, since its rules name variables. "
            f"Received: '{model.name}'. Compile it anew with one optimizer, "
            "or `compress` it and compile the copy."
        )


def carry_optimizer(model, replacements: Mapping[Any, Any]) -> None:
    """Give a model an optimizer for its new layers, with the old state.

    For a kernel `W = A B` the chain rule gives what the state of the factors
    would be, had they been where they are now: a mean `M` of gradients becomes
    `M B^T` and `A^T M`, and a mean `V` of squares `V (B * B)^T` and
    `(A * A)^T V`, as for entries that vary by themselves. A moving average of
    weights keeps its projection on the rows of `B`. All other variables keep
    what they have, and so do steps, learning rate and loss scale. State of
    another kind begins anew in the factors, with a warning.

    Args:
        model: Keras model whose layers were replaced.
        replacements: Dict from full layers to the low-rank layers in their
            places.
    """
    old = getattr(model, "optimizer", None)
    if old is None or not old.built:
        return  # it will be built for what is there then
    outer = new = fresh_optimizer(old)
    origins = {}
    for full, layer in replacements.items():
        if layer.bias is not None:
            origins[id(layer.bias)] = _Origin(layer.bias, full.bias)
        for place, factor in enumerate(layer.factor_variables):
            kernel = getattr(full, layer.kernel_name)
            origins[id(factor)] = _Origin(factor, kernel, layer, place)
    _exclude(old, new, origins)
    new.build(model.trainable_variables)
    lost: set[str] = set()
    while old is not None:
        lost |= _carry(old, new, origins)
        old, new = (getattr(one, "inner_optimizer", None) for one in (old, new))
    if lost:
        warnings.warn(
            f"What {type(model.optimizer).__name__} keeps as "
            f"{', '.join(sorted(lost))} has no meaning for factors, and "
            "begins anew in the layers that were given low rank.",
            KerasLowrankWarning,
            stacklevel=2,
        )
    model.optimizer = outer
    # What files say of it, and copies begin with.
    compiled = getattr(model, "_compile_config", None)
    if compiled is not None:
        compiled.config["optimizer"] = outer


def fresh_optimizer(optimizer):
    """An optimizer of the same settings, without state.

    Args:
        optimizer: Keras optimizer, which may have others within.

    Returns:
        Another of its class, not built.
    """
    inner = getattr(optimizer, "inner_optimizer", None)
    if inner is None:
        return type(optimizer).from_config(optimizer.get_config())
    if hasattr(optimizer, "with_inner_optimizer"):
        return optimizer.with_inner_optimizer(fresh_optimizer(inner))
    config = optimizer.get_config()
    config["inner_optimizer"] = fresh_optimizer(inner)
    return type(optimizer)(**config)


@dataclasses.dataclass(frozen=True)
class _Origin:
    """What a variable came from.

    Args:
        variable: Keras variable of a low-rank layer.
        source: The variable of the full layer.
        layer: The low-rank layer, for a factor.
        place: Int, which of its factors.
    """

    variable: Any
    source: Any
    layer: Any = None
    place: int = 0


def _exclude(old, new, origins: Mapping[int, _Origin]) -> None:
    """Let weight decay leave out what it left out, and its factors."""
    # Which variables Keras was told to exclude is not in its configs.
    while old is not None:
        names = getattr(old, "_exclude_from_weight_decay_pattern", None)
        keys = set(getattr(old, "_exclude_from_weight_decay", None) or ())
        keys |= {
            new._var_key(origin.variable)
            for origin in origins.values()
            if old._var_key(origin.source) in keys
        }
        if names is not None or keys:
            new._exclude_from_weight_decay_pattern = names
            new._exclude_from_weight_decay = keys
        old, new = (getattr(one, "inner_optimizer", None) for one in (old, new))


def _kinds(optimizer) -> dict[str, str]:
    """What the lists of an optimizer hold, as far as that is known."""
    own = getattr(optimizer, "slot_kinds", {})  # of one that says so itself
    for known, kinds in _SLOTS.items():
        if isinstance(optimizer, known):
            own = kinds
    return own | _OF_ALL


def _carry(old, new, origins: Mapping[int, _Origin]) -> set[str]:
    """Carry the state of one optimizer, and name what could not be."""
    lost = set()
    kinds = _kinds(new)
    # A mean without its square would make steps of any size.
    centered = bool(getattr(old, "_average_gradients", None))
    for name, slots in vars(new).items():
        had = vars(old).get(name)
        if isinstance(slots, keras.Variable):
            if isinstance(had, keras.Variable) and had.shape == slots.shape:
                # A copy: JAX gives away what a step is handed.
                slots.assign(ops.copy(had))
            continue
        if not (_are_slots(slots, new) and _are_slots(had, old)):
            continue
        for variable, slot in zip(new._trainable_variables, slots, strict=True):
            origin = origins.get(id(variable), _Origin(variable, variable))
            value = _slot_of(old, had, origin.source)
            if slot is None or value is None:
                continue  # it was not trained before
            if origin.layer is None:
                slot.assign(ops.copy(value))
            elif name not in kinds or value.shape != origin.source.shape:
                lost.add(name.strip("_"))
            else:
                mean = None
                if centered and kinds[name] == SQUARE:
                    mean = _slot_of(old, old._average_gradients, origin.source)
                slot.assign(_of_factor(kinds[name], origin, value, mean))
    return lost


def _slot_of(optimizer, slots, variable):
    """What an optimizer keeps of a variable, `None` if it does not train it."""
    for one, slot in zip(optimizer._trainable_variables, slots, strict=True):
        if one is variable:
            return slot
    return None


def _are_slots(value, optimizer) -> bool:
    """Whether a value is a list with a slot for each trained variable."""
    return (
        isinstance(value, list)
        and len(value) == len(optimizer._trainable_variables)
        and value is not optimizer._trainable_variables
        and all(one is None or isinstance(one, keras.Variable) for one in value)
    )


def _of_factor(kind: str, origin: _Origin, slot, mean=None) -> np.ndarray:
    """What is kept of a factor, from what was kept of the kernel.

    Args:
        kind: String, what `slot` holds.
        origin: `_Origin` of the factor.
        slot: Variable of the shape of the kernel.
        mean: Variable with the mean gradients, if squares must not fall below
            theirs.

    Returns:
        Array of the shape of the factor.
    """
    layer = origin.layer
    shape = layer.kernel_shape
    how = layer.factorization(shape)

    def as_matrix(value):
        return how.matrix(host_array(value).astype(np.float64))

    left, right = layer.matrices(
        *(host_array(one).astype(np.float64) for one in layer.factor_variables),
        np,
    )
    turned = np.swapaxes(left, -1, -2), np.swapaxes(right, -1, -2)

    def means(kept):
        return kept @ turned[1], turned[0] @ kept

    def squares(kept):
        return kept @ turned[1] ** 2, turned[0] ** 2 @ kept

    kept = as_matrix(slot)
    if kind == MEAN:
        parts = means(kept)
    elif kind == LARGEST:
        parts = tuple(np.sqrt(part) for part in squares(kept**2))
    elif kind == WEIGHTS:
        parts = kept @ np.linalg.pinv(right), right
    elif mean is None:
        parts = squares(kept)
    else:
        average = as_matrix(mean)
        parts = tuple(
            part**2 + spread
            for part, spread in zip(
                means(average),
                squares(np.maximum(kept - average**2, 0.0)),
                strict=True,
            )
        )
    return layer.split(Product(*parts), shape)[origin.place]
