"""What a user of `RankTracker` should be told of, and what to do about it."""

from collections.abc import Iterator

import keras

from keras_lowrank.records import Measurement

# What is told, so that it is told once, and the message.
Trouble = tuple[str, str]


def consumers_listed_before(tracker, callbacks, keys) -> Iterator[Trouble]:
    """Callbacks that need keys of `logs` before the tracker puts them there.

    Args:
        tracker: The callback that writes the keys.
        callbacks: List of the callbacks of the `fit`, in order.
        keys: Set of strings.

    Yields:
        A `Trouble` per callback.
    """
    if tracker not in callbacks:
        return
    for callback in callbacks[: callbacks.index(tracker)]:
        monitor = getattr(callback, "monitor", None)
        reads_all = isinstance(callback, keras.callbacks.CSVLogger)
        if monitor in keys or reads_all:
            what = f"'{monitor}'" if monitor in keys else "its keys"
            yield (
                f"order {id(callback)}",
                f"{type(callback).__name__} is listed before RankTracker "
                f"and will not see {what}. List RankTracker first.",
            )


def consumers_of_old_values(callbacks, keys, share) -> Iterator[Trouble]:
    """Callbacks that decide by keys of `logs` which are not always new.

    Args:
        callbacks: List of the callbacks of the `fit`.
        keys: Set of strings.
        share: Float, the `max_overhead` that keeps them from being new.

    Yields:
        A `Trouble` per callback.
    """
    for callback in callbacks:
        monitor = getattr(callback, "monitor", None)
        if monitor in keys:
            yield (
                f"old values {id(callback)}",
                f"{type(callback).__name__} monitors '{monitor}', and "
                f"RankTracker leaves out epochs to stay within "
                f"max_overhead={share:g}: in these it repeats the last value, "
                "which counts as no improvement. Give RankTracker `every=1`.",
            )


def sick_weights(
    measurement: Measurement, start: Measurement
) -> Iterator[Trouble]:
    """Weight matrices that are not finite, or that have collapsed to zero.

    Features that are not finite are told of as well.

    Args:
        measurement: The `Measurement` to look at.
        start: The first one. Some weights start at zero on purpose; none
            should end there.

    Yields:
        A `Trouble` per kind.
    """
    when = f"after epoch {measurement.epoch}"
    broken = [
        f"'{record.weight}' ({record.spectrum.reason})"
        for record in measurement.records
        if record.spectrum.reason
    ]
    if broken:
        yield (
            "not finite",
            f"Weights that are not finite {when}: {', '.join(broken)}. "
            "Their measures are NaN, and so are the means in `logs`.",
        )
    broken = [
        f"'{record.weight}'"
        for record in measurement.features
        if record.spectrum.reason
    ]
    if broken:
        yield (
            "features not finite",
            f"Features that are not finite {when}: {', '.join(broken)}. "
            "Their measures are NaN.",
        )
    zero = {record.weight for record in start.records if record.collapsed}
    dead = [
        f"'{record.weight}'"
        for record in measurement.records
        if record.collapsed and record.weight not in zero
    ]
    if dead:
        yield (
            f"collapsed {dead}",
            f"Weights that have collapsed to zero {when}: "
            f"{', '.join(dead)}. Rank 0 is no success: the layer is dead. "
            "Try less weight decay or a smaller learning rate.",
        )
