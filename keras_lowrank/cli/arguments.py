"""Arguments that several commands take, and command lines that they show."""

import pathlib
import shlex
import shutil
import sys


def add_runs(parser) -> None:
    """Add the recorded runs that a command is about."""
    parser.add_argument(
        "runs",
        nargs="+",
        metavar="RUN",
        help="directories of runs, or directories above them",
    )


def names(text: str | None) -> list[str] | None:
    """Names with commas between, or `None` where none were given."""
    return None if text is None else [name.strip() for name in text.split(",")]


def command_line(command: str, *arguments) -> str:
    """A command line to be copied, whether its environment is active or not.

    Args:
        command: String, a command that is installed beside Python.
        *arguments: Words and paths that follow it.

    Returns:
        String.
    """
    beside = pathlib.Path(sys.executable).with_name(command)
    if shutil.which(command) is None and beside.exists():
        command = str(beside)
    return shlex.join([command, *map(str, arguments)])
