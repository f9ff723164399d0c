"""`keras-lowrank report`: the story of recorded runs as one page."""

import pathlib

from keras_lowrank.cli.arguments import add_runs
from keras_lowrank.cli.arguments import names


def add_parser(commands):
    """Add the subcommand to a parser's commands."""
    parser = commands.add_parser(
        "report",
        help="tell the story of recorded runs on one page of HTML",
        description=(
            "Write one page that needs no other file and no network: settings, "
            "curves, spectra with a slider over the epochs, tables, and what "
            "to mind."
        ),
    )
    add_runs(parser)
    parser.add_argument(
        "--out",
        metavar="FILE",
        default="report.html",
        help="the page (default: report.html)",
    )
    parser.add_argument(
        "--weights",
        metavar="REGEX",
        help="which weight matrices figures show, by a regular expression "
        "searched in their names",
    )
    parser.add_argument(
        "--measures",
        metavar="NAMES",
        help="what figures show, with commas between (default: what was "
        "recorded)",
    )
    parser.set_defaults(run=run)
    return parser


def run(options) -> int:
    """Run the subcommand."""
    from keras_lowrank.experiments.found import found_runs
    from keras_lowrank.pages import run_page

    runs = found_runs(options.runs)
    page = run_page(
        runs,
        f"keras-lowrank report {' '.join(options.runs)}",
        names(options.measures),
        options.weights,
    )
    path = pathlib.Path(options.out)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(page, encoding="utf-8")
    count = "1 run" if len(runs) == 1 else f"{len(runs)} runs"
    print(f"Page: {path} ({count}, {len(page) / 2**20:.1f} MiB)")
    return 0
