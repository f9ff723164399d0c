"""One small training, on one device and on several, by every engine.

Run by `test_distribution.py`, as `python -m tests.distributed ENGINE`, in a
process of its own, since devices and clusters are decided once in a process.
What came of it is printed as JSON in the last line.
"""

import argparse
import contextlib
import json
import os
import pathlib
import sys
import weakref

import keras
import numpy as np

import keras_lowrank as kl
from keras_lowrank import linalg

BATCH, EPOCHS, STEPS = 4, 3, 16
COUPLINGS = ("coupled", "decoupled")


def make_data():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(BATCH * STEPS, 24)).astype("float32")
    # Large targets keep the weights up against a strong decay, under which
    # Lemma 3.2 has something to say after a few steps. Larger ones would blow
    # up the differences of rounding.
    return x, (3 * np.tanh(x @ rng.normal(size=(24, 3)))).astype("float32")


def make_model(coupling):
    model = keras.Sequential(
        [
            keras.Input((24,)),
            keras.layers.Dense(40, activation="tanh", name="first"),
            keras.layers.Dense(36, activation="tanh", name="second"),
            kl.FeatureRank(name="hidden"),
            keras.layers.Dense(3, name="last"),
        ]
    )
    rng = np.random.default_rng(1)
    for variable in model.weights:
        scale = variable.shape[0] ** -0.5
        variable.assign(scale * rng.normal(size=variable.shape))
    decay = kl.WeightDecay(1.0, coupling=coupling, exclude="bias")
    model.compile(decay.wrap(keras.optimizers.SGD(0.05, momentum=0.4)), "mse")
    return model


def make_callbacks(**options):
    return [
        kl.RankTracker(features=True, **({"every": 1} | options)),
        kl.TheoryTracker(tolerance=0.5),
        kl.WeightDecayScheduler(lambda epoch, rate: 4.0 + epoch / 2),
    ]


def outcome(callbacks, history):
    """What has to be the same on one device and on several."""
    tracker, theory, _ = callbacks
    measurements = tracker.recording.measurements
    decays = kl.explain_weight_decay(tracker.model).rows
    return {
        "epochs": tracker.recording.epochs,
        "batch_size": measurements[-1].batch_size,
        "updates": [item.step for item in measurements],
        "spectra": [
            [record.spectrum.values.tolist() for record in item.records]
            for item in measurements
        ],
        "features": [
            record.spectrum.values.tolist()
            for item in measurements
            for record in item.features
        ],
        "samples": [
            record.spectrum.shape[0]
            for item in measurements
            for record in item.features
        ],
        "rank_mean": history["rank_mean"],
        "weight_decay": history["weight_decay"],
        "certified": [row["certified_rank"] for row in theory.history],
        "remainders": [
            window.remainders.tolist() for window in theory.windows.values()
        ],
        "decays": [row["decay"] for row in decays],
    }


def fit(scope=contextlib.nullcontext, coupling="coupled", **options):
    with scope():
        model = make_model(coupling)
        callbacks = make_callbacks(**options)
        x, y = make_data()
        history = model.fit(
            x,
            y,
            batch_size=BATCH,
            epochs=EPOCHS,
            shuffle=False,
            verbose=0,
            callbacks=callbacks,
        )
    return model, outcome(callbacks, history.history)


def switched(scope=contextlib.nullcontext):
    """Final weights where layers were given low rank on the way."""
    with scope():
        model = make_model("coupled")
        switch = kl.SwitchToLowRank(rank=4, min_delta=10.0, patience=1)
        model.fit(
            *make_data(),
            batch_size=BATCH,
            epochs=EPOCHS,
            shuffle=False,
            verbose=0,
            callbacks=[switch],
        )
    assert switch.switched == {"first": (2, 4), "second": (2, 4)}
    return [linalg.host_array(one).tolist() for one in model.trainable_weights]


# JAX ------------------------------------------------------------------------


def data_parallel():
    from keras import distribution

    return distribution.DataParallel()


