"""Data sets by name, for experiments that are written in a file."""

import inspect
import pathlib
from collections.abc import Callable
from typing import Any

import numpy as np

from keras_lowrank.experiments.data.data import Data
from keras_lowrank.experiments.data.files import IMAGE_SETS
from keras_lowrank.experiments.data.files import image_set
from keras_lowrank.experiments.data.files import npz
from keras_lowrank.experiments.data.files import svhn
from keras_lowrank.experiments.data.made import digits
from keras_lowrank.experiments.data.made import teacher_student
from keras_lowrank.experiments.data.scaling import scale

_MADE: dict[str, Callable[..., Data]] = {
    "digits": digits,
    "teacher_student": teacher_student,
}

DATASETS = (*_MADE, *IMAGE_SETS, "svhn")

_SUBSET = (
    "train_samples",
    "test_samples",
    "validation_samples",
    "subset_seed",
)


def load(
    name: str,
    train_samples: int | None = None,
    test_samples: int | None = None,
    validation_samples: int | None = None,
    subset_seed: int = 0,
    **options,
) -> Data:
    """A data set by its name.

    Args:
        name: String, out of `DATASETS`; or the path of an `.npz` file with
            `x_train`, `y_train`, `x_test` and `y_test`.
        train_samples: Int, how many training samples to keep, drawn at
            random; all by default. For `"teacher_student"`, how many to make.
        test_samples: The same for the test samples.
        validation_samples: Int, how many training samples to hold out at
            random. They take the place of the test samples, which choices
            must not be made on.
        subset_seed: Int >= 0, of the draw.
        **options: Those of `digits` and `teacher_student`; for images those
            of `scaling.scale` (`normalization`, `mean`, `std`, `pad`) and
            `path`, where their files are.

    Returns:
        `Data`, as float32.

    Raises:
        ValueError: for an unknown name or option, with those there are.
        OSError: when files are missing, with where to get and put them.

    Example:

    >>> load("digits", train_samples=100).x_train.shape
    (100, 64)
    """
    if name == "teacher_student":
        made = {"samples": train_samples, "test_samples": test_samples}
        options |= {key: n for key, n in made.items() if n is not None}
        train_samples = test_samples = None
    if name in _MADE:
        _check_options(name, options, _MADE[name])
        data = _MADE[name](**options)
    else:
        data = _images(name, options)
    if validation_samples is not None:
        data = _held_out(data, validation_samples, subset_seed)
    return _subset(data, train_samples, test_samples, subset_seed)


def _images(name: str, options) -> Data:
    is_file = pathlib.PurePath(name).suffix == ".npz"
    if name not in DATASETS and not is_file:
        raise ValueError(
            f"`data` must be one of {', '.join(DATASETS)}, or the path of an "
            f"`.npz` file. Received: {name!r}."
        )
    _check_options(name, options, scale, *(() if is_file else ("path",)))
    path = options.pop("path", None)
    if is_file:
        arrays = npz(name)
    elif name == "svhn":
        arrays = svhn(path)
    else:
        arrays = image_set(name, path)
    short = pathlib.PurePath(name).stem
    x_train, x_test, done = scale(arrays, name, **options)
    labels = arrays["y_train"], arrays["y_test"]
    return Data(short, x_train, labels[0], x_test, labels[1], scale=done)


def _check_options(name: str, options, function, *more: str) -> None:
    known = [
        key
        for key in inspect.signature(function).parameters
        if key not in ("arrays", "name", "samples", *_SUBSET)
    ]
    given = set(options) - {"samples", *_SUBSET}
    unknown = sorted(given - {*known, *more})
    if unknown:
        raise ValueError(
            f"The data set '{name}' has no option {', '.join(unknown)}. Its "
            f"options are: {', '.join((*_SUBSET, *known, *more))}."
        )


def _held_out(data: Data, count: int, seed) -> Data:
    """Training samples split in two, the second in place of the test."""
    most = len(data.x_train) - 1
    if not 1 <= count <= most:
        raise ValueError(
            f"`validation_samples` must be from 1 to {most}, so that one of "
            f"the {most + 1} training samples is left. Received: "
            f"validation_samples={count}."
        )
    # A stream of its own: `_subset` has 0 and 1.
    order = np.random.default_rng((seed, 2)).permutation(most + 1)
    held, rest = np.sort(order[:count]), np.sort(order[count:])
    return Data(
        data.name,
        data.x_train[rest],
        data.y_train[rest],
        data.x_train[held],
        data.y_train[held],
        data.classes,
        data.scale,
    )


def _subset(data: Data, train: int | None, test: int | None, seed) -> Data:
    arrays: dict[str, Any] = {}
    for position, (half, count) in enumerate(
        (("train", train), ("test", test))
    ):
        x, y = getattr(data, f"x_{half}"), getattr(data, f"y_{half}")
        if count is not None:
            if not 1 <= count <= len(x):
                raise ValueError(
                    f"`{half}_samples` must be from 1 to {len(x)}, which the "
                    f"data set has. Received: {half}_samples={count}."
                )
            rng = np.random.default_rng((seed, position))
            chosen = np.sort(rng.permutation(len(x))[:count])
            x, y = x[chosen], y[chosen]
        arrays |= {f"x_{half}": x, f"y_{half}": y}
    # Those of the whole: a small subset may not have them all.
    return Data(data.name, classes=data.classes, scale=data.scale, **arrays)
