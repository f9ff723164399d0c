"""The oracles of KerasTuner as an `Engine`, on one machine or many."""

import contextlib
import io
import os
import pathlib
import threading
import warnings

import numpy as np

from keras_lowrank.experiments.runs import write_whole
from keras_lowrank.search.asking import Point
from keras_lowrank.search.asking import Waiting
from keras_lowrank.search.engines import keras_tuner
from keras_lowrank.search.lease import leased
from keras_lowrank.search.spec import SearchSpec
from keras_lowrank.search.specified import values_of
from keras_lowrank.search.trials import Trial

# A worker that was silent for so long has lost its trial to another.
LEASE_SECONDS = 60.0

# KerasTuner's own names of the variables.
_ROLE = "KERASTUNER_TUNER_ID"
_ADDRESS = ("KERASTUNER_ORACLE_IP", "KERASTUNER_ORACLE_PORT")


def _own_name() -> str:
    return os.environ.get(_ROLE, "tuner0")


def role() -> str | None:
    """`"chief"` or `"worker"` in a search over machines, `None` on one.

    As KerasTuner decides it, by its environment variables.

    Raises:
        ValueError: when some of the variables are set, and not all.
    """
    given = [name for name in (_ROLE, *_ADDRESS) if os.environ.get(name)]
    if not given or given == [_ROLE]:
        return None
    missing = [name for name in (_ROLE, *_ADDRESS) if name not in given]
    if missing:
        raise ValueError(
            "A search over machines needs the environment variables "
            f"{', '.join((_ROLE, *_ADDRESS))}. Missing: {', '.join(missing)}."
        )
    return "chief" if "chief" in os.environ[_ROLE] else "worker"


class OracleEngine:
    """Asks an oracle of KerasTuner.

    Args:
        search: `SearchSpec` of any method but `"optuna"`.
        directory: Path of the search, which KerasTuner writes to as well. All
            machines must see it.
        lease_seconds: Float, how long a worker of a chief may be silent.
    """

    def __init__(
        self,
        search: SearchSpec,
        directory,
        lease_seconds: float = LEASE_SECONDS,
    ):
        directory = pathlib.Path(directory).resolve()
        self.lease_seconds = lease_seconds
        self._names = search.space.names
        self._oracle = _oracle(search, lease_seconds)
        if (directory / "oracle.json").exists():
            # Without this file, which says nothing, KerasTuner begins anew.
            write_whole(directory / f"{_own_name()}.json", "{}")
        # Reads what a killed search left, and talks to a chief if there is one;
        # and prints that it does, which is for the command line to say.
        with contextlib.redirect_stdout(io.StringIO()):
            self._tuner = keras_tuner().engine.base_tuner.BaseTuner(
                self._oracle,
                directory=str(directory.parent),
                project_name=directory.name,
            )
        if role() != "worker":
            self._tuner.save()
        self._oracle.verbose = 0

    @property
    def name(self) -> str:
        """The name of this process among those of a search."""
        return self._tuner.tuner_id

    def serve(self) -> None:
        """Answer workers until all is done: what a chief does."""
        stop = threading.Event()

        def watch():
            while not stop.wait(self.lease_seconds / 6):
                self._oracle.take_back()

        watcher = threading.Thread(target=watch, daemon=True)
        watcher.start()
        try:
            with _quiet():
                self._tuner.search()
        finally:
            stop.set()
            watcher.join()

    def ask(self, worker: str) -> Point | None:
        """As `Engine.ask`."""
        with _quiet():
            trial = self._tuner.oracle.create_trial(worker)
        if trial.status == "STOPPED":
            return None
        if trial.status == "IDLE":
            raise Waiting
        told = trial.hyperparameters.values
        return Point(
            trial.trial_id,
            # A chief sends them in an order of its own.
            {name: told[name] for name in self._names},
            trial,
            told.get("tuner/epochs"),
        )

    def tell(self, point: Point, trial: Trial, score: float) -> None:
        """As `Engine.tell`."""
        metrics = {
            name: float(value)
            for name, value in trial.metrics.items()
            if np.isfinite(value)
        }
        native = point.native
        with _quiet():
            self._tuner.oracle.update_trial(
                native.trial_id, metrics | {"score": float(score)}
            )
            native.status = "COMPLETED"
            native.message = trial.reason or None
            self._tuner.on_trial_end(native)

    def report(self, point: Point, epoch: int, score: float) -> str:
        """As `Engine.report`; these oracles hear of the end alone."""
        return ""

    @contextlib.contextmanager
    def alive(self, point: Point):
        """Tell the chief of a worker that its trial is still trained."""
        if role() != "worker":
            yield
            return
        stop = threading.Event()

        def beat():
            while not stop.wait(self.lease_seconds / 6):
                self._tuner.oracle.get_trial(point.id)

        heart = threading.Thread(target=beat, daemon=True)
        heart.start()
        try:
            yield
        finally:
            stop.set()
            heart.join()


def _oracle(search: SearchSpec, lease_seconds: float):
    tuner = keras_tuner()
    kind = {
        "random": tuner.oracles.RandomSearchOracle,
        "grid": tuner.oracles.GridSearchOracle,
        "bayesian": tuner.oracles.BayesianOptimizationOracle,
        "hyperband": tuner.oracles.HyperbandOracle,
    }[search.method]
    space = tuner.HyperParameters()
    search.space.draw(space, values_of(search.spec, search.space.names))
    options = {
        "objective": tuner.Objective("score", "min"),
        "hyperparameters": space,
        # KerasTuner takes 0 for no seed.
        "seed": search.seed + 1,
        "allow_new_entries": False,
    }
    if search.method == "hyperband":
        options["max_epochs"] = search.spec.epochs
    else:
        options["max_trials"] = search.trials
    return leased(kind, lease_seconds)(**options)


@contextlib.contextmanager
def _quiet():
    """KerasTuner calls what Python has deprecated, at every call."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=DeprecationWarning)
        yield
