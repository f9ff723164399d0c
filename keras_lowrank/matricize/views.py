"""Views: what counts as one matrix where a kernel holds several.

A view is chosen per kind of part; this is the one place that says what the
kinds and the choices are.

| kind         | the parts of a kernel                            | default    |
|--------------|--------------------------------------------------|------------|
| `"heads"`    | heads of attention: the leading one of the two   | `"merged"` |
|              | output (or input) axes of an `EinsumDense`       |            |
| `"gates"`    | gates of a recurrent layer: `i f c o` of an LSTM | `"merged"` |
|              | or ConvLSTM, `z r h` of a GRU                    |            |
| `"groups"`   | blocks of a block-diagonal matrix: groups of a   | `"split"`  |
|              | convolution, batch axes of an `EinsumDense`      |            |
| `"channels"` | channels of a depthwise kernel                   | `"skip"`   |

`"merged"` measures the kernel as one matrix; for groups and channels it is
block-diagonal. `"split"` measures one matrix per part, named after its part
as in `attention/query/kernel[head_0]`. `"both"` does both. `"skip"`, for
channels alone, leaves the kernel out: a depthwise kernel has one small matrix
per channel, of rank 1 with the usual `depth_multiplier=1`, and its rank says
nothing about the network.
"""

from collections.abc import Mapping

DEFAULT_VIEWS: Mapping[str, str] = {
    "heads": "merged",
    "gates": "merged",
    "groups": "split",
    "channels": "skip",
}

PART_NAMES = {
    "heads": "head",
    "gates": "gate",
    "groups": "group",
    "channels": "channel",
}

CHOICES = ("merged", "split", "both")


def as_views(views=None) -> dict[str, str]:
    """Complete a choice of views with the defaults.

    Args:
        views: Dict from `"heads"`, `"gates"`, `"groups"` or `"channels"` to
            `"merged"`, `"split"` or `"both"` (`"channels"` also to
            `"skip"`); or one of the three strings, for all kinds; or `None`.

    Returns:
        Dict with a choice for every kind.

    Raises:
        ValueError: for a kind or a choice that does not exist.
        TypeError: for anything but a dict, a string or `None`.

    Example:

    >>> as_views({"heads": "split"})["heads"], as_views("both")["gates"]
    ('split', 'both')
    """
    if views is None:
        return dict(DEFAULT_VIEWS)
    if isinstance(views, str):
        views = dict.fromkeys(DEFAULT_VIEWS, views)
    if not isinstance(views, Mapping):
        raise TypeError(
            "`views` must be a dict such as {'heads': 'split'}, one of "
            f"{CHOICES}, or `None`. Received: views={views!r} "
            f"(of type {type(views)})."
        )
    for kind, choice in views.items():
        if kind not in DEFAULT_VIEWS:
            raise ValueError(
                f"`views` knows the kinds {tuple(DEFAULT_VIEWS)}. "
                f"Received: {kind!r} in views={dict(views)}."
            )
        choices = (*CHOICES, "skip") if kind == "channels" else CHOICES
        if choice not in choices:
            raise ValueError(
                f"The view of {kind!r} must be one of {choices}. "
                f"Received: {choice!r} in views={dict(views)}."
            )
    return dict(DEFAULT_VIEWS) | dict(views)
