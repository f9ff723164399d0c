"""Tutorials as notebooks: Python files in jupytext's percent format."""

import jupytext


def read(text: str):
    """A notebook of the text of a tutorial.

    Args:
        text: String, Python in the percent format.

    Returns:
        A notebook that says which kernel runs it, and in which language.
    """
    notebook = jupytext.reads(text, fmt="py:percent")
    notebook.metadata["kernelspec"] = {
        "name": "python3",
        "display_name": "Python 3",
        "language": "python",
    }
    notebook.metadata["language_info"] = {
        "name": "python",
        "pygments_lexer": "ipython3",
    }
    return notebook
