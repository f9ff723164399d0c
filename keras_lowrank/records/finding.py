"""Runs below directories, by names that tell them apart."""

import os
import pathlib
from collections.abc import Iterable

from keras_lowrank.records.file import FILE_NAME


def find_runs(paths: Iterable) -> dict[str, pathlib.Path]:
    """Directories of recorded runs, each with a short name of its own.

    Args:
        paths: Iterable of paths: run directories, their `records.sqlite`, or
            directories that runs are below of, at any depth.

    Returns:
        Dict from names to paths, in the order given, and by name below a
        directory. A name is the part of the path that the runs do not share.

    Raises:
        FileNotFoundError: when there is no run at one of the paths.
    """
    found: dict[pathlib.Path, None] = {}
    for one in paths:
        path = pathlib.Path(one)
        if path.name == FILE_NAME:
            path = path.parent
        if (path / FILE_NAME).is_file():
            below = [path]
        else:
            below = sorted(file.parent for file in path.rglob(FILE_NAME))
        if not below:
            raise FileNotFoundError(
                f"There is no recorded run at or below '{path}'. Give the "
                "`run_dir` that `RankTracker` was given, or a directory above "
                "it."
            )
        found |= dict.fromkeys(below)
    whole = [pathlib.Path(os.path.abspath(path)) for path in found]
    if len(whole) == 1:
        return {whole[0].name: next(iter(found))}
    shared = pathlib.Path(os.path.commonpath(whole))
    names = (
        # One run may be above the others, and is named by its own directory.
        path.name if path == shared else path.relative_to(shared).as_posix()
        for path in whole
    )
    return dict(zip(names, found, strict=True))
