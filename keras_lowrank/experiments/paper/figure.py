"""`Figure`: what the paper trained for a figure, and what it reports."""

import dataclasses
import math
from collections.abc import Iterable
from collections.abc import Mapping
from typing import Any

from keras_lowrank.experiments.paper.fields import field_of
from keras_lowrank.experiments.spec import ExperimentSpec
from keras_lowrank.experiments.specs import sweep
from keras_lowrank.measures import Measure
from keras_lowrank.measures import numerical_rank

SIZES = ("smoke", "cpu", "full")
KINDS = ("final", "curves", "norm_ratios", "spectra", "clock")

# A point of a figure: pairs of a field and its value, sorted by field.
Key = tuple[tuple[str, Any], ...]


@dataclasses.dataclass(frozen=True)
class Grid:
    """Every combination of some values of some fields of a spec.

    Args:
        spec: `ExperimentSpec` that has the other fields. The names of its data
            may be of a set that the library cannot load, which a user gives.
        axes: Dict from fields to their values, as `sweep` takes them.
    """

    spec: ExperimentSpec
    axes: Mapping[str, tuple] = dataclasses.field(default_factory=dict)

    def specs(self, seeds: int) -> list[ExperimentSpec]:
        """All specs of the grid, for seeds 0 to `seeds - 1`."""
        return sweep(self.spec, self.axes, seed=range(seeds))


@dataclasses.dataclass(frozen=True)
class Size:
    """How much of a figure is trained.

    Args:
        grids: Tuple of `Grid`.
        note: String, how it differs from what the paper trained.
        numbers: Boolean, whether it may be held against the paper's numbers:
            only where nothing but the grid and the seeds is less than theirs.
        tolerance: Float, the tolerance of the rank where it is not that of
            the figure.
        title: String, what it trains where that is not what the figure does.
    """

    grids: tuple[Grid, ...]
    note: str
    numbers: bool
    tolerance: float | None = None
    title: str = ""

    def specs(self, seeds: int = 1) -> list[ExperimentSpec]:
        """All specs, each once.

        Args:
            seeds: Int >= 1, how many seeds of each.
        """
        every = [spec for grid in self.grids for spec in grid.specs(seeds)]
        return list(dict.fromkeys(every))


@dataclasses.dataclass(frozen=True, eq=False)
class Figure:
    """A figure or table of the paper, or a control that it lacks, as data.

    Args:
        name: String, as a user names it.
        title: String, the networks, the data and what is swept.
        fields: Tuple of strings, the fields that tell its points apart, of a
            spec or of `fields.DERIVED`; the first is the abscissa.
        sizes: Dict from `"smoke"`, `"cpu"` and `"full"` to `Size`.
        tolerance: Float, singular values above this share of the Frobenius
            norm count: what the figure really used, which for some is not
            what the paper says.
        references: Dict from a key (see `key_of`) to what the paper reports
            there: `"rank"`, `"train"` and `"test"` accuracy, and so on. A
            rank of 0 stands for a network that collapsed.
        claims: Tuple of claims (see `claims`).
        parts: Dict from a name to a regular expression of weights whose mean
            rank is reported apart.
        epochs: Tuple of ints, at which the mean rank is reported too, as
            `"rank after <n> epochs"`.
        half_rank: Boolean, whether to report the first epoch at which the
            mean rank is below half of that at the initialisation.
        panels: The field that has a panel of the figure for each value.
        also: Tuple of strings, names of measures that are reported beside
            the rank.
        kind: `"final"` ranks against the abscissa, rank `"curves"` over the
            epochs, `"norm_ratios"`, `"spectra"`, or ranks of all runs against
            the `"clock"` and what may order them.
        ours: Boolean, whether it is a control that the paper does not have.
        notes: Tuple of strings: where paper, code and figures disagree.
    """

    name: str
    title: str
    fields: tuple[str, ...]
    sizes: Mapping[str, Size]
    tolerance: float
    references: Mapping[Key, Mapping[str, float]]
    claims: tuple[Any, ...]
    parts: Mapping[str, str] = dataclasses.field(default_factory=dict)
    epochs: tuple[int, ...] = ()
    half_rank: bool = False
    panels: str | None = None
    also: tuple[str, ...] = ()
    kind: str = "final"
    ours: bool = False
    notes: tuple[str, ...] = ()

    def measure(self, size: str) -> Measure:
        """The rank that is counted, with its tolerance."""
        tolerance = self.sizes[size].tolerance or self.tolerance
        return Measure(
            "rank",
            numerical_rank,
            {"tolerance": tolerance, "relative_to": "frobenius"},
        )

    def key_of(self, spec: ExperimentSpec) -> Key:
        """The point of the figure that a spec belongs to."""
        return key(**{name: field_of(spec, name) for name in self.fields})


def key(**values) -> Key:
    """A point from its fields.

    >>> key(weight_decay=1e-4, batch_size=32)
    (('batch_size', 32), ('weight_decay', 0.0001))
    """
    return tuple(sorted(values.items()))


def row(field: str, values: Iterable, fixed: Mapping[str, Any], **reported):
    """A row of the paper's numbers, as it stands in a table.

    Args:
        field: String, what varies along the row.
        values: Its values.
        fixed: Dict of the other fields that tell points apart.
        **reported: Strings of as many numbers, apart by spaces; `-` where the
            paper has none.

    Returns:
        Dict from keys to dicts of what is reported, where anything is.

    Raises:
        ValueError: when a row is not as long as `values`.

    Example:

    >>> row("batch_size", (4, 8), {}, rank="78.1 91.9", test="- .864")[
    ...     key(batch_size=8)
    ... ]
    {'rank': 91.9, 'test': 0.864}
    """
    values = tuple(values)
    points: dict[Key, dict[str, float]] = {
        key(**{field: value, **fixed}): {} for value in values
    }
    for name, text in reported.items():
        numbers = text.split()
        if len(numbers) != len(values):
            raise ValueError(
                f"A row needs a number for each of the {len(values)} values "
                f"of `{field}`. Received: {name}={text!r}."
            )
        for point, number in zip(points.values(), numbers, strict=True):
            if number != "-":
                point[name] = float(number)
    return {point: found for point, found in points.items() if found}


def label(point: Key, leave_out: Iterable[str] = ()) -> str:
    """A point in words: `batch_size 32, weight_decay 0.0001`."""
    left_out = set(leave_out)
    return ", ".join(
        f"{name} {text(value)}" for name, value in point if name not in left_out
    )


def text(value) -> str:
    """A value of a field, short."""
    if isinstance(value, float) and math.isfinite(value):
        return f"{value:g}"
    return str(value)
