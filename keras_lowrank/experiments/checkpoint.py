"""What a run needs to go on after it was killed."""

import contextlib
import dataclasses
import json
import os
import pathlib
import zipfile
from collections.abc import Iterable
from typing import Any

import numpy as np

FILE_NAME = "checkpoint.npz"


@dataclasses.dataclass(frozen=True, eq=False)
class Checkpoint:
    """The state of a training after some complete epochs.

    Args:
        epoch: Int, epochs complete.
        state: List of arrays, the values of `state_variables`.
        about: Dict of what must be the same when training goes on.
        seconds: Float, training time so far.
    """

    epoch: int
    state: list[np.ndarray]
    about: dict[str, Any]
    seconds: float = 0.0


def write_checkpoints(
    pairs: Iterable[tuple[pathlib.Path, Checkpoint]],
) -> None:
    """Write checkpoints of runs that train together.

    Each file is the old or the new one, whole, whenever the process is
    killed. All are written before the first takes the place of its
    predecessor, so that they stay at one epoch.

    Args:
        pairs: Run directories and their `Checkpoint`s.
    """
    written = []
    for run_dir, checkpoint in pairs:
        path = run_dir / FILE_NAME
        draft = path.with_suffix(".part")
        header = json.dumps(
            {
                "epoch": checkpoint.epoch,
                "about": checkpoint.about,
                "seconds": checkpoint.seconds,
            }
        )
        with open(draft, "wb") as file:
            arrays = {
                f"variable_{index}": value
                for index, value in enumerate(checkpoint.state)
            }
            np.savez(file, header=np.array(header), **arrays)  # type: ignore
            file.flush()
            os.fsync(file.fileno())
        written.append((draft, path))
    for draft, path in written:
        os.replace(draft, path)


def read_checkpoint(run_dir: pathlib.Path) -> Checkpoint | None:
    """The last checkpoint of a run, or `None` where there is none.

    Raises:
        ValueError: when the file is damaged.
    """
    with _opened(run_dir) as file:
        if file is None:
            return None
        state = [
            file[f"variable_{index}"] for index in range(len(file.files) - 1)
        ]
        return Checkpoint(state=state, **_header(file))


def checkpoint_epoch(run_dir: pathlib.Path) -> int:
    """Epochs complete in the last checkpoint of a run, 0 where there is none.

    Raises:
        ValueError: when the file is damaged.
    """
    with _opened(run_dir) as file:
        return 0 if file is None else _header(file)["epoch"]


@contextlib.contextmanager
def _opened(run_dir: pathlib.Path):
    path = run_dir / FILE_NAME
    if not path.exists():
        yield None
        return
    try:
        with np.load(path, allow_pickle=False) as file:
            yield file
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise ValueError(
            f"The checkpoint '{path}' cannot be read: {error}. Move it away "
            "to train from the start; the records stay."
        ) from error


def _header(file) -> dict[str, Any]:
    return json.loads(str(file["header"]))


def remove_checkpoint(run_dir: pathlib.Path) -> None:
    """Remove the checkpoint of a run that is complete."""
    (run_dir / FILE_NAME).unlink(missing_ok=True)
