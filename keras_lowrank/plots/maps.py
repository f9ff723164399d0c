"""A value at scattered places of a plane, such as a rank in a search."""

import dataclasses

import numpy as np


@dataclasses.dataclass(frozen=True, eq=False)
class Map:
    """Points with a value each, and the lines along which it is the same.

    On one pair of axes two hyperparameters, and in colour what they gave:
    along an iso-line one of them makes up for the other.

    Args:
        title: String above the axes.
        x_label: String with the unit of `x`.
        y_label: String with the unit of `y`.
        value_label: String with the unit of `values`.
        x: Array of shape `(n,)`.
        y: Array of shape `(n,)`.
        values: Array of shape `(n,)`.
        labels: Tuple of n strings that stand beside the points, or none.
        log_x: Boolean, whether the horizontal axis is logarithmic.
        log_y: Boolean, whether the vertical axis is logarithmic.
        caption: String with the definition of what is drawn.

    Raises:
        ValueError: if the shapes or the number of labels do not fit.

    Example:

    >>> from keras_lowrank.plots import Map
    >>> ranks = Map(
    ...     "Rank", "batch size", "weight decay", "rank",
    ...     x=[8, 8, 8, 32], y=[1e-3, 1e-3, 1e-2, 1e-3],
    ...     values=[40.0, 42.0, 12.0, float("nan")], log_x=True, log_y=True,
    ... )
    >>> drawn = ranks.averaged()
    >>> drawn.values.tolist()
    [41.0, 12.0]
    >>> drawn.caption
    'means of up to 2 points; left out as not finite: 1 of 4'
    """

    title: str
    x_label: str
    y_label: str
    value_label: str
    x: np.ndarray
    y: np.ndarray
    values: np.ndarray
    labels: tuple[str, ...] = ()
    log_x: bool = False
    log_y: bool = False
    caption: str = ""

    def __post_init__(self):
        shapes = []
        for name in ("x", "y", "values"):
            array = np.asarray(getattr(self, name), np.float64)
            object.__setattr__(self, name, array)
            shapes.append(array.shape)
        if len(set(shapes)) > 1 or len(shapes[0]) != 1:
            raise ValueError(
                "`x`, `y` and `values` must be one number for each point. "
                "Received: shapes {}, {} and {}.".format(*shapes)
            )
        if len(self.labels) not in (0, len(self.x)):
            raise ValueError(
                "`labels` must be one string for each point, or none. "
                f"Received: {len(self.labels)} labels for {len(self.x)} points."
            )

    def positions(self) -> np.ndarray:
        """Where points lie on the axes: logarithms where these are such.

        Returns:
            A float64 array of shape `(n, 2)`, in decades along a logarithmic
            axis. What has no place there is not finite.
        """
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.stack(
                [
                    np.log10(place) if log else place
                    for place, log in (
                        (self.x, self.log_x),
                        (self.y, self.log_y),
                    )
                ],
                axis=1,
            )

    def averaged(self) -> "Map":
        """The map that is drawn: one point at each place.

        Seeds and trials at the same place (to nine digits of the width of the
        axes) become their mean, with the labels of all of them. Points without
        a finite value are left out, and those without a place on a
        logarithmic axis; the caption counts both.
        """
        positions = self.positions()
        finite = np.isfinite(self.values) & np.all(
            np.isfinite(positions), axis=1
        )
        places = np.round(unit_square(positions[finite]), 9)
        _, first, which, counts = np.unique(
            places,
            axis=0,
            return_index=True,
            return_inverse=True,
            return_counts=True,
        )
        which = which.reshape(-1)  # NumPy 2.0 keeps an axis here
        values = np.zeros(len(first))
        np.add.at(values, which, self.values[finite] / counts[which])
        labels: list[dict[str, None]] = [{} for _ in first]
        if self.labels:
            kept = np.array(self.labels, object)[finite]
            for place, label in zip(which, kept, strict=True):
                labels[place][label] = None  # a set that keeps its order
        notes = [self.caption] if self.caption else []
        if np.any(counts > 1):
            notes.append(f"means of up to {np.max(counts)} points")
        if not np.all(finite):
            left_out = np.count_nonzero(~finite)
            notes.append(f"left out as not finite: {left_out} of {len(finite)}")
        return dataclasses.replace(
            self,
            x=self.x[finite][first],
            y=self.y[finite][first],
            values=values,
            labels=tuple(map(", ".join, labels)) if self.labels else (),
            caption="; ".join(notes),
        )


def unit_square(positions: np.ndarray) -> np.ndarray:
    """Positions of shape `(n, 2)` moved and stretched to the unit square.

    Neighbours are then those that the eye sees, whatever the units.
    """
    if not len(positions):
        return positions
    low = np.min(positions, axis=0)
    span = np.max(positions, axis=0) - low
    return (positions - low) / np.where(span > 0, span, 1.0)


def spans_an_area(positions: np.ndarray) -> bool:
    """Whether positions of shape `(n, 2)` lie on no common line."""
    if len(positions) < 3:
        return False
    unit = unit_square(positions)
    spread = np.linalg.svd(unit - np.mean(unit, axis=0), compute_uv=False)
    return bool(spread[1] > 1e-6 * spread[0])
