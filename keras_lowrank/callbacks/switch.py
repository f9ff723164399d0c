"""`SwitchToLowRank`: layers that have settled go on training at low rank."""

import math
import warnings

import keras

from keras_lowrank.callbacks.fit_context import build_as_fit_will
from keras_lowrank.callbacks.fit_context import enclosing_fit
from keras_lowrank.callbacks.schedule import as_schedule
from keras_lowrank.compress import CompressionPlan
from keras_lowrank.compress import kernel_layers
from keras_lowrank.compress import layer_names
from keras_lowrank.compress import quick_plan
from keras_lowrank.compress import switch_to_low_rank
from keras_lowrank.layers import FactoredLayer
from keras_lowrank.measures import as_measure
from keras_lowrank.tables import KerasLowrankWarning
from keras_lowrank.weights import locate_layers


class SwitchToLowRank(keras.callbacks.Callback):
    """Rewrites layers at low rank once their spectra have settled.

    Watches a measure of every kernel. A layer has settled when the measure
    varied by no more than `min_delta` of itself over the last `patience`
    measurements. Then its kernel is truncated and split into two factors, and
    training goes on with them: a smaller model from that epoch on. The state
    of the optimizer is carried along (see `switch_to_low_rank`). A layer whose
    rank does not pay yet is asked again at the next measurement. After the
    last epoch nothing is switched: `compress` does that, and says what it
    costs.

    Files and checkpoints of the model then hold low-rank layers, which load
    with `import keras_lowrank`. What keeps *weights* from before a switch, as
    `EarlyStopping(restore_best_weights=True)` does, cannot put them back:
    let it start afterwards (`start_from_epoch`). List `RankTracker` as well to
    see the ranks; names stay. What changes for weight decay and for the
    learning rate of SGD is said at `switch_to_low_rank`.

    For two fits in place of one, call `switch_to_low_rank` between them.

    Args:
        energy: Float in (0, 1], the share of the squared singular values that
            the factors hold: see `compression_plan`. 0.99 by default.
        tolerance: Float, the relative error of each kernel instead.
        rank: A measure, an int, or a dict of ints by name instead.
        measure: What is watched, as `as_measure` takes it. The effective rank
            by default.
        min_delta: Float >= 0, the largest relative change that counts as none.
        patience: Int >= 1, over how many epochs the measure must not change.
        start_from_epoch: Int >= 0, epochs to wait before anything is watched.
        every: When to measure, as for `RankTracker`.
        layers: Which layers, as for `compression_plan`.
        scheme: How 2D convolutions are factored, as for `compression_plan`.
        verbose: 0 or 1: whether to print a line when layers are switched.

    Attributes:
        switched: Dict from the names of layers to `(epoch, rank)`, the number
            of complete epochs at which each was switched, and its rank.

    Example:

    >>> model = keras.Sequential([
    ...     keras.Input((32,)), keras.layers.Dense(32, name="hidden"),
    ...     keras.layers.Dense(4, name="head"),
    ... ])
    >>> model.compile("sgd", "mse")
    >>> switch = SwitchToLowRank(rank=2, min_delta=1.0, patience=1,
    ...                          layers="hidden")
    >>> x, y = np.ones((8, 32)), np.ones((8, 4))
    >>> history = model.fit(x, y, epochs=3, verbose=0, callbacks=[switch])
    >>> switch.switched
    {'hidden': (2, 2)}
    """

    def __init__(
        self,
        energy: float | None = None,
        tolerance: float | None = None,
        rank=None,
        measure="effective_rank",
        min_delta: float = 0.01,
        patience: int = 3,
        start_from_epoch: int = 0,
        every=1,
        layers=None,
        scheme: str = "channel",
        verbose: int = 0,
    ):
        super().__init__()
        given = {"energy": energy, "tolerance": tolerance, "rank": rank}
        self._criterion = {
            name: value for name, value in given.items() if value is not None
        } or {"energy": 0.99}
        if len(self._criterion) > 1:
            raise ValueError(
                "The ranks are chosen by one of `energy`, `tolerance` and "
                f"`rank`. Received: {self._criterion}."
            )
        if isinstance(patience, bool) or not isinstance(patience, int):
            patience = 0
        if patience < 1 or not min_delta >= 0 or start_from_epoch < 0:
            raise ValueError(
                "`patience` must be a whole number from 1 on, and `min_delta` "
                "and `start_from_epoch` 0 or more. Received: "
                f"patience={patience}, min_delta={min_delta}, "
                f"start_from_epoch={start_from_epoch}."
            )
        self.measure = as_measure(measure)
        self.min_delta = min_delta
        self.patience = patience
        self.start_from_epoch = start_from_epoch
        self.every = every
        self._due = as_schedule(every)
        self.layers = layers
        self.scheme = scheme
        self.verbose = verbose
        self.switched: dict[str, tuple[int, int]] = {}
        self._seen: dict[str, list[float]] = {}
        self._names: list[str] | None = None

    def on_train_begin(self, logs=None):
        self.switched = {}
        self._seen = {}
        self._names = None
        callbacks, _ = enclosing_fit(self.params)
        for callback in callbacks:
            restores = getattr(callback, "restore_best_weights", False)
            if restores and not getattr(callback, "start_from_epoch", 0):
                warnings.warn(
                    f"`{type(callback).__name__}` with "
                    "`restore_best_weights=True` cannot put back weights from "
                    "before layers were given low rank: `fit` would end with "
                    "an error of Keras. Let it start after the switch "
                    "(`start_from_epoch`), or train on in a second `fit`.",
                    KerasLowrankWarning,
                    stacklevel=2,
                )
        if build_as_fit_will(self.model):
            self._plan()  # a mistake is told of now, not an hour later

    def on_epoch_end(self, epoch, logs=None):
        complete = epoch + 1
        if complete < self.start_from_epoch or not self._due(complete):
            return
        plan = self._plan()
        settled = {one.name for one in plan.layers if self._has_settled(one)}
        plan = plan.without(
            *(one.name for one in plan.compressed if one.name not in settled)
        )
        last = (self.params or {}).get("epochs") == complete
        if not plan.compressed or last:
            return
        before = self.model.count_params()
        switch_to_low_rank(self.model, plan)
        for layer in plan.compressed:
            self.switched[layer.name] = complete, int(layer.rank or 0)
            del self._seen[layer.name]
        if self.verbose:
            ranks = ", ".join(
                f"{layer.name} at rank {layer.rank} of {layer.full_rank}"
                for layer in plan.compressed
            )
            print(
                f"Epoch {complete}: low rank from here on: {ranks}; "
                f"{before:,} -> {self.model.count_params():,} parameters"
            )

    def _plan(self) -> CompressionPlan:
        if self._names is None:
            # Names stay, where a layer that was given is replaced.
            layers = kernel_layers(self.model)
            self._names = sorted(layer_names(layers, self.layers))
        ((criterion, value),) = self._criterion.items()
        if isinstance(value, dict):
            low = locate_layers(self.model, FactoredLayer)
            value = {n: rank for n, rank in value.items() if n not in low}
        return quick_plan(
            self.model, criterion, value, self._names, self.scheme
        )

    def _has_settled(self, layer) -> bool:
        """Whether the measure of a layer has stopped changing."""
        if not layer.values:
            return False
        seen = self._seen.setdefault(layer.name, [])
        seen.append(self.measure(layer.spectrum))
        del seen[: -self.patience - 1]
        if len(seen) <= self.patience or not math.isfinite(sum(seen)):
            return False
        return max(seen) - min(seen) <= self.min_delta * abs(seen[-1])
