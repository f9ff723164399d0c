"""How good a model is, sample by sample, and how two models differ."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from keras_lowrank.compress.data import batches
from keras_lowrank.linalg import host_array

# The quantile of the normal distribution for an interval of 95 %.
QUANTILE = 1.959963984540054

Score = Callable[[Any, Any], np.ndarray]


def correct(y_true, y_pred) -> np.ndarray:
    """Whether each sample is classified correctly: 0 or 1, or a share.

    With several outputs the largest counts, against a label or a one-hot row;
    with one, whether it is above one half (above 0, where some outputs lie
    outside [0, 1] and so are logits). Where a sample has many labels, as a
    sequence has, their mean.

    Args:
        y_true: Array of labels of shape `(n, ...)`, or one-hot.
        y_pred: Array of outputs of shape `(n, ..., classes)`.

    Returns:
        Array of shape `(n,)`.

    Raises:
        ValueError: when targets are no labels.
    """
    y_true, y_pred = np.asarray(y_true), np.asarray(y_pred)
    if y_pred.ndim == 1:
        y_pred = y_pred[:, None]
    if y_pred.shape[-1] == 1:
        logits = y_pred.min() < 0 or y_pred.max() > 1
        found = (y_pred[..., 0] > (0.0 if logits else 0.5)).astype(int)
    else:
        found = y_pred.argmax(-1)
    if y_true.shape == y_pred.shape and y_pred.shape[-1] > 1:
        rows = y_true.reshape(-1, y_true.shape[-1])
        one_hot = np.all((rows == 0) | (rows == 1)) and np.all(
            rows.sum(-1) == 1
        )
        if not one_hot:
            raise ValueError(_no_labels(y_true, y_pred))
        y_true = y_true.argmax(-1)
    elif y_true.ndim == found.ndim + 1 and y_true.shape[-1] == 1:
        y_true = y_true[..., 0]
    if y_true.shape != found.shape or np.any(y_true != np.round(y_true)):
        raise ValueError(_no_labels(y_true, y_pred))
    equal = (y_true == found).astype(np.float64)
    return equal.reshape(len(equal), -1).mean(axis=1)


def _no_labels(y_true, y_pred) -> str:
    return (
        "Accuracy is counted of class labels or one-hot rows. Received: "
        f"targets of shape {y_true.shape} and dtype {y_true.dtype} for outputs "
        f"of shape {y_pred.shape}. Pass `score=`, a function from targets and "
        "outputs to one number for each sample, larger for better."
    )


def sample_scores(
    model, data, score: Score | None = None, batch_size: int = 256
) -> np.ndarray:
    """The score of every sample.

    Args:
        model: Built Keras model.
        data: As for `compression_plan`.
        score: Function from targets and outputs, NumPy arrays, to one number
            for each sample, larger for better; `correct` by default.
        batch_size: Int, for arrays.

    Returns:
        NumPy float64 array of shape `(n,)`.
    """
    found = []
    for x, y in batches(data, batch_size):
        outputs = model.predict_on_batch(x)
        if isinstance(outputs, (list, tuple, dict)) and score is None:
            raise ValueError(
                f"'{model.name}' has several outputs. Pass `score=`, a "
                "function from targets and outputs to one number for each "
                "sample, larger for better."
            )
        y = y if isinstance(y, (list, tuple, dict)) else _array(y)
        values = np.asarray((score or correct)(y, outputs), np.float64)
        if values.ndim != 1:
            raise ValueError(
                "`score` must give one number for each sample of a batch, an "
                f"array of shape (n,). Received: shape {values.shape}."
            )
        found.append(values)
    return np.concatenate(found)


def _array(value) -> np.ndarray:
    if isinstance(value, np.ndarray):
        return value
    return host_array(value)


@dataclasses.dataclass(frozen=True)
class Change:
    """How the mean score changed between two models on the same samples.

    Args:
        before: Float, the mean score of the first.
        after: Float, that of the second.
        low: Float, the lower end of the 95 % interval of the change.
        high: Float, the upper end.
        samples: Int, how many samples were scored.
    """

    before: float
    after: float
    low: float
    high: float
    samples: int

    @property
    def difference(self) -> float:
        """`after - before`, in the units of the score."""
        return self.after - self.before

    def verdict(self, tolerance: float) -> str:
        """Whether no more than `tolerance` was lost.

        Args:
            tolerance: Float >= 0, in the units of the score.

        Returns:
            `"holds"` if the whole interval says so, `"fails"` if the
            difference itself is larger, and `"not shown"` between: more
            samples would tell.
        """
        # Half a point of 200 samples is one sample, whatever rounding says.
        least = -tolerance - 1e-9
        if self.low >= least:
            return "holds"
        return "not shown" if self.difference >= least else "fails"


def change(before: np.ndarray, after: np.ndarray) -> Change:
    """Compare the scores of two models on the same samples.

    The samples are paired, so the interval is far narrower than that of two
    accuracies: only samples on which the models differ widen it. For right or
    wrong it is Agresti and Min's, which holds its level for few samples too;
    for other scores the normal one of the mean difference.

    Args:
        before: Array of shape `(n,)`, scores of the first model.
        after: Array of shape `(n,)`, of the second.

    Returns:
        A `Change`.

    Reference:
        [Agresti & Min, 2005](https://doi.org/10.1002/sim.1781)
    """
    count = len(before)
    difference = after - before
    if np.isin(before, (0, 1)).all() and np.isin(after, (0, 1)).all():
        # Half a sample more in each cell of the table of two by two.
        gained = float(np.sum(difference > 0)) + 0.5
        lost = float(np.sum(difference < 0)) + 0.5
        middle = (gained - lost) / (count + 2)
        variance = gained + lost - (gained - lost) ** 2 / (count + 2)
        error = math.sqrt(variance) / (count + 2)
    else:
        middle = float(difference.mean())
        spread = float(difference.std(ddof=1)) if count > 1 else math.inf
        error = spread / math.sqrt(count)
    return Change(
        before=float(before.mean()),
        after=float(after.mean()),
        low=middle - QUANTILE * error,
        high=middle + QUANTILE * error,
        samples=count,
    )
