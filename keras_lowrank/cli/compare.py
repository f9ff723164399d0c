"""`keras-lowrank compare`: one experiment on several backends."""

import shlex

STEPS = 200


def add_parser(commands):
    """Add the subcommand to a parser's commands."""
    parser = commands.add_parser(
        "compare",
        help="train one experiment on several backends, and find where they "
        "part",
        description=(
            "Train the experiment of a TOML or JSON file on several backends, "
            "each in its own process, from the same weights and batches; say "
            "which of them differs by more than rounding explains, at which "
            "step and in which weight; and leave report.md, report.html, "
            "report.json and figure.png. Exit status: 0 where all agree, 2 "
            "where one differs, 1 for an error, a backend that failed among "
            "them."
        ),
    )
    parser.add_argument("spec", help="path of a `.toml` or `.json` file")
    parser.add_argument(
        "--backends",
        metavar="NAMES",
        help="two or more with commas between, the reference first, as in "
        "jax,torch; `jax+module:function` is jax with its model changed by "
        "that function (default: all that are installed)",
    )
    parser.add_argument(
        "--out",
        metavar="DIR",
        default="runs/compare",
        help="directory of the report; runs go to `runs` in it "
        "(default: runs/compare)",
    )
    parser.add_argument(
        "--steps",
        type=int,
        default=STEPS,
        metavar="N",
        help="steps traced from the initial weights; later ones are traced "
        f"from a few states of the reference (default: {STEPS})",
    )
    parser.add_argument(
        "--tolerance",
        type=float,
        default=0.0,
        metavar="X",
        help="relative difference to accept even where rounding does not "
        "explain it (default: 0)",
    )
    parser.set_defaults(run=run)
    return parser


def run(options) -> int:
    """Run the subcommand."""
    import rich.console

    from keras_lowrank.experiments.compare import compare
    from keras_lowrank.experiments.specs import read_specs

    specs = read_specs(options.spec)
    if len(specs) != 1:
        raise ValueError(
            "A comparison is of one experiment. Received: "
            f"'{options.spec}', which holds {len(specs)}. Leave out `sweep`, "
            "and compare each in a directory of its own."
        )
    console = rich.console.Console(highlight=False, markup=False)
    found = compare(
        specs[0],
        options.backends,
        options.out,
        steps=options.steps,
        tolerance=options.tolerance,
        report=_Told(console).report,
        command=_command(options),
    )
    console.print(f"\n{found.render()}\n", soft_wrap=True)
    for path in found.save(options.out).values():
        console.print(f"Written: {path}", soft_wrap=True)
    if not found.agrees:
        return 2
    return 1 if found.failed else 0


def _command(options) -> str:
    """The command line that makes this report again."""
    words = ["keras-lowrank", "compare", options.spec]
    if options.backends:
        words += ["--backends", options.backends]
    words += ["--out", options.out]
    if options.steps != STEPS:
        words += ["--steps", str(options.steps)]
    if options.tolerance:
        words += ["--tolerance", f"{options.tolerance:g}"]
    return shlex.join(words)


class _Told:
    """Prints what each side does, a few lines of each."""

    def __init__(self, console):
        self.console = console
        self.quarters: dict[tuple[str, str], int] = {}

    def report(self, side: str, doing: str, share: float) -> None:
        quarter = int(4 * share)
        if quarter > self.quarters.get((side, doing), -1):
            self.quarters[side, doing] = quarter
            self.console.print(f"{side}: {doing} {share:.0%}", soft_wrap=True)
