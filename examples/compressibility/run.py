"""Does weight decay make networks more compressible, and by how much?

    python examples/compressibility/run.py examples/compressibility/mnist.toml

trains the networks of a file, which differ in weight decay and seed. Each is
truncated to the ranks that hold some share of the energy of its matrices, and
then trained for one more epoch at the last learning rate. Accuracies before and
after that epoch, on validation and on test data, go to `points.csv`; what
`summarize` says of them goes beside it. All choices are made on the validation
data, `validation_samples` of the training data that nothing is trained on.

With `--calibration N` what is truncated is not the kernels but what they do to
N of the training images: `compress(calibration=...)`.

Stopped and started again, it goes on where it was. `KERAS_BACKEND` says on
which backend; `--smoke` takes seconds, and shows only that everything works.
"""

import argparse
import pathlib

import pandas as pd
from summarize import summarize

from keras_lowrank.compress import compress
from keras_lowrank.compress import compression_plan
from keras_lowrank.experiments import Batches
from keras_lowrank.experiments import Progress
from keras_lowrank.experiments import read_specs
from keras_lowrank.experiments import run_all
from keras_lowrank.experiments.run import load_data
from keras_lowrank.experiments.runs import write_whole
from keras_lowrank.experiments.training import make_loss
from keras_lowrank.experiments.training import make_optimizer

HERE = pathlib.Path(__file__).parent
# At 1 the network is left as it is.
ENERGIES = (0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95, 0.98, 0.99, 0.999, 1.0)


def fine_tune(model, spec, data):
    """One more epoch, at the learning rate and decay that training ended at."""
    plan = spec.plan(len(data.x_train))
    model.compile(
        spec.decay.wrap(make_optimizer(spec, plan.rates[-1])),
        make_loss(spec.loss),
        metrics=["accuracy"],
    )
    batches = Batches(data.x_train, data.y_train, spec.batch_size, spec.seed)
    batches.fit(
        model, initial_epoch=plan.epochs, epochs=plan.epochs + 1, verbose=0
    )


def accuracies(model, data, test):
    """Shares of the validation and of the test images that are right."""
    return {
        f"{name}_accuracy": model.evaluate(
            x, y, batch_size=1000, verbose=0, return_dict=True
        )["accuracy"]
        for name, x, y in (
            ("val", data.x_test, data.y_test),
            ("test", test.x_test, test.y_test),
        )
    }


def truncated(model, energy, inputs, spec, data, test):
    """What an energy leaves of a network, before and after fine-tuning."""
    criterion = {"energy": energy} if energy < 1 else {"rank": {}}
    plan = compression_plan(model, calibration=inputs, **criterion)
    small = compress(model, plan, calibration=inputs)
    before = accuracies(small, data, test)
    fine_tune(small, spec, data)
    after = accuracies(small, data, test)
    about = {
        "parameters": small.count_params(),
        "ranks": " ".join(str(layer.rank or "all") for layer in plan.layers),
    }
    return [
        about | {"fine_tuned": fine_tuned, **found}
        for fine_tuned, found in ((False, before), (True, after))
    ]


def points_of(run, options, data, test):
    """A trained network at every energy, from the file that remembers it."""
    count = options.calibration
    path = run.run_dir / (f"points_{count}.csv" if count else "points.csv")
    inputs = data.x_train[:count] if count else None
    points = pd.read_csv(path) if path.exists() else pd.DataFrame()
    known = set() if points.empty else set(points["energy"])
    missing = [energy for energy in options.energies if energy not in known]
    model = run.load_model() if missing else None
    for energy in missing:
        rows = [
            {
                "run": run.spec.id,
                "backend": run.backend,
                "weight_decay": run.spec.weight_decay,
                "seed": run.spec.seed,
                "energy": energy,
                **row,
            }
            for row in truncated(model, energy, inputs, run.spec, data, test)
        ]
        points = pd.concat([points, pd.DataFrame(rows)], ignore_index=True)
        write_whole(path, points.to_csv(index=False))
        print(
            f"weight decay {run.spec.weight_decay:g}, seed {run.spec.seed}, "
            f"energy {energy:g}: {rows[0]['parameters']} parameters, "
            f"validation accuracy {rows[0]['val_accuracy']:.4f}, "
            f"fine-tuned {rows[1]['val_accuracy']:.4f}",
            flush=True,
        )
    return points[points["energy"].isin(options.energies)]


def main(arguments=None):
    """Train, truncate, fine-tune, and say what came of it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "specs", nargs="?", help="experiments that differ in decay and seed"
    )
    parser.add_argument("--out", default="runs/compressibility")
    parser.add_argument("--energies", type=float, nargs="+", default=ENERGIES)
    parser.add_argument(
        "--decays", type=float, nargs="+", help="only these of the file"
    )
    parser.add_argument("--calibration", type=int, metavar="N", default=0)
    parser.add_argument("--smoke", action="store_true", help="on 300 digits")
    options = parser.parse_args(arguments)
    if options.smoke:
        options.specs, options.energies = HERE / "smoke.toml", (0.5, 1.0)

    out = pathlib.Path(options.out)
    specs = [
        spec
        for spec in read_specs(options.specs or HERE / "mnist.toml")
        if not options.decays or spec.weight_decay in options.decays
    ]
    with Progress(specs) as progress:
        runs = run_all(
            specs,
            out / "runs",
            progress.report,
            workers=1 if options.smoke else None,
            keep_model=True,
        )
    # One network on one data set; its "test" half is the validation data.
    data = load_data(specs[0].data)
    test = load_data(specs[0].data.replace(validation_samples=None))
    points = pd.concat([points_of(run, options, data, test) for run in runs])
    if options.calibration:
        out /= "calibrated"
        out.mkdir(exist_ok=True)
    text = points.to_csv(index=False, float_format="%.6g")
    write_whole(out / "points.csv", text)
    summarize(points, out)


if __name__ == "__main__":
    main()
