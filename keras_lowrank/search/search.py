"""`search`: from a spec, with any method, on as many cores as there are."""

import concurrent.futures
import contextlib
import functools
import pathlib
import threading
import time
from typing import Any
from typing import Protocol

from keras_lowrank.experiments.process import Processes
from keras_lowrank.experiments.run import load_data
from keras_lowrank.experiments.runs import held
from keras_lowrank.search import oracles
from keras_lowrank.search.asking import Engine
from keras_lowrank.search.asking import Point
from keras_lowrank.search.asking import Waiting
from keras_lowrank.search.moment import Moment
from keras_lowrank.search.moment import Pruned
from keras_lowrank.search.objective import Objective
from keras_lowrank.search.results import SearchResults
from keras_lowrank.search.results import read_search
from keras_lowrank.search.settings import write_settings
from keras_lowrank.search.spec import SearchSpec
from keras_lowrank.search.spec import resolved
from keras_lowrank.search.specified import with_equal
from keras_lowrank.search.studies import StudyEngine
from keras_lowrank.search.studies import score_so_far
from keras_lowrank.search.trainer import TrialTrainer
from keras_lowrank.search.trials import DEFAULT_TRIAL
from keras_lowrank.search.trials import Trial
from keras_lowrank.search.trials import read_trial

# So many trials in a row that raise what is not for want of memory are no
# matter of the point: something is wrong with the search.
MOST_FAILURES = 3


class SearchReport(Protocol):
    """Hears what a search does."""

    def began(self, trial: Trial) -> None:
        """A trial begins."""

    def moved(self, trial: Trial, moment: Moment) -> None:
        """An execution of a trial has made another epoch."""

    def ended(self, trial: Trial, score: float | None) -> None:
        """A trial ended; its score is not known of the default."""


def search(
    asked: SearchSpec,
    out_dir,
    report: SearchReport | None = None,
    workers: int = 1,
    checkpoint_seconds: float = 30.0,
    lease_seconds: float = oracles.LEASE_SECONDS,
) -> SearchResults:
    """Search, or go on with a search, or find it done.

    The default is trained first, as the trial `"default"`. Trials that were
    complete are not trained again, and what was killed goes on from its last
    checkpoint. More `trials` may be asked for; whatever else changes is
    another search, for another `out_dir`.

    Set KerasTuner's environment variables to search over machines that share
    `out_dir`: `KERASTUNER_TUNER_ID`, which contains `chief` in one process
    and is different in each of the others, `KERASTUNER_ORACLE_IP` and
    `KERASTUNER_ORACLE_PORT`. A worker that is killed loses its trial to
    another, which goes on with it.

    Args:
        asked: `SearchSpec`.
        out_dir: Path of the directory of the search.
        report: `SearchReport`, or `None`.
        workers: Int >= 1, how many trials train at once, each in a process of
            its own. With 1, they train in this one.
        checkpoint_seconds: Float, least time between checkpoints.
        lease_seconds: Float, how long a worker of a chief may be silent before
            its trial is another's; the same in all processes.

    Returns:
        The `SearchResults`.

    Raises:
        BlockingIOError: when another process searches in `out_dir`.
        ValueError: when `out_dir` holds another search.
        RuntimeError: when three trials in a row raise an error that is not
            for want of memory, or the default does not train.

    Example:

    >>> asked = read_search_spec("search.toml")  # doctest: +SKIP
    >>> search(asked, "searches/digits").table().print()  # doctest: +SKIP
    """
    if isinstance(workers, bool) or not isinstance(workers, int) or workers < 1:
        raise ValueError(
            f"`workers` must be a whole number from 1 on. Received: {workers}."
        )
    out_dir = pathlib.Path(out_dir)
    out_dir.mkdir(parents=True, exist_ok=True)
    role = oracles.role()
    if role and asked.method == "optuna":
        raise ValueError(
            "KerasTuner's environment variables are set, and `method` is "
            '"optuna". Use another method, or unset them.'
        )
    if role == "chief":
        oracles.OracleEngine(asked, out_dir, lease_seconds).serve()
        return read_search(out_dir)
    with contextlib.ExitStack() as stack:
        if role is None:
            otherwise = (
                f"Another process searches in '{out_dir}'. Wait until it is "
                "done, or give another directory."
            )
            stack.enter_context(held(out_dir, otherwise))
        running = _Search(asked, out_dir, report, workers, checkpoint_seconds)
        running.run(lease_seconds)
    return read_search(out_dir)


