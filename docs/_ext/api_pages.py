"""One page of the reference for each room of the package.

What `import keras_lowrank as kl` gives comes first, by the name that users
write; then what else the room exports. No name is listed by hand, so that none
is forgotten.
"""

import importlib
import inspect
import pathlib

from included import write_changed

import keras_lowrank

# Rooms in the order of the pages, with what they are for.
ROOMS = {
    "callbacks": "Callbacks",
    "records": "Records and runs on disk",
    "report": "Reports of models",
    "checkpoints": "Files",
    "spectrum": "Spectra",
    "measures": "Measures",
    "baselines": "Baselines",
    "channels": "Dead channels",
    "weights": "Weight matrices",
    "matricize": "Matricization",
    "linalg": "Linear algebra",
    "decay": "Weight decay",
    "regularizers": "Regularizers",
    "layers": "Layers",
    "theory": "Theory",
    "gradients": "Gradients",
    "compress": "Compression",
    "plots": "Plots",
    "pages": "Pages of runs",
    "experiments": "Experiments",
    "experiments.data": "Data sets",
    "experiments.models": "Networks",
    "experiments.compare": "Comparing backends",
    "experiments.paper": "The paper's figures",
    "search": "Searches",
    "tables": "Tables",
}
# Exported when they are asked for, and so not seen in the module.
LAZY = {
    "search": ("RankHyperModel",),
    "linalg": ("tensor_spectrum", "thresholded", "polar_factor"),
}


def write(folder: pathlib.Path) -> None:
    """Write a page per room, and the page that lists them.

    Args:
        folder: Path, made where it is missing.
    """
    folder.mkdir(parents=True, exist_ok=True)
    seen: set[int] = set()
    for room, title in ROOMS.items():
        write_changed(folder / f"{room}.rst", page(room, title, seen))
    entries = "\n".join(f"   {title} <{room}>" for room, title in ROOMS.items())
    write_changed(
        folder / "index.rst",
        _heading("API reference", "=")
        + "What ``import keras_lowrank as kl`` gives is written ``kl.name``; "
        "the rest is imported from its room. Formulas, and what is said of "
        "zero matrices and of NaN, are on the page :doc:`/definitions`.\n\n"
        f".. toctree::\n   :maxdepth: 1\n\n{entries}\n",
    )


def page(room: str, title: str, seen: set[int]) -> str:
    """The page of a room.

    Args:
        room: String, the module below `keras_lowrank`.
        title: String.
        seen: Set of ids of what has been described on other pages; those of
            this one are added.

    Returns:
        Text of the page.
    """
    module = importlib.import_module(f"keras_lowrank.{room}")
    first = (inspect.getdoc(module) or "").split("\n\n")[0]
    parts = [_heading(title, "="), f"``keras_lowrank.{room}``: {first}\n\n"]
    names = [*_exported(module), *LAZY.get(room, ())]
    values = {name: getattr(module, name) for name in names}
    paths = {
        name: f"keras_lowrank.{name}"
        if getattr(keras_lowrank, name, None) is value
        else f"{module.__name__}.{name}"
        for name, value in values.items()
    }
    # What users write comes first, `keras_lowrank.name`.
    for name in sorted(names, key=lambda name: paths[name].count(".")):
        if id(values[name]) not in seen:
            seen.add(id(values[name]))
            parts.append(_described(values[name], paths[name]))
    return "".join(parts)


def _exported(module) -> list[str]:
    """Functions and classes of a room, in the order they are imported."""
    return [
        name
        for name, value in vars(module).items()
        if not name.startswith("_")
        and (inspect.isclass(value) or inspect.isfunction(value))
        and value.__module__.startswith("keras_lowrank")
        and inspect.getdoc(value)
    ]


def _described(value, path: str) -> str:
    if inspect.isclass(value):
        return f".. autoclass:: {path}\n   :members:\n\n"
    return f".. autofunction:: {path}\n\n"


def _heading(text: str, line: str) -> str:
    return f"{text}\n{line * len(text)}\n\n"
