"""TensorBoard and our page in a real browser, on runs just written."""

import importlib.util
import pathlib
import shutil

import numpy as np
import pytest

import keras_lowrank
from keras_lowrank import Spectrum
from keras_lowrank import as_measures
from keras_lowrank.experiments import write_events
from keras_lowrank.experiments.found import found_runs
from keras_lowrank.pages import run_page
from keras_lowrank.records import Measurement
from keras_lowrank.records import Record
from keras_lowrank.records import Recording
from keras_lowrank.records import Store
from keras_lowrank.records import measure_all

SCRIPT = (
    pathlib.Path(keras_lowrank.__file__).parent.parent
    / "docs/make_tensorboard_screenshots.py"
)
MISSING = [
    name
    for name, there in (
        ("docs", SCRIPT.exists()),
        ("chromium", shutil.which("chromium")),
        ("chromedriver", shutil.which("chromedriver")),
        ("selenium", importlib.util.find_spec("selenium")),
    )
    if not there
]
pytestmark = [
    pytest.mark.once,
    pytest.mark.skipif(
        bool(MISSING), reason=f"not installed: {', '.join(MISSING)}"
    ),
]
MEASURES = as_measures(["rank", "stable_rank"])


def recording(base):
    measurements = []
    for epoch in range(6):
        spectrum = Spectrum(base ** -np.arange(8.0 * epoch)[:8], (8, 9))
        if not epoch:
            spectrum = Spectrum(np.ones(8), (8, 9))
        records = [
            Record(name, spectrum, measure_all(MEASURES, spectrum))
            for name in ("first/kernel", "last/kernel")
        ]
        logs = {"loss": 1 / epoch, "val_loss": 2 / epoch} if epoch else {}
        measurements.append(Measurement(epoch, epoch, tuple(records), logs))
    return Recording(MEASURES, {}, measurements)


@pytest.fixture(scope="module")
def tools():
    spec = importlib.util.spec_from_file_location("screenshots", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_custom_scalars_open_on_our_charts(tools, tmp_path):
    for base in (2.0, 4.0):
        write_events(recording(base), tmp_path / f"base {base:g}")
    with tools.tensorboard(tmp_path) as address, tools.browser() as driver:
        driver.get(f"{address}/#custom_scalars")
        tools.wait_for(
            lambda: "rank_mean" in tools.visible_text(driver), "a chart"
        )
        words = tools.visible_text(driver).split("\n")
        for word in ("Means", "Training", "Ranks", "base 2", "base 4"):
            assert word in words, words


def test_the_slider_of_a_page_goes_through_the_epochs(tools, tmp_path):
    for base in (2.0, 4.0):
        store = Store(tmp_path / f"base {base:g}")
        store.start_fit(0, MEASURES, {})
        for measurement in recording(base).measurements:
            store.write(measurement)
        store.close()
    page = tmp_path / "page.html"
    page.write_text(run_page(found_runs([tmp_path])), encoding="utf-8")
    with tools.browser() as driver:
        driver.get(page.as_uri())
        ranks = driver.find_element("id", "ranks")
        assert "base 4: rank 5 of 8. " in ranks.text  # 4**-5 is below 1e-3
        lines = driver.find_elements("css selector", "#canvas polyline")
        assert len(lines) == 3  # the initialisation, and two runs
        driver.execute_script(
            "const slider = document.getElementById('epoch');"
            "slider.value = 0; slider.dispatchEvent(new Event('input'));"
        )
        assert driver.find_element("id", "when").text == "0"
        assert "base 4: rank 8 of 8. " in ranks.text
        shown = driver.find_elements("css selector", "figure img")
        widths = [image.get_property("naturalWidth") for image in shown]
        assert widths and all(widths)
