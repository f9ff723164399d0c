"""Many runs: in one program on JAX, in worker processes elsewhere."""

import concurrent.futures
import functools
import os
from collections.abc import Iterable

import keras

from keras_lowrank.experiments import runs
from keras_lowrank.experiments.checkpoint import checkpoint_epoch
from keras_lowrank.experiments.process import Processes
from keras_lowrank.experiments.run import Report
from keras_lowrank.experiments.run import load_data
from keras_lowrank.experiments.run import run
from keras_lowrank.experiments.runs import Run
from keras_lowrank.experiments.spec import ExperimentSpec
from keras_lowrank.experiments.vectorized import can_vectorize
from keras_lowrank.experiments.vectorized import program_of
from keras_lowrank.experiments.vectorized import run_vectorized


def run_all(
    specs: Iterable[ExperimentSpec],
    out_dir="runs",
    report: Report | None = None,
    vectorize: bool | None = None,
    workers: int | None = None,
    checkpoint_seconds: float = 30.0,
    keep_model: bool = False,
) -> list[Run]:
    """Train many specs, as fast as the backend and the machine allow.

    On JAX, runs that differ only in learning rates, weight decay, seed and
    initial weights train in one program. Elsewhere, and where
    `vectorize=False`, each run has a process of its own. Either way the
    records are those of `run`, runs that are complete are not trained again,
    and those that were killed go on.

    Args:
        specs: Iterable of `ExperimentSpec`.
        out_dir: As for `run`.
        report: As for `run`.
        vectorize: Boolean, whether runs share a program. By default MLPs do
            on JAX: larger networks, and convolutions above all, use a CPU
            well enough by themselves.
        workers: Int >= 1, how many processes train at once where they do not.
            As many as there are cores by default; with 1, the runs train one
            after another in this process.
        checkpoint_seconds: As for `run`.
        keep_model: As for `run`.

    Returns:
        List of `Run`, all complete, in the order of the specs.

    Raises:
        ValueError: for `vectorize=True` where that is not possible, and as
            `run`.
        RuntimeError: when a worker fails, with what it said.

    Example:

    >>> specs = sweep(spec, weight_decay=[0.0, 1e-3])  # doctest: +SKIP
    >>> run_all(specs, "runs/decay")  # doctest: +SKIP
    """
    specs = list(dict.fromkeys(specs))
    for spec in specs:
        if vectorize and not can_vectorize(spec):
            raise ValueError(
                "`vectorize=True` needs the JAX backend, and a precision "
                "other than mixed_float16. Received: backend "
                f"{keras.backend.backend()}, precision={spec.precision!r}."
            )
    if workers is not None and workers < 1:
        raise ValueError(f"`workers` must be 1 or more. Received: {workers}.")
    found = {spec: runs.find_run(spec, out_dir) for spec in specs}

    # Once for all that share it, and only the last in memory.
    @functools.lru_cache(maxsize=1)
    def load(choice):
        return load_data(choice)

    waiting = [spec for spec in specs if not found[spec].complete]
    alone = []
    for group in _programs(waiting, found, vectorize, load):
        if len(group) > 1:
            data = load(group[0].data)
            run_vectorized(
                group, out_dir, data, report, checkpoint_seconds, keep_model
            )
        else:
            alone += group
    workers = min(workers or os.cpu_count() or 1, len(alone))
    if workers > 1:
        _run_in_processes(
            alone, out_dir, report, workers, checkpoint_seconds, keep_model
        )
    else:
        for spec in alone:
            data = load(spec.data)
            run(
                spec,
                out_dir,
                report,
                checkpoint_seconds,
                data,
                keep_model=keep_model,
            )
    return list(found.values())


def _programs(specs, found, vectorize, load) -> list[list[ExperimentSpec]]:
    """Group what can train together; the others are alone."""
    groups: dict[object, list[ExperimentSpec]] = {}
    samples: dict[object, int] = {}
    for spec in specs:
        together = vectorize
        if together is None:
            together = can_vectorize(spec) and spec.network.name == "mlp"
        if not together:
            groups[spec] = [spec]
            continue
        if spec.data not in samples:
            samples[spec.data] = len(load(spec.data).x_train)
        # Runs that a kill left at different epochs cannot go on together.
        epoch = checkpoint_epoch(found[spec].run_dir)
        program = program_of(spec, samples[spec.data])
        groups.setdefault((program, epoch), []).append(spec)
    return list(groups.values())


def _run_in_processes(
    specs, out_dir, report, workers, checkpoint_seconds, keep_model
):
    """One process a run, each with its share of the cores."""
    processes = Processes(workers)

    def train(spec: ExperimentSpec) -> None:
        def tell(told):
            if report is not None:
                report(spec, told["epoch"], told["epochs"], told["logs"])

        this = runs.find_run(spec, out_dir)
        runs.begin(this)
        processes.train(
            this.run_dir / runs.SPEC_FILE,
            out_dir,
            tell,
            checkpoint_seconds,
            what=f"The run '{this.run_dir}'",
            keep_model=keep_model,
        )

    with concurrent.futures.ThreadPoolExecutor(workers) as pool:
        futures = [pool.submit(train, spec) for spec in specs]
        try:
            for future in concurrent.futures.as_completed(futures):
                future.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            processes.kill()
            raise
