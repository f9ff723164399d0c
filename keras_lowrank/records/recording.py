"""The measurements of a run, however they were kept."""

from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Mapping
from typing import Any

import numpy as np

from keras_lowrank.measures import Measure
from keras_lowrank.measures import as_measures
from keras_lowrank.records.record import Measurement
from keras_lowrank.records.record import Record
from keras_lowrank.records.record import measure_all
from keras_lowrank.spectrum import Spectrum
from keras_lowrank.tables import Column
from keras_lowrank.tables import Table
from keras_lowrank.tables import frame
from keras_lowrank.tables import number
from keras_lowrank.tables import shape_text


class Recording:
    """The measurements of a run, in order, however they were kept.

    What `RankTracker` holds in memory and what `open_run` reads from disk are
    both this. It keeps whole spectra, so a measure, a tolerance or a norm can
    be chosen when reading rather than when training.

    Args:
        measures: Iterable of `Measure`, those recorded with each spectrum.
        info: Dict of settings and versions of the run.
        measurements: Iterable of `Measurement`, by increasing epoch.
    """

    def __init__(
        self,
        measures: Iterable[Measure] = (),
        info: Mapping[str, Any] | None = None,
        measurements: Iterable[Measurement] = (),
    ):
        self.measures = tuple(measures)
        self.info = dict(info or {})
        self.measurements = list(measurements)

    def append(self, measurement: Measurement) -> None:
        """Add a measurement; its epoch must be later than those recorded."""
        if self.measurements and measurement.epoch <= self.epochs[-1]:
            raise ValueError(
                "Measurements are recorded once per epoch, in order. "
                f"Received: epoch={measurement.epoch} after "
                f"epoch={self.epochs[-1]}."
            )
        self.measurements.append(measurement)

    def until(self, epoch: int) -> "Recording":
        """A recording of what was measured up to `epoch`, included."""
        return Recording(
            self.measures,
            self.info,
            [item for item in self.measurements if item.epoch <= epoch],
        )

    @property
    def epochs(self) -> list[int]:
        """Epochs measured; 0 is the initialisation."""
        return [measurement.epoch for measurement in self.measurements]

    @property
    def weights(self) -> list[str]:
        """Names of the weight matrices, in the order of the model."""
        return _names(item.records for item in self.measurements)

    @property
    def features(self) -> list[str]:
        """Names of the features recorded, `features/<layer>` each."""
        return _names(item.features for item in self.measurements)

    @property
    def history(self) -> dict[str, list]:
        """Series over the measurements, as lists of equal length.

        Keys are `epoch`, `step`, `learning_rate`, the logs of each epoch
        (`None` where there were none), `<measure>_mean` over the weight
        matrices, and `<measure>/<weight>`. Where features were recorded they
        have `<measure>/features/<layer>`, and no part in the mean.
        """
        history: dict[str, list] = {
            "epoch": self.epochs,
            "step": [item.step for item in self.measurements],
            "learning_rate": [item.learning_rate for item in self.measurements],
        }
        logs = dict.fromkeys(
            key for item in self.measurements for key in item.logs
        )
        for key in logs:
            history[key] = [item.logs.get(key) for item in self.measurements]
        for measure in self.measures:
            history[f"{measure.name}_mean"] = [
                item.mean(measure.name) for item in self.measurements
            ]
        series = [
            {record.weight: record.values for record in item.all_records}
            for item in self.measurements
        ]
        names = self.weights + self.features
        for measure in self.measures:
            for weight in names:
                history[f"{measure.name}/{weight}"] = [
                    values[weight][measure.name] if weight in values else None
                    for values in series
                ]
        return history

    def spectra(self, weight: str) -> dict[int, Spectrum]:
        """The spectrum of one weight matrix at every measured epoch.

        Args:
            weight: String, a name out of `weights` or `features`.

        Returns:
            Dict from epoch to `Spectrum`.
        """
        names = self.weights + self.features
        if weight not in names:
            raise ValueError(
                f"No weight matrix is named {weight!r}. "
                f"Recorded: {', '.join(names) or 'none'}."
            )
        return {
            measurement.epoch: record.spectrum
            for measurement in self.measurements
            for record in measurement.all_records
            if record.weight == weight
        }

    def means(self, measure: Measure) -> np.ndarray:
        """Mean of a measure over the weight matrices, from their spectra.

        Args:
            measure: `Measure`, which need not be among those recorded.

        Returns:
            Float64 array with a value for each measurement.
        """
        return np.array(
            [
                np.mean([measure(record.spectrum) for record in item.records])
                for item in self.measurements
            ]
        )

    def rows(self, measures=None) -> list[dict[str, Any]]:
        """One dict per measurement and weight matrix, or recorded features.

        Args:
            measures: What to report: anything `as_measures` takes, computed
                from the recorded spectra. By default the measures recorded.

        Returns:
            List of dicts with epoch, step, learning rate, batch size, kind
            (`"weight"` or `"features"`), weight, rows and columns of its
            matrix, the measures, and `reason` where it was not finite.
        """
        chosen = None if measures is None else as_measures(measures)
        return [
            {
                "epoch": measurement.epoch,
                "step": measurement.step,
                "learning_rate": measurement.learning_rate,
                "batch_size": measurement.batch_size,
                "kind": kind,
                "weight": record.weight,
                "rows": record.spectrum.shape[0],
                "columns": record.spectrum.shape[1],
                **(
                    record.values
                    if chosen is None
                    else measure_all(chosen, record.spectrum)
                ),
                "reason": record.spectrum.reason,
            }
            for measurement in self.measurements
            for kind, records in (
                ("weight", measurement.records),
                ("features", measurement.features),
            )
            for record in records
        ]

    def to_frame(self, measures=None):
        """`rows(measures)` as a `pandas.DataFrame`. Needs pandas."""
        return frame(self.rows(measures))

    def table(self) -> Table:
        """Each weight matrix, first measurement against last.

        Features follow, from the first measurement that has them.
        """
        if not self.measurements:
            return Table("Nothing was measured", (), ())
        first, last = self.measurements[0], self.measurements[-1]
        started = {
            record.weight: record.values
            for item in reversed(self.measurements)
            for record in (item.all_records if item is first else item.features)
        }
        columns = [
            Column("weight", "Weight"),
            Column("shape", "Matrix", shape_text),
        ]
        for measure in self.measures:
            title = measure.name.replace("_", " ").capitalize()
            columns.append(Column(measure.name, title))
        rows = [
            {
                "weight": record.weight,
                "shape": record.spectrum.shape,
                "state": "collapsed" if record.collapsed else None,
                **{
                    measure.name: _from_to(
                        started.get(record.weight, {}).get(measure.name),
                        record.values[measure.name],
                    )
                    for measure in self.measures
                },
            }
            for record in last.all_records
        ]
        if any(row["state"] for row in rows):
            columns.append(Column("state", "State"))
        notes = [f"{item.name} = {item.definition}" for item in self.measures]
        if last.features:
            notes.append(
                "features/ = the training features of an epoch, samples x d, "
                "from the first epoch"
            )
        span = f"epoch {first.epoch} -> epoch {last.epoch}"
        return Table(f"Ranks, {span}", columns, rows, notes)

    def __len__(self):
        return len(self.measurements)

    def __repr__(self):
        return (
            f"<Recording: {len(self.weights)} weight matrices at "
            f"{len(self)} epochs>"
        )


def _names(moments: Iterable[Iterable[Record]]) -> list[str]:
    """Names of records, each once and in their order."""
    return list(
        dict.fromkeys(record.weight for item in moments for record in item)
    )


def _from_to(start: float | None, end: float) -> str:
    text: Callable[[float], str] = number(4)
    return text(end) if start is None else f"{text(start)} -> {text(end)}"
