"""What tells the points of a figure apart: fields of specs, and more."""

from keras_lowrank.experiments.choice import Choice
from keras_lowrank.experiments.spec import ExperimentSpec
from keras_lowrank.theory import memory_steps


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


def decay_per_step(spec: ExperimentSpec) -> float:
    """Share of the weights that a first step takes, without momentum."""
    return _rounded(spec.learning_rate * spec.decay.rate_in("torch"))


def _memory(spec: ExperimentSpec) -> float:
    """`memory_steps` of a run, until its learning rate is cut."""
    decay = spec.decay
    coupled = decay.coupling == "coupled"
    return _rounded(
        memory_steps(
            spec.learning_rate,
            decay.rate_in("torch"),
            spec.momentum if coupled else 0.0,
        )
    )


def _rounded(value: float) -> float:
    """Equal for what is equal but for rounding."""
    return float(f"{value:.6g}")


# What tells points apart and is no field of a spec.
DERIVED = {
    "schedule": _schedule,
    "initial_weights": _initial_weights,
    "coupling": lambda spec: spec.decay.coupling,
    "decay_per_step": decay_per_step,
    "memory": _memory,
}
