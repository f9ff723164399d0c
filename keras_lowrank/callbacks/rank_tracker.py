"""The main job: exact spectra and ranks of every weight, while `fit` runs."""

import contextlib
import math
import pathlib
import time
import warnings
from typing import Any

import keras

from keras_lowrank import linalg
from keras_lowrank.callbacks.fit_context import build_as_fit_will
from keras_lowrank.callbacks.fit_context import enclosing_fit
from keras_lowrank.callbacks.run_info import learning_rate
from keras_lowrank.callbacks.run_info import run_info
from keras_lowrank.callbacks.run_info import updates
from keras_lowrank.callbacks.schedule import as_schedule
from keras_lowrank.callbacks.trouble import consumers_listed_before
from keras_lowrank.callbacks.trouble import sick_weights
from keras_lowrank.measures import as_measures
from keras_lowrank.records import EventWriter
from keras_lowrank.records import Measurement
from keras_lowrank.records import Record
from keras_lowrank.records import Recording
from keras_lowrank.records import Store
from keras_lowrank.records import measure_all
from keras_lowrank.records import tensorboardx
from keras_lowrank.tables import KerasLowrankWarning
from keras_lowrank.weights import weight_matrices

DEFAULT_MEASURES = ("rank", "stable_rank", "effective_rank")


