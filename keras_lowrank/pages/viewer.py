"""Spectra with a slider over the epochs: data for a script in the page."""

import importlib.resources
import json
from collections.abc import Sequence
from typing import Any

import numpy as np

from keras_lowrank.experiments.found import FoundRun
from keras_lowrank.measures import numerical_rank
from keras_lowrank.spectrum import Spectrum
from keras_lowrank.thinning import evenly

TOLERANCE = 1e-3  # of the default numerical rank
# What of long runs and large matrices a page holds, evenly chosen.
MOST_EPOCHS = 60
MOST_VALUES = 200
LEAST = 1e-9  # what is smaller is drawn there


def viewer(runs: Sequence[FoundRun]) -> list[str]:
    """Parts of a page that show the spectra of runs, epoch by epoch.

    Args:
        runs: Sequence of `FoundRun`.

    Returns:
        List of strings of HTML.
    """
    data = json.dumps(spectra_data(runs), separators=(",", ":"))
    script = (
        importlib.resources.files(__package__)
        .joinpath("viewer.js")
        .read_text(encoding="utf-8")
    )
    return [
        '<div id="viewer">',
        '<p class="controls"><label>Weight matrix '
        '<select id="weight"></select></label> ',
        '<label>Epoch <input id="epoch" type="range" min="0" step="1"></label> '
        '<output id="when" for="epoch"></output></p>',
        '<svg id="canvas" viewBox="0 0 720 380" role="img" '
        'aria-label="Singular values over their index"></svg>',
        '<p id="ranks"></p>',
        "</div>",
        "<noscript><p>The slider needs JavaScript; the figures below show "
        "the last spectra without it.</p></noscript>",
        # JSON in a script must not be able to end it.
        '<script type="application/json" id="data">'
        f"{data.replace('<', chr(92) + 'u003c')}</script>",
        f"<script>{script}</script>",
    ]


def spectra_data(runs: Sequence[FoundRun]) -> dict[str, Any]:
    """The spectra of runs as the script reads them.

    Args:
        runs: Sequence of `FoundRun`.

    Returns:
        Dict of `tolerance`; `weights`, their names; and `runs`, each with its
        `name`, its `epochs`, and `spectra`: for each weight and epoch the
        places of the values, `sigma_i / ||W||_F` there, and the rank (`null`
        for a matrix that is not finite).
    """
    names = dict.fromkeys(
        weight for run in runs for weight in run.recording.weights
    )
    return {
        "tolerance": TOLERANCE,
        "least": LEAST,
        "weights": list(names),
        "runs": [_run(run) for run in runs],
    }


def _run(run: FoundRun) -> dict[str, Any]:
    epochs = np.array(run.recording.epochs)
    chosen = epochs[evenly(len(epochs), MOST_EPOCHS)].tolist()
    return {
        "name": run.name,
        "epochs": chosen,
        "spectra": {
            weight: {
                epoch: _spectrum(spectrum)
                for epoch, spectrum in run.recording.spectra(weight).items()
                if epoch in chosen
            }
            for weight in run.recording.weights
        },
    }


def _spectrum(spectrum: Spectrum) -> dict[str, Any]:
    if not spectrum.finite:
        return {"at": [], "values": [], "rank": None, "full": 0}
    values = np.asarray(spectrum.values)
    norm = np.linalg.norm(values) or 1.0
    at = evenly(len(values), MOST_VALUES)
    return {
        "at": (at + 1).tolist(),
        "values": [float(f"{value:.4g}") for value in values[at] / norm],
        "rank": numerical_rank(spectrum, TOLERANCE),
        "full": min(spectrum.shape),
    }
