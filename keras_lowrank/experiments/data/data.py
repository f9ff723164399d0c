"""`Data`: a classification task as arrays."""

import dataclasses

import numpy as np


@dataclasses.dataclass(frozen=True, eq=False)
class Data:
    """A classification task, split.

    Args:
        name: String.
        x_train: Float32 array of shape `(n, ...)`.
        y_train: Int32 array of shape `(n,)`, classes from 0 on.
        x_test: Float32 array of shape `(k, ...)`.
        y_test: Int32 array of shape `(k,)`.
        scale: String, what was done to the values.
    """

    name: str
    x_train: np.ndarray
    y_train: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray
    scale: str = "as given"

    @property
    def classes(self) -> int:
        """How many classes there are."""
        return int(max(self.y_train.max(), self.y_test.max())) + 1

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one sample."""
        return self.x_train.shape[1:]
