"""The layers of a model that might be compressed, and why others are not."""

import dataclasses
import math
from typing import Any

import keras
import numpy as np

from keras_lowrank.calls import watch_calls
from keras_lowrank.compress.layer_plan import LayerPlan
from keras_lowrank.gradients import weight_uses
from keras_lowrank.layers import FactoredLayer
from keras_lowrank.layers import low_rank_class
from keras_lowrank.linalg import host_array
from keras_lowrank.linalg import non_finite_reason
from keras_lowrank.linalg import spectrum
from keras_lowrank.linalg import whitened
from keras_lowrank.names import searcher
from keras_lowrank.weights import locate_layers
from keras_lowrank.weights import weight_matrices

SCHEMES = ("channel", "spatial", "auto")


@dataclasses.dataclass(frozen=True)
class Candidates:
    """The layers of a model with kernels, each in the forms it may take.

    Args:
        forms: Dict from the name of a layer to its `LayerPlan`s: one for each
            scheme of factoring it, or one that says why there is none.
        notes: Tuple of strings.
    """

    forms: dict[str, list[LayerPlan]]
    notes: tuple[str, ...] = ()


def find_candidates(
    model,
    selected=None,
    scheme="channel",
    x=None,
    moments=None,
    method="svd",
    count_flops=True,
) -> Candidates:
    """Every layer of a model that has a weight matrix.

    Args:
        model: Built Keras model.
        selected: Which layers to compress, as for `compression_plan`.
        scheme: As for `compression_plan`.
        x: A sample, for the shapes of the calls.
        moments: Dict from names of layers to second moments of what their
            left factors multiply, by scheme.
        method: How spectra are computed, as for `linalg.spectrum`.
        count_flops: Boolean, whether to find out what kernels cost, for which
            the model is called once.

    Returns:
        `Candidates`.
    """
    layers = kernel_layers(model)
    chosen = layer_names(layers, selected)
    costs: dict[str, _Cost] = {}
    notes: tuple[str, ...] = ()
    if count_flops:
        costs, notes = _costs(model, layers, x)
    shared = _shared_variables(model)
    forms: dict[str, list[LayerPlan]] = {}
    for name, layer in layers.items():
        kernel = kernel_of(layer)
        cost = costs.get(name)
        plan = LayerPlan(
            name,
            type(layer).__name__,
            () if kernel is None else tuple(kernel.shape),
            parameters=_size(layer, kernel),
            flops=None if cost is None else cost.flops,
        )
        reason = _reason(layer, shared)
        if not reason and name not in chosen:
            reason = "not selected by `layers`"
        if reason:
            forms[name] = [plan.kept(reason)]
            continue
        forms[name] = [
            _form(plan, layer, one, cost, moments, method)
            for one in schemes_of(layer, scheme)
        ]
    return Candidates(forms, notes)


def kernel_layers(model) -> dict[str, Any]:
    """The layers of a model that own a weight matrix, by name.

    Args:
        model: Built Keras model.

    Returns:
        Dict from names relative to the model to layers.
    """
    owners = {id(matrix.layer) for matrix in weight_matrices(model)}
    layers = locate_layers(model, keras.Layer)
    inside = {
        id(factor)
        for layer in layers.values()
        if isinstance(layer, FactoredLayer)
        for factor in layer._flatten_layers(include_self=False)
    }
    if not layers and id(model) in owners:
        raise TypeError(
            "A plan is for a model of several layers. Received: "
            f"{model!r}. Take `from_layer` of its low-rank layer."
        )
    return {
        name: layer
        for name, layer in layers.items()
        if id(layer) not in inside
        and (id(layer) in owners or isinstance(layer, FactoredLayer))
    }


def schemes_of(layer, scheme: str) -> list[str | None]:
    """The schemes to try for a layer: `[None]` where it has no choice."""
    form = low_rank_class(layer)
    known = () if form is None else form.schemes
    if scheme == "auto":
        return list(known) or [None]
    return [scheme] if scheme in known else [*known[:1]] or [None]


def unbuilt_form(layer, scheme: str | None) -> FactoredLayer:
    """The low-rank layer of rank 1 for a layer that has one, not built."""
    form = low_rank_class(layer)
    if form is None:
        raise ValueError(f"'{layer.name}' has no low-rank form.")
    return form.like(layer, 1, **({"scheme": scheme} if scheme else {}))


def kernel_of(layer):
    """The kernel of a layer, a variable or tensor, or `None` without one."""
    for name in ("kernel", "embeddings"):
        kernel = getattr(layer, name, None)
        if kernel is not None:
            return kernel
    return None


def _size(layer, kernel) -> int:
    if isinstance(layer, FactoredLayer):
        factors = (layer.reduce, layer.expand)
        return sum(math.prod(kernel_of(factor).shape) for factor in factors)
    if kernel is not None:
        return math.prod(kernel.shape)
    return sum(math.prod(weight.shape) for weight in layer.weights)


