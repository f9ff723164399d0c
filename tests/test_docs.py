"""The site builds without a warning; `make docs` runs the tutorials too."""

import os
import pathlib
import subprocess
import sys

import pytest

import keras_lowrank

ROOT = pathlib.Path(keras_lowrank.__file__).parent.parent


@pytest.mark.once
def test_site_builds(tmp_path):
    for package in ("sphinx", "myst_nb", "furo", "sphinx_copybutton"):
        pytest.importorskip(package)
    options = ["-b", "html", "-n", "-W", "--keep-going", "-q"]
    options += ["-D", "nb_execution_mode=off", "-d", tmp_path / "doctrees"]
    done = subprocess.run(
        [
            *(sys.executable, "-m", "sphinx", *options),
            *(ROOT / "docs", tmp_path / "html"),
        ],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    pages = tmp_path / "html" / "generated" / "api"
    reference = "".join(page.read_text() for page in pages.glob("*.html"))
    public = [
        name
        for name, value in vars(keras_lowrank).items()
        if not name.startswith("_")
        and getattr(value, "__module__", "").startswith("keras_lowrank.")
        and callable(value)
    ]
    assert len(public) > 60
    for name in public:
        assert f'id="keras_lowrank.{name}"' in reference, name
