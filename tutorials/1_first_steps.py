# %% [markdown]
# # 1. First steps
#
# After these ten minutes you can
#
# - record the ranks of every weight matrix while `model.fit` runs,
# - read the table and the pictures that come of it, and
# - say whether a rank is low, or only what chance gives.
#
# It runs on any backend of Keras, on a laptop, without a download. As a script:
# `KERAS_BACKEND=jax python tutorials/1_first_steps.py`.

# %%
# %matplotlib inline
import os

import keras
import numpy as np

import keras_lowrank as kl
from keras_lowrank.experiments import digits
from keras_lowrank.plots import draw_panels
from keras_lowrank.plots import measure_curves
from keras_lowrank.plots import spectrum_overlay

# Set KERAS_LOWRANK_SMOKE=1 for a rehearsal: few epochs, and nothing claimed.
SMOKE = "KERAS_LOWRANK_SMOKE" in os.environ
EPOCHS = 2 if SMOKE else 40
print("Keras runs on", keras.backend.backend())

# %% [markdown]
# ## A network as you would write it
#
# The data are 1,797 handwritten digits of 8 x 8 pixels, which come with
# scikit-learn. The network is an ordinary one. Names are worth giving: tables
# and records use them.

# %%
data = digits()


def build():
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input(data.input_shape)])
    for index in range(3):
        model.add(keras.layers.Dense(100, name=f"hidden_{index}"))
        model.add(keras.layers.BatchNormalization())
        model.add(keras.layers.Activation("relu"))
    model.add(keras.layers.Dense(data.classes, name="logits"))
    return model


build().summary()

# %% [markdown]
# ## One more callback
#
# `RankTracker` measures the weights before training and at the end of epochs:
# exact singular values in float64, whatever trains. By default it spaces its
# measurements so that they take at most one percent of the time of `fit`. This
# network is a toy, for which that would be seldom, so we ask for every fifth
# epoch.
#
# `WeightDecay` says which weight decay is meant; tutorial 3 is about that. Here
# it shrinks the kernels by `learning_rate * 0.1` at every step.


# %%
def train(rate):
    model = build()
    steps = -(-len(data.x_train) // 64) * EPOCHS
    schedule = keras.optimizers.schedules.CosineDecay(0.2, steps)
    optimizer = keras.optimizers.SGD(schedule)
    if rate:
        optimizer = kl.WeightDecay(rate).wrap(optimizer)
    model.compile(
        optimizer,
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    tracker = kl.RankTracker(weights="hidden", every=5)
    history = model.fit(
        data.x_train,
        data.y_train,
        batch_size=64,
        epochs=EPOCHS,
        validation_data=(data.x_test, data.y_test),
        callbacks=[tracker],
        verbose=0,
    )
    print(f"test accuracy {history.history['val_accuracy'][-1]:.3f}")
    return model, tracker, history


plain, without, _ = train(0.0)
decayed, with_decay, history = train(0.1)

# %% [markdown]
# ## Read it
#
# The table sets the first measurement beside the last. Under it stands what
# each number means, in full: there is more than one rank (tutorial 2).

# %%
without.summary()

# %%
with_decay.summary()

# %% [markdown]
# The same network, the same data, the same seed. Without decay the matrices are
# about as they began. With it they have lost directions by every count: most by
# the stable rank, which weighs directions by their size, fewer by the rank,
# which counts all above a small threshold. And the network is no less accurate.

# %%
ends = {
    label: tracker.recording.measurements[-1]
    for label, tracker in (("without", without), ("with", with_decay))
}
for label, end in ends.items():
    print(
        f"{label:>8} decay: mean rank {end.mean('rank'):.1f}, "
        f"mean stable rank {end.mean('stable_rank'):.1f}"
    )
if not SMOKE:
    assert ends["with"].mean("rank") < 0.85 * ends["without"].mean("rank")
    assert ends["with"].mean("stable_rank") < 10
    assert ends["without"].mean("stable_rank") > 20
    assert ends["with"].logs["val_accuracy"] > 0.96

# %% [markdown]
# ## Look at it
#
# First ranks over epochs; then every singular value of one matrix at the end,
# on a logarithmic axis. Decay did not cut the spectrum off: it let the
# directions that training does not renew sink below the line.

# %%
runs = {
    "without decay": without.recording,
    "with decay": with_decay.recording,
}
draw_panels(
    [
        measure_curves(runs, "rank"),
        measure_curves(runs, "stable_rank"),
        spectrum_overlay(runs, "hidden_1/kernel"),
    ]
)

# %% [markdown]
# ## Is that low?
#
# Ask what an untrained matrix of the same shape measures, before you call a
# number low. A random 100 x 100 matrix already lacks one direction by this
# rule, and its stable rank is about 28.

# %%
baseline = kl.initial_baseline((100, 100))
for name, value in baseline.items():
    print(f"{name:>15}: {value:.1f}")
assert baseline["rank"] > 98 and 20 < baseline["stable_rank"] < 40

# %% [markdown]
# And ask whether the low rank is not merely dead: a layer half of whose units
# never fire has a low rank, too. `rank_report` accounts for *every* variable,
# measured or skipped with a reason, and mentions channels that carry nothing.

# %%
kl.rank_report(decayed, measures=["rank", "stable_rank"]).print()

# %% [markdown]
# ## Keep it
#
# With `run_dir` everything goes into one file that survives a crash and can be
# read while it is written. Whole spectra are kept, so you choose the measure
# when you read, not when you train.

# %%
model = build()
model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(True))
tracker = kl.RankTracker(run_dir="runs/first", every=1)
model.fit(data.x_train, data.y_train, epochs=2, verbose=0, callbacks=[tracker])

recording = kl.open_run("runs/first")
spectrum = recording.spectra("hidden_1/kernel")[2]
print(recording, spectrum)
print("energy rank", kl.energy_rank(spectrum, energy=0.9))
assert np.allclose(
    spectrum.values, tracker.recording.spectra("hidden_1/kernel")[2].values
)

# %% [markdown]
# The means over the matrices are in the logs of `fit`, so `EarlyStopping`,
# `CSVLogger` or a tuner can watch them. List the tracker before these.

# %%
print([key for key in history.history if key.endswith("rank_mean")])
assert len(history.history["rank_mean"]) == EPOCHS

# %% [markdown]
# ## What to try
#
# - Another decay: 0.02, 0.5. At which does accuracy begin to fall?
# - `batch_size=256`. Larger batches make fewer steps; is the rank higher
#   because of the batch, or because of the steps? Train four times as long to
#   see.
# - `RankTracker(every="log")`, and no `every` at all: what does
#   `tracker.summary()` say it left out?
# - `keras-lowrank demo` on a command line shows the same with a live table.
