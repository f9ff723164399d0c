"""`keras-lowrank compress`: a smaller model, with the proof of its gain."""

import pathlib
import sys

CRITERIA = ("energy", "error", "rank", "parameters", "flops", "accuracy")


def add_parser(commands):
    """Add the subcommand to a parser's commands."""
    parser = commands.add_parser(
        "compress",
        help="make a saved model smaller, and verify it on data",
        description=(
            "Truncate the layers of a `.keras` file, score and time both "
            "models on the test data, put back what costs more than the "
            "tolerance or is not faster, and save what remains. The new file "
            "loads with nothing but `import keras_lowrank`."
        ),
    )
    parser.add_argument("model", help="path of a model saved by `model.save`")
    parser.add_argument(
        "--data",
        required=True,
        help="data set by name, or an `.npz` file with x_train, y_train, "
        "x_test and y_test; scores are those of the test half",
    )
    parser.add_argument(
        "--normalization",
        choices=("paper", "unit", "standard"),
        help="of images, as the model was trained on (default: that of the "
        "paper for its data sets, `unit` for files)",
    )
    parser.add_argument(
        "--tolerance",
        type=float,
        default=0.005,
        metavar="T",
        help="how much accuracy may be lost (default: 0.005, half a point)",
    )
    choice = parser.add_mutually_exclusive_group()
    choice.add_argument(
        "--energy",
        type=float,
        metavar="E",
        help="ranks that hold this share of the squared singular values",
    )
    choice.add_argument(
        "--error",
        type=float,
        metavar="E",
        help="ranks whose relative error is at most this (default: 0.3)",
    )
    choice.add_argument(
        "--rank",
        metavar="R",
        help="this rank in every layer, or a measure such as stable_rank",
    )
    choice.add_argument(
        "--parameters",
        type=_share_or_count,
        metavar="P",
        help="a budget: a share below 1 of the parameters, or their number",
    )
    choice.add_argument(
        "--flops",
        type=_share_or_count,
        metavar="F",
        help="a budget: a share below 1 of the FLOPs, or their number",
    )
    choice.add_argument(
        "--accuracy",
        type=float,
        metavar="A",
        help="the smallest budget whose training accuracy is at least this",
    )
    choice.add_argument(
        "--plan", metavar="FILE", help="a plan saved as JSON, maybe edited"
    )
    parser.add_argument(
        "--scheme",
        choices=("channel", "spatial", "auto"),
        default="channel",
        help="how 2D convolutions are factored (default: channel)",
    )
    parser.add_argument(
        "--calibrate",
        type=int,
        metavar="N",
        help="make the errors of the outputs for N training samples small",
    )
    parser.add_argument(
        "--fine-tune",
        type=int,
        default=0,
        metavar="N",
        help="epochs of training after the truncation (default: 0)",
    )
    parser.add_argument(
        "--batch-size",
        type=int,
        default=128,
        metavar="N",
        help="batch size of that training (default: 128)",
    )
    parser.add_argument(
        "--latency",
        type=int,
        nargs="+",
        default=[1, 32, 256],
        metavar="N",
        help="batch sizes to time at (default: 1 32 256)",
    )
    parser.add_argument(
        "--keep-slower",
        action="store_true",
        help="keep layers that are smaller but not faster",
    )
    parser.add_argument(
        "--plan-only",
        action="store_true",
        help="print the plan and compress nothing",
    )
    parser.add_argument(
        "--save-plan", metavar="FILE", help="write the plan as JSON"
    )
    parser.add_argument(
        "--out",
        metavar="FILE",
        help="where to save the new model (default: <model>-lowrank.keras)",
    )
    parser.add_argument(
        "--overwrite", action="store_true", help="replace a file that exists"
    )
    parser.add_argument(
        "--json", action="store_true", help="print JSON instead of tables"
    )
    parser.set_defaults(run=run)
    return parser


