"""`keras-lowrank`: what the library does, from a shell."""

import argparse
import sys
from collections.abc import Sequence

from keras_lowrank.cli import compare
from keras_lowrank.cli import compress
from keras_lowrank.cli import demo
from keras_lowrank.cli import inspect
from keras_lowrank.cli import plot
from keras_lowrank.cli import report
from keras_lowrank.cli import reproduce
from keras_lowrank.cli import run
from keras_lowrank.cli import search
from keras_lowrank.cli import tensorboard
from keras_lowrank.version import __version__
from keras_lowrank_cli import BACKENDS

COMMANDS = (
    demo,
    run,
    plot,
    report,
    tensorboard,
    compare,
    search,
    compress,
    reproduce,
    inspect,
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a subcommand.

    Args:
        arguments: Words of the command line, `sys.argv[1:]` by default.

    Returns:
        Exit status: 0, or 1 with a line on standard error that says why; and
        2 from `compare` where backends differ. `inspect` has its own: 1 where
        a threshold is met, 2 for an error.
    """
    return execute(parse(arguments))


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """What a command line asks for. Imports nothing that takes long.

    Args:
        arguments: As for `main`.

    Returns:
        Namespace, whose `command` is the name of the subcommand.
    """
    return _parser().parse_args(arguments)


def execute(options: argparse.Namespace) -> int:
    """Run the subcommand that was parsed.

    Args:
        options: Namespace, as from `parse`.

    Returns:
        Exit status, as of `main`.
    """
    try:
        _check_backend(options.backend)
        return options.run(options)
    except (ImportError, OSError, RuntimeError, TypeError, ValueError) as error:
        if not str(error):
            raise
        print(f"keras-lowrank: {error}", file=sys.stderr)
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="keras-lowrank",
        description="See the low rank that SGD with weight decay gives.",
        epilog="Begin with `keras-lowrank demo`. Each command has its --help.",
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(
        required=True, dest="command", metavar="command"
    )
    for command in COMMANDS:
        command.add_parser(commands).add_argument(
            "--backend",
            choices=BACKENDS,
            help="backend of Keras (default: its own choice, if installed)",
        )
    return parser


def _check_backend(name: str | None) -> None:
    if name is None:
        return  # a file is inspected without Keras
    import keras

    if name != keras.backend.backend():
        raise ValueError(
            f"Keras runs on {keras.backend.backend()} already. Received: "
            f"--backend {name}. Use the command `keras-lowrank`, or set the "
            f"environment variable KERAS_BACKEND={name}."
        )
