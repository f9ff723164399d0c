"""Lemma 3.2 on one's own run: what its steps certify of its ranks."""

import math
import warnings
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_lowrank.callbacks.fit_context import build_as_fit_will
from keras_lowrank.callbacks.fit_context import enclosing_fit
from keras_lowrank.callbacks.step_log import StepLog
from keras_lowrank.callbacks.theory_sinks import TheorySinks
from keras_lowrank.callbacks.watched import Watched
from keras_lowrank.callbacks.watched import velocity_of
from keras_lowrank.callbacks.watched import watch
from keras_lowrank.callbacks.watched import window_of
from keras_lowrank.decay import DecayedOptimizer
from keras_lowrank.decay import updater
from keras_lowrank.plots import certificate_curve
from keras_lowrank.plots import certified_ranks
from keras_lowrank.plots import draw_panels
from keras_lowrank.spectrum import Spectrum
from keras_lowrank.tables import Column
from keras_lowrank.tables import KerasLowrankWarning
from keras_lowrank.tables import Table
from keras_lowrank.tables import shape_text
from keras_lowrank.theory import Certificate
from keras_lowrank.theory import Window
from keras_lowrank.theory import closed_form_rank
from keras_lowrank.theory import decay_lost_in_rounding
from keras_lowrank.theory import epsilon_rank

# States kept on the device; a longer memory is looked at in part.
MOST_ROWS = 10_000


