# %% [markdown]
# # 6. From low rank to a smaller model
#
# A matrix of rank `r` is a product of two thin ones, with fewer weights where
# `r * (m + n) < m * n`. After this tutorial you can
#
# - plan which layer gets which rank,
# - make a plain, smaller Keras model of a trained one, and
# - prove what that cost in accuracy and gained in size and time.

# %%
# %matplotlib inline
import os
import pathlib

import keras

import keras_lowrank as kl
from keras_lowrank.experiments import digits
from keras_lowrank.plots import compressibility_curves
from keras_lowrank.plots import draw_panels

SMOKE = "KERAS_LOWRANK_SMOKE" in os.environ  # a rehearsal: nothing is claimed
EPOCHS = 2 if SMOKE else 40
data = digits()

# %% [markdown]
# ## Two networks
#
# They differ in one number, the weight decay. Both fit the digits.


# %%
def train(rate):
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input(data.input_shape)])
    for index in range(2):
        model.add(keras.layers.Dense(256, name=f"hidden_{index}"))
        model.add(keras.layers.BatchNormalization())
        model.add(keras.layers.Activation("relu"))
    model.add(keras.layers.Dense(data.classes, name="logits"))
    steps = -(-len(data.x_train) // 64) * EPOCHS
    schedule = keras.optimizers.schedules.CosineDecay(0.2, steps)
    model.compile(
        kl.WeightDecay(rate).wrap(keras.optimizers.SGD(schedule)),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    model.fit(
        data.x_train,
        data.y_train,
        batch_size=64,
        epochs=EPOCHS,
        verbose=0,
    )
    return model


def accuracy(model):
    return model.evaluate(data.x_test, data.y_test, verbose=0)[1]


models = {"no decay": train(0.0), "decay 0.1": train(0.1)}
for label, model in models.items():
    print(
        f"{label}: {accuracy(model):.3f}, {model.count_params():,} parameters"
    )

# %% [markdown]
# ## What truncation would cost
#
# Each curve is the matrix between the two hidden layers: how much of it is lost
# (relative error) when it is kept as two factors, by what they weigh. Beyond 1
# the factors are larger than what they replace. Decay moved the curve to the
# left.

# %%
spectra = {
    label: kl.weight_matrices(model, weights="hidden_1")[0].spectrum()
    for label, model in models.items()
}
draw_panels([compressibility_curves(spectra)])

# %% [markdown]
# ## A plan
#
# `compression_plan` chooses ranks by one criterion: an energy to keep, an error
# to allow, a budget of parameters or FLOPs, or an accuracy to hold. Here a
# relative error of 0.2 for each matrix. The plan says what it saves, and leaves
# alone what does not pay.

# %%
plans = {
    label: kl.compression_plan(model, tolerance=0.2)
    for label, model in models.items()
}
for plan in plans.values():
    plan.print()

# %%
saved = {
    label: plan.parameters / plan.parameters_after
    for label, plan in plans.items()
}
print({label: f"{times:.1f} times fewer" for label, times in saved.items()})
assert SMOKE or saved["decay 0.1"] > 1.5 * saved["no decay"]

# %% [markdown]
# Look at the matrix between the hidden layers: ten classes differ in nine
# directions, and nine is the rank that is left. Below that the error is steep.
# (At a relative error of 0.3 rank 8 would do, and cost 8 points of accuracy.) A
# plan is a value, so ask it:

# %%
plan = plans["decay 0.1"]
for rank in (7, 8, 9, 10):
    edited = plan.with_rank("hidden_1", rank)
    print(f"rank {rank}: error {edited['hidden_1'].error:.3f}")
assert SMOKE or plan["hidden_1"].rank in (9, 10)

# %% [markdown]
# ## Compress, and prove it
#
# `compress_and_verify` makes the smaller model, scores both on the same
# samples, times both in turns, and puts layers back that hurt or are not
# faster. The network is small, so time hardly matters here: `keep_slower=True`.

# %%
proof = kl.compress_and_verify(
    models["decay 0.1"],
    (data.x_test, data.y_test),
    tolerance=0.01,
    plan=plan,
    batch_sizes=(256,),
    keep_slower=True,
    seconds=0.1 if SMOKE else 0.5,
)
proof.print()

# %% [markdown]
# Read the line of the score with its interval: 359 test images cannot show less
# than about a point. Where the interval reaches further the verdict is *not
# shown*: a loss that cannot be ruled out with so few samples, which does not
# mean that there is one.

# %%
small = proof.model
print(f"{accuracy(models['decay 0.1']):.3f} -> {accuracy(small):.3f}")
assert SMOKE or abs(accuracy(small) - accuracy(models["decay 0.1"])) < 0.02
assert SMOKE or small.count_params() < 0.4 * model.count_params()

# %% [markdown]
# ## A plain Keras model
#
# What comes out is an ordinary model with low-rank layers, each two layers of
# Keras'. It saves, loads, trains, and is measured under the old names.

# %%
small.summary()
pathlib.Path("runs").mkdir(exist_ok=True)
small.save("runs/small.keras")
again = keras.saving.load_model("runs/small.keras")
assert accuracy(again) == accuracy(small)
kl.rank_report(again, measures=["rank", "stable_rank"]).print()

# %% [markdown]
# ## What to try
#
# - `fine_tune=lambda small: small.fit(data.x_train, data.y_train, epochs=1)`,
#   with a tolerance of 0.5 in the plan: one epoch heals much.
# - `calibration=data.x_train[:500]` in plan and compression makes the errors of
#   the *outputs* small, not those of the kernels. How much of the advantage of
#   decay is left then?
# - `kl.SwitchToLowRank()` in `callbacks` rewrites layers while training goes
#   on.
# - From a command line: `keras-lowrank compress model.keras --data digits`.
