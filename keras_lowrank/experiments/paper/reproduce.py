"""Training a figure of the paper, and holding it against the paper."""

import dataclasses
import functools
import json
import os
import pathlib
from typing import Any

from keras_lowrank.experiments.data import DATASETS
from keras_lowrank.experiments.data.files import VARIABLE
from keras_lowrank.experiments.paper.claims import Verdict
from keras_lowrank.experiments.paper.figure import SIZES
from keras_lowrank.experiments.paper.figure import Figure
from keras_lowrank.experiments.paper.figure import Key
from keras_lowrank.experiments.paper.output import left_out
from keras_lowrank.experiments.paper.output import paper_table
from keras_lowrank.experiments.paper.output import points_table
from keras_lowrank.experiments.paper.output import to_csv
from keras_lowrank.experiments.paper.output import verdicts_text
from keras_lowrank.experiments.paper.points import Study
from keras_lowrank.experiments.paper.points import gather
from keras_lowrank.experiments.paper.registry import find_figure
from keras_lowrank.experiments.run import Report
from keras_lowrank.experiments.run_all import run_all
from keras_lowrank.experiments.runs import write_whole
from keras_lowrank.experiments.spec import ExperimentSpec
from keras_lowrank.tables import Table
from keras_lowrank.tables import plain

# Sets that are made rather than read.
_MADE = ("digits", "teacher_student")


@dataclasses.dataclass(frozen=True, eq=False)
class Task:
    """The runs of a figure in some size.

    Args:
        figure: `Figure`.
        size: String, `"smoke"`, `"cpu"` or `"full"`.
        runs: Tuple of pairs of a point and the spec of a run of it.
        missing: Tuple of strings: runs that cannot be, and why.
    """

    figure: Figure
    size: str
    runs: tuple[tuple[Key, ExperimentSpec], ...]
    missing: tuple[str, ...] = ()

    @property
    def specs(self) -> list[ExperimentSpec]:
        """The specs of all runs."""
        return [spec for _, spec in self.runs]


@dataclasses.dataclass(frozen=True, eq=False)
class Reproduction:
    """A figure, held against the paper.

    Args:
        study: `Study`, the points.
        verdicts: Tuple of `Verdict`, one for each claim of the figure.
        not_reproduced: Tuple of strings.
    """

    study: Study
    verdicts: tuple[Verdict, ...]
    not_reproduced: tuple[str, ...]

    @functools.cached_property
    def table(self) -> Table:
        """Each point beside the paper's."""
        return points_table(self.study)

    def render(self) -> str:
        """Table, verdicts, what was not reproduced, and notes, as text."""
        figure, size = self.study.figure, self.study.size
        parts = [self.table.render()]
        if figure.references and not self.study.numbers:
            parts.append(paper_table(figure).render())
        whose = "Claims" if figure.ours else "Claims of the paper"
        judged = f"{whose}, judged by the runs of size {size}"
        parts.append(f"{judged}:\n{verdicts_text(self.verdicts)}")
        for title, lines in (
            ("Not reproduced", self.not_reproduced or ("nothing left out",)),
            ("Notes", figure.notes),
        ):
            if lines:
                listed = (f"- {line}" for line in lines)
                parts.append("\n".join([f"{title}:", *listed]))
        return "\n\n".join(parts)

    def to_dict(self) -> dict[str, Any]:
        """All of it as plain values."""
        figure = self.study.figure
        size = figure.sizes[self.study.size]
        return {
            "figure": figure.name,
            "title": figure.title,
            "size": self.study.size,
            "what_the_size_is": size.note,
            "comparable_with_the_paper": self.study.numbers,
            "rank": figure.measure(self.study.size).definition,
            "points": self.table.to_dict()["rows"],
            "paper": paper_table(figure).to_dict()["rows"],
            "verdicts": [vars(verdict) for verdict in self.verdicts],
            "not_reproduced": list(self.not_reproduced),
            "notes": list(figure.notes),
            "runs": [
                outcome.spec.id
                for point in self.study.points
                for outcome in point.outcomes
            ],
        }

    def save(self, out_dir) -> dict[str, pathlib.Path]:
        """Write table, verdicts and figure.

        Args:
            out_dir: Path of a directory.

        Returns:
            Dict from `"json"`, `"csv"` and `"png"` to the paths written.

        Raises:
            ImportError: when Matplotlib is not installed; the tables are
                written then.
        """
        from keras_lowrank.experiments.paper.draw import draw

        out_dir = pathlib.Path(out_dir)
        out_dir.mkdir(parents=True, exist_ok=True)
        stem = f"{self.study.figure.name}-{self.study.size}"
        paths = {
            kind: out_dir / f"{stem}.{kind}" for kind in ("json", "csv", "png")
        }
        write_whole(paths["json"], json.dumps(plain(self.to_dict()), indent=2))
        write_whole(paths["csv"], to_csv(self.table))
        draw(self.study).savefig(paths["png"], dpi=150)
        return paths


