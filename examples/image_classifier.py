"""Train an image classifier, and see which of its layers lose rank.

    python examples/image_classifier.py                    # digits, a minute
    python examples/image_classifier.py --data cifar10     # Keras downloads it

A plain Keras script with two lines more: the optimizer is wrapped, so that
weight decay means the same on every backend and spares biases and batch
normalization, and `RankTracker` is the first of the callbacks.
"""

import argparse

import keras

import keras_lowrank as kl

layers = keras.layers


def load(name):
    """Images in [0, 1] of shape `(n, height, width, channels)`, and labels."""
    if name == "digits":
        from sklearn.datasets import load_digits

        digits = load_digits()
        x, y = digits.images[..., None] / 16, digits.target
        return (x[:1400], y[:1400]), (x[1400:], y[1400:])
    (x, y), (x_test, y_test) = getattr(keras.datasets, name).load_data()
    if x.ndim == 3:
        x, x_test = x[..., None], x_test[..., None]
    return (x / 255.0, y.reshape(-1)), (x_test / 255.0, y_test.reshape(-1))


def make_model(shape, classes, width):
    """Three convolutions and a head; the paper's networks are larger."""
    images = x = keras.Input(shape)
    for stage, filters in enumerate((width, 2 * width, 4 * width)):
        x = layers.Conv2D(
            filters,
            3,
            strides=1 if stage == 0 else 2,
            padding="same",
            use_bias=False,
            name=f"conv_{stage}",
        )(x)
        x = layers.BatchNormalization(name=f"norm_{stage}")(x)
        x = layers.ReLU()(x)
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(images, layers.Dense(classes, name="logits")(x))


def main():
    """Train, print the ranks, leave a store, event files and a page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", default="digits")
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--decay", type=float, default=0.02)
    parser.add_argument("--run-dir", default="runs/image_classifier")
    parser.add_argument("--smoke", action="store_true", help="two epochs")
    arguments = parser.parse_args()
    smoke = arguments.smoke

    keras.utils.set_random_seed(0)
    (x, y), (x_test, y_test) = load(arguments.data)
    if smoke:
        x, y = x[:128], y[:128]
    model = make_model(x.shape[1:], int(y.max()) + 1, width=4 if smoke else 32)
    optimizer = keras.optimizers.SGD(0.05, momentum=0.9)
    model.compile(
        kl.WeightDecay(arguments.decay).wrap(optimizer),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    kl.explain_weight_decay(model).print()

    tracker = kl.RankTracker(run_dir=arguments.run_dir)
    model.fit(
        x,
        y,
        batch_size=32,
        epochs=2 if smoke else arguments.epochs,
        validation_data=(x_test, y_test),
        callbacks=[
            tracker,  # first, so that the others find its keys in `logs`
            keras.callbacks.CSVLogger(f"{arguments.run_dir}/log.csv"),
        ],
        verbose=2,
    )
    tracker.summary()
    kl.dead_channels(model).print()  # a low rank that comes from them is none
    print(f"keras-lowrank report {arguments.run_dir}   # the same as a page")


if __name__ == "__main__":
    main()
