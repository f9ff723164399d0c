"""Host, device and asynchronous host route where an accelerator is at hand.

    python -m benchmarks.devices card
    python -m benchmarks.devices routes SET
    python -m benchmarks.devices fits NETWORK

prints one line of JSON. Threads are as a user finds them; what is compiled is
compiled before the clock runs.
"""

import json
import sys

import keras

from benchmarks import fits
from benchmarks import matrices
from benchmarks import sides
from keras_lowrank import RankTracker
from keras_lowrank import weight_matrices

EPOCHS = 6  # of a fit: the choice is made in the first three measurements
IMAGES = {"MLP-BN-10-100": 6400, "ResNet-18": 6400}  # else all there are

SETTINGS = {
    "host": {"device": "host"},
    "device": {"device": "device"},
    "auto": {"device": "auto"},
    "asynchronous host": {"device": "host", "asynchronous": True},
}


def card() -> str | None:
    """The name of the accelerator that the backend trains on, or `None`."""
    if keras.backend.backend() == "torch":
        import torch

        return (
            torch.cuda.get_device_name() if torch.cuda.is_available() else None
        )
    if keras.backend.backend() == "jax":
        import jax

        device = jax.devices()[0]
        return None if device.platform == "cpu" else device.device_kind
    return None


class Holder(keras.Layer):
    """The kernels of a set as layers, which nothing calls."""

    def __init__(self, name: str):
        super().__init__()
        self.parts = [_layer(kernel) for kernel in matrices.SETS[name]]
        given = matrices.kernels(name)
        for part, values in zip(self.parts, given, strict=True):
            part.variables[0].assign(values)
        self.built = True


def _layer(kernel: matrices.Kernel):
    if len(kernel.shape) == 4:
        *window, inputs, outputs = kernel.shape
        layer = keras.layers.Conv2D(outputs, window, use_bias=False)
        layer.build((None, None, None, inputs))
    else:
        layer = keras.layers.Dense(kernel.shape[1], use_bias=False)
        layer.build((None, kernel.shape[0]))
    return layer


def routes(name: str) -> dict:
    """Seconds of all matrices of a set by each route, in turn."""
    found = weight_matrices(Holder(name))

    def by(device):
        return [one.values for one in found.spectra(device=device)]

    reference = by("host")
    sides.check({"device": by("device")}, reference)
    for _ in range(3):
        by("auto")  # decides
    taken = sides.in_turn(
        {
            "ours": lambda: by("auto"),
            "host": lambda: by("host"),
            "device": lambda: by("device"),
        }
    )
    return {
        "backend": keras.backend.backend(),
        "matrices": len(found),
        "sides": sides.summary(taken),
    }


def fit_routes(name: str) -> dict:
    """What each setting of `RankTracker` takes of short epochs."""
    training = fits.Training(name, IMAGES.get(name))
    model = training.fit([RankTracker()], 1)  # compiles and imports
    found = {}
    for label, settings in SETTINGS.items():
        tracker = RankTracker(every=1, **settings)
        training.fit([tracker], EPOCHS, model)
        found[label] = {
            "own": tracker.own_seconds,
            "fit": tracker.fit_seconds,
            "measured": len(tracker.recording),
        }
    return {"backend": keras.backend.backend(), "settings": found}


def main(command: str, *arguments: str) -> None:
    known = {"card": card, "routes": routes, "fits": fit_routes}
    print(json.dumps(known[command](*arguments)))


if __name__ == "__main__":
    main(*sys.argv[1:])
