"""Image data sets: from files at hand, else through `keras.datasets`."""

import os
import pathlib
import zipfile

import keras
import numpy as np

from keras_lowrank.experiments.data.checks import check_arrays

VARIABLE = "KERAS_LOWRANK_DATA"

IMAGE_SETS = ("mnist", "fashion_mnist", "cifar10", "cifar100")

_SVHN = "http://ufldl.stanford.edu/housenumbers/"


def image_set(name: str, path=None) -> dict[str, np.ndarray]:
    """A data set of Keras, from a file at hand or through Keras.

    Args:
        name: String, one of `IMAGE_SETS`.
        path: Path of a directory that holds `<name>.npz`, or of that file. By
            default the directory that the environment variable
            `KERAS_LOWRANK_DATA` names; else `keras.datasets`, which downloads.

    Returns:
        Dict of four arrays, the images as uint8.

    Raises:
        OSError: when there is no file and it cannot be downloaded.
    """
    file = _find(path, f"{name}.npz")
    if file is not None:
        return npz(file)
    try:
        (x_train, y_train), (x_test, y_test) = getattr(
            keras.datasets, name
        ).load_data()
    except Exception as error:  # Keras raises just this
        raise OSError(
            f"The data set '{name}' is not at hand, and Keras could not "
            f"download it: {error} Put `{name}.npz`, with the arrays x_train, "
            "y_train, x_test and y_test, into a directory and set the "
            f"environment variable {VARIABLE} to it, or give it as `path`; or "
            "put what Keras downloads into `~/.keras/datasets`."
        ) from error
    if (
        keras.config.image_data_format() == "channels_first"
        and x_train.ndim > 3
    ):
        x_train, x_test = (np.moveaxis(x, 1, -1) for x in (x_train, x_test))
    return check_arrays(
        {
            "x_train": x_train,
            "y_train": y_train,
            "x_test": x_test,
            "y_test": y_test,
        },
        name,
    )


def svhn(path=None) -> dict[str, np.ndarray]:
    """Street View House Numbers, cropped digits, from their `.mat` files.

    Args:
        path: Path of the directory that holds `train_32x32.mat` and
            `test_32x32.mat`. By default the one that the environment variable
            `KERAS_LOWRANK_DATA` names.

    Returns:
        Dict of four arrays; the digit 0, which the files call 10, is 0.

    Raises:
        OSError: when a file is missing, with where to get it.
        ImportError: when SciPy is not installed.
    """
    try:
        from scipy.io import loadmat
    except ImportError as error:
        raise ImportError(
            "The files of SVHN are read with SciPy. Install it with "
            "`pip install scipy`."
        ) from error
    arrays = {}
    for half in ("train", "test"):
        name = f"{half}_32x32.mat"
        file = _find(path, name)
        if file is None:
            raise FileNotFoundError(
                f"The file `{name}` of SVHN is missing. Download it from "
                f"{_SVHN}{name} into a directory, and set the environment "
                f"variable {VARIABLE} to it, or give it as `path`."
            )
        content = loadmat(file)
        if not {"X", "y"} <= set(content):
            raise ValueError(
                f"'{file}' must hold `X` and `y`, as the cropped digits of "
                f"SVHN do. It has: {', '.join(sorted(content))}."
            )
        arrays[f"x_{half}"] = np.ascontiguousarray(
            np.moveaxis(content["X"], -1, 0)
        )
        arrays[f"y_{half}"] = content["y"].reshape(-1).astype(np.int32) % 10
    return check_arrays(arrays, "svhn")


def npz(path) -> dict[str, np.ndarray]:
    """The arrays of an `.npz` file.

    Args:
        path: Path of a file with x_train, y_train, x_test and y_test.

    Returns:
        Dict of four arrays.

    Raises:
        FileNotFoundError: when there is no such file.
        ValueError: when it is no `.npz` file, or not of a classification.
    """
    path = pathlib.Path(path)
    if not path.is_file():
        raise FileNotFoundError(
            f"There is no data file '{path}'. Give the path of an `.npz` file "
            "with the arrays x_train, y_train, x_test and y_test."
        )
    try:
        with np.load(path, allow_pickle=False) as content:
            arrays = {key: content[key] for key in content.files}
    except (ValueError, zipfile.BadZipFile, AttributeError) as error:
        raise ValueError(
            f"'{path}' cannot be read as an `.npz` file: {error}"
        ) from error
    return check_arrays(arrays, str(path))


def _find(path, name: str) -> pathlib.Path | None:
    """A file by that name: in `path`, or `path` itself, or where we look."""
    place = path or os.environ.get(VARIABLE)
    if not place:
        return None
    place = pathlib.Path(place)
    file = place / name if place.is_dir() else place
    if file.is_file():
        return file
    if path:
        raise FileNotFoundError(
            f"There is no file '{file}'. Give as `path` the directory that "
            f"holds `{name}`."
        )
    return None
