"""`compress_and_verify`: a smaller model, with what it cost and gained."""

import pathlib
import tempfile
from collections.abc import Callable
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from keras_lowrank.calls import watch_calls
from keras_lowrank.compress.candidates import kernel_layers
from keras_lowrank.compress.compress import compress
from keras_lowrank.compress.data import batches
from keras_lowrank.compress.latency import Latency
from keras_lowrank.compress.latency import compare_latency
from keras_lowrank.compress.latency import compare_layers
from keras_lowrank.compress.plan import CompressionPlan
from keras_lowrank.compress.planning import compression_plan
from keras_lowrank.compress.scores import Change
from keras_lowrank.compress.scores import change
from keras_lowrank.compress.scores import sample_scores
from keras_lowrank.compress.verification import Rollback
from keras_lowrank.compress.verification import Verification


def compress_and_verify(
    model,
    data,
    tolerance: float = 0.005,
    plan: CompressionPlan | None = None,
    *,
    fine_tune: Callable[[Any], Any] | None = None,
    score=None,
    batch_sizes: Sequence[int] = (1, 32, 256),
    keep_slower: bool = False,
    calibration=None,
    clone=None,
    seconds: float = 1.0,
) -> Verification:
    """Compress a model, and prove what it cost and what it gained.

    Compresses by the plan; fine-tunes, if told how; scores both models on the
    same samples; and times both, compiled, in turns. Layers are **rolled
    back** to what they were:

    - those that are not faster than before, each timed by itself at every
      batch size, unless `keep_slower`;
    - while the score falls by more than `tolerance`, the layer that costs
      most of it by itself, one after another.

    After a layer is rolled back the rest is fine-tuned anew, from the weights
    of `model`. What remains is a model whose every low-rank layer pays, or
    the model as it was. Score rollbacks on data of their own: what decided
    them flatters the result a little.

    Args:
        model: Built Keras model, which is not changed.
        data: Data to score on: a tuple `(x, y)` of arrays, or a data set that
            gives batches of them each time it is asked.
        tolerance: Float >= 0, how much of the mean score may be lost: 0.005
            is half a point of accuracy.
        plan: `CompressionPlan`; by default one whose relative error is at
            most 0.3 in every layer (an energy of 0.91).
        fine_tune: Function that trains the compiled, compressed model in
            place, such as `lambda small: small.fit(x, y, epochs=1)`.
        score: As for `compression_plan`; by default whether a sample is
            classified correctly.
        batch_sizes: Sequence of ints to time at.
        keep_slower: Boolean, whether layers stay compressed that are only
            smaller.
        calibration: As for `compress`.
        clone: As for `compress`.
        seconds: Float, how long to time each pair, at least.

    Returns:
        A `Verification`: print it; `verification.model` is the new model.

    Raises:
        ValueError: when `tolerance` or `batch_sizes` are out of range, or
            there is nothing to score.

    Example:

    >>> x = np.random.default_rng(0).normal(size=(64, 32)).astype("float32")
    >>> model = keras.Sequential([
    ...     keras.Input((32,)),
    ...     keras.layers.Dense(256, name="hidden"),
    ...     keras.layers.Dense(3, name="head"),
    ... ])
    >>> y = model.predict(x, verbose=0).argmax(-1)
    >>> result = compress_and_verify(
    ...     model, (x, y), tolerance=1.0, keep_slower=True,
    ...     plan=compression_plan(model, rank={"hidden": 8}),
    ...     batch_sizes=(32,), seconds=0.0,
    ... )
    >>> result.verdict, result.model.count_params()
    ('holds', 3331)
    """
    _check(tolerance, batch_sizes)
    if plan is None:
        plan = compression_plan(
            model, tolerance=0.3, calibration=calibration, clone=clone
        )
    run = _Run(model, data, plan, fine_tune, score, calibration, clone)
    rolled_back: list[Rollback] = []
    if not keep_slower and plan.compressed:
        plan = run.without_slower(plan, batch_sizes, seconds, rolled_back)
    plan, small, changed = run.without_harmful(plan, tolerance, rolled_back)
    return Verification(
        model=small,
        plan=plan,
        change=changed,
        tolerance=tolerance,
        parameters=(model.count_params(), small.count_params()),
        bytes_on_disk=(_bytes_on_disk(model), _bytes_on_disk(small)),
        latencies=[
            compare_latency(model, small, run.batch(size), seconds=seconds)
            for size in batch_sizes
        ],
        rolled_back=rolled_back,
        fine_tuned=fine_tune is not None and bool(plan.compressed),
    )