def layer_names(layers: dict[str, Any], selected=None) -> set[str]:
    """Names of the layers that a user means.

    Args:
        layers: Dict from names to layers, as `kernel_layers` gives it.
        selected: A regular expression searched in names, a name, a layer, or
            a list of these; all by default.

    Returns:
        Set of strings.

    Raises:
        ValueError: when one of them selects nothing.
    """
    if selected is None:
        return set(layers)
    found: set[str] = set()
    for one in selected if isinstance(selected, (list, tuple)) else [selected]:
        if isinstance(one, str):
            names = {name for name in layers if name == one} or set(
                filter(searcher(one, "layers"), layers)
            )
        else:
            names = {name for name, layer in layers.items() if layer is one}
        if not names:
            raise ValueError(
                "`layers` must be a regular expression, a name, a layer of "
                f"the model, or a list of these. Received: {one!r}, which "
                f"selects none. Names: {list(layers)}."
            )
        found |= names
    return found


def _shared_variables(model) -> set[int]:
    """Variables that several layers hold, as tied kernels are."""
    seen: set[int] = set()
    shared: set[int] = set()
    for layer in model._flatten_layers():
        own = {
            id(variable)
            for variable in (
                *layer._trainable_variables,
                *layer._non_trainable_variables,
            )
        }
        shared |= seen & own
        seen |= own
    return shared


def _reason(layer, shared) -> str:
    """Why a layer has no low-rank form, or an empty string."""
    if isinstance(layer, FactoredLayer):
        return f"has low rank already: {layer.rank}"
    form = low_rank_class(layer)
    if form is None:
        return f"{type(layer).__name__} has no low-rank form"
    reason = form.reason_against(layer)
    if reason:
        return reason
    if any(id(variable) in shared for variable in layer.weights):
        return "its variables are another layer's as well"
    kernel = host_array(kernel_of(layer))
    if not np.isfinite(kernel).all():
        return f"is not finite: {non_finite_reason(kernel)}"
    if not kernel.any():
        return "every entry of its kernel is zero"
    return ""


def _form(plan, layer, scheme, cost, moments, method) -> LayerPlan:
    """The layer with the spectrum and the costs of one way to factor it."""
    new = unbuilt_form(layer, scheme)
    kernel = host_array(kernel_of(layer)).astype(np.float64)
    matrix = new.factorization(kernel.shape).matrix(kernel)
    moment = (moments or {}).get((plan.name, scheme))
    if moment is not None:
        matrix = whitened(matrix, moment)
    blocks = matrix if matrix.ndim == 3 else matrix[None]
    squares = sum(np.square(spectrum(one, method).values) for one in blocks)
    plan = dataclasses.replace(
        plan,
        matrix_shape=blocks.shape[1:],
        blocks=len(blocks),
        scheme=scheme,
        values=tuple(np.sqrt(squares).tolist()),
    )
    if cost is None:
        return plan
    return dataclasses.replace(plan, flops_per_rank=cost.per_rank(plan))


# Costs --------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class _Cost:
    """What the kernels of a layer cost for one sample.

    Args:
        flops: Float, two for each multiplication and addition.
        uses: Int, how many vectors its last kernel multiplies.
        widening: Float, how much wider the input of a convolution is than
            its output.
    """

    flops: float
    uses: int
    widening: float = 1.0

    def per_rank(self, plan: LayerPlan) -> float:
        """What each rank of the factors costs."""
        rows, columns = map(float, plan.matrix_shape)
        if plan.kind == "Embedding":
            rows = 0.0  # a table is looked up
        if plan.scheme == "spatial":
            # The vertical windows are taken over the whole width.
            rows *= self.widening
        return 2.0 * self.uses * (rows + columns)


def _costs(model, layers, x) -> tuple[dict[str, _Cost], tuple[str, ...]]:
    widths: dict[int, float] = {}

    def record(layer, inputs, outputs):
        axis = 3 if layer.data_format == "channels_first" else 2
        widths.setdefault(
            id(layer), inputs.shape[axis] / max(outputs.shape[axis], 1)
        )

    convolutions = [
        layer
        for layer in layers.values()
        if isinstance(layer, keras.layers.Conv2D)
    ]
    try:
        with watch_calls(convolutions, record):
            uses = weight_uses(model, x)
    except ValueError as error:
        if x is not None:
            raise
        return {}, (f"FLOPs are not counted: {error}",)
    matrices = weight_matrices(model)
    costs = {}
    for name, layer in layers.items():
        own = [matrix for matrix in matrices if matrix.layer is layer]
        flops, count = 0.0, None
        for matrix in own:
            count = uses[matrix.name].count
            if count is None:
                break
            if not isinstance(layer, keras.layers.Embedding):
                # A use of one of several blocks multiplies that block alone.
                size = math.prod(matrix.matrix_shape) / matrix.blocks**2
                flops += 2.0 * count * size
        if count is not None:
            costs[name] = _Cost(flops, count, widths.get(id(layer), 1.0))
    return costs, ()