class _Search:
    """A search that runs, on this machine."""

    def __init__(self, asked, out_dir, report, workers, checkpoint_seconds):
        self.asked: SearchSpec = asked
        self.out_dir: pathlib.Path = out_dir
        self.report: SearchReport | None = report
        self.workers: int = workers
        self.processes = Processes(workers) if workers > 1 else None
        spec = asked.spec
        if asked.equal != "epochs":
            samples = len(load_data(spec.data).x_train)
            spec = with_equal(spec, asked.equal, samples)
        self.trainer = TrialTrainer(
            spec,
            asked.space,
            seeds=asked.seeds,
            last=asked.last,
            checkpoint_seconds=checkpoint_seconds,
            processes=self.processes,
        )
        self.lock = threading.Lock()
        self.failures = 0

    def run(self, lease_seconds: float) -> None:
        """Train the default, and then what the engine asks for."""
        objective = resolved(self.asked, self._default_accuracy())
        settings = self.trainer.settings(objective)
        write_settings(self.out_dir, settings.with_about(self.asked.to_dict()))
        engine: Engine
        if self.asked.method == "optuna":
            engine = StudyEngine(self.asked, self.out_dir, objective)
        else:
            engine = oracles.OracleEngine(
                self.asked, self.out_dir, lease_seconds
            )
        work = functools.partial(self._work, engine, objective)
        if self.workers == 1:
            work(engine.name)
            return
        names = [f"{engine.name}-{index}" for index in range(self.workers)]
        with concurrent.futures.ThreadPoolExecutor(self.workers) as pool:
            futures = [pool.submit(work, name) for name in names]
            try:
                for future in concurrent.futures.as_completed(futures):
                    future.result()
            except BaseException:
                self.failures = MOST_FAILURES
                pool.shutdown(wait=False, cancel_futures=True)
                assert self.processes is not None
                self.processes.kill()
                raise

    def _default_accuracy(self) -> float:
        trial = Trial(DEFAULT_TRIAL, self.trainer.default, self.asked.seeds)
        trial = self._train(trial, None, None)
        self._tell("ended", trial, None)
        if trial.status in ("failed", "diverged") or not trial.metrics:
            raise RuntimeError(
                f"The default {trial.status}: {trial.reason}. A search needs "
                "one that trains: look at its learning rate and batch size."
            )
        return trial.metrics["val_accuracy"]

    def _work(self, engine: Engine, objective: Objective, name: str) -> None:
        while self.failures < MOST_FAILURES:
            try:
                with self.lock:
                    point = engine.ask(name)
            except Waiting:
                time.sleep(1.0)
                continue
            if point is None:
                return
            trial = Trial(point.id, point.values, self.asked.seeds)
            error = None
            with engine.alive(point):
                try:
                    watch = self._watch(engine, objective, point)
                    trial = self._train(trial, point.epochs, watch)
                except Exception as caught:
                    error = caught
                    trial = read_trial(self._directory(trial)) or trial
            with self.lock:
                score = trial.score(objective)
                engine.tell(point, trial, score)
                self._tell("ended", trial, score)
                self.failures = self.failures + 1 if error else 0
                if self.failures >= MOST_FAILURES:
                    raise RuntimeError(
                        f"{MOST_FAILURES} trials in a row failed, the last "
                        f"with {trial.reason} The search goes on where it "
                        "was once this is mended."
                    ) from error

    def _directory(self, trial: Trial) -> pathlib.Path:
        return self.out_dir / f"trial_{trial.id}"

    def _train(self, trial: Trial, epochs: int | None, watch) -> Trial:
        self._tell("began", trial)

        def on_epoch(moment: Moment) -> None:
            self._tell("moved", trial, moment)
            if watch is not None:
                watch(moment)

        return self.trainer.run(
            self._directory(trial), trial, epochs=epochs, on_epoch=on_epoch
        )

    def _watch(self, engine: Engine, objective: Objective, point: Point):
        """What ends a trial that the engine gives up, or `None`."""
        if not self.asked.prune:
            return None

        def watch(moment: Moment) -> None:
            # The first seed stands for the trial: the others come after it,
            # or with it in one program.
            if moment.seed != self.asked.seeds[0]:
                return
            score = score_so_far(objective, moment)
            with self.lock:
                why = engine.report(point, moment.epoch, score)
            if why:
                raise Pruned(why)

        return watch

    def _tell(self, what: str, *told: Any) -> None:
        if self.report is not None:
            getattr(self.report, what)(*told)
