"""`keras-lowrank plot`: figures of recorded runs."""

import pathlib

from keras_lowrank.cli.arguments import add_runs
from keras_lowrank.cli.arguments import names

FORMATS = ("png", "svg", "pdf")


def add_parser(commands):
    """Add the subcommand to a parser's commands."""
    parser = commands.add_parser(
        "plot",
        help="draw figures of recorded runs",
        description=(
            "Draw ranks over epochs, spectra, spectra over time, norms, ranks "
            "against accuracy, on the decay clock, against a hyperparameter "
            "and over two, and what truncation would save: each that the "
            "runs allow, as a file."
        ),
    )
    add_runs(parser)
    parser.add_argument(
        "--out",
        metavar="DIR",
        default="figures",
        help="directory to write to (default: figures)",
    )
    parser.add_argument(
        "--kinds",
        metavar="NAMES",
        help="which figures, with commas between: ranks, weights, spectra, "
        "time, norms, accuracy, collapse, final, contours, theory, "
        "compressibility "
        "(default: all that the runs allow)",
    )
    parser.add_argument(
        "--measures",
        metavar="NAMES",
        help="what to draw, with commas between, as in rank,stable_rank "
        "(default: what was recorded)",
    )
    parser.add_argument(
        "--weights",
        metavar="REGEX",
        help="which weight matrices, by a regular expression searched in "
        "their names",
    )
    parser.add_argument(
        "--metric",
        default="val_accuracy",
        help="the log that ranks are drawn against (default: val_accuracy)",
    )
    parser.add_argument(
        "--against",
        metavar="FIELD",
        help="the field of the experiments that final ranks are drawn "
        "against, or two with a comma between for contours (default: the "
        "numbers in which they differ)",
    )
    parser.add_argument(
        "--format",
        choices=FORMATS,
        default="png",
        help="of the files (default: png)",
    )
    parser.set_defaults(run=run)
    return parser


def run(options) -> int:
    """Run the subcommand."""
    from keras_lowrank.experiments.found import found_runs
    from keras_lowrank.pages import gallery

    pictures = gallery(
        found_runs(options.runs),
        names(options.kinds),
        names(options.measures),
        options.weights,
        options.metric,
        options.against,
    )
    out = pathlib.Path(options.out)
    drawn: dict[str, int] = {}
    for picture in pictures:
        drawn[picture.kind] = drawn.get(picture.kind, 0) + 1
        count = drawn[picture.kind]
        stem = picture.kind if count == 1 else f"{picture.kind}_{count}"
        out.mkdir(parents=True, exist_ok=True)
        path = out / f"{stem}.{options.format}"
        picture.draw().savefig(path, dpi=150)
        print(f"{path}: {picture.title}. {picture.says}")
    return 0
