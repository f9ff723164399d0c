"""What a reader of a run should be warned of."""

from collections.abc import Iterator

from keras_lowrank.callbacks.trouble import sick_weights
from keras_lowrank.experiments.found import FoundRun


def findings(run: FoundRun) -> Iterator[str]:
    """What is amiss with a run, or limits what its numbers mean.

    Args:
        run: `FoundRun` with a measurement.

    Yields:
        Sentences: collapse and weights that are not finite, decay that does
        not reach the matrices, values that are not resolved, a run that has
        not ended.
    """
    recording = run.recording
    first, last = recording.measurements[0], recording.measurements[-1]
    for _, message in sick_weights(last, first):
        yield message
    yield from _decay(run)
    yield from _precision(run)
    epochs = (recording.info.get("fit") or {}).get("epochs")
    if epochs and last.epoch < epochs:
        yield (
            f"The run was to have {epochs} epochs, and the last that was "
            f"measured is {last.epoch}: it goes on, or was stopped."
        )
    if first.epoch > 0:
        yield (
            f"The initialisation was not measured; the first measurement is "
            f"after epoch {first.epoch}."
        )


def _decay(run: FoundRun) -> Iterator[str]:
    if run.spec is not None:
        if not run.spec.weight_decay:
            yield _NO_DECAY
        return
    matrices = run.decay_rates
    if matrices is None:
        yield "How the weights decay was not recorded."
        return
    without = [name for name, rate in matrices.items() if not rate]
    if matrices and len(without) == len(matrices):
        yield _NO_DECAY
    elif without:
        yield (
            f"{len(without)} of {len(matrices)} weight matrices do not decay: "
            f"{', '.join(without)}."
        )
    yield from run.recording.info["weight_decay"]["warnings"]


_NO_DECAY = (
    "Nothing decays the weight matrices. By the paper's theorem nothing then "
    "lowers their rank, and what falls does so for another reason."
)


def _precision(run: FoundRun) -> Iterator[str]:
    last = run.recording.measurements[-1]
    below = {
        record.weight: int((~record.spectrum.resolved).sum())
        for record in last.records
        if record.spectrum.finite and not record.collapsed
    }
    some = {name: count for name, count in below.items() if count}
    if some:
        most = max(some, key=lambda name: some[name])
        yield (
            f"Singular values below the resolution of the measurement, in "
            f"{len(some)} of {len(below)} matrices, {some[most]} of them in "
            f"{most}: they are too small to be told from zero, and no rank "
            "counts them."
        )
