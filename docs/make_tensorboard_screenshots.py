"""Pictures of TensorBoard on the demo, in `docs/images`.

    python docs/make_tensorboard_screenshots.py [LOG_DIR]

With `keras-lowrank[dev]`, a Chromium and its `chromedriver` on the path. Makes
a demo and a small sweep of experiments if no directory of event files is
given.
"""

import contextlib
import pathlib
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request

IMAGES = pathlib.Path(__file__).parent / "images"
CHROMIUM = ("chromium", "chromium-browser", "google-chrome")
SECONDS = 60  # to wait for anything
MOST_BYTES = 150 * 1024  # of a picture

# TensorFlow is not needed, and takes long to import where it is there.
START = """
import sys
import types

name = "tensorboard.compat.notf"
sys.modules[name] = types.ModuleType(name)
from tensorboard.main import run_main

run_main()
"""

SWEEP = """
network = {name = "mlp", depth = 3, width = 50}
data = "digits"
batch_size = 32
learning_rate = 0.1
epochs = 20
[sweep]
weight_decay = [0.0, 1e-3, 1e-2]
seed = [0, 1]
"""

# Of each tab what it is in the address, a word that it shows when it is drawn,
# and the size of the window.
TABS = {
    "time_series": ("timeseries", "rank_mean", (1500, 1000)),
    "custom_scalars": ("custom_scalars", "stable_rank", (1500, 1250)),
    "histograms": ("histograms", "spectrum_log10", (1300, 800)),
    "distributions": ("distributions", "spectrum_log10", (1300, 800)),
    "images": ("images", "spectrum_over_time", (1300, 800)),
    "hparams": ("hparams", "weight_decay", (1500, 600)),
}

# Tabs are trees of elements with shadows, which `find_element` does not see.
WALK = """
function* walk(node) {
  yield node;
  if (node.shadowRoot) yield* walk(node.shadowRoot);
  for (const child of node.childNodes) yield* walk(child);
}
"""
VISIBLE_TEXT = (
    WALK
    + """
const words = [];
for (const node of walk(document.body)) {
  if (node.nodeType !== Node.TEXT_NODE || !node.data.trim()) continue;
  const parent = node.parentElement || node.getRootNode().host;
  if (["STYLE", "SCRIPT", "TEMPLATE"].includes(parent.tagName)) continue;
  if (parent.getClientRects().length) words.push(node.data.trim());
}
return words.join("\\n");
"""
)


@contextlib.contextmanager
def tensorboard(log_dir):
    """TensorBoard on a directory of event files, as the address it serves."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = ["--host", "127.0.0.1", "--port", str(port)]
    log_dir = pathlib.Path(log_dir)
    process = subprocess.Popen(
        [sys.executable, "-c", START, *options, "--logdir", log_dir.name],
        cwd=log_dir.parent,  # the directory is shown
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    address = f"http://127.0.0.1:{port}"
    try:
        wait_for(lambda: _answers(f"{address}/data/runs"), "TensorBoard")
        yield address
    finally:
        process.terminate()
        process.wait()


@contextlib.contextmanager
def browser(size=(1500, 900)):
    """Chromium without a window, driven by Selenium."""
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = next(filter(None, map(shutil.which, CHROMIUM)))
    with tempfile.TemporaryDirectory() as profile:
        for flag in (
            "headless",
            "no-sandbox",
            "disable-gpu",
            "disable-quic",
            "no-first-run",
            "disable-background-networking",
            "disable-component-update",
            "disable-sync",
            f"user-data-dir={profile}",
            f"window-size={size[0]},{size[1]}",
        ):
            options.add_argument(f"--{flag}")
        service = webdriver.ChromeService(shutil.which("chromedriver"))
        driver = webdriver.Chrome(options=options, service=service)
        try:
            yield driver
        finally:
            driver.quit()


def visible_text(driver) -> str:
    """All words on the page, those of elements with shadows among them."""
    return driver.execute_script(VISIBLE_TEXT)


def wait_for(condition, what: str) -> None:
    """Wait until a function without arguments gives something true."""
    end = time.monotonic() + SECONDS
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(f"{what} was not there after {SECONDS} seconds.")
        time.sleep(0.2)


def _answers(address: str) -> bool:
    try:
        with urllib.request.urlopen(address, timeout=5) as answer:
            return len(answer.read()) > len("[]\n")
    except OSError:
        return False


def save(driver, address: str, name: str) -> None:
    """One tab as a picture, of fewer colours where it would be large."""
    from PIL import Image

    tab, word, size = TABS[name]
    driver.set_window_size(*size)
    driver.get("about:blank")
    driver.get(f"{address}/#{tab}")
    wait_for(lambda: word in visible_text(driver), f"'{word}' in {tab}")
    if name == "time_series":
        _filter_tags(driver, "rank")
    time.sleep(4)  # curves are drawn after their titles
    path = IMAGES / f"tensorboard_{name}.png"
    driver.save_screenshot(str(path))
    picture = Image.open(path).convert("RGB")
    picture.save(path, optimize=True)
    if path.stat().st_size > MOST_BYTES:
        picture.quantize(256).save(path, optimize=True)
    print(f"{path}: {path.stat().st_size / 1024:.0f} KiB")


def _filter_tags(driver, expression: str) -> None:
    """Leave room for what is looked for: no settings, and few tags."""
    from selenium.webdriver.common.by import By

    driver.find_element(
        By.CSS_SELECTOR, "input[placeholder^='Filter tags']"
    ).send_keys(expression)
    driver.find_element(
        By.XPATH, "//button[contains(@class, 'settings-button')]"
    ).click()


def make_runs(directory: pathlib.Path) -> pathlib.Path:
    """A demo and a sweep, as event files."""
    command = [sys.executable, "-m", "keras_lowrank_cli"]
    spec = directory / "sweep.toml"
    spec.write_text(SWEEP)
    for words in (
        ["demo", "--out", str(directory / "demo")],
        ["run", str(spec), "--out", str(directory / "runs")],
        ["tensorboard", str(directory / "runs"), "--out", f"{directory}/sweep"],
    ):
        subprocess.run([*command, *words], check=True)
    return directory


def main() -> None:
    """Make all pictures."""
    IMAGES.mkdir(exist_ok=True)
    with contextlib.ExitStack() as stack:
        if sys.argv[1:]:
            root = pathlib.Path(sys.argv[1])
        else:
            root = make_runs(
                pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory()))
            )
        driver = stack.enter_context(browser())
        for log_dir, names in (
            (root / "demo", [name for name in TABS if name != "hparams"]),
            (root / "sweep", ["hparams"]),
        ):
            with tensorboard(log_dir) as address:
                for name in names:
                    save(driver, address, name)


if __name__ == "__main__":
    main()
