"""`keras-lowrank run`: train what a file says."""

import json


def add_parser(commands):
    """Add the subcommand to a parser's commands."""
    parser = commands.add_parser(
        "run",
        help="train the experiments of a TOML or JSON file",
        description=(
            "Train the experiment of a TOML or JSON file, with the fields of "
            "`ExperimentSpec`; a table `sweep` of fields and lists of values "
            "makes it many. Runs that are complete are not trained again, and "
            "those that were stopped go on."
        ),
    )
    parser.add_argument("spec", help="path of a `.toml` or `.json` file")
    parser.add_argument(
        "--out",
        metavar="DIR",
        default="runs",
        help="directory of all runs (default: runs)",
    )
    parser.add_argument(
        "--workers",
        type=int,
        metavar="N",
        help="processes at once, where runs do not share a program "
        "(default: as many as cores)",
    )
    parser.add_argument(
        "--checkpoint-seconds",
        type=float,
        default=30.0,
        metavar="S",
        help="least time between checkpoints (default: 30)",
    )
    parser.add_argument(
        "--keep-model",
        action="store_true",
        help="leave the trained network too, as `model.keras`",
    )
    parser.add_argument(
        "--json",
        action="store_true",
        help="print a line of JSON for each epoch, for other programs",
    )
    parser.set_defaults(run=run)
    return parser


def run(options) -> int:
    """Run the subcommand."""
    import rich.console

    from keras_lowrank.experiments.progress import Progress
    from keras_lowrank.experiments.run_all import run_all
    from keras_lowrank.experiments.runs import summary
    from keras_lowrank.experiments.specs import read_specs

    specs = read_specs(options.spec)
    settings = {
        "out_dir": options.out,
        "workers": options.workers,
        "checkpoint_seconds": options.checkpoint_seconds,
        "keep_model": options.keep_model,
    }
    if options.json:
        run_all(specs, report=_print_json, **settings)
        return 0
    console = rich.console.Console(highlight=False)
    with Progress(specs, console) as progress:
        done = run_all(specs, report=progress.report, **settings)
    summary(done).print()
    for item in done:
        console.print(f"Records: {item.run_dir}", soft_wrap=True)
    return 0


def _print_json(spec, epoch, epochs, logs) -> None:
    told = {"id": spec.id, "epoch": epoch, "epochs": epochs, "logs": logs}
    print(json.dumps(told), flush=True)
