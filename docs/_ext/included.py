"""Pages made of documents that stand beside what they tell of.

Results stand in `results/`, tables of benchmarks in `benchmarks/results/`.
They are read where they are, so that nothing is typed twice; their links,
which are relative to where they are, are made to lead there from here.
"""

import os
import pathlib
import re

ROOT = pathlib.Path(__file__).parent.parent.parent
NO_TABLES = (
    "No tables are kept in this revision. `make bench` writes them to "
    "`benchmarks/results`.\n"
)
# Headings, and how the names of the tables below them begin.
TABLES = {
    "Targets": "targets",
    "Spectra of whole networks": "spectra",
    "In a fit": "overhead",
    "With width and depth": "growth",
    "More": "",
}
# Documents that have a page, by their paths.
PAGES = {
    "results/README.md": "results.md",
    "CHANGELOG.md": "changelog.md",
    "ARCHITECTURE.md": "architecture.md",
    "CONTRIBUTING.md": "contributing.md",
    "examples/README.md": "examples.md",
    "examples/compare_demo/report.md": "compare_demo.md",
    "examples/compressibility/README.md": "compressibility.md",
    "examples/search_digits/README.md": "search_digits.md",
}
_LINK = re.compile(r"(\]\()(?!https?:|mailto:|#)([^)\s]+)(\))")

_PROGRAM = re.compile(r"\[([^\]]+)\]\(([^)\s:]+\.(?:py|toml))\)")


def setup(app):
    """Register with Sphinx."""
    app.connect("source-read", as_on_the_site)
    return {"parallel_read_safe": True}


def as_on_the_site(app, docname, source) -> None:
    """Links to documents as to their pages, to programs as downloads."""
    if docname.startswith("tutorials/"):
        return
    folder = (pathlib.Path(app.srcdir) / docname).parent
    text = _LINK.sub(lambda link: moved(link, folder, folder), source[0])
    source[0] = _PROGRAM.sub(r"{download}`\1 <\2>`", text)


def write(folder: pathlib.Path) -> None:
    """Write the pages into a folder of the documentation.

    Args:
        folder: Path, made where it is missing.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for document, name in PAGES.items():
        if name == "results.md":  # goes on below the title of another page
            text = adapted(ROOT / document, folder.parent, deeper=1)
        else:
            text = adapted(ROOT / document, folder)
        write_changed(folder / name, text)
    write_changed(folder / "benchmarks.md", tables(folder.parent) or NO_TABLES)


def tables(folder: pathlib.Path) -> str:
    """The tables of the benchmarks, those first that answer most.

    Args:
        folder: Path of the folder of the page that shows them.

    Returns:
        Markdown text, empty where there are none.
    """
    left = sorted(ROOT.glob("benchmarks/results/*.md"))
    parts = []
    for heading, first in TABLES.items():
        chosen = [path for path in left if path.stem.startswith(first)]
        left = [path for path in left if path not in chosen]
        if chosen:
            parts.append(f"## {heading}\n")
        parts += [adapted(path, folder, deeper=1) for path in chosen]
    return "\n".join(parts)


def adapted(path: pathlib.Path, folder: pathlib.Path, deeper: int = 0) -> str:
    """The text of a document, as it is read from another folder.

    Args:
        path: Path of a Markdown file.
        folder: Path of the folder of the page that shows it.
        deeper: Int, levels by which headings move down.

    Returns:
        Markdown text whose links lead where they led.
    """
    text = _LINK.sub(
        lambda link: moved(link, path.parent, folder), path.read_text()
    )
    return re.sub(r"^#", "#" * (1 + deeper), text, flags=re.MULTILINE)


def moved(link: re.Match, here: pathlib.Path, folder: pathlib.Path) -> str:
    """A link of a document, so that it leads there from a page."""
    before, to, after = link.groups()
    target = (here / to).resolve()
    own = PAGES.get(os.path.relpath(target, ROOT))
    if own is not None:
        target = ROOT / "docs/generated" / own
    to = pathlib.PurePath(os.path.relpath(target, folder)).as_posix()
    return f"{before}{to}{after}"


def write_changed(path: pathlib.Path, text: str) -> None:
    """Write a file unless it says the same: Sphinx reads anew what changed."""
    if not path.exists() or path.read_text() != text:
        path.write_text(text)