def make_task(
    name: str, size: str = "smoke", seeds: int = 1, data=None
) -> Task:
    """The runs that a figure needs.

    Args:
        name: String, a name out of `FIGURES`.
        size: String: `"smoke"`, seconds; `"cpu"`, minutes to hours on two
            cores; `"full"`, the paper's own, for a GPU.
        seeds: Int >= 1, how many seeds of each point.
        data: Path of the data: a directory with an `.npz` file of the name of
            each data set (for SVHN its `.mat` files), or one such file. By
            default what `data.load` finds, and, of sets it does not know, the
            files in the directory that `KERAS_LOWRANK_DATA` names.

    Returns:
        `Task`.

    Raises:
        ValueError: for an unknown name or size, or no seeds.
        FileNotFoundError: where none of the data is there.

    Example:

    >>> len(make_task("fig8", "full", seeds=2).runs)
    36
    """
    figure = find_figure(name)
    if size not in SIZES:
        raise ValueError(f"`size` must be one of {SIZES}. Received: {size!r}.")
    if isinstance(seeds, bool) or not isinstance(seeds, int) or seeds < 1:
        raise ValueError(
            f"`seeds` must be a whole number, 1 or more. Received: {seeds!r}."
        )
    if data is not None and not pathlib.Path(data).exists():
        raise FileNotFoundError(
            f"There is no '{data}'. Give the path of a directory with `.npz` "
            "files, or of such a file."
        )
    specs = figure.sizes[size].specs(seeds)
    names = list(dict.fromkeys(spec.data.name for spec in specs))
    found = {item: _locate(item, data, len(names) == 1) for item in names}
    missing = tuple(
        f"data set '{item}': it needs a file `{_file_of(item)}`, of images of "
        "32 x 32; give its directory with `--data` or the environment variable "
        f"{VARIABLE}"
        for item in names
        if found[item] is None
    )
    runs = []
    for spec in specs:
        place = found[spec.data.name]
        if place is not None:
            # The point keeps the name of the set, whatever file it is.
            choice = spec.data.replace(**place)
            runs.append((figure.key_of(spec), spec.replace(data=choice)))
    if not runs:
        raise FileNotFoundError(
            f"None of the data of {name} is there: {'; '.join(missing)}."
        )
    return Task(figure, size, tuple(runs), missing)


def _file_of(name: str) -> str:
    return "train_32x32.mat" if name == "svhn" else f"{name}.npz"


def _locate(name: str, data, alone: bool) -> dict[str, str] | None:
    """Where a data set is, as options of `data.load`, or `None`."""
    if name in _MADE or (name in DATASETS and data is None):
        return {}
    place = data or os.environ.get(VARIABLE)
    if not place:
        return None
    # In full, since it is part of what names a run.
    path = pathlib.Path(place).resolve()
    file = path if path.is_file() else path / _file_of(name)
    if not file.is_file() or not (alone or file.name == _file_of(name)):
        return None
    if name in DATASETS:
        return {"path": str(path)}
    return {"name": str(file)}


def reproduce(
    name: str,
    size: str = "smoke",
    out_dir="runs/paper",
    seeds: int = 1,
    data=None,
    report: Report | None = None,
    workers: int | None = None,
    checkpoint_seconds: float = 30.0,
) -> Reproduction:
    """Train a figure of the paper and hold it against the paper.

    Runs that are complete are not trained again, and those that were stopped
    go on; figures that share runs share them under one `out_dir`.

    Args:
        name: As for `make_task`.
        size: As for `make_task`.
        out_dir: Path of a directory; the runs are in its `runs`.
        seeds: As for `make_task`.
        data: As for `make_task`.
        report: As for `run`.
        workers: As for `run_all`; by default 1 for `"smoke"`, whose runs are
            shorter than the start of a process.
        checkpoint_seconds: As for `run`.

    Returns:
        `Reproduction`.

    Raises:
        ValueError: as `make_task`.
        OSError: when data are missing, with where to get them.

    Example:

    >>> print(reproduce("fig8").render())  # doctest: +SKIP

    Reference:
        [Galanti et al., CPAL 2025](https://arxiv.org/abs/2206.05794), 4
    """
    return train(
        make_task(name, size, seeds, data),
        out_dir,
        report,
        workers,
        checkpoint_seconds,
    )


def train(
    task: Task,
    out_dir="runs/paper",
    report: Report | None = None,
    workers: int | None = None,
    checkpoint_seconds: float = 30.0,
) -> Reproduction:
    """Train the runs of a task and judge them.

    Args:
        task: `Task`.
        out_dir: As for `reproduce`.
        report: As for `reproduce`.
        workers: As for `reproduce`.
        checkpoint_seconds: As for `reproduce`.

    Returns:
        `Reproduction`.
    """
    if workers is None and task.size == "smoke":
        workers = 1
    done = run_all(
        task.specs,
        pathlib.Path(out_dir) / "runs",
        report=report,
        workers=workers,
        checkpoint_seconds=checkpoint_seconds,
    )
    recordings = {run.spec: run.recording for run in done}
    study = gather(
        task.figure,
        task.size,
        [(point, spec, recordings[spec]) for point, spec in task.runs],
    )
    return judge(study, task.missing)


def judge(study: Study, missing=()) -> Reproduction:
    """The verdict on each claim of a figure.

    Args:
        study: `Study`.
        missing: Sequence of strings, further things not reproduced.

    Returns:
        `Reproduction`.
    """
    return Reproduction(
        study,
        tuple(claim.judge(study) for claim in study.figure.claims),
        tuple(left_out(study, missing)),
    )
