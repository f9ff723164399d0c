"""Trained weights of our own, made once and kept out of the repository.

    python -m benchmarks.checkpoints NAME

A few minutes of training, enough to give matrices another spectrum than they
began with: what is decomposed is real, what is claimed of it is only time.
"""

import os
import pathlib
import sys

import numpy as np

from benchmarks import machine

CACHE = pathlib.Path(__file__).parent / ".cache"

# Decay is in torch's convention. The demo trains as `keras-lowrank demo` does.
TRAINED = {
    "demo MLP": {
        "network": {"name": "mlp", "depth": 5, "width": 100},
        "data": {"name": "digits"},
        "batch_size": 64,
        "weight_decay": 0.05,
        "epochs": 150,
    },
    "MLP-BN-10-100": {
        "network": {"name": "mlp", "depth": 10, "width": 100},
        "data": {"name": "cifar10"},
        "batch_size": 32,
        "weight_decay": 8e-4,
        "epochs": 10,
    },
    "ResNet-18": {
        "network": {"name": "resnet18"},
        "data": {"name": "cifar10", "train_samples": 3200},
        "batch_size": 32,
        "weight_decay": 5e-2,
        "epochs": 1,
    },
}


def cifar10() -> str | None:
    """Path of CIFAR-10 where it is at hand, as one `.npz` file."""
    path = os.environ.get("KERAS_LOWRANK_CIFAR10")
    directory = os.environ.get("KERAS_LOWRANK_DATA")
    if path is None and directory:
        path = str(pathlib.Path(directory) / "cifar10.npz")
    return path if path and pathlib.Path(path).is_file() else None


NO_CIFAR10 = (
    "needs CIFAR-10: set KERAS_LOWRANK_CIFAR10 to the path of a `cifar10.npz` "
    "with the arrays x_train, y_train, x_test and y_test"
)


def at_hand(name: str) -> bool:
    """Whether a network can be trained, or was."""
    needs = TRAINED[name]["data"]["name"] == "cifar10"
    return file_of(name).exists() or not needs or cifar10() is not None


def told(name: str) -> str:
    """How a checkpoint was trained, in words."""
    how = TRAINED[name]
    count = how["data"].get("train_samples")
    return (
        f"{name}: {how['epochs']} epochs of "
        f"{f'{count} images of ' if count else ''}{how['data']['name']}, "
        f"batches of {how['batch_size']}, learning rate 0.1, weight decay "
        f"{how['weight_decay']:g}"
    )


def file_of(name: str) -> pathlib.Path:
    return CACHE / f"{name.replace(' ', '-').lower()}.npz"


def kernels(name: str) -> list[np.ndarray]:
    """The trained kernels, read from the file that `ensure` made."""
    with np.load(file_of(name)) as content:
        return [content[key] for key in content.files]


def ensure(name: str) -> None:
    """Train a network unless its weights are kept."""
    if not file_of(name).exists():
        machine.alone("checkpoints", name, one_thread=False)


def spec(name: str):
    """The experiment that a checkpoint comes from."""
    from keras_lowrank.experiments import ExperimentSpec

    how = dict(TRAINED[name])
    if how["data"]["name"] == "cifar10":
        how["data"] = {**how["data"], "path": cifar10()}
    return ExperimentSpec(**how)


def load_data(experiment):
    """The data of an experiment."""
    from keras_lowrank.experiments.data import load

    return load(experiment.data.name, **experiment.data.keywords)


def train(name: str) -> None:
    """Train a network and write its kernels."""
    from keras import ops

    from keras_lowrank import weight_matrices
    from keras_lowrank.experiments import Batches
    from keras_lowrank.experiments.training import build_model

    experiment = spec(name)
    data = load_data(experiment)
    model = build_model(experiment, data)
    batches = Batches(data.x_train, data.y_train, experiment.batch_size)
    batches.fit(model, epochs=experiment.epochs, verbose=0)
    found = {
        weight.name.replace("/", "."): ops.convert_to_numpy(weight.variable)
        for weight in weight_matrices(model)
    }
    CACHE.mkdir(exist_ok=True)
    # Whole or not at all: another process may look for it.
    partial = file_of(name).with_suffix(".partial.npz")
    np.savez(partial, **found)
    partial.replace(file_of(name))


if __name__ == "__main__":
    train(sys.argv[1])
    print("{}")
