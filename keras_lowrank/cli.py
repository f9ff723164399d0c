"""`keras-lowrank`: what the library does, from a shell."""

import argparse
import pathlib
import shutil
import sys
from collections.abc import Sequence

from keras_lowrank.version import __version__
from keras_lowrank_cli import BACKENDS


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a subcommand.

    Args:
        arguments: Words of the command line, `sys.argv[1:]` by default.

    Returns:
        Exit status: 0, or 1 with a line on standard error that says why.
    """
    options = _parser().parse_args(arguments)
    try:
        _check_backend(options.backend)
        return options.run(options)
    except (ImportError, OSError, ValueError) as error:
        print(f"keras-lowrank: {error}", file=sys.stderr)
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="keras-lowrank",
        description="See the low rank that SGD with weight decay gives.",
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(required=True, metavar="command")

    demo = commands.add_parser(
        "demo",
        help="watch ranks fall: one network, with and without weight decay",
        description=(
            "Train the paper's MLP with batch normalisation on the digits of "
            "scikit-learn, twice from the same seed, without and with weight "
            "decay. Leaves the records of both runs and a figure."
        ),
    )
    demo.add_argument(
        "--out",
        metavar="DIR",
        help="directory to write to (default: the next free runs/demo-N)",
    )
    demo.add_argument(
        "--epochs", type=int, default=150, help="epochs (default: 150)"
    )
    demo.add_argument("--seed", type=int, default=0, help="seed (default: 0)")
    demo.set_defaults(run=_demo)

    inspect = commands.add_parser(
        "inspect",
        help="print the ranks of a saved model",
        description="Print the rank report of a `.keras` file.",
    )
    inspect.add_argument("model", help="path of a model saved by `model.save`")
    inspect.add_argument(
        "--json", action="store_true", help="print JSON instead of a table"
    )
    inspect.add_argument(
        "--strict",
        action="store_true",
        help="fail when a kernel belongs to an unknown kind of layer",
    )
    inspect.set_defaults(run=_inspect)

    for command in (demo, inspect):
        command.add_argument(
            "--backend",
            choices=BACKENDS,
            help="backend of Keras (default: its own choice, if installed)",
        )
    return parser


def _check_backend(name: str | None) -> None:
    import keras

    if name not in (None, keras.backend.backend()):
        raise ValueError(
            f"Keras runs on {keras.backend.backend()} already. Received: "
            f"--backend {name}. Use the command `keras-lowrank`, or set the "
            f"environment variable KERAS_BACKEND={name}."
        )


def _demo(options) -> int:
    import rich.console

    from keras_lowrank.experiments.demo import Demo
    from keras_lowrank.experiments.demo import comparison_table
    from keras_lowrank.experiments.demo import run_demo

    if options.epochs < 1:
        raise ValueError(
            f"`--epochs` must be 1 or more. Received: {options.epochs}."
        )
    console = rich.console.Console(highlight=False)
    out_dir = pathlib.Path(options.out) if options.out else _next_free()
    settings = Demo(epochs=options.epochs, seed=options.seed)
    without, with_decay = run_demo(out_dir, settings, console)

    console.print()
    comparison_table((without, with_decay)).print()
    start, end = (
        twin.recording.measurements[-1].mean("stable_rank")
        for twin in (without, with_decay)
    )
    console.print(
        f"\nMean stable rank of the hidden layers with decay: {end:.2f}, "
        f"{100 * end / start:.0f} % of the {start:.2f} without it. "
        f"Test accuracy {with_decay.accuracy:.3f} with, "
        f"{without.accuracy:.3f} without."
    )
    for twin in (without, with_decay):
        console.print(
            f"Records {twin.label}: {twin.run_dir} "
            f"(measuring took {100 * twin.overhead:.1f} % of the fit)",
            soft_wrap=True,
        )
    console.print(f"Figure: {out_dir / 'ranks.png'}", soft_wrap=True)
    console.print(
        f"TensorBoard: {_tensorboard_command()} --logdir {out_dir}",
        soft_wrap=True,
    )
    return 0


def _next_free() -> pathlib.Path:
    number = 1
    while (path := pathlib.Path("runs", f"demo-{number}")).exists():
        number += 1
    return path


def _tensorboard_command() -> str:
    if shutil.which("tensorboard"):
        return "tensorboard"
    beside = pathlib.Path(sys.executable).with_name("tensorboard")
    return str(beside) if beside.exists() else "tensorboard"


def _inspect(options) -> int:
    import keras

    from keras_lowrank.report import rank_report

    report = rank_report(
        keras.saving.load_model(options.model), strict=options.strict
    )
    print(report.to_json() if options.json else report.render())
    return 0


if __name__ == "__main__":
    sys.exit(main())