def model_parallel(shape=(2, 2)):
    """Each batch over as many devices as `shape` says, each kernel too.

    Where two processes have two devices each, the shards of a kernel that is
    spread over four belong to different processes.
    """
    from keras import distribution

    mesh = distribution.DeviceMesh(shape, ("batch", "model"))
    layouts = distribution.LayoutMap(mesh)
    layouts[".*/(first|second)/kernel"] = (None, "model")
    layouts[".*/(first|second)/bias"] = ("model",)
    layouts[".*/last/kernel"] = ("model", None)
    return distribution.ModelParallel(
        layout_map=layouts, batch_dim_name="batch"
    )


def jax_devices(arguments):
    """On four devices of this process."""
    results = {}
    for coupling in COUPLINGS:
        _, results[f"{coupling}, one device"] = fit(coupling=coupling)
        for name, make in (("data", data_parallel), ("model", model_parallel)):
            model, result = fit(make().scope, coupling)
            results[f"{coupling}, {name}"] = result | {
                "layouts": [
                    str(variable.value.sharding.spec)
                    for variable in (
                        *model.trainable_variables,
                        *model.optimizer.variables,
                    )
                ]
            }
    results["switched"] = [
        switched(scope)
        for scope in (
            contextlib.nullcontext,
            data_parallel().scope,
            model_parallel().scope,
        )
    ]
    results["traces"] = traces()
    results["most_copies"] = most_copies()
    return results


def traces():
    """How often `fit` compiles its step, with everything attached."""
    with model_parallel().scope():
        model = make_model("decoupled")
        step, count = model.train_step, 0

        def counted(*state):
            nonlocal count
            count += 1
            return step(*state)

        model.train_step = counted
        model.fit(
            *make_data(),
            batch_size=BATCH,
            epochs=EPOCHS,
            verbose=0,
            callbacks=make_callbacks(),
        )
    return count


def most_copies():
    """How many kernels lie on the host at once while a model is measured."""
    alive, most = [], 0
    on_host = linalg.host._on_host

    def watched(value):
        nonlocal most
        array = on_host(value)
        alive.append(weakref.ref(array if array.base is None else array.base))
        most = max(most, sum(one() is not None for one in alive))
        return array

    linalg.host._on_host = watched
    with model_parallel().scope():
        model = make_model("coupled")
        list(kl.weight_matrices(model).spectra())
    linalg.host._on_host = on_host
    assert len(alive) == 3
    return most


def jax_processes(arguments):
    """On two devices of each of two processes, over loopback."""
    import jax
    import tensorflow as tf

    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    keras.distribution.initialize(
        f"127.0.0.1:{arguments.port}", 2, arguments.index
    )
    results = {}
    for name, make in (
        ("data", data_parallel),
        ("model", lambda: model_parallel((1, 4))),
    ):
        keras.distribution.set_distribution(make())
        model = make_model("coupled")
        run_dir = arguments.directory / name
        callbacks = make_callbacks(run_dir=run_dir)
        data = tf.data.Dataset.from_tensor_slices(make_data())
        data = data.batch(BATCH, drop_remainder=True)
        # Keras does not see how long a data set is that it has sharded.
        options = {"steps_per_epoch": STEPS, "verbose": 0, "shuffle": False}
        history = model.fit(
            data.repeat(), epochs=EPOCHS, callbacks=callbacks, **options
        )
        results[name] = outcome(callbacks, history.history)
        if name == "data":
            continue
        # The chief knows from its store what the other cannot see.
        again = kl.RankTracker(run_dir=run_dir, every=2)
        history = model.fit(
            data.repeat(),
            initial_epoch=EPOCHS,
            epochs=EPOCHS + 3,
            callbacks=[again],
            **options,
        )
        results[name]["resumed"] = {
            "epochs": again.recording.epochs,
            "rank_mean": history.history["rank_mean"],
        }
    # Each process has all shards, beside another one that has them too.
    with model_parallel().scope():
        found = kl.weight_matrices(make_model("coupled"))
        results["start"] = [one.values.tolist() for one in found.spectra()]
    return results


# TensorFlow -----------------------------------------------------------------


