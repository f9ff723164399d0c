"""The state of a training after one step, on disk and against another."""

import dataclasses
import json
import os
import pathlib

import numpy as np

LOSS = "loss"
SPECTRUM = "spectrum of "
OPTIMIZER = "optimizer/"
ALL_WEIGHTS = "all weights"


@dataclasses.dataclass(frozen=True, eq=False)
class Snapshot:
    """Everything that training has changed up to some step.

    Args:
        state: Dict from the names of variables to arrays: weights, moving
            statistics, and what the optimizer keeps.
        spectra: Dict from the names of weight matrices to their singular
            values, largest first.
        loss: Float, of the batch of the last step, before its update.
    """

    state: dict[str, np.ndarray]
    spectra: dict[str, np.ndarray]
    loss: float

    def save(self, path: pathlib.Path) -> None:
        """Write a file that is there whole or not at all."""
        names = [list(self.state), list(self.spectra)]
        header = json.dumps({"names": names, "loss": self.loss})
        arrays = [*self.state.values(), *self.spectra.values()]
        draft = path.with_suffix(".part")
        with open(draft, "wb") as file:
            numbered = {str(index): item for index, item in enumerate(arrays)}
            np.savez(file, header=np.array(header), **numbered)  # type: ignore
        os.replace(draft, path)

    @classmethod
    def load(cls, path: pathlib.Path) -> "Snapshot":
        """The reverse of `save`."""
        with np.load(path, allow_pickle=False) as file:
            header = json.loads(str(file["header"]))
            state, spectra = header["names"]
            arrays = [file[str(i)] for i in range(len(state) + len(spectra))]
        return cls(
            dict(zip(state, arrays, strict=False)),
            dict(zip(spectra, arrays[len(state) :], strict=True)),
            header["loss"],
        )


def differences(
    one: Snapshot, other: Snapshot, scale: Snapshot | None = None
) -> dict[str, float]:
    """Relative differences of all that two snapshots share.

    Of a variable `||a - b|| / ||c||`, in Frobenius norms; of a spectrum
    `max |sigma_a - sigma_b| / sigma_1` of `c`; of the loss `|a - b| / |c|`.
    Where `c` is zero, as biases may begin, the difference is not divided.

    Args:
        one: `Snapshot`, `a`.
        other: `Snapshot`, `b`.
        scale: `Snapshot`, `c`; `other` by default.

    Returns:
        Dict of floats from names, those of spectra after `"spectrum of "`,
        `"all weights"` for the variables of the model as one vector, and
        `"loss"`. Infinite where one side is finite and the other is not;
        0 where both are not finite in the same places.
    """
    scale = other if scale is None else scale
    found = {
        name: _relative(value, other.state[name], scale.state[name])
        for name, value in one.state.items()
        if name in other.state and name in scale.state
        if value.shape == other.state[name].shape
    }
    for name, values in one.spectra.items():
        if name in other.spectra and name in scale.spectra:
            a, b, c = values, other.spectra[name], scale.spectra[name]
            found[SPECTRUM + name] = _relative(a, b, c[:1], order=np.inf)
    weights = [name for name in found if not name.startswith(OPTIMIZER)]
    weights = [name for name in weights if name in one.state]
    found[ALL_WEIGHTS] = _relative(
        *(
            np.concatenate([np.ravel(item.state[name]) for name in weights])
            for item in (one, other, scale)
        )
    )
    found[LOSS] = _relative(one.loss, other.loss, scale.loss)
    return found


def _relative(a, b, c, order=2) -> float:
    a, b, c = (np.ravel(np.asarray(item, np.float64)) for item in (a, b, c))
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        same = np.array_equal(a, b, equal_nan=True)
        return 0.0 if same else float("inf")
    distance = float(np.linalg.norm(a - b, order)) if a.size else 0.0
    size = float(np.linalg.norm(c, order)) if c.size else 0.0
    return distance / size if 0 < size < np.inf else distance
