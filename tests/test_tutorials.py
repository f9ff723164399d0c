"""Tutorials run as scripts: a rehearsal here, in full in `make docs`."""

import os
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parent.parent
TUTORIALS = sorted((ROOT / "tutorials").glob("*.py"))

pytest.importorskip("matplotlib")
pytest.importorskip("sklearn")


def test_there_are_eight():
    assert [path.name[0] for path in TUTORIALS] == list("12345678")


@pytest.mark.once
@pytest.mark.parametrize("path", TUTORIALS, ids=lambda path: path.stem)
def test_tutorial_runs(path, tmp_path):
    if path.stem.startswith("5"):
        pytest.importorskip("keras_tuner")
    done = subprocess.run(
        [sys.executable, path],
        cwd=tmp_path,
        env=os.environ
        | {
            "KERAS_LOWRANK_SMOKE": "1",
            "PYTHONPATH": str(ROOT),
            "COLUMNS": "100",
        },
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.mark.once
@pytest.mark.parametrize("path", TUTORIALS, ids=lambda path: path.stem)
def test_tutorial_says_what_for_and_what_next(path):
    cells = path.read_text().split("# %% [markdown]\n")
    assert "you can" in cells[1]
    assert "## What to try" in cells[-1]
