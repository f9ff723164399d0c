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
_LINK = re.compile(r"(\]\()(?!https?:|mailto:|#)([^)\s]+)(\))")


def write(folder: pathlib.Path) -> None:
    """Write the pages into a folder of the documentation.

    Args:
        folder: Path, made where it is missing.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tables = [
        adapted(path, folder, deeper=1)
        for path in sorted(ROOT.glob("benchmarks/results/*.md"))
    ]
    pages = {
        "results.md": adapted(ROOT / "results/README.md", folder, deeper=1),
        "benchmarks.md": "\n".join(tables) or NO_TABLES,
        "changelog.md": adapted(ROOT / "CHANGELOG.md", folder),
        "architecture.md": adapted(ROOT / "ARCHITECTURE.md", folder),
        "contributing.md": adapted(ROOT / "CONTRIBUTING.md", folder),
    }
    for name, text in pages.items():
        write_changed(folder / name, text)


def adapted(path: pathlib.Path, folder: pathlib.Path, deeper: int = 0) -> str:
    """The text of a document, as it is read from another folder.

    Args:
        path: Path of a Markdown file.
        folder: Path of the folder that it is to be read from.
        deeper: Int, levels by which headings move down.

    Returns:
        Markdown text whose links lead where they led.
    """
    away = pathlib.PurePath(os.path.relpath(path.parent, folder))

    def moved(found: re.Match) -> str:
        target = os.path.normpath(away / found[2])
        return f"{found[1]}{pathlib.PurePath(target).as_posix()}{found[3]}"

    text = _LINK.sub(moved, path.read_text())
    return re.sub(r"^#", "#" * (1 + deeper), text, flags=re.MULTILINE)


def write_changed(path: pathlib.Path, text: str) -> None:
    """Write a file unless it says the same: Sphinx reads anew what changed."""
    if not path.exists() or path.read_text() != text:
        path.write_text(text)
