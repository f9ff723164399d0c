"""What tells the points of a figure apart: fields of specs, and more."""

import math

from keras_lowrank.decay import convert_weight_decay
from keras_lowrank.experiments.choice import Choice
from keras_lowrank.experiments.spec import ExperimentSpec


def field_of(spec: ExperimentSpec, name: str):
    """The value of a field of a spec, or of `DERIVED`; of a choice, its name.

    >>> spec = ExperimentSpec("mlp", "digits", weight_decay=0.01, epochs=1)
    >>> field_of(spec, "network"), field_of(spec, "memory")
    ('mlp', 1000.0)
    """
    if name in DERIVED:
        return DERIVED[name](spec)
    value = getattr(spec, name)
    return value.name if isinstance(value, Choice) else value


def _schedule(spec: ExperimentSpec) -> str:
    return "cut" if spec.milestones else "constant"


def _initial_weights(spec: ExperimentSpec) -> str:
    told = []
    if spec.initial_rank is not None:
        told.append(f"rank {spec.initial_rank}")
    if spec.initial_scale is not None:
        told.append(f"times {spec.initial_scale:g}")
    return ", ".join(told) or "as drawn"


def _coupling(spec: ExperimentSpec) -> str:
    of_convention = "decoupled" if spec.decay_convention == "keras" else ""
    return spec.decay_coupling or of_convention or "coupled"


def decay_per_step(spec: ExperimentSpec) -> float:
    """Share of the weights that a first step takes, without momentum."""
    decay = convert_weight_decay(
        spec.weight_decay, spec.decay_convention, "torch"
    )
    return _rounded(spec.learning_rate * decay)


def memory_steps(spec: ExperimentSpec) -> float:
    """Steps after which `1 / e` of the weights is left, by decay alone.

    `1 / (mu w)`; coupled decay under momentum `beta` acts `1 / (1 - beta)`
    times as fast.
    """
    rate = decay_per_step(spec)
    if _coupling(spec) == "coupled":
        rate /= 1 - spec.momentum
    return _rounded(1 / rate) if rate else math.inf


def _rounded(value: float) -> float:
    """Equal for what is equal but for rounding."""
    return float(f"{value:.6g}")


# What tells points apart and is no field of a spec.
DERIVED = {
    "schedule": _schedule,
    "initial_weights": _initial_weights,
    "coupling": _coupling,
    "decay_per_step": decay_per_step,
    "memory": memory_steps,
}