def _share_or_count(text: str) -> float | int:
    return float(text) if "." in text or "e" in text else int(text)


def run(options) -> int:
    """Run the subcommand."""
    import keras

    # A file may hold layers and initializers of our own networks.
    import keras_lowrank.experiments.models  # noqa: F401
    from keras_lowrank.compress import compress_and_verify
    from keras_lowrank.experiments.data import load

    path = pathlib.Path(options.model)
    out = pathlib.Path(options.out or path.with_name(f"{path.stem}-lowrank"))
    out = out.with_suffix(".keras")
    if out.exists() and not (options.overwrite or options.plan_only):
        raise ValueError(
            f"'{out}' exists. Choose another place with --out, or replace it "
            "with --overwrite."
        )
    model = keras.saving.load_model(path)
    settings = {}
    if options.normalization:
        settings["normalization"] = options.normalization
    data = load(options.data, **settings)
    x_train, x_test = (
        _as_inputs(x, model, options.data) for x in (data.x_train, data.x_test)
    )
    calibration = None
    if options.calibrate is not None:
        calibration = x_train[: options.calibrate]
    plan = _plan(model, (x_train, data.y_train), calibration, options)
    if options.save_plan:
        plan.save(options.save_plan)
    if options.plan_only:
        print(plan.to_json() if options.json else plan.render())
        return 0
    if not options.json:
        print(plan.render(), end="\n\n", flush=True)

    def fine_tune(small):
        small.fit(
            x_train,
            _as_targets(data.y_train, model),
            epochs=options.fine_tune,
            batch_size=options.batch_size,
            verbose=0,
        )

    verified = compress_and_verify(
        model,
        (x_test, data.y_test),
        options.tolerance,
        plan,
        fine_tune=fine_tune if options.fine_tune else None,
        batch_sizes=options.latency,
        keep_slower=options.keep_slower,
        calibration=calibration,
    )
    print(verified.to_json() if options.json else verified.render())
    if verified.change.before < 1.5 / data.classes:
        print(
            f"keras-lowrank: the model scores {verified.change.before:.3f} "
            f"with {data.classes} classes, hardly better than chance. Is the "
            "data scaled as it was in training? See --normalization.",
            file=sys.stderr,
        )
    if not verified.plan.compressed:
        print("keras-lowrank: nothing was saved.", file=sys.stderr)
        return 2
    verified.model.save(out)
    if not options.json:
        print(f"saved: {out}")
    return 0


def _plan(model, data, calibration, options):
    from keras_lowrank.compress import CompressionPlan
    from keras_lowrank.compress import compression_plan

    if options.plan:
        return CompressionPlan.load(options.plan)
    given = {
        "tolerance" if name == "error" else name: value
        for name in CRITERIA
        if (value := getattr(options, name)) is not None
    }
    if "rank" in given and given["rank"].isdecimal():
        given["rank"] = int(given["rank"])
    if "accuracy" in given:
        given["data"] = data
    return compression_plan(
        model,
        **given or {"tolerance": 0.3},
        scheme=options.scheme,
        calibration=calibration,
    )


def _as_inputs(x, model, name):
    """Samples in the shape that the model takes, if they have its size."""
    import math

    shape = getattr(model, "input_shape", None)
    if not isinstance(shape, tuple) or None in shape[1:]:
        return x
    if math.prod(shape[1:]) != math.prod(x.shape[1:]):
        raise ValueError(
            f"The model takes samples of shape {shape[1:]}. Received: "
            f"--data {name}, whose samples have shape {x.shape[1:]}."
        )
    return x.reshape(-1, *shape[1:])


def _as_targets(y, model):
    """Labels as the loss of the model takes them."""
    import keras

    loss = model.loss
    sparse = "sparse" in str(getattr(loss, "name", loss))
    units = model.output_shape[-1]
    return y if sparse or units == 1 else keras.utils.to_categorical(y, units)
