"""A tracked run killed at any moment, and resumed until it is done."""

import os
import pathlib
import signal
import subprocess
import sys
import textwrap
import time

import keras
import numpy as np
import pytest

from keras_lowrank import RankTracker
from keras_lowrank import open_run

# The store knows no backend: most of the kills are on one, the others begin
# more slowly.
KILLS = {"jax": 4}.get(keras.backend.backend(), 2)
NEVER = 10**9  # epochs: more than any run lives to see

# Its checkpoint replaces the last one in a single step, so that a kill never
# leaves half of one; Keras' `BackupAndRestore` does not promise that.
RUN = """
    import os, pathlib, sys
    import keras
    import numpy as np
    from keras_lowrank import RankTracker

    EPOCHS, directory = int(sys.argv[1]), pathlib.Path(sys.argv[2])
    saved, ended = directory / "saved.weights.h5", directory / "ended.txt"

    class Checkpoint(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            self.model.save_weights(directory / "new.weights.h5")
            os.replace(directory / "new.weights.h5", saved)

    class Witness(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            with open(ended, "a") as file:
                file.write(f"{epoch + 1}\\n")

    keras.utils.set_random_seed(0)
    x = np.random.default_rng(0).normal(size=(64, 6)).astype("float32")
    model = keras.Sequential(
        [keras.Input((6,)), keras.layers.Dense(5), keras.layers.Dense(2)]
    )
    optimizer = keras.optimizers.SGD(0.01, momentum=0.9)
    model.compile(optimizer, "mse")
    optimizer.build(model.trainable_variables)
    if saved.exists():
        model.load_weights(saved)
    tracker = RankTracker(every=1, run_dir=directory)
    callbacks = [tracker, Checkpoint(), Witness()]
    print("ready", flush=True)
    model.fit(
        x,
        x[:, :2],
        batch_size=32,
        epochs=EPOCHS,
        initial_epoch=int(optimizer.iterations) // 2,
        callbacks=callbacks,
        verbose=0,
    )
"""


def start(directory, epochs):
    environment = os.environ | {
        "KERAS_BACKEND": keras.backend.backend(),
        "TF_CPP_MIN_LOG_LEVEL": "3",
    }
    process = subprocess.Popen(
        [
            sys.executable,
            "-c",
            textwrap.dedent(RUN),
            str(epochs),
            str(directory),
        ],
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    )
    assert process.stdout.readline() == "ready\n"
    return process


def ended_epochs(directory):
    path = pathlib.Path(directory) / "ended.txt"
    lines = path.read_text().split() if path.exists() else []
    return {int(line) for line in lines}


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="needs SIGKILL")
def test_kill_at_random_moments(tmp_path):
    rng = np.random.default_rng(0)
    for _ in range(KILLS):
        process = start(tmp_path, NEVER)
        # Some kills fall into the first tracing, some into a measurement.
        time.sleep(rng.uniform(0.0, 1.5))
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
        if (tmp_path / "records.sqlite").exists():
            recording = open_run(tmp_path)
            assert ended_epochs(tmp_path) <= set(recording.epochs)
            assert recording.epochs == sorted(set(recording.epochs))
    # On a busy machine no epoch may have ended in time.
    last = max(ended_epochs(tmp_path), default=0) + 3
    assert start(tmp_path, last).wait() == 0
    recording = open_run(tmp_path)
    assert recording.epochs == list(range(last + 1))
    assert [item.step for item in recording.measurements] == [
        2 * epoch for epoch in recording.epochs
    ]


class Interrupt(keras.callbacks.Callback):
    def __init__(self, epoch):
        super().__init__()
        self.epoch = epoch

    def on_epoch_end(self, epoch, logs=None):
        if epoch == self.epoch:
            raise KeyboardInterrupt


def built_model():
    model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(3)])
    model.compile(keras.optimizers.SGD(0.01), "mse")
    return model


@pytest.mark.parametrize("order", ["tracker first", "backup first"])
@pytest.mark.parametrize("every", [1, 3])
def test_backup_and_restore(tmp_path, order, every):
    x = np.random.default_rng(0).normal(size=(32, 6)).astype("float32")

    def fit(*others):
        model = built_model()
        tracker = RankTracker(every=every, run_dir=tmp_path / "run")
        backup = keras.callbacks.BackupAndRestore(tmp_path / "backup")
        callbacks = [tracker, backup]
        if order == "backup first":
            callbacks.reverse()
        model.fit(
            x,
            x[:, :3],
            epochs=7,
            verbose=0,
            callbacks=[*callbacks, *others],
        )
        return model, tracker

    # Interrupted after the third epoch was measured and backed up.
    with pytest.raises(KeyboardInterrupt):
        fit(Interrupt(2))
    expected = {1: [0, 1, 2, 3], 3: [0, 3]}[every]
    assert open_run(tmp_path / "run").epochs == expected
    model, tracker = fit()
    expected = {1: [0, 1, 2, 3, 4, 5, 6, 7], 3: [0, 3, 6, 7]}[every]
    recording = open_run(tmp_path / "run")
    assert recording.epochs == tracker.recording.epochs == expected
    last = recording.measurements[-1]
    assert last.step == 7
    np.testing.assert_allclose(
        last.records[0].spectrum.values,
        np.linalg.svd(
            keras.ops.convert_to_numpy(model.layers[0].kernel),
            compute_uv=False,
        ),
        rtol=1e-6,
    )


def test_a_run_resumed_between_measurements_keeps_to_its_schedule(tmp_path):
    x = np.ones((8, 6), "float32")
    for epochs, initial_epoch in ((4, 0), (6, 5)):
        built_model().fit(
            x,
            x[:, :3],
            initial_epoch=initial_epoch,
            epochs=epochs,
            callbacks=[RankTracker(every=10, run_dir=tmp_path)],
            verbose=0,
        )
    # So a run that was interrupted has the records of one that was not.
    assert open_run(tmp_path).epochs == [0, 4, 6]
