"""Track ranks while JAX trains on several devices, and on several hosts.

    python examples/distributed/jax_devices.py             # one machine
    python examples/distributed/jax_devices.py --sharded   # kernels in parts

It takes every device there is, and makes four of a CPU where that is all. On
several hosts run the same command on each, with

    KERAS_DISTRIBUTION_JOB_ADDRESSES=10.0.0.1:1234   # of process 0
    KERAS_DISTRIBUTION_NUM_PROCESSES=2
    KERAS_DISTRIBUTION_PROCESS_ID=0                  # 1 on the second host

On hosts without accelerators set JAX_CPU_COLLECTIVES_IMPLEMENTATION=gloo too.

Run so far: four CPU devices of one process, and two processes on one machine.
"""

import argparse
import os

os.environ.setdefault("KERAS_BACKEND", "jax")
# Of no effect where there are accelerators.
os.environ.setdefault("XLA_FLAGS", "--xla_force_host_platform_device_count=4")

import keras
import tensorflow as tf
from sklearn.datasets import load_digits

import keras_lowrank as kl

BATCH = 64


def make_distribution(sharded):
    """All devices share the batches, or in pairs the kernels too."""
    if not sharded:
        return keras.distribution.DataParallel()
    count = len(keras.distribution.list_devices())
    parts = 2 if count % 2 == 0 else 1
    mesh = keras.distribution.DeviceMesh(
        (count // parts, parts), ("batch", "model")
    )
    layouts = keras.distribution.LayoutMap(mesh)
    layouts[".*/hidden.*/kernel"] = (None, "model")
    layouts[".*/hidden.*/bias"] = ("model",)
    return keras.distribution.ModelParallel(
        layout_map=layouts, batch_dim_name="batch"
    )


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
    parser.add_argument("--sharded", action="store_true")
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--run-dir", help="of the first process alone")
    parser.add_argument("--smoke", action="store_true", help="one epoch")
    arguments = parser.parse_args()

    # Before anything else asks for a device.
    if "KERAS_DISTRIBUTION_JOB_ADDRESSES" in os.environ:
        keras.distribution.initialize()
    keras.utils.set_random_seed(0)  # the same weights in every process
    keras.distribution.set_distribution(make_distribution(arguments.sharded))

    digits = load_digits()
    images = (digits.data / 16).astype("float32")
    # Keras gives each process its share of a `tf.data.Dataset`.
    data = tf.data.Dataset.from_tensor_slices((images, digits.target))
    data = data.shuffle(len(images), seed=0).repeat()
    data = data.batch(BATCH, drop_remainder=True)

    model = make_model()
    tracker = kl.RankTracker(run_dir=arguments.run_dir)
    model.fit(
        data,
        epochs=1 if arguments.smoke else arguments.epochs,
        steps_per_epoch=len(images) // BATCH,
        shuffle=False,
        verbose=0,
        callbacks=[tracker],
    )
    if int(os.environ.get("KERAS_DISTRIBUTION_PROCESS_ID", "0")) == 0:
        print(f"Trained on {len(keras.distribution.list_devices())} devices.")
        tracker.summary()


if __name__ == "__main__":
    main()
