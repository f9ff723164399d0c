"""Measuring a model and handing the records over, whoever trains it."""

import dataclasses
import math
import time
import warnings
from collections.abc import Iterable
from concurrent.futures import Future
from typing import Any

from keras_lowrank import linalg
from keras_lowrank.callbacks.background import Background
from keras_lowrank.callbacks.features import feature_spectra
from keras_lowrank.callbacks.run_info import learning_rate
from keras_lowrank.callbacks.run_info import updates
from keras_lowrank.callbacks.sinks import Sinks
from keras_lowrank.callbacks.trouble import sick_weights
from keras_lowrank.layers import FeatureRank
from keras_lowrank.measures import as_measures
from keras_lowrank.records import Measurement
from keras_lowrank.records import Record
from keras_lowrank.records import Recording
from keras_lowrank.records import measure_all
from keras_lowrank.spectrum import Spectrum
from keras_lowrank.tables import KerasLowrankWarning
from keras_lowrank.weights import locate_layers
from keras_lowrank.weights import weight_matrices


class Recorder:
    """Measures a model when told, and hands the records to all sinks.

    What `RankTracker` does at the end of an epoch, without a `fit`: a loop of
    one's own opens it, starts it, measures, and closes it. Of several
    processes that train together, every one measures and the chief writes.

    Args:
        measures: As for `RankTracker`.
        weights: As for `RankTracker`.
        views: As for `RankTracker`.
        run_dir: As for `RankTracker`.
        tensorboard: As for `RankTracker`.
        method: As for `RankTracker`.
        workers: As for `RankTracker`.
        features: As for `RankTracker`.
        device: As for `RankTracker`.
        sinks: As for `RankTracker`.

    Attributes:
        recording: The `Recording` so far.
        background_seconds: Float, what measuring `later` took, in its thread.
    """

    def __init__(
        self,
        measures,
        weights=None,
        views=None,
        run_dir=None,
        tensorboard=None,
        method="auto",
        workers=1,
        features=False,
        device="auto",
        sinks=(),
    ):
        self.measures = as_measures(measures)
        self.weights = weights
        self.views = views
        self.method = method
        self.workers = workers
        self.features = features
        self.device = device
        linalg.check_method(method)
        linalg.check_route(device)
        if not isinstance(features, bool):
            raise ValueError(
                "`features` must be True, for every `FeatureRank` layer of "
                f"the model, or False. Received: features={features!r}."
            )
        if not isinstance(workers, int) or workers < 1:
            raise ValueError(
                "`workers` must be a whole number of threads from 1 on. "
                f"Received: workers={workers!r}."
            )
        self.recording = Recording(self.measures)
        self._sinks = Sinks(run_dir, tensorboard, sinks)
        self._background = Background()
        self._matrices: Any = None
        self._variables: list[int] = []
        self._latest: Measurement | None = None
        self._logged: Measurement | None = None
        self._log_values: dict[str, float] = {}
        self._flight: _Flight | None = None
        self._warned: set[str] = set()

    def open(self) -> None:
        """Open the store, before an hour is spent on training, not after."""
        self.close()
        self._warned = set()
        self._background = Background()
        self._sinks.open()

    def start(self, first_epoch: int, info: dict[str, Any]) -> bool:
        """Begin a new recording, or continue the last one.

        Args:
            first_epoch: Int, epochs complete. More than 0 continues what was
                recorded up to there.
            info: Dict of settings and versions.

        Returns:
            Whether `first_epoch` is still to be measured.
        """
        earlier = self.recording.until(first_epoch if first_epoch else -1)
        self.recording = self._sinks.start(
            first_epoch, Recording(self.measures, info, earlier.measurements)
        )
        self._latest = None
        return first_epoch not in self.recording.epochs

    def prepare(self, model) -> None:
        """Find the weight matrices, unless they are those found before.

        `measure` does so too; apart from it, what measuring costs from then
        on is told apart from what it costs once.
        """
        # Layers may be replaced during a `fit`, by `SwitchToLowRank` for one.
        variables = [id(variable) for variable in model.weights]
        if self._matrices is None or variables != self._variables:
            self._matrices = self._find_matrices(model)
            self._variables = variables

    def measure(
        self,
        model,
        epoch,
        logs=None,
        batch_size=None,
        steps_per_epoch=None,
        keep=True,
        features=None,
        later=False,
    ) -> None:
        """Measure a model as it is now, and hand the records over.

        Args:
            model: Built Keras model.
            epoch: Int, epochs complete.
            logs: Dict of what else to keep of the epoch.
            batch_size: Int, or `None` where it is not known.
            steps_per_epoch: Int, or `None` where it is not known.
            keep: Boolean, whether to record it, or only to repeat it in
                `log_values` until the next.
            features: Dict of what `feature_spectra` gave at the moment to be
                recorded; by default it is asked now.
            later: Boolean, whether only to copy the matrices now, and to
                compute in a thread of its own; `collect` hands it over. One
                measurement at a time is on its way: one that still is will be
                waited for first.
        """
        self.collect()
        began = time.perf_counter()
        moment = self._moment(
            model, epoch, logs, batch_size, steps_per_epoch, features
        )
        matrices = self._matrices
        how = self.method, self.workers
        if later:
            copies = matrices.snapshot()
            future = self._background.start(
                lambda: list(linalg.spectra(copies, *how))
            )
        else:
            spectra = matrices.spectra(*how, self.device)
            moment = self._filled(moment, matrices.names, spectra)
        seconds = time.perf_counter() - began
        if later:
            self._flight = _Flight(
                moment, matrices.names, seconds, keep, future
            )
        else:
            self._hand_over(moment, seconds, keep)

    @property
    def begun(self) -> bool:
        """Whether anything was measured, or is being so."""
        latest = self._latest or self._flight
        return latest is not None or bool(len(self.recording))

    @property
    def in_flight(self) -> bool:
        """Whether a measurement for `later` is still being computed."""
        return self._flight is not None and not self._flight.future.done()

    @property
    def background_seconds(self) -> float:
        return self._background.seconds

    def collect(self, wait: bool = True) -> None:
        """Hand over what was to be measured `later`, if anything.

        Args:
            wait: Boolean, whether to wait for it, or to leave it if it is
                still being computed.

        Raises:
            Exception: what went wrong in the thread.
        """
        flight = self._flight
        if flight is None or (self.in_flight and not wait):
            return
        self._flight = None
        spectra, seconds = flight.future.result()
        moment = self._filled(flight.moment, flight.names, spectra)
        self._hand_over(moment, flight.seconds + seconds, flight.keep)

    def _moment(
        self, model, epoch, logs, batch_size, steps_per_epoch, features
    ) -> Measurement:
        """All of a measurement but the records of the weights."""
        self.prepare(model)
        if not self.features:
            features = {}
        elif features is None:
            features = feature_spectra(model)
        return Measurement(
            epoch=epoch,
            step=updates(model),
            records=(),
            logs=self._numbers(logs or {}),
            learning_rate=learning_rate(model),
            batch_size=batch_size,
            steps_per_epoch=steps_per_epoch,
            time=time.time(),
            features=self._records(features.items()),
        )

    def _filled(self, moment: Measurement, names, spectra) -> Measurement:
        named = zip(names, spectra, strict=True)
        return dataclasses.replace(moment, records=self._records(named))

    def _hand_over(
        self, measurement: Measurement, seconds: float, keep: bool
    ) -> None:
        measurement = dataclasses.replace(measurement, seconds=seconds)
        self._latest = measurement
        if not keep:
            return
        self.recording.append(measurement)
        for trouble in sick_weights(
            measurement, self.recording.measurements[0]
        ):
            self.warn(*trouble)
        for trouble in self._sinks.write(measurement):
            self.warn(*trouble)

    def log_values(self) -> dict[str, float]:
        """Mean of each measure over the weight matrices, last measured.

        Those over the features are beside them, as `features_<measure>_mean`.
        """
        latest = self._latest
        if latest is None and len(self.recording):
            latest = self.recording.measurements[-1]
        if latest is None:
            return {}
        if latest is not self._logged:  # asked for after every epoch
            means = (latest.mean, latest.feature_mean)
            self._log_values = {
                key.format(measure.name): mean(measure.name)
                for key, mean in zip(self._keys, means, strict=False)
                for measure in self.measures
            }
            self._logged = latest
        return dict(self._log_values)

    @property
    def _keys(self) -> list[str]:
        keys = ["{}_mean", "features_{}_mean"]
        return keys if self.features else keys[:1]

    @property
    def log_keys(self) -> set[str]:
        """The keys of `log_values`."""
        return {
            key.format(measure.name)
            for key in self._keys
            for measure in self.measures
        }

    def warn(self, what: str, message: str) -> None:
        """Warn of `what`, once in a recording."""
        if what not in self._warned:
            self._warned.add(what)
            warnings.warn(message, KerasLowrankWarning, stacklevel=3)

    def close(self) -> None:
        """Close what is open; an interrupted `fit` leaves it to the next."""
        try:
            self.collect()
        finally:
            self._background.close()
            self._sinks.close()
            self._matrices = None

    def _records(self, named: Iterable[tuple[str, Spectrum]]):
        return tuple(
            Record(name, spectrum, self._values(name, spectrum))
            for name, spectrum in named
        )

    def _values(self, weight: str, spectrum) -> dict[str, float]:
        values: dict[str, float] = {}
        for measure in self.measures:
            try:
                values |= measure_all((measure,), spectrum)
            except Exception as error:
                # At the start it is a mistake to be told of; hours later it
                # must not cost the training. The spectrum is kept anyway.
                if not len(self.recording):
                    raise
                values[measure.name] = math.nan
                self.warn(
                    f"measure {measure.name}",
                    f"The measure '{measure.name}' of '{weight}' failed after "
                    f"epoch {self.recording.epochs[-1]} and is recorded as "
                    f"NaN: {error}",
                )
        return values

    def _numbers(self, logs) -> dict[str, float]:
        numbers = {}
        for key, value in logs.items():
            try:
                numbers[key] = float(value)
            except (TypeError, ValueError):
                # Another callback may put anything there.
                self.warn(
                    f"log {key}",
                    f"RankTracker records numbers from `logs`, and leaves "
                    f"'{key}' out. Received: {value!r} (of type "
                    f"{type(value).__name__}).",
                )
        return numbers

    def _find_matrices(self, model):
        matrices = weight_matrices(
            model, weights=self.weights, views=self.views
        )
        if not matrices:
            self.warn(
                "empty",
                f"RankTracker found no weight matrix in the model "
                f"'{model.name}'; its logs will be NaN. "
                "`rank_report(model)` says why each variable is skipped.",
            )
        if self.features and not locate_layers(model, FeatureRank):
            self.warn(
                "no features",
                f"`features=True`, but the model '{model.name}' has no "
                "`FeatureRank` layer; the features in its logs will be NaN. "
                "Put one where features are to be measured.",
            )
        return matrices

    def __getstate__(self) -> dict[str, Any]:
        # Deep-copied by KerasTuner and pickled by others: settings and
        # records travel, the model being trained does not. A copy has no part
        # in a measurement that is on its way.
        return self.__dict__ | dict.fromkeys(("_matrices", "_flight"))


@dataclasses.dataclass
class _Flight:
    """A measurement whose spectra are being computed."""

    moment: Measurement
    names: list[str]
    seconds: float
    keep: bool
    future: Future
