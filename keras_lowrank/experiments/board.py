"""Recorded runs side by side in TensorBoard, and in its HParams tab."""

import pathlib
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Sequence
from typing import Any

from keras_lowrank.experiments.events import EVENT_FILES
from keras_lowrank.experiments.events import check_free
from keras_lowrank.experiments.events import write_events
from keras_lowrank.experiments.found import FoundRun
from keras_lowrank.experiments.runs import RESULT_FILE
from keras_lowrank.experiments.specs import flat
from keras_lowrank.records import write_experiment
from keras_lowrank.records import write_hparams


def write_all_events(
    runs: Sequence[FoundRun], out_dir
) -> Iterator[pathlib.Path]:
    """Write recorded runs as event files, one directory for each.

    Runs of several experiments get the HParams tab, with the fields in which
    they differ as columns; those that differ in their seed alone are one row.

    Args:
        runs: Sequence of `FoundRun`.
        out_dir: Path of the directory for them, made if needed.

    Yields:
        The path of each directory, once it is written.

    Raises:
        FileExistsError: when there are event files in `out_dir` already.
        ImportError: when tensorboardX is not installed.
    """
    out_dir = pathlib.Path(out_dir)
    check_free(out_dir, out_dir.rglob(EVENT_FILES))
    paths = _paths(runs, out_dir)
    fields = _differing_fields(runs)
    if fields:
        write_experiment(out_dir, _columns(fields.values()), _metrics(runs))
    for run, path in paths.items():
        write_events(run.recording, path, run.certificates)
        if fields:
            _write_session(run, path, fields[run])
        yield path


def _paths(
    runs: Sequence[FoundRun], out_dir: pathlib.Path
) -> dict[FoundRun, pathlib.Path]:
    """A directory for each run: its name is what TensorBoard calls it."""
    names = [
        "/".join(part for part in run.name.split("/") if part.strip("."))
        for run in runs
    ]
    if len(set(names)) < len(names):
        names = [f"{number} {name}" for number, name in enumerate(names, 1)]
    return {run: out_dir / name for run, name in zip(runs, names, strict=True)}


def _differing_fields(
    runs: Sequence[FoundRun],
) -> dict[FoundRun, dict[str, Any]]:
    """Of experiments the fields in which they differ, else nothing."""
    fields = {
        run: flat(run.spec) | {"backend": run.recording.info.get("backend")}
        for run in runs
        if run.spec is not None
    }
    if len(fields) < max(2, len(runs)):
        return {}
    names = dict.fromkeys(name for values in fields.values() for name in values)
    kept: dict[FoundRun, dict[str, Any]] = {run: {} for run in runs}
    for name in names:
        column = [_plain(values.get(name)) for values in fields.values()]
        if len({type(value) for value in column}) > 1:
            column = [str(value) for value in column]
        if len(set(column)) > 1:
            for run, value in zip(fields, column, strict=True):
                kept[run][name] = value
    for values in kept.values():
        if len(values) > 1:  # one row has several seeds
            values.pop("seed", None)
    return kept if any(kept.values()) else {}


def _plain(value):
    """A value of a field as the HParams tab knows it."""
    if isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    return value if isinstance(value, (bool, float, str)) else str(value)


def _columns(fields: Iterable[dict[str, Any]]) -> dict[str, list]:
    """Columns of the HParams tab, with the values that there are."""
    columns: dict[str, set] = {}
    for values in fields:
        for name, value in values.items():
            columns.setdefault(name, set()).add(value)
    return {name: sorted(values) for name, values in columns.items()}


def _metrics(runs: Sequence[FoundRun]) -> list[str]:
    """Tags of scalars that runs are compared by, the first of them shown.

    Means of ranks come first, and what was validated before what was trained.
    """
    recordings = [run.recording for run in runs]
    means = [f"{m.name}_mean" for item in recordings for m in item.measures]
    logs = [key for item in recordings for key in item.measurements[-1].logs]
    logs.sort(key=lambda key: not key.startswith("val_"))
    return list(dict.fromkeys(means + logs))


def _write_session(
    run: FoundRun, path: pathlib.Path, fields: dict[str, Any]
) -> None:
    """The row of a run, whose metrics are in its event files."""
    words = [
        f"{name} {value:g}" if isinstance(value, float) else f"{name} {value}"
        for name, value in fields.items()
    ]
    complete = (run.run_dir / RESULT_FILE).exists()
    write_hparams(
        path,
        fields,
        {},
        status="success" if complete else "failure",
        group=", ".join(words),
    )
