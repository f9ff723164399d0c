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
        classes: Int, how many classes there are; by default one more than the
            largest label.
        scale: String, what was done to the values.
    """

    name: str
    x_train: np.ndarray
    y_train: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray
    classes: int = 0
    scale: str = "as given"

    def __post_init__(self):
        if not self.classes:
            largest = max(self.y_train.max(), self.y_test.max())
            object.__setattr__(self, "classes", int(largest) + 1)

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one sample."""
        return self.x_train.shape[1:]
