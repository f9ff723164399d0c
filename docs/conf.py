"""Configuration of Sphinx. `make docs` runs it."""

import os
import pathlib
import sys

DOCS = pathlib.Path(__file__).parent
sys.path[:0] = [str(DOCS.parent), str(DOCS / "_ext")]
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import api_pages  # noqa: E402
import included  # noqa: E402

import keras_lowrank  # noqa: E402

# Pages that are made, not written: of docstrings, and of documents that live
# beside what they tell of.
GENERATED = DOCS / "generated"
api_pages.write(GENERATED / "api")
included.write(GENERATED)

project = "keras_lowrank"
author = "The keras_lowrank authors"
project_copyright = author
version = release = keras_lowrank.__version__

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.mathjax",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
    "included",
    "keras_docstrings",
]
exclude_patterns = [
    "_build",
    "_ext",
    "conf.py",
    "make_tensorboard_screenshots.py",
    "generated/benchmarks.md",  # parts of other pages
    "generated/results.md",
]
suppress_warnings = ["mystnb.unknown_mime_type"]

# Tutorials are Python files in jupytext's percent format. `make docs` runs
# them; `-D nb_execution_mode=off` builds the pages alone.
nb_custom_formats = {".py": "notebooks.read"}
nb_execution_mode = "force"
nb_execution_in_temp = True
nb_execution_timeout = 600
nb_execution_raise_on_error = True
nb_merge_streams = True
# TensorFlow greets there, also where it only lies beside.
nb_output_stderr = "remove"

myst_enable_extensions = ["colon_fence", "dollarmath"]
myst_heading_anchors = 3

# Docstrings are Keras': a name in single backticks is code.
default_role = "code"
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True
napoleon_use_rtype = False
napoleon_custom_sections = [
    ("Call arguments", "params_style"),
    ("Reference", "References"),
]
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
python_use_unqualified_type_names = True
# Types are named for people: most are of Keras, NumPy or the standard library.
nitpick_ignore_regex = [("py:.*", ".*")]

html_theme = "furo"
html_title = f"keras_lowrank {release}"
html_static_path: list[str] = []
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True
