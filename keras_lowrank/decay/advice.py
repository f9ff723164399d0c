"""What `explain_weight_decay` warns about."""

import re
from collections.abc import Iterator

import keras

from keras_lowrank.decay.optimizer import DecayedOptimizer
from keras_lowrank.decay.routes import Decaying
from keras_lowrank.decay.routes import seen_by
from keras_lowrank.roles import role_of

# Distance from 1 to the next number.
EPSILON = {
    "float64": 2.0**-52,
    "float32": 2.0**-23,
    "float16": 2.0**-10,
    "bfloat16": 2.0**-7,
}


def advice(model, variables: list[Decaying]) -> Iterator[str]:
    """What is probably not meant, each with what to do about it.

    Args:
        model: The model explained.
        variables: List of `Decaying`, its trainable variables.

    Yields:
        Strings.
    """
    yield from _twice(variables)
    yield from _normalization(variables)
    optimizer = model.optimizer
    if isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
        if optimizer.weight_decay is not None:
            yield (
                "`weight_decay` was set on the `LossScaleOptimizer`, where it "
                "has no effect. Set it on its `inner_optimizer`, or use "
                "`WeightDecayScheduler`."
            )
        optimizer = optimizer.inner_optimizer
    for one in getattr(optimizer, "optimizers", [optimizer]):
        if isinstance(one, DecayedOptimizer):
            coverage = one.coverage or one.resolve(model.trainable_variables)
            yield from coverage.unmatched
        else:
            yield from _keras_exclusions(one, model.trainable_variables)
    yield from _rounding(variables)


def remarks(variables: list[Decaying]) -> Iterator[str]:
    """What helps to read the numbers."""
    rescaled = [one for one in variables if one.is_rescaled]
    if rescaled:
        kinds = {type(one.optimizer).__name__ for one in rescaled}
        yield (
            f"Coupled decay of {_listed(rescaled)}: {', '.join(sorted(kinds))} "
            "rescales it together with the gradient, so no fixed fraction "
            "goes at a step. A decoupled decay takes one."
        )
    for momentum in sorted({one.momentum for one in variables} - {0.0, 1.0}):
        yield (
            f"Momentum {momentum:g} repeats a coupled decay: in the long run "
            f"a step takes 1 / (1 - {momentum:g}) times what its own gradient "
            "holds. The numbers say so much."
        )


def _twice(variables) -> Iterator[str]:
    twice = [one for one in variables if len(one.routes) > 1]
    if twice:
        yield (
            f"L2 plus weight decay: {_listed(twice)} decay by both, and the "
            "rates add up. Keep one of the two."
        )


def _normalization(variables) -> Iterator[str]:
    found = [
        one
        for one in variables
        if one.routes and role_of(one.variable) == "normalization"
    ]
    if found:
        yield (
            f"Normalization parameters decay: {_listed(found)}. If that is "
            "not meant, use `WeightDecay(rate)`, which covers kernels."
        )


def _keras_exclusions(optimizer, variables) -> Iterator[str]:
    if not optimizer.weight_decay:
        return
    pattern = getattr(optimizer, "_exclude_from_weight_decay_pattern", None)
    if pattern is not None:
        for one in _alternatives(pattern.pattern):
            yield from _keras_pattern(one, optimizer, variables)
    if pattern or getattr(optimizer, "_exclude_from_weight_decay", None):
        yield (
            "What `exclude_from_weight_decay` excludes is not saved: loaded "
            "again, the model decays everywhere. `WeightDecay(rate, "
            "exclude=[...])` is saved."
        )


def _keras_pattern(pattern, optimizer, variables) -> Iterator[str]:
    def found_in(texts):
        return any(re.search(pattern, text) for text in texts)

    here = found_in(seen_by(optimizer, one).name for one in variables)
    by_name = found_in(one.name for one in variables)
    by_path = found_in(one.path for one in variables)
    cure = (
        "Use `var_list`, or `WeightDecay(rate, exclude=[...])`, which "
        "searches paths everywhere."
    )
    if by_path and not by_name:
        effect = "works" if here else "matches nothing"
        yield (
            f"The pattern '{pattern}' of `exclude_from_weight_decay` {effect} "
            f"on this backend: Keras searches the path of a variable on "
            "TensorFlow, but its bare name, as 'kernel', on JAX and torch. "
            f"{cure}"
        )
    elif not here:
        yield (
            f"The pattern '{pattern}' of `exclude_from_weight_decay` matches "
            f"nothing, so it excludes nothing. {cure}"
        )


def _alternatives(joined: str) -> list[str]:
    # Keras joins the patterns by "|"; a pattern may hold one itself.
    parts = sorted(joined.split("|"))
    try:
        for part in parts:
            re.compile(part)
    except re.error:
        return [joined]
    return parts


def _rounding(variables) -> Iterator[str]:
    for dtype, epsilon in EPSILON.items():
        small = [
            one
            for one in variables
            if keras.backend.standardize_dtype(one.variable.dtype) == dtype
            and 0 < (one.decay or 0.0) < epsilon / 2
        ]
        # A weight between 1 and 2 moves in steps of epsilon, and half of one
        # is needed to move it.
        lost = [one for one in small if one.decay < epsilon / 4]
        partly = [one for one in small if one not in lost]
        for group, effect in ((lost, "loses it all"), (partly, "loses some")):
            if group:
                yield (
                    f"A step takes {group[0].decay:.2g} of "
                    f"{_listed(group)}, and rounding to {dtype} {effect} "
                    f"where it comes alone (it resolves {epsilon / 2:.2g}). "
                    "Raise the rate or the learning rate, or keep variables "
                    "in float32 with a `mixed_` dtype policy."
                )


def _listed(variables: list[Decaying]) -> str:
    shown = ", ".join(f"'{one.name}'" for one in variables[:3])
    more = len(variables) - 3
    return f"{shown} and {more} more" if more > 0 else shown
