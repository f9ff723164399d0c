"""What the documents say is run, and is true."""

import pathlib
import re

import pytest

import keras_lowrank

ROOT = pathlib.Path(keras_lowrank.__file__).parent.parent
README = (ROOT / "README.md").read_text()
HOWTO = ROOT / "docs" / "howto"
# Their Python goes on from the block of the index. `docs/distributed.md` needs
# processes of its own, and has programs in `examples/distributed`.
PAGES = sorted({*HOWTO.glob("*.md"), *ROOT.glob("docs/migrate/*.md")})


def blocks_of(path):
    return re.findall(r"```python\n(.*?)```", path.read_text(), re.DOTALL)


def test_readme_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "120")
    blocks = blocks_of(ROOT / "README.md")
    assert len(blocks) >= 2
    names = {}
    for block in blocks:
        exec(compile(block, "README.md", "exec"), names)
    out = capsys.readouterr().out
    assert out.count("hidden/kernel") == 2  # a summary and a stored run
    assert "% of the fit" in " ".join(out.split())
    recording = names["kl"].open_run("runs/first")
    assert recording.epochs[0] == 0 and recording.epochs[-1] == 5
    assert list(pathlib.Path("runs/first").glob("events.*"))


@pytest.mark.once
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_page_runs(page, tmp_path, monkeypatch):
    blocks = blocks_of(page)
    if not blocks:
        pytest.skip("has no Python")
    monkeypatch.chdir(tmp_path)
    names = {}
    for block in blocks_of(HOWTO / "index.md") + blocks:
        exec(compile(block, page.name, "exec"), names)


@pytest.mark.once
def test_every_measure_is_defined():
    text = (ROOT / "docs" / "definitions.md").read_text()
    for name in keras_lowrank.MEASURES:
        assert f"| `{name}` |" in text, name


@pytest.mark.once
def test_links_and_pictures_are_there():
    for target in re.findall(r"\]\((?!http)([^)]+)\)", README):
        assert (ROOT / target).exists(), target


@pytest.mark.once
def test_citation_has_the_version():
    text = (ROOT / "CITATION.cff").read_text()
    assert f"\nversion: {keras_lowrank.__version__}\n" in text


@pytest.mark.once
def test_extras_in_messages_exist():
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    pages = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")]
    for path in [*pages, *ROOT.glob("keras_lowrank*/**/*.py")]:
        for extra in re.findall(r"keras-lowrank\[(\w+)\]", path.read_text()):
            assert extra in project["optional-dependencies"], path
