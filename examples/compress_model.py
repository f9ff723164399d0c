"""Train with weight decay, compress, and prove what that cost and gained.

    python examples/compress_model.py

The plan is made of the spectra, the proof of data that nobody has seen yet:
a layer that hurts the accuracy or is not faster goes back to what it was.
"""

import argparse
import pathlib

import keras

import keras_lowrank as kl


def main():
    """Train, plan, compress and verify; leave the small model as a file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--width", type=int, default=1024)
    parser.add_argument("--out", default="runs/compress_model")
    parser.add_argument("--smoke", action="store_true", help="a small network")
    arguments = parser.parse_args()
    smoke = arguments.smoke
    from sklearn.datasets import load_digits

    keras.utils.set_random_seed(0)
    x, y = load_digits(return_X_y=True)
    x = x.astype("float32") / 16
    train, rest = (x[:1200], y[:1200]), (x[1200:], y[1200:])
    width = 64 if smoke else arguments.width
    model = keras.Sequential(
        [
            keras.Input((64,)),
            keras.layers.Dense(width, activation="relu", name="hidden_1"),
            keras.layers.Dense(width, activation="relu", name="hidden_2"),
            keras.layers.Dense(10, name="logits"),
        ]
    )
    model.compile(
        kl.WeightDecay(0.02).wrap(keras.optimizers.SGD(0.1)),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    model.fit(*train, epochs=2 if smoke else arguments.epochs, verbose=2)

    plan = kl.compression_plan(model, energy=0.95)
    plan.print()
    proof = kl.compress_and_verify(
        model,
        rest,
        tolerance=0.01,
        plan=plan,
        fine_tune=lambda small: small.fit(*train, epochs=1, verbose=0),
        batch_sizes=[64] if smoke else [1, 256],
        seconds=0.0 if smoke else 1.0,
    )
    proof.print()

    out = pathlib.Path(arguments.out)
    out.mkdir(parents=True, exist_ok=True)
    proof.model.save(out / "small.keras")
    again = keras.saving.load_model(out / "small.keras")
    print(
        f"{out / 'small.keras'}: {again.count_params()} parameters in place "
        f"of {model.count_params()}"
    )


if __name__ == "__main__":
    main()