class TheoryTracker(keras.callbacks.Callback):
    """See what the paper's theorem certifies of the ranks of a run.

    Lemma 3.2, with the learning rates, the decay, the batch size and the
    norms of the run itself: after every epoch each weight matrix gets a
    *certified rank*, one that it is within `tolerance` of, without its
    spectrum. Where the lemma says nothing the table says *vacuous*, and why.
    Momentum, coupled and decoupled, is taken into account exactly.

    Only the last `min(m, n) / (uses * batch_size)` steps of an epoch can
    exclude any rank; their norms are written down on the device, by the
    compiled step. Matrices that are used more often than that, as those of
    most convolutions, cost nothing, and nothing can be said of them.

    Args:
        tolerance: Float in (0, 1), Frobenius distance of the matrix over its
            norm from those of the certified rank.
        weights: Which weight matrices, as for `RankTracker`.
        run_dir: Path of a directory to keep what is certified in, such as the
            `run_dir` of `RankTracker`: one crash-safe file of text,
            `theory.jsonl`, that `keras_lowrank.records.read_certificates`
            reads. By default it is kept in memory only.
        tensorboard: Path of a directory, or `True` for `run_dir`: event files
            for TensorBoard go into `theory` in it, a run of its own beside
            that of `RankTracker`. Scalars are `certified_rank/<weight>`, where
            something is certified, and in the end `epsilon_rank/<weight>`, the
            measured rank. Needs tensorboardX, not TensorFlow.

    Raises:
        ValueError: for a tolerance out of range, or `tensorboard=True` without
            a `run_dir`.
        ImportError: for `tensorboard` without tensorboardX.
        OSError: from `fit`, when `run_dir` cannot be made.

    Attributes:
        windows: Dict from weight matrices to the `Window` before the last
            epoch ended.
        spectra: Dict from weight matrices to the `Spectrum` at the end of the
            last epoch.
        history: List of dicts, one per epoch and weight matrix, with `epoch`,
            `weight`, `certified_rank`, `steps`, `remainder`, `vacuous`.

    Example:

    ```python
    theory = TheoryTracker(tolerance=0.3)
    model.fit(x, y, batch_size=2, epochs=20, callbacks=[theory])
    theory.summary()
    theory.plot().savefig("certificates.png")
    ```

    Reference:
        [Galanti et al., CPAL 2025](https://arxiv.org/abs/2206.05794), Lemma
        3.2 and Theorem 3.3
    """

    def __init__(
        self,
        tolerance: float = 0.1,
        weights=None,
        run_dir=None,
        tensorboard=None,
    ):
        super().__init__()
        if not 0 < tolerance < 1:
            raise ValueError(
                "`tolerance` must be above 0 and below 1. "
                f"Received: tolerance={tolerance}."
            )
        self.tolerance = tolerance
        self.weights = weights
        self._sinks = TheorySinks(run_dir, tensorboard)
        self._reset()

    def _reset(self):
        self.windows: dict[str, Window] = {}
        self.spectra: dict[str, Spectrum] = {}
        self.history: list[dict[str, Any]] = []
        self._rows: list[dict[str, Any]] = []
        self._log = None
        self._optimizer: Any = None
        self._watched: list[Watched] = []
        self._logged: list[Watched] = []
        self._samples: int | None = None  # of one update
        self._started = False

    # Hooks ------------------------------------------------------------------

    def on_train_begin(self, logs=None):
        self._reset()
        self._sinks.open()
        model = self.model
        if getattr(model, "optimizer", None) is None:
            raise ValueError(
                f"'{model.name}' is not compiled, so TheoryTracker has no "
                "optimizer whose updates it could watch. Call "
                "`model.compile(optimizer, loss)` first, and update by "
                "`model.optimizer`."
            )
        _, batch_size = enclosing_fit(self.params)
        if batch_size is not None:
            self._samples = batch_size * _accumulated(model.optimizer)
        if not build_as_fit_will(model):
            warnings.warn(
                f"'{model.name}' is not built, so TheoryTracker cannot watch "
                "it. Build it first, with `model.build(input_shape)`.",
                KerasLowrankWarning,
                stacklevel=2,
            )
            return
        if self._samples is None:
            warnings.warn(
                "TheoryTracker does not know the batch size, and nothing can "
                "be certified without it. Give `fit` arrays and a "
                "`batch_size`, or a `PyDataset` with an attribute "
                "`batch_size`; in a loop of your own, give `batch_size` to "
                "`keras.callbacks.CallbackList`.",
                KerasLowrankWarning,
                stacklevel=2,
            )
        if not model.optimizer.built:  # TensorFlow's `fit` does so later
            model.optimizer.build(model.trainable_variables)
        self._watch(model)

    def on_epoch_begin(self, epoch, logs=None):
        if not self._started:
            # Not in `on_train_begin`: a backup may be restored there.
            self._started = True
            self._sinks.start(epoch, self.tolerance, self._watched)
        if self._optimizer is None or self.model.optimizer is self._optimizer:
            return
        # Layers were replaced, by `SwitchToLowRank` for one, and with them
        # the optimizer.
        if self._log is not None:
            self._log.detach()
            self._log = None
        self.windows = {}
        self._watch(self.model)

    def on_epoch_end(self, epoch, logs=None):
        model = self.model  # on JAX this brings the buffer up to date
        if self._log is not None:
            assert self._samples is not None
            steps = self._log.read()
            # None in a loop that leaves the updates to another optimizer.
            made = len(steps.learning_rates)
            for index, item in enumerate(self._logged if made else ()):
                window = window_of(item, index, steps, self._samples)
                self.windows[item.matrix.name] = window
        rows = [self._certified(item) for item in self._watched]
        self.history += [
            {
                "epoch": epoch + 1,
                "weight": row["weight"],
                "certified_rank": row["certified"],
                "steps": row["steps"],
                "remainder": row["remainder"],
                "vacuous": row["vacuous"],
            }
            for row in rows
        ]
        if rows:
            self._sinks.write(epoch + 1, rows)
        if logs is not None and rows:
            ranks = [row["certified"] for row in rows]
            logs["certified_rank_mean"] = float(np.mean(ranks))
        last = (self.params or {}).get("epochs") == epoch + 1
        if last or model.stop_training:
            self._describe()

    def on_train_end(self, logs=None):
        model = self.model  # on JAX this brings the weights up to date
        if self.history and not self._rows:
            # A callback after this one stopped at the epoch just seen.
            self._describe()
        if self._log is not None:
            self._log.detach()
            self._log = None
            model.train_function = None  # compiled with the log in it
        self._sinks.close()

    # Reading ----------------------------------------------------------------

    def table(self) -> Table:
        """Each weight matrix: measured rank beside what is certified of it.

        Rows have `weight`, `shape`, `uses`, `measured`, `certified`,
        `closed_form`, `full`, `vacuous` and `verdict`.
        """
        columns = [
            Column("weight", "Weight"),
            Column("shape", "Matrix", shape_text),
            Column("uses", "Uses\nper sample", str),
            Column("measured", "Measured\nrank", str),
            Column("certified", "Certified\nrank", str),
            Column("closed_form", "Theorem\n3.3", "{:.4g}".format),
            Column("full", "min(m, n)", str),
            Column("verdict", "The certificate", justify="left"),
        ]
        notes = [
            f"measured = epsilon_rank(tolerance={self.tolerance:g}), Frobenius",
            "certified = Lemma 3.2 with the run's own norms and rates",
            "Theorem 3.3 takes the last learning rate to be constant",
        ]
        return Table(
            f"Ranks at tolerance {self.tolerance:g}, measured and certified",
            columns,
            self._rows,
            notes,
        )

    def summary(self, line_length=None, print_fn=None):
        """Print the table of the last epoch.

        Args:
            line_length: Int, the width to print at; the terminal's by default.
            print_fn: Function called with the text, `print` by default.
        """
        self.table().print(line_length=line_length, print_fn=print_fn)

    def plot(self, weight: str | None = None):
        """Draw the table of the last epoch, or the lemma on one matrix.

        Args:
            weight: String, the name of a weight matrix: both sides of Lemma
                3.2 for it, rank by rank. By default the measured and the
                certified rank of every weight matrix.

        Returns:
            A `matplotlib.figure.Figure`, to be saved with `savefig`. Its data
            are those of `keras_lowrank.plots.certificate_curve` and
            `certified_ranks`.

        Raises:
            ImportError: when Matplotlib is not installed.
            ValueError: before a `fit` has ended, or for an unknown name.
        """
        if not self._rows:
            raise ValueError(
                "There is nothing to draw before a `fit` has ended. Received: "
                "a TheoryTracker without rows. Give it to `fit` in `callbacks` "
                "first."
            )
        if weight is None:
            return draw_panels([certified_ranks(self._rows, self.tolerance)])
        if weight not in self.spectra:
            raise ValueError(
                "`weight` must be the name of a weight matrix. Received: "
                f"weight={weight!r}. Names: {list(self.spectra)}."
            )
        panel = certificate_curve(
            self.spectra[weight],
            self.windows.get(weight),
            self.tolerance,
            weight,
        )
        return draw_panels([panel])

    # Watching ---------------------------------------------------------------

    def _watch(self, model):
        self._optimizer = model.optimizer
        self._watched = list(watch(model, self.weights))
        if self._samples is not None:
            self._attach(model, self._samples)

    def _attach(self, model, samples: int):
        self._logged = [item for item in self._watched if item.window(samples)]
        if not self._logged:
            return
        optimizer = self._logged[0].decay.optimizer
        steps = (self.params or {}).get("steps")
        accumulated = _accumulated(optimizer)
        if steps is not None:
            # Updates an epoch, where they end with it.
            steps = None if steps % accumulated else steps // accumulated
        momentum = getattr(optimizer, "momentum", 0.0)
        kernels = [item.matrix.variable for item in self._logged]
        slots = []
        if momentum:
            slots = [velocity_of(optimizer, kernel) for kernel in kernels]
        rows = 1 + max(item.window(samples) for item in self._logged)
        outer = updater(model.optimizer, kernels[0])
        policy = isinstance(outer, DecayedOptimizer)

        def decay():
            if not policy:
                return ops.zeros((), "float32")
            return outer.weight_decay * outer.policy.factor

        self._log = StepLog(
            optimizer,
            kernels,
            slots,
            min(rows, MOST_ROWS),
            steps,
            decay,
        )
        self._log.attach()
        model.make_train_function(force=True)

    def _certificate(self, item: Watched) -> Certificate:
        window = self.windows.get(item.matrix.name)
        if window is not None:
            return window.certificate(self.tolerance)
        full = min(item.matrix.matrix_shape)
        return Certificate(full, 0, math.nan, vacuous=True)

    def _certified(self, item: Watched) -> dict[str, Any]:
        """What is certified of a weight matrix after an epoch."""
        certificate = self._certificate(item)
        return {
            "weight": item.matrix.name,
            "certified": certificate.rank,
            "full": min(item.matrix.matrix_shape),
            "steps": certificate.steps,
            "remainder": certificate.remainder,
            "vacuous": certificate.vacuous,
            "verdict": self._verdict(item, certificate),
        }

    def _describe(self):
        self.spectra = {
            item.matrix.name: item.matrix.spectrum() for item in self._watched
        }
        self._rows = [self._row(item) for item in self._watched]
        if self._rows and self.history:
            self._sinks.finish(self.history[-1]["epoch"], self._rows)

    def _row(self, item: Watched) -> dict[str, Any]:
        certificate = self._certificate(item)
        spectrum = self.spectra[item.matrix.name]
        return {
            "weight": item.matrix.name,
            "shape": item.matrix.matrix_shape,
            "uses": item.uses,
            "measured": epsilon_rank(spectrum, self.tolerance),
            "certified": certificate.rank,
            "closed_form": self._closed_form(item),
            "full": min(item.matrix.matrix_shape),
            "vacuous": certificate.vacuous,
            "verdict": self._verdict(item, certificate),
        }

    def _closed_form(self, item: Watched) -> float | None:
        if item.silence or item.uses is None or self._samples is None:
            return None
        rate = float(ops.convert_to_numpy(item.decay.optimizer.learning_rate))
        if rate * item.decay.rate >= 1:
            return None
        return closed_form_rank(
            item.uses,
            self._samples,
            rate,
            item.decay.rate / 2,
            self.tolerance,
        )

    def _verdict(self, item: Watched, certificate: Certificate) -> str:
        if not certificate.vacuous:
            return f"holds, by the last {certificate.steps} steps"
        if item.silence:
            return f"vacuous: {item.silence}"
        if self._samples is None:
            return "vacuous: the batch size is not known"
        if not item.window(self._samples):
            return "vacuous: the gradients of one step may have any rank"
        rate = float(ops.convert_to_numpy(item.decay.optimizer.learning_rate))
        dtype = str(item.matrix.variable.dtype)
        if decay_lost_in_rounding(rate, item.decay.rate, dtype):
            return "vacuous: the decay is lost in rounding"
        if item.matrix.name not in self.windows:
            return "vacuous: the optimizer made no update"
        # There are none of a matrix that is NaN.
        remainders = self.windows[item.matrix.name].remainders
        least = np.min(remainders, initial=np.inf)
        if not np.isfinite(least):
            return "vacuous: its norm is too small, too large or not finite"
        return (
            "vacuous: too much of the past is left, "
            f"{least:.3g} of the norm at best"
        )

    def __getstate__(self) -> dict[str, Any]:
        # The model being trained does not travel with a copy.
        return self.__dict__ | dict(
            _model=None, _log=None, _optimizer=None, _watched=[], _logged=[]
        )


def _accumulated(optimizer) -> int:
    """Batches that one update is made of."""
    return getattr(optimizer, "gradient_accumulation_steps", None) or 1
