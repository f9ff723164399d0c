"""The executions of trials, whichever engine asks for them."""

import dataclasses
import pathlib
from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np

from keras_lowrank.callbacks import RankTracker
from keras_lowrank.decay import WeightDecay
from keras_lowrank.experiments import ExperimentSpec
from keras_lowrank.experiments.plan import make_plan
from keras_lowrank.experiments.process import Processes
from keras_lowrank.search.built import BuiltTrainings
from keras_lowrank.search.built import Fit
from keras_lowrank.search.moment import OnEpoch
from keras_lowrank.search.moment import Pruned
from keras_lowrank.search.objective import Objective
from keras_lowrank.search.outcome import Outcome
from keras_lowrank.search.owned import OWNED
from keras_lowrank.search.owned import decay_rate
from keras_lowrank.search.owned import own_optimizer
from keras_lowrank.search.settings import Settings
from keras_lowrank.search.settings import as_last
from keras_lowrank.search.settings import as_seeds
from keras_lowrank.search.space import SearchSpace
from keras_lowrank.search.specified import RUNS_DIR
from keras_lowrank.search.specified import SpecTrainings
from keras_lowrank.search.specified import check_space
from keras_lowrank.search.specified import spec_at
from keras_lowrank.search.specified import values_of
from keras_lowrank.search.trials import Execution
from keras_lowrank.search.trials import Trial
from keras_lowrank.search.trials import read_trial
from keras_lowrank.search.trials import write_trial
from keras_lowrank.search.trouble import is_out_of_memory
from keras_lowrank.search.trouble import reason_of


