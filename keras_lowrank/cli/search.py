"""`keras-lowrank search`: find low rank at no cost in accuracy."""

import dataclasses
import pathlib


def add_parser(commands):
    """Add the subcommand to a parser's commands."""
    parser = commands.add_parser(
        "search",
        help="search for batch size, learning rate and weight decay by rank",
        description=(
            "Search from the experiment of a TOML or JSON file, the default, "
            "over the fields in its table `search.space`, with several seeds "
            "at every point: by default for the lowest rank among those that "
            "are as accurate as the default. A search that was killed goes "
            "on where it was. With KerasTuner's environment variables "
            "(KERASTUNER_TUNER_ID, KERASTUNER_ORACLE_IP and "
            "KERASTUNER_ORACLE_PORT) it runs over machines that share DIR."
        ),
    )
    parser.add_argument("spec", help="path of a `.toml` or `.json` file")
    parser.add_argument(
        "--out",
        metavar="DIR",
        help="directory of the search (default: searches/<name of the file>)",
    )
    parser.add_argument(
        "--workers",
        type=int,
        default=1,
        metavar="N",
        help="trials at once, each in a process of its own (default: 1)",
    )
    parser.add_argument(
        "--trials",
        type=int,
        metavar="N",
        help="points to try, in place of those of the file",
    )
    parser.add_argument(
        "--checkpoint-seconds",
        type=float,
        default=30.0,
        metavar="S",
        help="least time between checkpoints (default: 30)",
    )
    parser.add_argument(
        "--lease-seconds",
        type=float,
        default=60.0,
        metavar="S",
        help="over machines: how long a worker may be silent before its trial "
        "is another's (default: 60)",
    )
    parser.set_defaults(run=run)
    return parser


def run(options) -> int:
    """Run the subcommand."""
    import rich.console

    from keras_lowrank.search.objective import LowestRank
    from keras_lowrank.search.progress import SearchProgress
    from keras_lowrank.search.report import write_report
    from keras_lowrank.search.search import search
    from keras_lowrank.search.spec import read_search_spec
    from keras_lowrank.search.trials import DEFAULT_TRIAL
    from keras_lowrank.search.trials import read_trials

    asked = read_search_spec(options.spec)
    if options.trials is not None:
        asked = dataclasses.replace(asked, trials=options.trials)
    out_dir = pathlib.Path(
        options.out or f"searches/{pathlib.Path(options.spec).stem}"
    )
    console = rich.console.Console(highlight=False)
    goals = (asked.objective or LowestRank(1.0)).goals
    trials = None if asked.method == "hyperband" else asked.trials
    ended = [
        trial
        for trial in read_trials(out_dir)
        if trial.id != DEFAULT_TRIAL and trial.status != "running"
    ]
    with SearchProgress(trials, goals, console, len(ended)) as progress:
        results = search(
            asked,
            out_dir,
            report=progress,
            workers=options.workers,
            checkpoint_seconds=options.checkpoint_seconds,
            lease_seconds=options.lease_seconds,
        )
    console.print()
    results.table(20).print()
    console.print()
    for line in results.against_default():
        console.print(line, soft_wrap=True)
    for line in write_report(results, out_dir):
        console.print(line, soft_wrap=True)
    return 0
