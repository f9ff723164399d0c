"""Docstrings as Keras writes them, in Markdown, made into what Sphinx reads.

Links, fenced code and tables of Markdown become those of reStructuredText,
and formulas are put below the first line of what has one.
"""

import re

from formulas import FORMULAS

_LINK = re.compile(
    r"\[([^\]\[]+)\]\(\s*(https?://(?:[^()\s]|\([^()\s]*\))+)\s*\)"
)
# A name in backticks with letters after it, as a plural has.
_PLURAL = re.compile(r"(?<!`)(`[^`\n]+`)(?=[A-Za-z])")
_OPEN = re.compile(r"^( *)```(\w+)$")
_ROW = re.compile(r"^( *)\|(.+)\|\s*$")


def setup(app):
    """Register with Sphinx, before napoleon."""
    app.connect("autodoc-process-docstring", process, priority=100)
    return {"parallel_read_safe": True}


def process(app, what, name, object_, options, lines: list[str]) -> None:
    """Rewrite the lines of a docstring in place, as autodoc wants it."""
    text = "\n".join(lines)
    text = _LINK.sub(_link, text)
    text = _PLURAL.sub(r"\1\\ ", text)
    found = _tables(_fences(text.split("\n")))
    formula = FORMULAS.get(name.removeprefix("keras_lowrank."))
    if formula:
        at = found.index("") if "" in found else len(found)
        found[at:at] = ["", f".. math:: {formula}", ""]
    lines[:] = found


def _link(found: re.Match) -> str:
    words = " ".join(found[1].replace("`", "").split())
    return f"`{words} <{found[2]}>`__"


def _fences(lines: list[str]) -> list[str]:
    """Fenced blocks as directives."""
    found: list[str] = []
    inside = None
    for line in lines:
        opened = _OPEN.match(line)
        if inside is None and opened:
            inside = opened[1]
            found += [f"{inside}.. code-block:: {opened[2]}", ""]
        elif inside is not None and line.strip() == "```":
            inside = None
            found.append("")
        elif inside is not None:
            found.append(f"   {line}" if line.strip() else "")
        else:
            found.append(line)
    return found


def _tables(lines: list[str]) -> list[str]:
    """Tables with bars as list tables."""
    found: list[str] = []
    inside = False
    for line in lines:
        row = _ROW.match(line)
        if not row:
            found += ["", line] if inside else [line]
            inside = False
            continue
        indent, cells = row[1], [cell.strip() for cell in row[2].split("|")]
        if all(re.fullmatch(r":?-+:?", cell) for cell in cells):
            continue
        if not inside:
            found += [f"{indent}.. list-table::", f"{indent}   :header-rows: 1"]
            found.append("")
            inside = True
        for place, cell in enumerate(cells):
            found.append(f"{indent}   {'*' if not place else ' '} - {cell}")
    return found