class TrialTrainer:
    """Trains the points of a search space, each with several seeds.

    Args:
        source: A function of KerasTuner's `hp` that returns a compiled model,
            or an `ExperimentSpec`, whose own values are the default point.
        space: `SearchSpace`. Of a function's models it may have `batch_size`,
            `learning_rate` and `weight_decay`; of a spec, any field.
        seeds: Int, how many; or a list of ints. Each trains from scratch.
        last: Int >= 1. Metrics are means over this many last epochs.
        decay: `WeightDecay` that says what the `weight_decay` of the space
            means: its convention, coupling and coverage. Its rate is replaced.
        steps: Int >= 1, updates in every training, rounded up to epochs.
        decay_clock: Float > 0, which every training runs to, rounded up to
            epochs.
        measures: As for `RankTracker`.
        weights: As for `RankTracker`.
        every: As for `RankTracker`.
        checkpoint_seconds: Float, least time between checkpoints.
        processes: `Processes` that train specs, rather than this process.
    """

    def __init__(
        self,
        source,
        space: SearchSpace,
        seeds: int | Iterable[int] = 3,
        last: int = 1,
        decay: WeightDecay | None = None,
        steps: int | None = None,
        decay_clock: float | None = None,
        measures=("rank", "stable_rank", "effective_rank"),
        weights=None,
        every=1,
        checkpoint_seconds: float = 30.0,
        processes: Processes | None = None,
    ):
        if not isinstance(space, SearchSpace):
            raise TypeError(
                "`space` must be a SearchSpace. "
                f"Received: space={space!r} (of type {type(space).__name__})."
            )
        self.source = source
        self.spec = source if isinstance(source, ExperimentSpec) else None
        self.space = space
        self.seeds = as_seeds(seeds)
        self.last = as_last(last)
        self.decay = decay or WeightDecay(0.0)
        self.stop = {"steps": steps, "decay_clock": decay_clock}
        self.tracker = {
            "measures": measures,
            "weights": weights,
            "every": every,
        }
        self.checkpoint_seconds = checkpoint_seconds
        self.processes = processes
        RankTracker(**self.tracker)  # says what is wrong before a search
        if self.spec is None:
            self._check_function()
        else:
            self._check_spec(self.spec)

    def _check_function(self):
        if not callable(self.source) and not hasattr(self.source, "build"):
            raise TypeError(
                "`source` must be a function of `hp` that returns a compiled "
                "model, a HyperModel, or an ExperimentSpec. "
                f"Received: {self.source!r}."
            )
        if unknown := [name for name in self.space.names if name not in OWNED]:
            raise ValueError(
                f"The space of a function may have {', '.join(OWNED)}. "
                f"Received: {', '.join(unknown)}. Ask `hp` for those where "
                "the model is built."
            )
        if all(value is not None for value in self.stop.values()):
            raise ValueError(
                "A training stops at `steps` or at a `decay_clock`. "
                f"Received: {self.stop}."
            )

    def _check_spec(self, spec: ExperimentSpec):
        if any(value is not None for value in self.stop.values()):
            raise ValueError(
                "A spec says itself when to stop: `spec.replace(steps=...)`. "
                f"Received: {self.stop}."
            )
        check_space(spec, self.space)

    def settings(self, objective: Objective) -> Settings:
        """What all trials have in common.

        Args:
            objective: What the search is after.
        """
        about: dict[str, Any] = {"backend": keras.backend.backend()}
        if self.spec is not None:
            about["spec"] = self.spec.to_dict()
        else:
            about["decay"] = {
                "convention": self.decay.convention,
                "coupling": self.decay.coupling,
            }
            about |= {
                name: value
                for name, value in self.stop.items()
                if value is not None
            }
        return Settings(self.space, objective, self.seeds, self.last, about)

    @property
    def default(self) -> dict[str, Any]:
        """Where the spec lies in the space; nothing is known of a function."""
        if self.spec is None:
            return {}
        return values_of(self.spec, self.space.names)

    def check_fit(self, fit: Fit) -> None:
        """Say what no trial of a function could be trained with.

        Args:
            fit: `Fit`.

        Raises:
            ValueError: with what to do.
        """
        owns_batches = "batch_size" in self.space.names
        if owns_batches and fit.options.get("batch_size") is not None:
            raise ValueError(
                "`batch_size` is in the search space. Received: "
                f"batch_size={fit.options['batch_size']} too. Leave one out."
            )
        chosen = [name for name, value in self.stop.items() if value]
        if not (owns_batches or chosen):
            return
        leaves = keras.tree.flatten(fit.x)
        if not leaves or not all(hasattr(leaf, "shape") for leaf in leaves):
            raise ValueError(
                f"{' and '.join(chosen) or '`batch_size`'} in a search needs "
                "`x` as arrays: a data set that is batched already has a "
                "batch size of its own, and Keras would take no notice. "
                f"Received: x of type {type(fit.x).__name__}."
            )
        if chosen and "initial_epoch" in fit.options:
            raise ValueError(
                f"{' and '.join(chosen)} says when to stop, and so does "
                "Hyperband with its epochs. Use another tuner, or neither."
            )

    def run(
        self,
        directory,
        trial: Trial,
        build: Callable[[], keras.Model] | None = None,
        fit: Fit | None = None,
        keep_weights: bool = False,
        epochs: int | None = None,
        on_epoch: OnEpoch | None = None,
    ) -> Trial:
        """Train what a trial still lacks, and write down what came of it.

        Args:
            directory: Path of the trial's directory; runs of specs go into
                `runs` beside it.
            trial: `Trial`, without executions.
            build: Function of nothing that builds the model of a trial, where
                the source is a function.
            fit: `Fit`, what its `fit` is given.
            keep_weights: Boolean, whether its last weights stay on disk.
            epochs: Int, in place of those of a spec.
            on_epoch: `OnEpoch`, or `None`. May raise `Pruned`.

        Returns:
            The `Trial` with its executions. Its status says whether they
            failed for want of memory, diverged, collapsed or were pruned.

        Raises:
            Exception: what a training raised, once that is written down too.
        """
        directory = pathlib.Path(directory)
        trial = _gone_on_with(directory, trial)
        write_trial(directory, trial)
        ended = {item.seed for item in trial.executions}
        missing = [seed for seed in trial.seeds if seed not in ended]
        if self.spec is None:
            assert build is not None and fit is not None
            executions = self._of_function(
                directory, trial, missing, build, fit, keep_weights, on_epoch
            )
        else:
            spec = spec_at(self.spec, trial.values)
            if epochs is not None:
                spec = spec.replace(epochs=epochs)
            executions = SpecTrainings(
                spec,
                self.last,
                self.checkpoint_seconds,
                on_epoch,
                self.processes,
            ).executions(missing, directory.parent / RUNS_DIR, directory)
        try:
            for execution in executions:
                trial = trial.with_execution(execution)
                write_trial(directory, trial)
        except Exception as error:
            ended = {item.seed for item in trial.executions}
            seed = next(seed for seed in missing if seed not in ended)
            status = "pruned" if isinstance(error, Pruned) else "failed"
            why = str(error) if status == "pruned" else reason_of(error)
            trial = trial.with_execution(Execution(seed, Outcome(status, why)))
            write_trial(directory, trial)
            if status == "failed" and not is_out_of_memory(error):
                raise
        return trial

    def _of_function(
        self, directory, trial, seeds, build, fit, keep_weights, on_epoch
    ) -> Iterator[Execution]:
        owned = {
            name: value
            for name, value in trial.values.items()
            if name in self.space.names
        }
        fit = self._with_stop(owned, build, fit)
        trainings = BuiltTrainings(
            build=build,
            owned=owned,
            decay=self.decay,
            tracker=self.tracker,
            last=self.last,
            keep_weights=keep_weights,
            checkpoint_seconds=self.checkpoint_seconds,
            on_epoch=on_epoch,
        )
        return trainings.executions(seeds, directory, fit)

    def _with_stop(self, owned, build, fit: Fit) -> Fit:
        """Give `fit` the epochs of a number of steps or of a decay clock."""
        chosen = {key: item for key, item in self.stop.items() if item}
        if not chosen:
            return fit
        samples = keras.tree.flatten(fit.x)[0].shape[0]
        model = build()
        own_optimizer(model, owned, self.decay)
        decay = decay_rate(model)
        if "decay_clock" in chosen and not decay:
            raise ValueError(
                "`decay_clock` needs a model that decays: with weight decay 0 "
                "the clock stands still. Give the space a `weight_decay` above "
                "0, or build the model with a WeightDecay."
            )
        rate = keras.ops.convert_to_numpy(model.optimizer.learning_rate)
        ((unit, value),) = chosen.items()
        plan = make_plan(
            samples=int(samples),
            batch_size=owned.get(
                "batch_size", fit.options.get("batch_size") or 32
            ),
            learning_rate=float(np.asarray(rate)),
            factor=1.0,
            milestones=(),
            milestone_unit="epochs",
            stop=(unit, value),
            weight_decay=decay,
        )
        options = dict(fit.options) | {"epochs": plan.epochs}
        return dataclasses.replace(fit, options=options)


def _gone_on_with(directory: pathlib.Path, trial: Trial) -> Trial:
    """The trial with what is on disk of it already, if that is this one."""
    earlier = read_trial(directory)
    if earlier is None or earlier.values != trial.values:
        return trial
    for execution in earlier.executions:
        # What failed may be tried again; what ended is not trained twice.
        if execution.seed in trial.seeds and execution.outcome.status not in (
            "failed",
            "pruned",
        ):
            trial = trial.with_execution(execution)
    return trial
