"""`keras-lowrank reproduce`: a figure of the paper, beside the paper's."""


def add_parser(commands):
    """Add the subcommand to a parser's commands."""
    parser = commands.add_parser(
        "reproduce",
        help="train a figure of the paper and hold it against the paper",
        description=(
            "Train the runs of a figure of the paper, print its table beside "
            "the paper's numbers and a verdict on each claim, and leave the "
            "table, the verdicts and the figure. Runs that are complete are "
            "not trained again, and those that were stopped go on."
        ),
    )
    parser.add_argument(
        "name", nargs="?", metavar="NAME", help="figure, as --list shows them"
    )
    parser.add_argument(
        "--list", action="store_true", help="print all names, and stop"
    )
    parser.add_argument(
        "--size",
        default="smoke",
        choices=("smoke", "cpu", "full"),
        help="smoke: seconds, digits; cpu: minutes to hours on two cores; "
        "full: the paper's own, for a GPU (default: smoke)",
    )
    parser.add_argument(
        "--out",
        metavar="DIR",
        default="runs/paper",
        help="directory to write to (default: runs/paper)",
    )
    parser.add_argument(
        "--seeds",
        type=int,
        default=1,
        metavar="N",
        help="seeds of each point (default: 1)",
    )
    parser.add_argument(
        "--data",
        metavar="PATH",
        help="directory with an .npz file for each data set, or one such file "
        "(default: what the library finds or downloads; smoke needs none)",
    )
    parser.add_argument(
        "--workers",
        type=int,
        metavar="N",
        help="processes at once, where runs do not share a program",
    )
    parser.set_defaults(run=run)
    return parser


def run(options) -> int:
    """Run the subcommand."""
    import rich.console

    from keras_lowrank.experiments.paper import FIGURES
    from keras_lowrank.experiments.paper import figures_table
    from keras_lowrank.experiments.paper import make_task
    from keras_lowrank.experiments.paper import train
    from keras_lowrank.experiments.progress import Progress

    if options.list:
        figures_table().print()
        return 0
    if options.name is None:
        raise ValueError(
            "A figure is needed: `keras-lowrank reproduce NAME`. The names "
            f"are {', '.join(FIGURES)}."
        )
    console = rich.console.Console(highlight=False, markup=False)
    task = make_task(options.name, options.size, options.seeds, options.data)
    figure = task.figure
    console.print(f"{figure.name}: {figure.title}")
    console.print(figure.sizes[task.size].note)
    with Progress(task.specs, console) as progress:
        made = train(
            task,
            options.out,
            report=progress.report,
            workers=options.workers,
        )
    console.print(f"\n{made.render()}\n", soft_wrap=True)
    for path in made.save(options.out).values():
        console.print(f"Written: {path}", soft_wrap=True)
    return 0