def _check(tolerance, batch_sizes):
    if not tolerance >= 0:
        raise ValueError(
            "`tolerance` must be 0 or more, in units of the score: 0.005 is "
            f"half a point of accuracy. Received: tolerance={tolerance}."
        )
    if not batch_sizes or any(
        isinstance(size, bool) or not isinstance(size, int) or size < 1
        for size in batch_sizes
    ):
        raise ValueError(
            "`batch_sizes` must be whole numbers from 1 on. "
            f"Received: batch_sizes={batch_sizes!r}."
        )


class _Run:
    """One verification: a model, its data, and what was found out."""

    def __init__(self, model, data, plan, fine_tune, score, calibration, clone):
        self.model = model
        self.data = data
        self.fine_tune = fine_tune
        self.score = score
        self.calibration = calibration
        self.clone = clone
        if fine_tune is not None and not model.compiled and clone is None:
            raise ValueError(
                "Only a compiled model can be fine-tuned. Received: "
                f"'{model.name}', which is not. Compile it first."
            )
        self.before = sample_scores(model, data, score)

    def compressed(self, plan):
        """The model by a plan, not fine-tuned."""
        return compress(self.model, plan, self.calibration, self.clone)

    def finished(self, plan):
        """The model by a plan, fine-tuned if that is wanted."""
        small = self.compressed(plan)
        if self.fine_tune is not None and plan.compressed:
            self.fine_tune(small)
        return small

    def change(self, small) -> Change:
        """How the score changes."""
        after = sample_scores(small, self.data, self.score)
        return change(self.before, after)

    def without_harmful(self, plan, tolerance, rolled_back):
        """The plan that keeps the score, its model, and how that changed."""
        order = None
        while True:
            small = self.finished(plan)
            changed = self.change(small)
            if changed.verdict(tolerance) != "fails" or not plan.compressed:
                return plan, small, changed
            if order is None:
                order = self._by_harm(plan)
            name = order.pop()
            lost = -100 * changed.difference
            plan = plan.without(name)
            rolled_back.append(
                Rollback(name, f"the score fell by {lost:.2f} points with it")
            )

    def _by_harm(self, plan) -> list[str]:
        """Names of the compressed layers, the most harmful last."""
        names = [layer.name for layer in plan.compressed]
        harm = {}
        for name in names:
            others = [other for other in names if other != name]
            alone = self.compressed(plan.without(*others))
            harm[name] = self.change(alone).difference
        return sorted(names, key=lambda name: -harm[name])

    def without_slower(self, plan, batch_sizes, seconds, rolled_back):
        """The plan without layers that are not faster at any batch size."""
        small = self.compressed(plan)
        layers, factored = kernel_layers(self.model), kernel_layers(small)
        names = [layer.name for layer in plan.compressed]
        best: dict[str, Latency] = {}
        for size in batch_sizes:
            shapes = self._input_shapes(layers, names, size)
            pairs = {
                name: (layers[name], factored[name])
                for name in names
                if name in shapes
            }
            times = compare_layers(pairs, shapes, seconds=seconds / 4)
            for name, found in times.items():
                if name not in best or found.ratio < best[name].ratio:
                    best[name] = found
        slow = [name for name, found in best.items() if found.ratio >= 1]
        for name in slow:
            rolled_back.append(
                Rollback(
                    name,
                    f"not faster: {best[name].ratio:.2f} times as long at "
                    f"best (batch size {best[name].batch_size})",
                )
            )
        return plan.without(*slow)

    def _input_shapes(self, layers, names, size):
        """What layers are called with for a batch, by name."""
        shapes: dict[str, tuple[tuple[int, ...], str]] = {}
        by_id = {id(layers[name]): name for name in names}

        def record(layer, inputs, outputs):
            dtype = keras.backend.standardize_dtype(inputs.dtype)
            shapes.setdefault(by_id[id(layer)], (tuple(inputs.shape), dtype))

        with watch_calls([layers[name] for name in names], record):
            self.model(self.batch(size), training=False)
        return shapes

    def batch(self, size: int):
        """Inputs of one batch of that size, repeated where data is short."""
        x, _ = next(iter(batches(self.data, size)))
        return keras.tree.map_structure(lambda a: _resized(a, size), x)


def _resized(array, size: int) -> np.ndarray:
    whole = keras.ops.convert_to_numpy(array)
    return np.resize(whole, (size, *whole.shape[1:]))


def _bytes_on_disk(model) -> int:
    """Size of the file of a model's weights, without an optimizer."""
    optimizer, model.optimizer = getattr(model, "optimizer", None), None
    try:
        with tempfile.TemporaryDirectory() as directory:
            path = pathlib.Path(directory) / "model.weights.h5"
            model.save_weights(path)
            return path.stat().st_size
    finally:
        model.optimizer = optimizer
