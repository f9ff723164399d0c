"""The main job: exact spectra and ranks of every weight, while `fit` runs."""

import contextlib
import math
import time
from typing import Any

import keras

from keras_lowrank.callbacks.features import feature_spectra
from keras_lowrank.callbacks.fit_context import build_as_fit_will
from keras_lowrank.callbacks.fit_context import enclosing_fit
from keras_lowrank.callbacks.recorder import Recorder
from keras_lowrank.callbacks.run_info import run_info
from keras_lowrank.callbacks.schedule import as_schedule
from keras_lowrank.callbacks.trouble import consumers_listed_before
from keras_lowrank.processes import process_count
from keras_lowrank.records import Recording

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
            records are kept in memory only. Of several processes that train
            together, the first writes and the others do not.
        tensorboard: Path of a directory for TensorBoard event files, or
            `True` for `run_dir` itself. Needs tensorboardX, not TensorFlow.
        method: How spectra are computed, as for `keras_lowrank.linalg`:
            `"auto"`, `"gram"` or `"svd"`.
        workers: Int >= 1, threads to spread the matrices over.
        features: Boolean, whether to record the features at every
            `FeatureRank` layer of the model beside the weights, with the same
            measures: those of the training samples of the epoch, as
            `features/<layer>`. Their means go into `logs` as
            `features_rank_mean` and so on, NaN before the first epoch that is
            measured; they are in no mean over the weights.

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
        recorder: The `Recorder` that measures, for settings.

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
        features=False,
    ):
        super().__init__()
        self.every = every
        self._due = as_schedule(every)
        self.recorder = Recorder(
            measures,
            weights,
            views,
            run_dir,
            tensorboard,
            method,
            workers,
            features,
        )
        self.fit_seconds = 0.0
        self.own_seconds = 0.0
        self._reset()

    def _reset(self):
        self._batch_size = None
        self._began = time.perf_counter()
        self._epoch: Any = None  # complete ones, known once the first begins
        self._in_epoch = False
        self._features: Any = {}  # before the first epoch there are none

    @property
    def measures(self):
        """Tuple of the `Measure`s."""
        return self.recorder.measures

    @property
    def recording(self) -> Recording:
        """The `Recording` of the current or last `fit`."""
        return self.recorder.recording

    # Hooks ------------------------------------------------------------------

    def on_train_begin(self, logs=None):
        self._reset()
        self.fit_seconds = self.own_seconds = 0.0
        with self._on_the_clock():
            self.recorder.open()
            callbacks, self._batch_size = enclosing_fit(self.params)
            for trouble in consumers_listed_before(
                self, callbacks, self.recorder.log_keys
            ):
                self.recorder.warn(*trouble)

    def on_epoch_begin(self, epoch, logs=None):
        if self._epoch is None:
            # Not in `on_train_begin`: a callback listed later may restore a
            # backup there, which changes the weights and the first epoch.
            with self._on_the_clock():
                self._start(epoch)
        self._epoch = epoch
        self._in_epoch, self._features = True, None

    def on_test_begin(self, logs=None):
        if self._in_epoch and self.recorder.features:
            # Validation is about to put its own features in their place.
            with self._on_the_clock():
                self._features = feature_spectra(self.model)

    def on_epoch_end(self, epoch, logs=None):
        with self._on_the_clock():
            self._epoch, self._in_epoch = epoch + 1, False
            last = (self.params or {}).get("epochs") == self._epoch
            if self._due(self._epoch) or last or not len(self.recording):
                self._measure(logs)
            if logs is not None:
                logs.update(self.recorder.log_values())

    def on_train_end(self, logs=None):
        with self._on_the_clock():
            measured = self.recording.epochs
            if self._epoch is not None and self._epoch not in measured:
                self._measure()
            self.recorder.close()
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
        self._epoch = first_epoch
        info = run_info(self.model, self.recorder, self.every, self.params)
        wanted = self.recorder.start(first_epoch, info)
        if len(self.recording) and not self._due(first_epoch):
            wanted = False  # goes on from a moment that was not to be measured
        # What was recorded only the chief can see. Others, who might need it
        # for their `logs` or have to be there when a kernel is put together
        # from all processes, begin with a measurement, and so it does too.
        if not wanted and process_count() == 1:
            return
        if build_as_fit_will(self.model):
            self._measure(keep=wanted)
        else:
            self.recorder.warn(
                "not built",
                f"'{self.model.name}' is not built, so RankTracker cannot "
                "measure its initialisation, and begins after the first "
                "epoch. Build it first, with `model.build(input_shape)`.",
            )

    def _measure(self, logs=None, keep=True):
        self.recorder.measure(
            self.model,  # on JAX this brings the weights up to date, once
            self._epoch,
            logs,
            batch_size=self._batch_size,
            steps_per_epoch=(self.params or {}).get("steps"),
            keep=keep,
            features=self._features,
        )

    @contextlib.contextmanager
    def _on_the_clock(self):
        began = time.perf_counter()
        try:
            yield
        finally:
            self.own_seconds += time.perf_counter() - began

    def __getstate__(self) -> dict[str, Any]:
        # The model being trained does not travel with a copy.
        return self.__dict__ | dict(_model=None)
