"""A model that is trained step by step, as `fit` would, and can be read."""

import dataclasses
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_lowrank.experiments.batches import Batches
from keras_lowrank.experiments.compare.snapshot import Snapshot
from keras_lowrank.experiments.data import Data
from keras_lowrank.experiments.spec import ExperimentSpec
from keras_lowrank.experiments.training import Change
from keras_lowrank.experiments.training import build_model
from keras_lowrank.experiments.training import measured_weights
from keras_lowrank.experiments.training import state_variables
from keras_lowrank.weights import weight_matrices
from keras_lowrank.weights.naming import locate_variables


@dataclasses.dataclass(frozen=True, eq=False)
class StateVariable:
    """One variable that training changes.

    Args:
        name: String, the same on every backend.
        variable: Keras variable.
        layer: String, the class of the layer that owns it; `"optimizer"` for
            the optimizer's own.
        trainable: Boolean.
    """

    name: str
    variable: Any = dataclasses.field(repr=False)
    layer: str
    trainable: bool


class Stepper:
    """The training of a spec, one update at a time.

    It makes the updates that `run` makes: the same initial weights, batches,
    order and learning rates. Its state can be read after any step, and
    replaced by that of another process.

    Args:
        spec: `ExperimentSpec`.
        data: The `Data` of the spec.
        change: Function applied to the model, as `run` takes it.

    Attributes:
        step: Int, updates made so far.
        variables: List of `StateVariable`.
    """

    def __init__(
        self,
        spec: ExperimentSpec,
        data: Data,
        change: Change | None = None,
    ):
        self.spec = spec
        self.model = build_model(spec, data, change=change)
        self.batches = Batches(
            data.x_train, data.y_train, spec.batch_size, spec.seed
        )
        self.plan = spec.plan(len(data.x_train))
        self.step = 0
        self.variables = _named(self.model)
        self.matrices = weight_matrices(self.model, measured_weights(spec))

    @property
    def state_bytes(self) -> int:
        """What the state takes on disk."""
        return sum(
            int(np.prod(item.variable.shape)) * 4 for item in self.variables
        )

    def batch(self):
        """The images and labels of the next step."""
        epoch, index = divmod(self.step, len(self.batches))
        if index == 0 or self.batches.epoch != epoch:
            self.batches.epoch = epoch
            self.batches.on_epoch_begin()
        return self.batches[index]

    def go(self, batch=None) -> float:
        """Make one update, and give the loss before it.

        Args:
            batch: Pair of images and labels, by default those of the run.
        """
        x, y = self.batch() if batch is None else batch
        # The loss of this batch, not its mean since the epoch began.
        self.model.reset_metrics()
        logs = self.model.train_on_batch(x, y, return_dict=True)
        self.step += 1
        return float(logs["loss"])

    def read(self, loss: float = float("nan")) -> Snapshot:
        """The state after this step, and the spectra of its matrices."""
        state = {
            item.name: np.array(ops.convert_to_numpy(item.variable))
            for item in self.variables
        }
        spectra = {
            matrix.name: spectrum.values
            for matrix, spectrum in zip(
                self.matrices, self.matrices.spectra(), strict=True
            )
        }
        return Snapshot(state, spectra, loss)

    def restore(self, state: dict[str, np.ndarray], step: int) -> None:
        """Go on from a state of another process.

        What another optimizer keeps, and this one does not, is left out.

        Args:
            state: Dict from names to arrays, the `state` of a `Snapshot`.
            step: Int, updates that were made before it.
        """
        for item in self.variables:
            if item.name in state:
                item.variable.assign(state[item.name])
        self.step = step


def _named(model: keras.Model) -> list[StateVariable]:
    """The variables of `state_variables`, under the same names everywhere."""
    located = {id(item.variable): item for item in locate_variables(model)}
    named: dict[str, StateVariable] = {}
    for variable in state_variables(model):
        location = located.get(id(variable))
        if location is not None:
            name = location.name
            layer = type(location.layers[0]).__name__
        else:
            # Past the name of the optimizer, which a change may replace.
            name = f"optimizer/{variable.path.split('/')[-1]}"
            layer = "optimizer"
        count, unique = 1, name
        while unique in named:  # as the generators of random numbers are
            unique, count = f"{name}_{count}", count + 1
        named[unique] = StateVariable(
            unique, variable, layer, bool(variable.trainable)
        )
    return list(named.values())
