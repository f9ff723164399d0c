"""Proximal gradient for the nuclear norm: exact low rank while training."""

import keras
import numpy as np
from keras import ops

from keras_lowrank import linalg
from keras_lowrank.callbacks.fit_context import build_as_fit_will
from keras_lowrank.decay import updater
from keras_lowrank.weights import WeightMatrix
from keras_lowrank.weights import weight_matrices

METHODS = ("exact", "newton_schulz")

# Learning rates of a schedule that are looked at, between two steps.
MOST_RATES = 16


class SingularValueThreshold(keras.callbacks.Callback):
    """Lower the singular values of weights, down to zero, as they are trained.

    The proximal step of a penalty `threshold * ||W||_*`: each singular value
    is lowered by `learning_rate * threshold` for every update since the last
    time, and by no more than itself: `W <- U (S - eta * threshold)_+ V^T`.
    Where gradient steps on a `NuclearNorm` leave small singular values that
    jump about zero, these become zero, and the rank falls.

    With SGD that is proximal gradient descent; steps between two
    applications are taken together. Optimizers that scale their steps, as
    Adam, shrink by the same amount, without scaling it. What an optimizer
    keeps of a weight, its momentum and its moving average, is left as it is.

    **List it first.** Callbacks after it see the lowered weights, and it sees
    the learning rate of the epoch before callbacks after it change that. The
    validation of an epoch comes before it.

    Args:
        threshold: Float >= 0, the strength of the penalty.
        weights: Which weight matrices, as for `weight_matrices`. By default
            all that are trained and stored: of a low-rank layer the product,
            whose factors share the shrinkage; what is left out is in
            `skipped`.
        steps: Int >= 1, to apply it after every so many updates, and at the
            end of the epoch to the rest. By default at the end of the epoch
            only: a hook for each batch switches off asynchronous dispatch.
        scale_by_learning_rate: Boolean. With `False` each application lowers
            by `threshold` itself, whatever the updates since the last.
        method: `"exact"`, a float64 decomposition on the host, or
            `"newton_schulz"`, matrix products in float64 on the device, to
            1e-6 of the largest singular value. On a CPU the first is up to
            ten times as fast; the second is for accelerators.
        views: Dict, as for `weight_matrices`; groups are lowered together by
            default, which is the same.

    Attributes:
        skipped: Dict from names of weight matrices to why they are left out.

    Raises:
        ValueError: for arguments out of range. When `fit` begins, for weights
            that are asked for and frozen or not stored, as with LoRA.

    Example:

    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    >>> model.compile(keras.optimizers.SGD(0.1), "mse")
    >>> x, y = np.ones((8, 4)), np.zeros((8, 3))
    >>> threshold = SingularValueThreshold(5.0)
    >>> history = model.fit(x, y, epochs=4, callbacks=[threshold], verbose=0)
    >>> int(np.linalg.matrix_rank(weight_matrices(model)[0].to_numpy()))
    0

    Reference:
        [Cai, Candes & Shen, 2010](https://arxiv.org/abs/0810.3286);
        [Parikh & Boyd, 2014](https://doi.org/10.1561/2400000003), 4.2, on
        proximal gradient.
    """

    def __init__(
        self,
        threshold: float,
        weights=None,
        steps: int | None = None,
        scale_by_learning_rate: bool = True,
        method: str = "exact",
        views=None,
    ):
        super().__init__()
        if not 0 <= threshold < float("inf"):
            raise ValueError(
                "`threshold` must be finite, and 0 or larger. "
                f"Received: threshold={threshold}."
            )
        if steps is not None and (steps != int(steps) or steps < 1):
            raise ValueError(
                "`steps` must be a whole number of updates from 1 on, or "
                f"`None` for once an epoch. Received: steps={steps!r}."
            )
        if method not in METHODS:
            raise ValueError(
                f"`method` must be one of {METHODS}. "
                f"Received: method={method!r}."
            )
        self.threshold = threshold
        self.weights = weights
        self.steps = steps
        self.scale_by_learning_rate = scale_by_learning_rate
        self.method = method
        self.views = views
        self.skipped: dict[str, str] = {}
        self._chosen: list[WeightMatrix] | None = None
        self._variables: list[int] = []
        self._done: dict[str, int] = {}  # updates that are accounted for
        if steps is not None:
            # Only then, since Keras looks for the hook itself.
            self.on_train_batch_end = self._after_batch

    # Hooks ------------------------------------------------------------------

    def on_train_begin(self, logs=None):
        model = self.model
        if getattr(model, "optimizer", None) is None:
            raise ValueError(
                f"'{model.name}' is not compiled, so there is no learning rate "
                "to lower singular values by. Call "
                "`model.compile(optimizer, loss)` first, or use "
                "`keras_lowrank.linalg.soft_threshold`."
            )
        self._chosen = None
        self.skipped = {}
        if build_as_fit_will(model):
            self._choose(model, self.weights)

    def on_epoch_begin(self, epoch, logs=None):
        if self._chosen is None:
            return
        model = self.model
        if [id(variable) for variable in model.weights] != self._variables:
            # Layers were replaced, by `SwitchToLowRank` for one. Names stay.
            self._choose(model, [*self._done, *self.skipped])

    def _after_batch(self, batch, logs=None):
        self._apply(least=self.steps)

    def on_epoch_end(self, epoch, logs=None):
        self._apply(least=1)

    def __getstate__(self):
        # The model being trained does not travel with a copy.
        return self.__dict__ | dict(_model=None, _chosen=None)

    # Work -------------------------------------------------------------------

    def _choose(self, model, weights):
        views = {"groups": "merged"} if self.views is None else self.views
        matrices = weight_matrices(model, weights, views)
        reasons = {
            matrix.name: matrix.reason_against_assign()
            if matrix.trainable
            else "it is frozen"
            for matrix in matrices
        }
        self.skipped = {name: why for name, why in reasons.items() if why}
        self._chosen = [m for m in matrices if m.name not in self.skipped]
        if self.skipped and (self.weights is not None or not self._chosen):
            listing = "; ".join(
                f"'{name}': {why}" for name, why in self.skipped.items()
            )
            raise ValueError(
                "SingularValueThreshold can only lower matrices that are "
                f"trained and stored. Received: {listing}. Leave them out "
                "with `weights`."
            )
        self._variables = [id(variable) for variable in model.weights]
        self._done = {
            matrix.name: _updates(updater(model.optimizer, matrix.variable))
            for matrix in self._chosen
        }

    def _apply(self, least):
        model = self.model  # on JAX this brings the weights up to date
        if self._chosen is None:
            # Built by the first step, so that all updates were in this epoch.
            self._choose(model, self.weights)
            self._done = dict.fromkeys(self._done, 0)
        for matrix in self._chosen or ():
            optimizer = updater(model.optimizer, matrix.variable)
            updates = _updates(optimizer)
            began = self._done[matrix.name]
            if updates - began < least:
                continue
            amount = self.threshold
            if self.scale_by_learning_rate:
                amount *= _sum_of_rates(optimizer, began, updates)
            self._lower(matrix, amount)
            self._done[matrix.name] = updates

    def _lower(self, matrix: WeightMatrix, amount: float):
        product = matrix.to_product()
        if product is not None:
            # Small, and of factors that are to be told apart.
            if _finite(product.left) and _finite(product.right):
                matrix.assign(linalg.soft_threshold(product, amount))
            return
        array = matrix.to_numpy()
        if not _finite(array):
            return  # a diverged run ends by itself, or is ended by another
        if self.method == "exact":
            matrix.assign(linalg.soft_threshold(array, amount))
        else:
            tensor = ops.convert_to_tensor(array)
            lowered = linalg.thresholded(tensor, amount)
            matrix.assign(ops.convert_to_numpy(lowered))


def _finite(array) -> bool:
    return bool(np.isfinite(array).all())


def _updates(optimizer) -> int:
    return int(ops.convert_to_numpy(optimizer.iterations))


def _sum_of_rates(optimizer, began: int, ended: int) -> float:
    """Sum of the learning rates of the updates from `began` to `ended`."""
    while hasattr(optimizer, "inner_optimizer"):
        optimizer = optimizer.inner_optimizer
    schedule = getattr(optimizer, "_learning_rate", None)
    kind = keras.optimizers.schedules.LearningRateSchedule
    if not isinstance(schedule, kind):
        rate = float(ops.convert_to_numpy(optimizer.learning_rate))
        return rate * (ended - began)
    # A schedule counts batches, of which an update may take several.
    batches = optimizer.gradient_accumulation_steps or 1
    count = min(ended - began, MOST_RATES)
    width = (ended - began) / count
    total = 0.0
    for index in range(count):
        update = int(began + width * (index + 0.5))
        rate = schedule(batches * (update + 1) - 1)
        total += width * float(ops.convert_to_numpy(rate))
    return total
