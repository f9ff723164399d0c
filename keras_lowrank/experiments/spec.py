"""`ExperimentSpec`: all that decides what a training run gives, as a value."""

import dataclasses
import hashlib
import itertools
import json
import math
import numbers
import pathlib
import tomllib
from collections.abc import Iterable
from collections.abc import Mapping
from typing import Any

import tomli_w

from keras_lowrank.callbacks import as_schedule
from keras_lowrank.decay import WeightDecay
from keras_lowrank.decay import convert_weight_decay
from keras_lowrank.experiments.choice import Choice
from keras_lowrank.experiments.plan import MILESTONE_UNITS
from keras_lowrank.experiments.plan import Plan
from keras_lowrank.experiments.plan import make_plan
from keras_lowrank.measures import as_measures

LOSSES = ("cross_entropy", "mean_squared_error")
PRECISIONS = ("float32", "mixed_bfloat16", "mixed_float16", "float64")
STOPS = ("epochs", "steps", "decay_clock")

# Bumped when the same fields come to mean another run.
_MEANING = 1


@dataclasses.dataclass(frozen=True)
class ExperimentSpec:
    """One training run: everything that decides what comes out of it.

    Two equal specs give the same run, on one backend to the last bit; `id`
    names it. The defaults are those of the paper's code where it has them: no
    momentum, decay in torch's convention of every variable, a learning rate
    that is cut to a fifth at each milestone.

    Exactly one of `epochs`, `steps` and `decay_clock` says when to stop. The
    last two are rounded up to whole epochs, since that is when weights are
    measured.

    Args:
        network: Name of a network out of `experiments.models.NETWORKS`, or a
            dict of its `name` and options:
            `{"name": "mlp", "depth": 10, "width": 100}`.
        data: Name of a data set, or a dict of its `name` and options, as
            `experiments.data.load` takes them.
        batch_size: Int >= 1. The last batch of an epoch is the rest.
        learning_rate: Float > 0, until the first milestone.
        milestones: Increasing numbers, when the learning rate is cut.
        milestone_unit: `"epochs"` complete, `"steps"` made, or the
            `"decay_clock"` reached.
        learning_rate_factor: Float > 0, by which each milestone multiplies.
        weight_decay: Float >= 0, in `decay_convention`.
        decay_convention: `"torch"`, `"keras"`, `"l2"` or `"paper_lambda"`; the
            lambda of the paper's figures is torch's.
        decay_coupling: `"coupled"`, `"decoupled"`, or `None` for that of the
            convention.
        decay_covers: What decays, as `WeightDecay` takes it; a string.
        optimizer: `"sgd"`, `"torch_sgd"`, the name of a Keras optimizer, or a
            dict of its `name` and options.
        momentum: Float in [0, 1), for optimizers that have one.
        loss: `"cross_entropy"`, or `"mean_squared_error"` to one-hot labels.
        epochs: Int >= 1.
        steps: Int >= 1, updates of the weights.
        decay_clock: Float > 0: stop where the sum of
            `-log(1 - learning_rate * w)` over the steps reaches it, `w` being
            the decay in torch's convention.
        seed: Int >= 0, of the weights and of the order of the data.
        initial_rank: Int >= 1: the measured kernels begin as the nearest of
            that rank to what the seed gives, with the norm of that. `None`
            leaves them as they are.
        initial_scale: Float > 0, by which the measured kernels are multiplied
            before training. `None` leaves them as they are.
        measures: Names out of `keras_lowrank.MEASURES`. Whole spectra are
            kept, so that others can be had later.
        weights: Regular expression of the weight matrices to measure, or
            `None` for those that the paper's averages are over.
        every: Int >= 1, epochs between measurements and evaluations, or
            `"log"`. The first state and the last are always measured.
        precision: `"float32"`, `"mixed_bfloat16"`, `"mixed_float16"` or
            `"float64"`.

    Raises:
        TypeError: for a value of the wrong type.
        ValueError: for a value out of range, with what is in range.

    Example:

    >>> spec = ExperimentSpec(
    ...     {"name": "mlp", "depth": 10, "width": 100}, "digits",
    ...     batch_size=32, learning_rate=0.1, weight_decay=5e-3, epochs=60,
    ... )
    >>> spec.replace(batch_size=16).batch_size
    16
    >>> spec == ExperimentSpec.from_json(spec.to_json())
    True

    Reference:
        [Galanti et al., CPAL 2025](https://arxiv.org/abs/2206.05794), 4.1
    """

    network: Any
    data: Any
    batch_size: int = 32
    learning_rate: float = 0.1
    milestones: tuple[float, ...] = ()
    milestone_unit: str = "epochs"
    learning_rate_factor: float = 0.2
    weight_decay: float = 0.0
    decay_convention: str = "torch"
    decay_coupling: str | None = None
    decay_covers: str = "all"
    optimizer: Any = "sgd"
    momentum: float = 0.0
    loss: str = "cross_entropy"
    epochs: int | None = None
    steps: int | None = None
    decay_clock: float | None = None
    seed: int = 0
    initial_rank: int | None = None
    initial_scale: float | None = None
    measures: tuple[str, ...] = ("rank", "stable_rank", "effective_rank")
    weights: str | None = None
    every: int | str = 1
    precision: str = "float32"

    def __post_init__(self):
        def keep(name, value):
            object.__setattr__(self, name, value)

        for name in ("network", "data", "optimizer"):
            keep(name, Choice.of(getattr(self, name), name))
        for name in ("batch_size", "epochs", "steps", "initial_rank"):
            keep(name, self._whole(name, 1, optional=name != "batch_size"))
        keep("seed", self._whole("seed", 0))
        for name in ("learning_rate", "learning_rate_factor"):
            keep(name, self._positive(name))
        for name in ("decay_clock", "initial_scale"):
            keep(name, self._positive(name, optional=True))
        keep("momentum", self._number("momentum"))
        if not 0 <= self.momentum < 1:
            raise self._wrong("momentum", "a number from 0 on, below 1")
        keep("milestones", self._checked_milestones())
        # Checks the convention and the rate, and says what is wrong.
        convert_weight_decay(self.weight_decay, self.decay_convention, "torch")
        keep("weight_decay", float(self.weight_decay))
        measures = self.measures
        measures = (measures,) if isinstance(measures, str) else measures
        keep("measures", tuple(item.name for item in as_measures(measures)))
        as_schedule(self.every)
        for name, choices in (
            ("milestone_unit", MILESTONE_UNITS),
            ("decay_coupling", (None, "coupled", "decoupled")),
            ("loss", LOSSES),
            ("precision", PRECISIONS),
        ):
            if getattr(self, name) not in choices:
                raise self._wrong(name, f"one of {choices}")
        for name in ("decay_covers", "weights"):
            value = getattr(self, name)
            if not isinstance(value, str) and (name, value) != (
                "weights",
                None,
            ):
                raise self._wrong(name, "a string", TypeError)
        self._check_stop()

    # Values -----------------------------------------------------------------

    @property
    def id(self) -> str:
        """Short name of the run: network, data, and a hash of all fields."""
        fields = _one_form(self.to_dict())
        text = json.dumps([_MEANING, fields], sort_keys=True)
        digest = hashlib.sha256(text.encode()).hexdigest()[:12]
        data = pathlib.PurePath(self.data.name).stem
        return f"{self.network.name}-{data}-{digest}"

    @property
    def stop(self) -> tuple[str, float]:
        """What says when to stop, and its value."""
        name = next(name for name in STOPS if getattr(self, name) is not None)
        return name, getattr(self, name)

    @property
    def decay(self) -> WeightDecay:
        """The weight decay, with its convention, coupling and coverage."""
        return WeightDecay(
            self.weight_decay,
            convention=self.decay_convention,
            coupling=self.decay_coupling,
            covers=self.decay_covers,
        )

    def plan(self, samples: int) -> Plan:
        """Epochs, steps and learning rates for a number of training samples.

        Args:
            samples: Int >= 1.

        Returns:
            A `Plan`.
        """
        return make_plan(
            samples=samples,
            batch_size=self.batch_size,
            learning_rate=self.learning_rate,
            factor=self.learning_rate_factor,
            milestones=self.milestones,
            milestone_unit=self.milestone_unit,
            stop=self.stop,
            weight_decay=self.decay.rate_in("torch"),
        )

    def replace(self, **changes) -> "ExperimentSpec":
        """A spec with some fields changed.

        A new way to stop takes the place of the old one.
        """
        _check_names(changes)
        if any(changes.get(name) is not None for name in STOPS):
            changes = dict.fromkeys(STOPS) | changes
        return dataclasses.replace(self, **changes)

    # Text -------------------------------------------------------------------

    def to_dict(self) -> dict[str, Any]:
        """The fields as plain values; those that are `None` are left out."""
        values = {}
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if isinstance(value, Choice):
                value = value.to_dict()
            elif isinstance(value, tuple):
                value = list(value)
            if value is not None:
                values[field.name] = value
        return values

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "ExperimentSpec":
        """The reverse of `to_dict`."""
        _check_names(values)
        missing = {"network", "data"} - set(values)
        if missing:
            raise ValueError(
                f"An experiment needs {' and '.join(sorted(missing))}, as in "
                '`network = "mlp"` and `data = "digits"`. '
                f"Received: {sorted(values)}."
            )
        return cls(**values)

    def to_json(self) -> str:
        """The fields as JSON text."""
        return json.dumps(self.to_dict(), indent=2)

    @classmethod
    def from_json(cls, text: str) -> "ExperimentSpec":
        """The reverse of `to_json`."""
        return cls.from_dict(json.loads(text))

    def to_toml(self) -> str:
        """The fields as TOML text."""
        return tomli_w.dumps(self.to_dict())

    @classmethod
    def from_toml(cls, text: str) -> "ExperimentSpec":
        """The reverse of `to_toml`."""
        return cls.from_dict(tomllib.loads(text))

    # Checks -----------------------------------------------------------------

    def _wrong(self, name, expected, kind=ValueError):
        value = getattr(self, name)
        return kind(
            f"`{name}` must be {expected}. Received: {name}={value!r} "
            f"(of type {type(value).__name__})."
        )

    def _number(self, name) -> float:
        value = getattr(self, name)
        if isinstance(value, bool) or not isinstance(value, numbers.Real):
            raise self._wrong(name, "a number", TypeError)
        return float(value)

    def _positive(self, name, optional=False) -> float | None:
        if optional and getattr(self, name) is None:
            return None
        value = self._number(name)
        if not (math.isfinite(value) and value > 0):
            raise self._wrong(name, "finite and larger than 0")
        return value

    def _whole(self, name, least, optional=False) -> int | None:
        value = getattr(self, name)
        if optional and value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, numbers.Integral):
            raise self._wrong(name, "a whole number", TypeError)
        if value < least:
            raise self._wrong(name, f"{least} or more")
        return int(value)

    def _checked_milestones(self) -> tuple[float, ...]:
        values = self.milestones
        if isinstance(values, str) or not isinstance(values, Iterable):
            raise self._wrong("milestones", "a list of numbers", TypeError)
        values = tuple(values)
        if not all(
            isinstance(value, numbers.Real) and not isinstance(value, bool)
            for value in values
        ):
            raise self._wrong("milestones", "a list of numbers", TypeError)
        if any(b <= a for a, b in itertools.pairwise((0, *values))):
            raise self._wrong("milestones", "above 0 and increasing")
        return values

    def _check_stop(self):
        given = [name for name in STOPS if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(
                "An experiment stops at `epochs`, at `steps` or at a "
                f"`decay_clock`: give one of them. Received: "
                f"{', '.join(given) or 'none'}."
            )
        needs_decay = (
            given == ["decay_clock"] or self.milestone_unit == "decay_clock"
        )
        if needs_decay and not self.weight_decay:
            raise ValueError(
                "The decay clock stands still without weight decay. Received: "
                "weight_decay=0.0. Use `epochs` or `steps` instead."
            )


def _one_form(value):
    """Numbers that are equal, as 1 and 1.0, in one form."""
    if isinstance(value, dict):
        return {key: _one_form(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_one_form(item) for item in value]
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value


def _check_names(values) -> None:
    known = [field.name for field in dataclasses.fields(ExperimentSpec)]
    unknown = sorted(set(values) - set(known))
    if unknown:
        raise ValueError(
            f"An experiment has no field {', '.join(map(repr, unknown))}. "
            f"Its fields are: {', '.join(known)}."
        )
