"""Fields of the specs of runs, numbers that figures are drawn against."""

import dataclasses
import math
from collections.abc import Sequence

from keras_lowrank.experiments.found import FoundRun


class NotAtHandError(Exception):
    """The runs do not hold what a figure needs."""


def chosen_fields(
    runs: Sequence[FoundRun], against: str | None, count: int
) -> list[str]:
    """The fields of the specs, numbers, that a figure is drawn against.

    Args:
        runs: Sequence of `FoundRun`.
        against: Names with commas between, or `None` for the fields in which
            the runs differ.
        count: Int, how many fields the figure takes.

    Returns:
        List of names.

    Raises:
        NotAtHandError: where they are not so many.
    """
    if against is not None:
        fields = [field.strip() for field in against.split(",")]
        told = f"`against` names {len(fields)}"
    else:
        fields = _varying_numbers(runs)
        told = f"the runs differ in {', '.join(fields) or 'no number'}"
    if len(fields) != count:
        needed = "one field" if count == 1 else f"{count} fields"
        raise NotAtHandError(
            f"it takes {needed}, and {told}. Say which with `against`."
        )
    return fields


def _varying_numbers(runs: Sequence[FoundRun]) -> list[str]:
    """The fields of their specs, numbers, in which runs differ."""
    specs = [run.spec for run in runs if run.spec is not None]
    if len(specs) < 2:
        raise NotAtHandError(
            "it takes two experiments that differ in a number."
        )
    return [
        field.name
        for field in dataclasses.fields(specs[0])
        if field.name != "seed"
        and all(_is_number(getattr(spec, field.name)) for spec in specs)
        and len({getattr(spec, field.name) for spec in specs}) > 1
    ]


def _is_number(value) -> bool:
    return (
        isinstance(value, (int, float))
        and not isinstance(value, bool)
        and math.isfinite(value)
    )


def ends_at(runs: Sequence[FoundRun], fields: Sequence[str]) -> list[tuple]:
    """What was asked of runs and what came of it.

    Args:
        runs: Sequence of `FoundRun`.
        fields: Names of fields of their specs.

    Returns:
        List of tuples: the values of the fields and the `Recording`, of each
        run that has them as numbers.

    Raises:
        NotAtHandError: where none has.
    """
    found = [
        (*(float(getattr(run.spec, field)) for field in fields), run.recording)
        for run in runs
        if run.spec is not None
        and all(_is_number(getattr(run.spec, field, None)) for field in fields)
    ]
    if not found:
        raise NotAtHandError(
            f"no spec has numbers {' and '.join(map(repr, fields))}. Name "
            "fields with `against`."
        )
    return found


def in_words(fields: Sequence[str]) -> list[str]:
    """Names of fields as they are read on an axis."""
    return [field.replace("_", " ") for field in fields]
