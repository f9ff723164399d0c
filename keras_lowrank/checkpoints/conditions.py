"""Thresholds on measures, such as `stable_rank < 2`."""

import dataclasses
import math
import operator
import re
from collections.abc import Iterable
from typing import Any

from keras_lowrank.measures import MEASURES
from keras_lowrank.measures import Measure
from keras_lowrank.measures import numerical_rank
from keras_lowrank.spectrum import Spectrum

_COMPARE = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "==": operator.eq,
    "!=": operator.ne,
}


def rank_ratio(spectrum: Spectrum) -> float:
    """Numerical rank over the largest one that the shape allows."""
    return float(numerical_rank(spectrum)) / max(min(spectrum.shape), 1)


# Known to thresholds besides the measures that have names everywhere.
RATIO = Measure("rank_ratio", rank_ratio)


@dataclasses.dataclass(frozen=True)
class Condition:
    """A threshold that no matrix may be found beyond.

    Args:
        measure: `Measure`.
        sign: String, `"<"`, `"<="`, `">"`, `">="`, `"=="` or `"!="`.
        number: Float.

    Example:

    >>> condition = Condition.parse("stable_rank < 2")
    >>> str(condition), condition.holds(1.5)
    ('stable_rank < 2', True)
    """

    measure: Measure
    sign: str
    number: float

    @classmethod
    def parse(cls, text: str) -> "Condition":
        """Read `MEASURE OP NUMBER`.

        Args:
            text: String such as `"rank_ratio<=0.1"`.

        Returns:
            A `Condition`.

        Raises:
            ValueError: for anything else.
        """
        match = re.fullmatch(r"\s*(\w+)\s*(<=|>=|==|!=|<|>)\s*(\S+)\s*", text)
        name, sign, number = match.groups() if match else ("", "", "")
        known = {**MEASURES, RATIO.name: RATIO}
        try:
            value = float(number)
        except ValueError:
            value = math.nan
        if name not in known or math.isnan(value):
            raise ValueError(
                "A threshold is MEASURE OP NUMBER, as in 'stable_rank < 2', "
                f"with one of the measures {', '.join(known)} and one of "
                f"{' '.join(_COMPARE)}. Received: {text!r}."
            )
        return cls(known[name], sign, value)

    def holds(self, value: float) -> bool:
        """Whether a value of the measure is beyond the threshold."""
        return bool(_COMPARE[self.sign](value, self.number))

    def __str__(self):
        return f"{self.measure.name} {self.sign} {self.number:g}"


def violations(
    rows: Iterable[dict[str, Any]], conditions: Iterable[Condition]
) -> list[str]:
    """What of a report is beyond its thresholds.

    A matrix that is not finite is beyond any; a collapsed one measures 0 and
    is compared as such.

    Args:
        rows: Rows of a `RankReport`, with the measures of the conditions.
        conditions: Iterable of `Condition`.

    Returns:
        List of strings, one for each threshold that a matrix is beyond.
    """
    conditions = list(conditions)
    found = []
    for row in rows:
        if row["status"] == "skipped" or not conditions:
            continue
        if row["status"] == "not finite":
            found.append(f"{row['name']}: not finite, {row['reason']}")
            continue
        unknown = [c for c in conditions if row[c.measure.name] is None]
        found += [
            f"{row['name']}: {condition.measure.name} needs all singular "
            "values, of which this method computes none; use another"
            for condition in unknown
        ]
        note = " (collapsed)" if row["status"] == "collapsed" else ""
        found += [
            f"{row['name']}: {condition.measure.name} = "
            f"{row[condition.measure.name]:.6g}, fails if {condition}{note}"
            for condition in conditions
            if condition not in unknown
            and condition.holds(row[condition.measure.name])
        ]
    return found
