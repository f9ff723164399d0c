"""`keras-lowrank inspect`: the ranks of the weights in a file."""

import contextlib
import importlib.util
import math
import pathlib
import sys

METHODS = ("auto", "gram", "svd", "certified")

# Of the processor, for all but the entries of the tensors.
SECONDS_TO_OPEN = 60

# Of a command that others act upon: their numbers are promised.
FINE, BEYOND, ERROR = 0, 1, 2


def add_parser(commands):
    """Add the subcommand to a parser's commands."""
    parser = commands.add_parser(
        "inspect",
        help="print the ranks of the weights in a file",
        description=(
            "Print the rank report of a `.keras`, `.weights.h5`, "
            "`.safetensors`, `.npz`, `.npy` or torch file, or of the index of "
            "its shards. Tensors are read one at a time, without Keras and "
            "without a backend, and nothing in the file is executed. Exit "
            "status: 0, 1 where a threshold of --fail-if is met, 2 for a file "
            "or an argument that cannot be used."
        ),
    )
    parser.add_argument("file", help="path of the file")
    form = parser.add_mutually_exclusive_group()
    form.add_argument(
        "--json", action="store_true", help="print JSON instead of a table"
    )
    form.add_argument("--csv", action="store_true", help="print CSV")
    form.add_argument("--html", action="store_true", help="print a page")
    parser.add_argument(
        "-o", "--output", metavar="FILE", help="write there instead of printing"
    )
    parser.add_argument(
        "--fail-if",
        action="append",
        default=[],
        metavar="CONDITION",
        help="exit with status 1 when a matrix meets it, as in "
        "'stable_rank < 2' or 'rank_ratio <= 0.1' (rank over the smaller side "
        "of the matrix); may be repeated. Matrices with NaN meet every "
        "condition, matrices of zeros measure 0",
    )
    parser.add_argument(
        "--weights",
        metavar="REGEX",
        help="which matrices, by a regular expression searched in names",
    )
    parser.add_argument(
        "--measures",
        metavar="NAMES",
        help="what to measure, with commas between, as in rank,stable_rank",
    )
    parser.add_argument(
        "--layout",
        choices=("keras", "torch"),
        help="which axis of a kernel is the output: the last one or the first "
        "(default: that of the format)",
    )
    parser.add_argument(
        "--method",
        choices=METHODS,
        default="auto",
        help="how spectra are computed (default: auto); certified counts "
        "ranks of sides above 2048 without them, in a fraction of the time",
    )
    parser.add_argument(
        "--jobs",
        type=int,
        default=1,
        metavar="N",
        help="threads, each of which holds a matrix (default: 1)",
    )
    parser.add_argument(
        "--strict",
        action="store_true",
        help="fail when the axes of a kernel are not known",
    )
    parser.add_argument(
        "--load",
        action="store_true",
        help="load a `.keras` file with Keras first, which measures layers of "
        "your own, quantized and low-rank ones as they are applied; for files "
        "that you trust, and as large as memory allows",
    )
    parser.set_defaults(run=run)
    return parser


def run(options) -> int:
    """Run the subcommand."""
    from keras_lowrank.checkpoints import Condition
    from keras_lowrank.checkpoints import violations

    try:
        conditions = [Condition.parse(text) for text in options.fail_if]
        measures = _measures(options.measures, conditions)
        if options.load:
            report = _loaded(options, measures)
        else:
            report = _read(options, measures)
        _write(report, options)
    except (ImportError, OSError, TypeError, ValueError) as error:
        if not str(error):
            raise
        print(f"keras-lowrank: {error}", file=sys.stderr)
        return ERROR
    found = violations(report.rows, conditions)
    for line in found:
        print(f"keras-lowrank: {line}", file=sys.stderr)
    return BEYOND if found else FINE


def _measures(names, conditions):
    """The measures to report, those of the thresholds among them."""
    from keras_lowrank.measures import as_measures
    from keras_lowrank.report import DEFAULT_MEASURES

    chosen = names.split(",") if names else DEFAULT_MEASURES
    measures = {m.name: m for m in as_measures(n.strip() for n in chosen)}
    for condition in conditions:
        measures.setdefault(condition.measure.name, condition.measure)
    return list(measures.values())


def _read(options, measures):
    from keras_lowrank.checkpoints import inspect_file

    if options.backend:
        raise ValueError(
            "A file is read without a backend. Received: --backend "
            f"{options.backend}. Leave it out, or load the model with --load."
        )
    with _Progress() as progress, _time_to_open() as opened:

        def report(done: int, total: int, name: str) -> None:
            opened()
            progress.report(done, total, name)

        return inspect_file(
            options.file,
            measures,
            options.weights,
            layout=options.layout,
            strict=options.strict,
            method=options.method,
            jobs=options.jobs,
            progress=report,
        )


def _loaded(options, measures):
    if options.layout or options.jobs != 1:
        raise ValueError(
            "--layout and --jobs are for files that are read. Received them "
            "with --load, which asks the layers of the model. Leave them out."
        )
    import keras

    # A file may hold layers and initializers of our own networks.
    import keras_lowrank.experiments.models  # noqa: F401
    from keras_lowrank.report import rank_report

    return rank_report(
        keras.saving.load_model(options.file, compile=False),
        measures,
        options.weights,
        strict=options.strict,
        method=options.method,
    )


def _write(report, options) -> None:
    if options.json:
        text = report.to_json()
    elif options.csv:
        text = report.to_csv().rstrip("\n")
    elif options.html:
        text = report.to_html()
    else:
        text = report.render()
    if options.output is None:
        print(text)
    else:
        pathlib.Path(options.output).write_text(f"{text}\n", "utf-8")


@contextlib.contextmanager
def _time_to_open():
    """Let the system end this process if a file takes too long to open.

    HDF5 is read by a library in C that some damaged files keep busy for ever.
    Gives the function that takes the limit away.
    """
    if importlib.util.find_spec("resource") is None:  # there is none on Windows
        yield lambda: None
        return
    import resource

    before = resource.getrlimit(resource.RLIMIT_CPU)

    def opened() -> None:
        resource.setrlimit(resource.RLIMIT_CPU, before)

    taken = resource.getrusage(resource.RUSAGE_SELF)
    limit = math.ceil(taken.ru_utime + taken.ru_stime) + SECONDS_TO_OPEN
    soft, hard = before
    if soft == resource.RLIM_INFINITY or limit < soft:
        resource.setrlimit(resource.RLIMIT_CPU, (limit, hard))
    try:
        yield opened
    finally:
        opened()


class _Progress:
    """A bar on standard error, where that is a terminal."""

    def __enter__(self):
        import rich.console
        import rich.progress

        console = rich.console.Console(stderr=True)
        self.bar = rich.progress.Progress(
            *rich.progress.Progress.get_default_columns(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self.task = None
        self.bar.start()
        return self

    def report(self, done: int, total: int, name: str) -> None:
        """Show that `done` of `total` matrices are measured."""
        if self.task is None:
            self.task = self.bar.add_task("Measuring", total=total)
        self.bar.update(self.task, completed=done)

    def __exit__(self, *error):
        self.bar.stop()
