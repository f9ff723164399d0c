"""Tutorials run as scripts: a rehearsal here, in full in `make docs`."""

import pathlib
import runpy

import pytest

ROOT = pathlib.Path(__file__).parent.parent
TUTORIALS = sorted((ROOT / "tutorials").glob("*.py"))

pytest.importorskip("matplotlib")
pytest.importorskip("sklearn")


def test_there_are_eight():
    assert [path.name[0] for path in TUTORIALS] == list("12345678")


# In this process, since most of a rehearsal would be importing a backend again.
@pytest.mark.once
@pytest.mark.parametrize("path", TUTORIALS, ids=lambda path: path.stem)
def test_tutorial_runs(path, tmp_path, monkeypatch):
    if path.stem.startswith("5"):
        pytest.importorskip("keras_tuner")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KERAS_LOWRANK_SMOKE", "1")
    monkeypatch.setenv("COLUMNS", "100")
    runpy.run_path(str(path), run_name="__main__")


@pytest.mark.once
@pytest.mark.parametrize("path", TUTORIALS, ids=lambda path: path.stem)
def test_tutorial_says_what_for_and_what_next(path):
    cells = path.read_text().split("# %% [markdown]\n")
    assert "you can" in cells[1].replace("\n#", "")
    assert "## What to try" in cells[-1]
