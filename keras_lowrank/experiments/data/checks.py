"""What arrays must be to be a classification task."""

from collections.abc import Mapping

import numpy as np

KEYS = ("x_train", "y_train", "x_test", "y_test")


def check_arrays(
    arrays: Mapping[str, np.ndarray], source: str
) -> dict[str, np.ndarray]:
    """The four arrays of a task, labels as int32 of shape `(n,)`.

    Args:
        arrays: Dict with `x_train`, `y_train`, `x_test` and `y_test`.
        source: String, where they come from, for errors.

    Returns:
        Dict of the four arrays.

    Raises:
        ValueError: when they are no classification task, with what to do.
    """
    missing = [key for key in KEYS if key not in arrays]
    if missing:
        raise ValueError(
            f"'{source}' must hold the arrays {', '.join(KEYS)}. "
            f"Missing: {', '.join(missing)}. It has: "
            f"{', '.join(sorted(arrays)) or 'none'}."
        )
    checked = {key: np.asarray(arrays[key]) for key in KEYS}
    for half in ("train", "test"):
        x, y = checked[f"x_{half}"], checked[f"y_{half}"]
        if x.dtype.kind not in "uif" or x.ndim < 2 or not x.size:
            raise ValueError(
                f"`x_{half}` of '{source}' must be numbers of shape "
                f"(samples, ...). Received: shape {x.shape} of {x.dtype}."
            )
        if x.dtype.kind == "f" and not np.isfinite(x).all():
            raise ValueError(
                f"`x_{half}` of '{source}' must be finite. Received: "
                f"{np.sum(~np.isfinite(x))} values that are not. Replace them."
            )
        checked[f"y_{half}"] = labels = _labels(y, half, source)
        if len(labels) != len(x):
            raise ValueError(
                f"'{source}' must have one label for each sample. Received: "
                f"{len(x)} samples and {len(labels)} labels in `{half}`."
            )
    shapes = checked["x_train"].shape[1:], checked["x_test"].shape[1:]
    if shapes[0] != shapes[1]:
        raise ValueError(
            f"Samples of '{source}' must have one shape. Received: "
            f"{shapes[0]} in `x_train` and {shapes[1]} in `x_test`."
        )
    return checked


def _labels(y: np.ndarray, half: str, source: str) -> np.ndarray:
    if y.ndim == 2 and y.shape[1] == 1:
        y = y[:, 0]
    if y.ndim == 2:
        raise ValueError(
            f"`y_{half}` of '{source}' must be class numbers of shape "
            f"(samples,). Received: shape {y.shape}. If it is one-hot, use "
            "`y.argmax(axis=1)`."
        )
    if y.ndim != 1 or y.dtype.kind not in "ui" or (y.size and y.min() < 0):
        raise ValueError(
            f"`y_{half}` of '{source}' must be whole numbers, classes from 0 "
            f"on. Received: shape {y.shape} of {y.dtype}"
            + (f", from {y.min()} on." if y.size and y.ndim == 1 else ".")
        )
    return y.astype(np.int32)