def tensorflow_mirrored(arguments):
    """On two replicas, each with a copy of the variables."""
    import tensorflow as tf

    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(
        cpu, [tf.config.LogicalDeviceConfiguration()] * 2
    )
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    results = {}
    for coupling in COUPLINGS:
        _, results[f"{coupling}, one device"] = fit(coupling=coupling)
        _, result = fit(strategy.scope, coupling)
        results[f"{coupling}, replicas"] = result
    results["switched"] = [switched(), switched(strategy.scope)]
    return results


# Torch ----------------------------------------------------------------------


def torch_processes(arguments):
    """In two processes, by a loop of one's own and by `fit`."""
    import datetime

    from torch import distributed

    os.environ |= {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(arguments.port),
        "RANK": str(arguments.index),
        "WORLD_SIZE": "2",
    }
    distributed.init_process_group(
        "gloo", timeout=datetime.timedelta(seconds=60)
    )
    results = {}
    for coupling in COUPLINGS:
        run_dir = arguments.directory / coupling
        results[f"{coupling}, loop"] = torch_loop(
            coupling, run_dir=run_dir, tensorboard=True
        )
    results["coupled, fit"] = torch_fit("coupled")
    distributed.destroy_process_group()
    return results


def torch_loop(coupling, **options):
    import torch
    from torch import distributed
    from torch.nn.parallel import DistributedDataParallel

    model = make_model(coupling)
    # From the first process everybody gets its weights, whatever they had.
    if distributed.get_rank():
        for variable in model.weights:
            variable.assign(variable * 0.0)
    replica = DistributedDataParallel(model)
    hidden = model.get_layer("hidden")
    callbacks = make_callbacks(**options)
    every = keras.callbacks.CallbackList(
        callbacks,
        model=replica,
        add_history=True,
        epochs=EPOCHS,
        steps=STEPS,
        batch_size=BATCH,
    )
    every.on_train_begin()
    for epoch in range(EPOCHS):
        hidden.reset_state()
        every.on_epoch_begin(epoch)
        for x, y in shares():
            model.zero_grad()
            loss = keras.losses.MeanSquaredError()(y, replica(x))
            loss.backward()
            with torch.no_grad():
                model.optimizer.apply(
                    [one.value.grad for one in model.trainable_variables],
                    model.trainable_variables,
                )
        # Sums of all processes; without this each has those of its share.
        for variable in hidden.moments.variables:
            distributed.all_reduce(variable.value)
        every.on_epoch_end(epoch, {"loss": float(loss.detach())})
    every.on_train_end()
    gradients = kl.gradient_spectra(model, *next(shares()), loss="mse")
    return outcome(callbacks, model.history.history) | {
        "gradient_ranks": [item.rank for item in gradients.values()],
        "measured": [row["name"] for row in kl.rank_report(model).measured],
    }


def torch_fit(coupling):
    from torch import distributed

    model = make_model(coupling)

    def average(parameter):
        distributed.all_reduce(parameter.grad)
        parameter.grad /= distributed.get_world_size()

    for variable in model.trainable_variables:
        variable.value.register_post_accumulate_grad_hook(average)
    callbacks = make_callbacks()
    x, y = (np.concatenate(part) for part in zip(*shares(), strict=True))
    history = model.fit(
        x,
        y,
        batch_size=BATCH // distributed.get_world_size(),
        epochs=EPOCHS,
        shuffle=False,
        verbose=0,
        callbacks=callbacks,
    )
    return outcome(callbacks, history.history)


def shares():
    """The batches, of each the share of this process."""
    from torch import distributed

    index, count = distributed.get_rank(), distributed.get_world_size()
    x, y = make_data()
    for start in range(0, len(x), BATCH):
        batch = slice(start + index, start + BATCH, count)
        yield x[batch], y[batch]


ENGINES = {
    function.__name__: function
    for function in (
        jax_devices,
        jax_processes,
        tensorflow_mirrored,
        torch_processes,
    )
}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("engine", choices=ENGINES)
    parser.add_argument("--index", type=int, default=0)
    parser.add_argument("--port", type=int)
    parser.add_argument("--directory", type=pathlib.Path)
    arguments = parser.parse_args()
    print(json.dumps(ENGINES[arguments.engine](arguments)))


if __name__ == "__main__":
    sys.exit(main())
