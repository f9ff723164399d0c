"""`keras-lowrank tensorboard`: recorded runs as event files."""

import pathlib
import shlex
import shutil
import sys

from keras_lowrank.cli.arguments import add_runs


def add_parser(commands):
    """Add the subcommand to a parser's commands."""
    parser = commands.add_parser(
        "tensorboard",
        help="write recorded runs as event files for TensorBoard",
        description=(
            "Write event files for TensorBoard, without TensorFlow: ranks, "
            "spectra as histograms and over time as images, certified beside "
            "measured ranks, charts to open on, and for several experiments "
            "the HParams tab."
        ),
    )
    add_runs(parser)
    parser.add_argument(
        "--out",
        metavar="DIR",
        default="tensorboard",
        help="directory to write to, without event files so far (default: "
        "tensorboard)",
    )
    parser.set_defaults(run=run)
    return parser


def run(options) -> int:
    """Run the subcommand."""
    from keras_lowrank.experiments.board import write_all_events
    from keras_lowrank.experiments.found import found_runs

    for path in write_all_events(found_runs(options.runs), options.out):
        print(f"Event files: {path}")
    print(f"To see them: {show_command(options.out)}")
    return 0


def show_command(log_dir) -> str:
    """The command line that shows event files.

    Args:
        log_dir: Path of their directory, or of one above it.

    Returns:
        String.
    """
    command = "tensorboard"
    beside = pathlib.Path(sys.executable).with_name(command)
    if shutil.which(command) is None and beside.exists():
        command = str(beside)
    return shlex.join([command, "--logdir", str(log_dir)])
