"""The main job: exact spectra and ranks of every weight, while `fit` runs."""

import contextlib
import math
import time
from typing import Any

import keras

from keras_lowrank.callbacks.budget import Budget
from keras_lowrank.callbacks.features import feature_spectra
from keras_lowrank.callbacks.fit_context import build_as_fit_will
from keras_lowrank.callbacks.fit_context import enclosing_fit
from keras_lowrank.callbacks.recorder import Recorder
from keras_lowrank.callbacks.run_info import run_info
from keras_lowrank.callbacks.schedule import as_schedule
from keras_lowrank.callbacks.trouble import consumers_listed_before
from keras_lowrank.callbacks.trouble import consumers_of_old_values
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

    The tracker measures its own cost beside that of `fit`, and by default
    measures as often as one percent of the time allows (`max_overhead`): every
    epoch of a large model, some epochs of a toy. `every=1` measures them all.

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
            complete epochs to a boolean. By default every epoch that
            `max_overhead` leaves time for. The first state and the last are
            always measured.
        max_overhead: Float in (0, 1], the share of the wall time of `fit`
            that measuring may take. Measurements are spaced evenly so that it
            does not take more; those that `every` asks for may be left out.
            By default 0.01, or no limit where `every` is given. Only a fit
            too short for the first and the last measurement goes beyond it.
            Of several processes that train together none may leave out what
            another measures, so that there is no limit there.
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
        workers: Int >= 1, threads of the host to spread the matrices over.
        device: Who computes: `"host"`, or `"device"`, the one that holds the
            weights, from where only singular values come back; or `"auto"`,
            the cheaper of the two as measured in the first three
            measurements. On a CPU that is the host. The values are the same
            to 1e-9 of the largest.
        asynchronous: Boolean, whether to copy the weights and to compute in a
            thread while the training goes on: for accelerators, whose host is
            idle, and for spare cores. Where training keeps all cores busy
            nothing is gained. Records are the same; those of an epoch are
            there when the next one ends, and `logs` have the values of the
            measurement before, at the last epoch the latest. Takes memory for
            a copy of the weights.
        features: Boolean, whether to record the features at every
            `FeatureRank` layer of the model beside the weights, with the same
            measures: those of the training samples of the epoch, as
            `features/<layer>`. Their means go into `logs` as
            `features_rank_mean` and so on, NaN before the first epoch that is
            measured; they are in no mean over the weights.
        sinks: Functions that are called with every `Measurement` once it is
            recorded and written, in the thread of the training: for whatever
            else should have it. An error ends the training at the first
            measurement, and is warned of later. Of several processes that
            train together, the first calls them.

    Raises:
        ValueError: for an unknown measure, method, schedule or device, or a
            `max_overhead` that is out of range.
        TypeError: for `sinks` that are no functions.
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
        left_out: Int, epochs of the current or last `fit` that `every` asked
            for and `max_overhead` left no time for.

    Reference:
        [Galanti et al., CPAL 2025](https://arxiv.org/abs/2206.05794)
    """

    def __init__(
        self,
        measures=DEFAULT_MEASURES,
        weights=None,
        views=None,
        every=None,
        run_dir=None,
        tensorboard=None,
        method="auto",
        workers=1,
        features=False,
        max_overhead=None,
        device="auto",
        asynchronous=False,
        sinks=(),
    ):
        super().__init__()
        self.every = every
        self._due = as_schedule(1 if every is None else every)
        self.max_overhead = _share(max_overhead, every)
        self.asynchronous = asynchronous
        if asynchronous and device == "device":
            raise ValueError(
                "`asynchronous=True` computes in a thread of the host. "
                "Received: device='device' with it. Leave out one of the two."
            )
        self.recorder = Recorder(
            measures,
            weights,
            views,
            run_dir,
            tensorboard,
            method,
            workers,
            features,
            device,
            sinks,
        )
        self.fit_seconds = 0.0
        self.own_seconds = 0.0
        self.left_out = 0
        self._reset()

    def _reset(self):
        self._batch_size = None
        self._began = time.perf_counter()
        self._epoch: Any = None  # complete ones, known once the first begins
        self._in_epoch = False
        self._features: Any = {}  # before the first epoch there are none
        self._budget: Budget | None = None
        self._measured: int | None = None  # the epoch of the last measurement
        self._taken = 0  # measurements
        self._measuring = 0.0  # seconds that these took of the fit
        self._callbacks: list = []
        self._processes = 1

    @property
    def measures(self):
        """Tuple of the `Measure`s."""
        return self.recorder.measures

    @property
    def recording(self) -> Recording:
        """The `Recording` of the current or last `fit`."""
        self.recorder.collect()  # a `fit` that was interrupted leaves it
        return self.recorder.recording

    # Hooks ------------------------------------------------------------------

    def on_train_begin(self, logs=None):
        self._reset()
        self.fit_seconds = self.own_seconds = 0.0
        self.left_out = 0
        with self._on_the_clock():
            self.recorder.open()
            self._processes = process_count()
            self._callbacks, self._batch_size = enclosing_fit(self.params)
            for trouble in consumers_listed_before(
                self, self._callbacks, self.recorder.log_keys
            ):
                self.recorder.warn(*trouble)
            if self.max_overhead is not None:
                self._set_budget(self.max_overhead)

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
            if last or not self.recorder.begun or self._is_due():
                self._measure(logs)
            # `logs` have all keys from the first epoch on, the last values at
            # the end, and the same in all processes that train together.
            first = not self.recorder.log_values()
            self.recorder.collect(wait=last or first or self._processes > 1)
            if logs is not None:
                logs.update(self.recorder.log_values())

    def on_train_end(self, logs=None):
        with self._on_the_clock():
            measured = self.recording.epochs  # waits for one on its way
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
            table.notes += self._cost_notes()
        table.print(line_length=line_length, print_fn=print_fn)

    def _cost_notes(self) -> list[str]:
        notes = [
            f"Measured {len(self.recording)} times at a cost of "
            f"{100 * self.overhead:.2g} % of the fit "
            f"({self.own_seconds:.3g} s of {self.fit_seconds:.3g} s)"
        ]
        limit = self.max_overhead
        if limit is not None and self.overhead > limit and self._taken <= 2:
            notes.append(
                f"More than max_overhead={limit:g}: the first state and the "
                "last are measured however short the fit is"
            )
        if self.recorder.background_seconds:
            notes.append(
                f"Beside the fit a thread computed for "
                f"{self.recorder.background_seconds:.3g} s"
            )
        if self.left_out:
            notes.append(
                f"Left out {self.left_out} epochs to stay within "
                f"max_overhead={self.max_overhead:g}; every=1 measures all"
            )
        return notes

    # Measuring --------------------------------------------------------------

    def _set_budget(self, share: float):
        if self._processes == 1:
            self._budget = Budget(share, (self.params or {}).get("epochs"))
        elif self.every is not None:
            self.recorder.warn(
                "max_overhead",
                f"max_overhead={share:g} is not kept, since several processes "
                "train together and all have to measure at the same epochs. "
                "Choose them by `every`.",
            )

    def _is_due(self) -> bool:
        if self._budget is None:
            return self._due(self._epoch)
        allowed = self._budget.allows(
            self._epoch,
            self._measured or 0,
            time.perf_counter() - self._began,
            self.own_seconds,
            self._measuring,
            self._measuring / self._taken if self._taken else 0.0,
        )
        if not self._due(self._epoch):
            return False
        if allowed and not self.recorder.in_flight:
            return True
        self.left_out += 1
        for trouble in consumers_of_old_values(
            self._callbacks, self.recorder.log_keys, self._budget.share
        ):
            self.recorder.warn(*trouble)
        return False

    def _start(self, first_epoch: int):
        self._epoch = self._measured = first_epoch
        info = run_info(
            self.model,
            self.recorder,
            self.every,
            self.params,
            self.max_overhead,
        )
        wanted = self.recorder.start(first_epoch, info)
        if len(self.recording) and not self._due(first_epoch):
            wanted = False  # goes on from a moment that was not to be measured
        # What was recorded only the chief can see. Others, who might need it
        # for their `logs` or have to be there when a kernel is put together
        # from all processes, begin with a measurement, and so it does too.
        if not wanted and self._processes == 1:
            return
        if build_as_fit_will(self.model):
            self.recorder.prepare(self.model)
            self._measure(keep=wanted)
        else:
            self.recorder.warn(
                "not built",
                f"'{self.model.name}' is not built, so RankTracker cannot "
                "measure its initialisation, and begins after the first "
                "epoch. Build it first, with `model.build(input_shape)`.",
            )

    def _measure(self, logs=None, keep=True):
        began = time.perf_counter()
        self.recorder.measure(
            self.model,  # on JAX this brings the weights up to date, once
            self._epoch,
            logs,
            batch_size=self._batch_size,
            steps_per_epoch=(self.params or {}).get("steps"),
            keep=keep,
            features=self._features,
            later=self.asynchronous,
        )
        self._measured = self._epoch
        self._taken += 1
        self._measuring += time.perf_counter() - began

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


def _share(max_overhead, every) -> float | None:
    """The share of the time of a fit that measuring may take, if limited."""
    if max_overhead is None:
        return 0.01 if every is None else None
    is_number = isinstance(max_overhead, (int, float))
    if not is_number or not 0 < max_overhead <= 1:
        raise ValueError(
            "`max_overhead` must be above 0 and at most 1, the share of the "
            "time of `fit` that measuring may take. Received: "
            f"max_overhead={max_overhead!r}. Give `every` to measure whatever "
            "it costs."
        )
    return float(max_overhead)