class RankTracker(keras.callbacks.Callback):
    """Record the spectra and ranks of a model's weight matrices during `fit`.

    Measures the initialisation and then the weights at the end of epochs:
    exact singular values, computed in float64 on the host, whatever the
    backend. The mean of each measure over the weight matrices goes into
    `logs` as `rank_mean`, `stable_rank_mean` and so on, from the first epoch
    on, so `History`, `EarlyStopping`, `CSVLogger`, `ModelCheckpoint` and
    KerasTuner see it. **List the tracker before callbacks that monitor it.**
    Between measurements the last values are repeated.

    The weights measured are those the optimizer holds at that moment; with an
    exponential moving average they are the raw ones, not the average.

    Args:
        measures: What to compute: names out of `keras_lowrank.MEASURES`,
            functions from a `Spectrum` to a number, or a dict that names
            them. Whole spectra are kept, so other measures can be had later.
        weights: Which weight matrices: a regular expression searched in their
            names, a list of names, or a function from a `WeightMatrix` to a
            boolean. All of them by default.
        views: How heads, gates and groups are seen, as for `weight_matrices`.
        every: When: an int `n`, every `n` epochs; `"log"`, epochs evenly
            spaced on a logarithmic axis; or a function from the number of
            complete epochs to a boolean. The first state and the last are
            always measured.
        run_dir: Path of a directory to record in, as one crash-safe SQLite
            file that `open_run` reads, also while it is written. A `fit` that
            starts at `initial_epoch > 0` (`BackupAndRestore` does so)
            continues what is there; nothing there is overwritten. By default
            records are kept in memory only.
        tensorboard: Path of a directory for TensorBoard event files, or
            `True` for `run_dir` itself. Needs tensorboardX, not TensorFlow.
        method: How spectra are computed, as for `keras_lowrank.linalg`:
            `"auto"`, `"gram"` or `"svd"`.
        workers: Int >= 1, threads to spread the matrices over.

    Raises:
        ValueError: for an unknown measure, method or schedule.
        ImportError: for `tensorboard` without tensorboardX.
        OSError: from `fit`, when `run_dir` cannot be written.

    Example:

    ```python
    tracker = RankTracker(run_dir="runs/first")
    model.fit(x, y, epochs=20, callbacks=[tracker])
    tracker.summary()
    tracker.to_frame()
    ```

    Attributes:
        recording: The `Recording` of the current or last `fit`.

    Reference:
        [Galanti et al., CPAL 2025](https://arxiv.org/abs/2206.05794)
    """

    def __init__(
        self,
        measures=DEFAULT_MEASURES,
        weights=None,
        views=None,
        every=1,
        run_dir=None,
        tensorboard=None,
        method="auto",
        workers=1,
    ):
        super().__init__()
        self.measures = as_measures(measures)
        self.weights = weights
        self.views = views
        self.every = every
        self.run_dir = None if run_dir is None else pathlib.Path(run_dir)
        self.tensorboard = tensorboard
        self.method = method
        self.workers = workers
        self._due = as_schedule(every)
        linalg.check_method(method)
        if not isinstance(workers, int) or workers < 1:
            raise ValueError(
                "`workers` must be a whole number of threads from 1 on. "
                f"Received: workers={workers!r}."
            )
        if tensorboard is True and run_dir is None:
            raise ValueError(
                "`tensorboard=True` writes the event files into `run_dir`. "
                "Received: run_dir=None. Give a `run_dir`, or a path as "
                "`tensorboard`."
            )
        if tensorboard:
            # Missing, it is said now; there, its import is no cost of `fit`.
            tensorboardx()
        self.recording = Recording(self.measures)
        self.fit_seconds = 0.0
        self.own_seconds = 0.0
        self._reset()

    def _reset(self):
        self._store = None
        self._events = None
        self._matrices = None
        self._batch_size = None
        self._began = time.perf_counter()
        self._epoch: Any = None  # complete ones, known once the first begins
        self._unwritten: list[Measurement] = []
        self._warned: set[str] = set()

    # Hooks ------------------------------------------------------------------

    def on_train_begin(self, logs=None):
        self._release()
        self._reset()
        self.fit_seconds = self.own_seconds = 0.0
        with self._on_the_clock():
            callbacks, self._batch_size = enclosing_fit()
            keys = {f"{measure.name}_mean" for measure in self.measures}
            self._warn_of(consumers_listed_before(self, callbacks, keys))
            if self.run_dir is not None:
                # Opened before an hour is spent on training, not after.
                self._store = Store(self.run_dir)

    def on_epoch_begin(self, epoch, logs=None):
        if self._epoch is None:
            # Not in `on_train_begin`: a callback listed later may restore a
            # backup there, which changes the weights and the first epoch.
            with self._on_the_clock():
                self._start(epoch)
        self._epoch = epoch

    def on_epoch_end(self, epoch, logs=None):
        with self._on_the_clock():
            self._epoch = epoch + 1
            last = (self.params or {}).get("epochs") == self._epoch
            if self._due(self._epoch) or last or not len(self.recording):
                self._measure(logs)
            if logs is not None:
                logs.update(self._log_values())

    def on_train_end(self, logs=None):
        with self._on_the_clock():
            if self._epoch is not None and self._epoch not in self._measured():
                self._measure()
            self._release()
        self.fit_seconds = time.perf_counter() - self._began

    # Reading ----------------------------------------------------------------

    @property
    def history(self) -> dict[str, list]:
        """Series over the measured epochs, as `Recording.history`."""
        return self.recording.history

    def to_frame(self, measures=None):
        """One row per measured epoch and weight, as `Recording.to_frame`."""
        return self.recording.to_frame(measures)

    @property
    def overhead(self) -> float:
        """Share of the wall time of `fit` that the tracker took, in [0, 1].

        Counts everything that happens in its hooks: waiting for the weights,
        copying them, computing and writing. NaN before the first `fit` ends.
        """
        if not self.fit_seconds:
            return math.nan
        return self.own_seconds / self.fit_seconds

    def summary(self, line_length=None, print_fn=None):
        """Print first against last measurement, and what measuring cost.

        Args:
            line_length: Int, the width to print at; the terminal's by default.
            print_fn: Function called with the text, `print` by default.
        """
        table = self.recording.table()
        if self.fit_seconds:
            table.notes.append(
                f"Measured {len(self.recording)} times at a cost of "
                f"{100 * self.overhead:.2g} % of the fit "
                f"({self.own_seconds:.3g} s of {self.fit_seconds:.3g} s)"
            )
        table.print(line_length=line_length, print_fn=print_fn)

    # Measuring --------------------------------------------------------------

    def _start(self, first_epoch: int):
        info = run_info(self)
        if self._store is not None:
            self.recording = self._store.start_fit(
                first_epoch, self.measures, info
            )
        else:
            earlier = self.recording.until(first_epoch if first_epoch else -1)
            self.recording = Recording(
                self.measures, info, earlier.measurements
            )
        self._epoch = first_epoch
        known = first_epoch in self._measured()
        if self.tensorboard:
            directory = (
                self.run_dir if self.tensorboard is True else self.tensorboard
            )
            self._events = EventWriter(directory, first_epoch + known)
        if known:
            return
        if build_as_fit_will(self.model):
            self._measure()
        else:
            self._warn(
                "not built",
                f"'{self.model.name}' is not built, so RankTracker cannot "
                "measure its initialisation, and begins after the first "
                "epoch. Build it first, with `model.build(input_shape)`.",
            )

    def _measure(self, logs=None):
        began = time.perf_counter()
        model = self.model  # on JAX this brings the weights up to date, once
        if self._matrices is None:
            self._matrices = self._find_matrices(model)
        spectra = self._matrices.spectra(self.method, self.workers)
        records = tuple(
            Record(matrix.name, spectrum, self._values(matrix.name, spectrum))
            for matrix, spectrum in zip(self._matrices, spectra, strict=True)
        )
        measurement = Measurement(
            epoch=self._epoch,
            step=updates(model),
            records=records,
            logs=self._numbers(logs or {}),
            learning_rate=learning_rate(model),
            batch_size=self._batch_size,
            steps_per_epoch=(self.params or {}).get("steps"),
            seconds=time.perf_counter() - began,
            time=time.time(),
        )
        self.recording.append(measurement)
        start = self.recording.measurements[0]
        self._warn_of(sick_weights(measurement, start))
        self._write(measurement)

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
                self._warn(
                    f"measure {measure.name}",
                    f"The measure '{measure.name}' of '{weight}' failed after "
                    f"epoch {self._epoch} and is recorded as NaN: {error}",
                )
        return values

    def _numbers(self, logs) -> dict[str, float]:
        numbers = {}
        for key, value in logs.items():
            try:
                numbers[key] = float(value)
            except (TypeError, ValueError):
                # Another callback may put anything there.
                self._warn(
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
            self._warn(
                "empty",
                f"RankTracker found no weight matrix in the model "
                f"'{model.name}'; its logs will be NaN. "
                "`rank_report(model)` says why each variable is skipped.",
            )
        return matrices

    def _write(self, measurement: Measurement):
        if self._events is not None:
            self._events.write(measurement)
        if self._store is None:
            return
        self._unwritten.append(measurement)
        try:
            while self._unwritten:
                self._store.write(self._unwritten[0])
                self._unwritten.pop(0)
        except OSError as error:
            # Training for hours must not die of a full disk: what could not
            # be written stays in memory and is tried again each time.
            self._warn(
                "unwritten",
                f"RankTracker could not write epoch "
                f"{self._unwritten[0].epoch}: {error} It stays in memory; "
                "writing is tried again at every measurement. After `fit`, "
                "`tracker.recording` holds it.",
            )

    def _log_values(self) -> dict[str, float]:
        last = self.recording.measurements[-1:]
        return {
            f"{measure.name}_mean": item.mean(measure.name)
            for measure in self.measures
            for item in last
        }

    def _measured(self) -> list[int]:
        return self.recording.epochs

    # Saying what is wrong ---------------------------------------------------

    def _warn_of(self, troubles):
        for what, message in troubles:
            self._warn(what, message)

    def _warn(self, what: str, message: str):
        if what not in self._warned:
            self._warned.add(what)
            warnings.warn(message, KerasLowrankWarning, stacklevel=3)

    # Housekeeping -----------------------------------------------------------

    @contextlib.contextmanager
    def _on_the_clock(self):
        began = time.perf_counter()
        try:
            yield
        finally:
            self.own_seconds += time.perf_counter() - began

    def _release(self):
        """Close what is open; an interrupted `fit` leaves it to the next."""
        for sink in (self._store, self._events):
            if sink is not None:
                sink.close()
        self._store = self._events = None
        self._matrices = None

    def __getstate__(self) -> dict[str, Any]:
        # Deep-copied by KerasTuner and pickled by others: settings and
        # records travel, open files and the model being trained do not.
        state = self.__dict__.copy()
        state.update(_store=None, _events=None, _matrices=None, _model=None)
        return state
