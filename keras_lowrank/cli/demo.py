"""`keras-lowrank demo`: watch ranks fall."""

import pathlib

from keras_lowrank.cli.arguments import command_line


def add_parser(commands):
    """Add the subcommand to a parser's commands."""
    parser = commands.add_parser(
        "demo",
        help="watch ranks fall: one network, with and without weight decay",
        description=(
            "Train the paper's MLP with batch normalisation on the digits of "
            "scikit-learn, twice from the same seed, without and with weight "
            "decay. Leaves the records of both runs and a figure."
        ),
    )
    parser.add_argument(
        "--out",
        metavar="DIR",
        help="directory to write to (default: the next free runs/demo-N)",
    )
    parser.add_argument(
        "--epochs", type=int, default=150, help="epochs (default: 150)"
    )
    parser.add_argument("--seed", type=int, default=0, help="seed (default: 0)")
    parser.set_defaults(run=run)
    return parser


def run(options) -> int:
    """Run the subcommand."""
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
    shares = [f"{100 * twin.overhead:.1f}" for twin in (without, with_decay)]
    console.print(
        f"Measuring every {settings.every} epochs, for the picture, took "
        f"{' and '.join(shares)} % of these short fits; by default "
        "RankTracker keeps to 1 %."
    )
    for twin in (without, with_decay):
        console.print(f"Records {twin.label}: {twin.run_dir}", soft_wrap=True)
    console.print(f"Figure: {out_dir / 'ranks.png'}", soft_wrap=True)
    page = command_line("keras-lowrank", "report", out_dir)
    console.print(f"All on one page: {page}", soft_wrap=True)
    board = command_line("tensorboard", "--logdir", out_dir)
    console.print(f"TensorBoard: {board}", soft_wrap=True)
    return 0


def _next_free() -> pathlib.Path:
    number = 1
    while (path := pathlib.Path("runs", f"demo-{number}")).exists():
        number += 1
    return path
