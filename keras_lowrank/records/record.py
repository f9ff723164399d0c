"""What is kept of a moment of training: records and measurements."""

import dataclasses
import math
from collections.abc import Iterable
from collections.abc import Mapping

from keras_lowrank.measures import Measure
from keras_lowrank.spectrum import Spectrum


@dataclasses.dataclass(frozen=True)
class Record:
    """One weight matrix, or the features at one layer, at one moment.

    Args:
        weight: String, the name of the weight matrix; of features it is
            `features/` and the name of the `FeatureRank` layer.
        spectrum: Its `Spectrum`.
        values: Dict from the name of a measure to its value.
    """

    weight: str
    spectrum: Spectrum
    values: Mapping[str, float]

    @property
    def collapsed(self) -> bool:
        """Whether the matrix is zero: rank 0 is a death, not a success."""
        return self.spectrum.zero


@dataclasses.dataclass(frozen=True)
class Measurement:
    """All weight matrices of a model at one moment of training.

    Args:
        epoch: Int, how many epochs were complete; 0 is the initialisation.
        step: Int, how many updates the optimizer had made, or `None`.
        records: Tuple of `Record`, one per weight matrix.
        logs: Dict of the epoch's own logs (loss, metrics), empty at epoch 0.
        learning_rate: Float, that of the next update, or `None`.
        batch_size: Int, samples of a step on all processes, or `None`.
        steps_per_epoch: Int, or `None` where `fit` did not know.
        seconds: Float, what taking this measurement cost.
        time: Float, when it was taken, in seconds since 1970.
        features: Tuple of `Record`, one per `FeatureRank` layer that has seen
            samples. They are beside the weights and in no mean over them.
    """

    epoch: int
    step: int | None
    records: tuple[Record, ...]
    logs: Mapping[str, float] = dataclasses.field(default_factory=dict)
    learning_rate: float | None = None
    batch_size: int | None = None
    steps_per_epoch: int | None = None
    seconds: float = 0.0
    time: float = 0.0
    features: tuple[Record, ...] = ()

    @property
    def all_records(self) -> tuple[Record, ...]:
        """The records of the weights, and after them those of the features."""
        return (*self.records, *self.features)

    def mean(self, measure: str) -> float:
        """Mean of a measure over the weight matrices, NaN if any is NaN."""
        return _mean(measure, self.records)

    def feature_mean(self, measure: str) -> float:
        """Mean of a measure over the `FeatureRank` layers, as `mean`."""
        return _mean(measure, self.features)


def _mean(measure: str, records: tuple[Record, ...]) -> float:
    values = [record.values[measure] for record in records]
    return math.fsum(values) / len(values) if values else math.nan


def measure_all(
    measures: Iterable[Measure], spectrum: Spectrum
) -> dict[str, float]:
    """Every measure of a spectrum by name; NaN where it is not finite."""
    if not spectrum.finite:
        # Not every function one may write says NaN when it is given NaN.
        return {measure.name: math.nan for measure in measures}
    return {measure.name: measure(spectrum) for measure in measures}
