"""How long models take, side by side in one run."""

import dataclasses
import statistics
import time
from collections.abc import Mapping
from typing import Any

import keras


@dataclasses.dataclass(frozen=True)
class Latency:
    """How long two models take for a batch of one size.

    Args:
        batch_size: Int.
        before: Float, median seconds of the first.
        after: Float, median seconds of the second.
        low: Float, the lower quartile of `after / before` over the rounds.
        high: Float, the upper quartile.
    """

    batch_size: int
    before: float
    after: float
    low: float
    high: float

    @property
    def ratio(self) -> float:
        """How much longer the second takes: below 1 it is faster."""
        return self.after / self.before

    @property
    def faster(self) -> bool:
        """Whether the second is faster in three rounds of four."""
        return self.high < 1.0


def compare_latency(
    before, after, sample, rounds: int = 30, seconds: float = 1.0
) -> Latency:
    """Time two models on the same batch, in turns.

    Each is compiled as Keras compiles `predict` on this backend (torch: not),
    and called once before it is timed. Whatever else the machine does falls on
    both, since they take turns, first one and then the other in front.

    Args:
        before: Built Keras model.
        after: Another that takes the same inputs.
        sample: Inputs of one batch, NumPy arrays.
        rounds: Int, how often each is timed at least.
        seconds: Float, how long to go on at least: short calls are timed more
            often.

    Returns:
        A `Latency`.
    """
    models = (before, after)
    for model in models:
        model.predict_on_batch(sample)
    times: tuple[list[float], list[float]] = ([], [])
    began = time.perf_counter()
    count = 0
    while count < rounds or (
        time.perf_counter() - began < seconds and count < 20 * rounds
    ):
        order = (0, 1) if count % 2 else (1, 0)
        for index in order:
            start = time.perf_counter()
            models[index].predict_on_batch(sample)
            times[index].append(time.perf_counter() - start)
        count += 1
    ratios = sorted(
        second / first for first, second in zip(*times, strict=True)
    )
    quarter = len(ratios) // 4
    return Latency(
        batch_size=len(keras.tree.flatten(sample)[0]),
        before=statistics.median(times[0]),
        after=statistics.median(times[1]),
        low=ratios[quarter],
        high=ratios[-1 - quarter],
    )


def compare_layers(
    pairs: Mapping[str, tuple[Any, Any]],
    shapes: Mapping[str, tuple[tuple[int, ...], str]],
    seconds: float = 1.0,
) -> dict[str, Latency]:
    """Time layers against those in their places, each by itself.

    Args:
        pairs: Dict from names to two built layers.
        shapes: Dict from names to the shape and dtype of the input.
        seconds: Float, how long to time each pair at least.

    Returns:
        Dict from names to `Latency`.
    """
    found = {}
    for name, layers in pairs.items():
        shape, dtype = shapes[name]
        sample = keras.ops.convert_to_numpy(keras.ops.zeros(shape, dtype))
        found[name] = compare_latency(
            _Alone(layers[0]), _Alone(layers[1]), sample, seconds=seconds
        )
    return found


class _Alone(keras.Model):
    """A model of one layer, which stays where it is in another."""

    def __init__(self, layer):
        super().__init__(name="alone")
        self.layer = layer

    def call(self, inputs):
        return self.layer(inputs)
