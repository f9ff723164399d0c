"""`keras-lowrank inspect`: the ranks of a saved model."""


def add_parser(commands):
    """Add the subcommand to a parser's commands."""
    parser = commands.add_parser(
        "inspect",
        help="print the ranks of a saved model",
        description="Print the rank report of a `.keras` file.",
    )
    parser.add_argument("model", help="path of a model saved by `model.save`")
    parser.add_argument(
        "--json", action="store_true", help="print JSON instead of a table"
    )
    parser.add_argument(
        "--strict",
        action="store_true",
        help="fail when a kernel belongs to an unknown kind of layer",
    )
    parser.set_defaults(run=run)
    return parser


def run(options) -> int:
    """Run the subcommand."""
    import keras

    # A file may hold layers and initializers of our own networks.
    import keras_lowrank.experiments.models  # noqa: F401
    from keras_lowrank.report import rank_report

    report = rank_report(
        keras.saving.load_model(options.model), strict=options.strict
    )
    print(report.to_json() if options.json else report.render())
    return 0
