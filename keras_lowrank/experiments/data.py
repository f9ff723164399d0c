"""Data sets as float32 arrays, the same on every backend."""

import dataclasses

import numpy as np


@dataclasses.dataclass(frozen=True, eq=False)
class Data:
    """A classification task, split.

    Args:
        name: String.
        x_train: Float32 array of shape `(n, ...)`.
        y_train: Integer array of shape `(n,)`, classes from 0 on.
        x_test: Float32 array of shape `(k, ...)`.
        y_test: Integer array of shape `(k,)`.
    """

    name: str
    x_train: np.ndarray
    y_train: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray

    @property
    def classes(self) -> int:
        """How many classes there are."""
        return int(self.y_train.max()) + 1


def digits(seed: int = 0, test_share: float = 0.2) -> Data:
    """The 1797 handwritten digits of 8 x 8 pixels that scikit-learn bundles.

    Args:
        seed: Int, of the order before the split.
        test_share: Float in (0, 1), the share held out.

    Returns:
        `Data` with `x` of shape `(n, 64)`, in [0, 1].

    Raises:
        ImportError: when scikit-learn is not installed.
    """
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise ImportError(
            "The digits come with scikit-learn. Install it with "
            '`pip install "keras-lowrank[demo]"`.'
        ) from error
    images, labels = load_digits(return_X_y=True)
    images = (images / 16.0).astype(np.float32)
    order = np.random.default_rng(seed).permutation(len(images))
    images, labels = images[order], labels[order].astype(np.int32)
    held_out = round(test_share * len(images))
    return Data(
        "digits",
        images[held_out:],
        labels[held_out:],
        images[:held_out],
        labels[:held_out],
    )


# TMP
def load(name, **o):
    if name == "digits":
        return digits()
    f = np.load(__import__("os").environ["KERAS_LOWRANK_DATA"] + f"/{name}.npz")
    mean = np.array([0.5071, 0.4865, 0.4409], "float32")
    std = np.array([0.2673, 0.2564, 0.2762], "float32")
    c = lambda x: (x.astype("float32") / 255 - mean) / std
    return Data(
        "cifar10",
        c(f["x_train"]),
        f["y_train"].astype("int32"),
        c(f["x_test"]),
        f["y_test"].astype("int32"),
    )
