"""Which parts of a kernel a choice of views makes matrices of."""

from collections.abc import Mapping

from keras_lowrank.matricize.matricization import Matricization
from keras_lowrank.matricize.matricization import Skip


def seen_parts(
    how: Matricization, shape: tuple[int, ...], views: Mapping[str, str]
) -> list[int | None] | Skip:
    """The parts of a tensor that are measured, each as a matrix.

    Args:
        how: `Matricization` of the tensor.
        shape: Tuple of ints, the shape of the tensor.
        views: Dict with a choice for every kind of part, from `as_views`.

    Returns:
        List of positions of parts, with `None` for the tensor as a whole; or
        a `Skip`.

    Example:

    >>> from keras_lowrank.matricize import as_views
    >>> heads = Matricization((0,), (1, 2), parts=(1,), view="heads")
    >>> seen_parts(heads, (8, 2, 4), as_views({"heads": "both"}))
    [None, 0, 1]
    """
    view = views[how.view] if how.parts else "merged"
    if view == "skip":
        small = how.matrix_shape(shape, part=0)
        return Skip(
            f"depthwise: one {small[0]} x {small[1]} matrix per channel, see "
            '`views={"channels": "split"}`'
        )
    parts: list[int | None] = []
    if view in ("merged", "both"):
        parts.append(None)
    if view in ("split", "both"):
        parts += range(how.count(shape))
    return parts


def part_name(name: str, how: Matricization, part: int | None) -> str:
    """What a part of the variable `name` is called."""
    return name if part is None else f"{name}[{how.label(part)}]"
