"""Track ranks while TensorFlow trains on several devices of one machine.

    python examples/distributed/tensorflow_replicas.py

It takes every GPU there is, and two replicas on the CPU where there is none.

Several hosts: not with `fit`. Keras 3 does not train under
`tf.distribute.MultiWorkerMirroredStrategy`
(https://github.com/keras-team/keras/issues/20585); use JAX or torch there.

Run so far: two logical CPUs of one machine.
"""

import argparse
import os

os.environ.setdefault("KERAS_BACKEND", "tensorflow")

import keras
import tensorflow as tf
from sklearn.datasets import load_digits

import keras_lowrank as kl

BATCH = 64


def make_strategy():
    """A replica on every GPU, or two on the CPU."""
    if tf.config.list_physical_devices("GPU"):
        return tf.distribute.MirroredStrategy()
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(
        cpu, [tf.config.LogicalDeviceConfiguration()] * 2
    )
    return tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])


def make_model():
    """A network of three layers for the digits."""
    model = keras.Sequential(
        [
            keras.Input((64,)),
            keras.layers.Dense(128, activation="relu", name="hidden_1"),
            keras.layers.Dense(128, activation="relu", name="hidden_2"),
            keras.layers.Dense(10, name="logits"),
        ]
    )
    model.compile(
        kl.WeightDecay(0.02).wrap(keras.optimizers.SGD(0.2, momentum=0.5)),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    return model


def main():
    """Train, and print the ranks."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--run-dir")
    parser.add_argument("--smoke", action="store_true", help="one epoch")
    arguments = parser.parse_args()

    keras.utils.set_random_seed(0)
    strategy = make_strategy()
    # The optimizer belongs into the scope, as Keras' own do.
    with strategy.scope():
        model = make_model()
    digits = load_digits()
    tracker = kl.RankTracker(run_dir=arguments.run_dir)
    model.fit(
        (digits.data / 16).astype("float32"),
        digits.target,
        batch_size=BATCH,  # of all replicas together
        epochs=1 if arguments.smoke else arguments.epochs,
        verbose=0,
        callbacks=[tracker],
    )
    print(f"Trained on {strategy.num_replicas_in_sync} replicas.")
    tracker.summary()


if __name__ == "__main__":
    main()
