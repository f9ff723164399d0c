"""`keras-lowrank tensorboard`: recorded runs as event files."""

from keras_lowrank.cli.arguments import add_runs
from keras_lowrank.cli.arguments import command_line


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
    shown = command_line("tensorboard", "--logdir", options.out)
    print(f"To see them: {shown}")
    return 0
