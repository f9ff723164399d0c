"""What `explain_weight_decay` warns about."""

import re
from collections.abc import Iterator

import keras

from keras_lowrank.decay.coverage import variable_role
from keras_lowrank.decay.optimizer import DecayedOptimizer
from keras_lowrank.decay.routes import DecayingWeight
from keras_lowrank.decay.routes import as_keras_passes_it

# Half the distance from 1 to the next number: below it `W - d * W` is `W`.
_HALF_ULP = {
    "float64": 2.0**-53,
    "float32": 2.0**-24,
    "float16": 2.0**-11,
    "bfloat16": 2.0**-8,
}


def advice(model: keras.Model, weights: list[DecayingWeight]) -> list[str]:
    """What is probably not meant, each with what to do about it.

    Args:
        model: The model explained.
        weights: List of its `DecayingWeight`.

    Returns:
        List of strings, empty if nothing is wrong.
    """
    decaying = [weight for weight in weights if weight.routes]
    optimizers = {id(w.optimizer): w.optimizer for w in weights}.values()
    return [
        *_about_routes(decaying),
        *_about_normalization(decaying),
        *(m for opt in optimizers for m in _about_exclusions(model, opt)),
        *_about_late_regularizers(model),
        *_about_rounding(decaying),
        *_about_adaptive(decaying),
    ]


def _about_routes(decaying: list[DecayingWeight]) -> Iterator[str]:
    twice = [weight for weight in decaying if len(weight.routes) > 1]
    if twice:
        routes = " and ".join(route.name for route in twice[0].routes)
        yield (
            f"Decayed by more than one route, whose rates add up ({routes}): "
            f"{_listed(twice)}. Keep one of them."
        )


def _about_normalization(decaying: list[DecayingWeight]) -> Iterator[str]:
    weights = [
        weight
        for weight in decaying
        if variable_role(weight.variable) == "normalization"
    ]
    if weights:
        yield (
            f"Normalization parameters decay: {_listed(weights)}. If that is "
            'not meant, use `WeightDecay(rate, covers="kernel")`.'
        )


def _about_adaptive(decaying: list[DecayingWeight]) -> Iterator[str]:
    weights = [weight for weight in decaying if weight.is_rescaled]
    if weights:
        yield (
            "A coupled decay under an adaptive optimizer is rescaled by it, so "
            f"that weights do not shrink in proportion: {_listed(weights)}. "
            'Use `WeightDecay(rate, coupling="decoupled")`.'
        )


def _about_exclusions(model, optimizer) -> Iterator[str]:
    variables = model.trainable_variables
    if isinstance(optimizer, DecayedOptimizer):
        coverage = optimizer.coverage or optimizer.decay.resolve(variables)
        yield from coverage.unmatched
        return
    if not optimizer.weight_decay:
        return
    pattern = getattr(optimizer, "_exclude_from_weight_decay_pattern", None)
    if pattern is not None:
        yield from _about_patterns(pattern.pattern, variables)
    if pattern or getattr(optimizer, "_exclude_from_weight_decay", None):
        yield (
            "The exclusions of `exclude_from_weight_decay` are not saved with "
            "the model: once loaded, everything decays. `WeightDecay(rate, "
            "exclude=[...])` saves them."
        )


def _about_patterns(joined: str, variables) -> Iterator[str]:
    for pattern in _alternatives(joined):
        here = any(
            re.search(pattern, as_keras_passes_it(v).name) for v in variables
        )
        by_name = any(re.search(pattern, v.name) for v in variables)
        by_path = any(re.search(pattern, v.path) for v in variables)
        advice = (
            "Use `var_list`, or `WeightDecay(rate, exclude=[...])`, which "
            "searches the path everywhere."
        )
        if not (here or by_path):
            yield (
                f"The exclusion '{pattern}' matches nothing, so nothing is "
                f"excluded by it. {advice}"
            )
        elif by_path and not by_name:
            effect = "works on TensorFlow alone" if here else "matches nothing"
            yield (
                f"The exclusion '{pattern}' {effect}: Keras searches it in the "
                "path of a variable on TensorFlow, and in its bare name, as "
                f"'kernel', on other backends. {advice}"
            )


def _alternatives(joined: str) -> list[str]:
    # Keras joins the patterns with "|"; a pattern may hold one itself.
    parts = sorted(joined.split("|"))
    try:
        for part in parts:
            re.compile(part)
    except re.error:
        return [joined]
    return parts


def _about_late_regularizers(model) -> Iterator[str]:
    for layer in model._flatten_layers():
        for attribute, regularizer in vars(layer).items():
            prefix, _, ending = attribute.rpartition("_")
            if ending != "regularizer" or regularizer is None:
                continue
            for name in (prefix, f"{prefix}_kernel"):
                variable = getattr(layer, name, None)
                if (
                    isinstance(variable, keras.Variable)
                    and variable.trainable
                    and variable.regularizer is not regularizer
                ):
                    yield (
                        f"`{attribute}` of layer '{layer.name}' was set after "
                        "the layer was built and has no effect. Set "
                        f"`layer.{name}.regularizer`, or use `WeightDecay`."
                    )


def _about_rounding(decaying: list[DecayingWeight]) -> Iterator[str]:
    for dtype, half_ulp in _HALF_ULP.items():
        lost = [
            weight
            for weight in decaying
            if keras.backend.standardize_dtype(weight.variable.dtype) == dtype
            and 0 < weight.decay < half_ulp
        ]
        if lost:
            yield (
                f"A step takes {lost[0].decay:.2g} of {_listed(lost)}, less "
                f"than {dtype} resolves ({half_ulp:.2g}): once the gradients "
                "vanish, rounding leaves nothing of the decay. Raise the rate "
                "or the learning rate, or keep the weights in float32 with a "
                "`mixed_` dtype policy."
            )


def _listed(weights: list[DecayingWeight]) -> str:
    shown = ", ".join(f"'{weight.name}'" for weight in weights[:3])
    more = len(weights) - 3
    return f"{shown} and {more} more" if more > 0 else shown
