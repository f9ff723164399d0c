# %% [markdown]
# # 3. Weight decay without tears
#
# `weight_decay=5e-4` is a different decay in the paper, in torch, in Keras and
# in `L2`. After this tutorial you can
#
# - turn one into the other, and know when no number does,
# - say which variables decay, and see it, and
# - copy a recipe from torch to Keras and get the ranks it promised.

# %%
# %matplotlib inline
import os
import warnings

import keras
import numpy as np

import keras_lowrank as kl
from keras_lowrank.experiments import ExperimentSpec
from keras_lowrank.experiments import digits
from keras_lowrank.experiments import run_all
from keras_lowrank.plots import draw_panels
from keras_lowrank.plots import measure_curves
from keras_lowrank.theory import memory_steps

SMOKE = "KERAS_LOWRANK_SMOKE" in os.environ  # a rehearsal: nothing is claimed
data = digits()
loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)

# %% [markdown]
# ## One number, four decays
#
# Without momentum every one of them shrinks a weight by `learning_rate * w` at
# each step. They differ in what they call `w`: the paper's objective is `loss +
# lambda * sum(W**2)`, whose gradient is `2 * lambda * W`, and `L2` is the same.
# Torch and Keras' `weight_decay` leave the 2 out.

# %%
for source in ("torch", "keras", "l2", "paper_lambda"):
    told = [
        f"{target} {kl.convert_weight_decay(5e-4, source, target):g}"
        for target in ("torch", "keras", "l2", "paper_lambda")
    ]
    print(f"5e-4 in {source}:".ljust(22), ", ".join(told))
assert kl.convert_weight_decay(5e-4, "torch", "l2") == 2.5e-4

# %% [markdown]
# ## See it: three ways to the same weights
#
# Without momentum the three recipes below are one update. We train each for two
# epochs from the same weights, and compare.


# %%
def trained(optimizer, regularizer=None, epochs=2):
    keras.utils.set_random_seed(0)
    layers = [
        keras.layers.Dense(
            units,
            activation,
            kernel_regularizer=regularizer,
            name=name,
        )
        for units, activation, name in (
            (50, "relu", "hidden"),
            (data.classes, None, "logits"),
        )
    ]
    model = keras.Sequential([keras.Input(data.input_shape), *layers])
    model.compile(optimizer, loss)
    model.fit(
        data.x_train,
        data.y_train,
        epochs=epochs,
        shuffle=False,
        verbose=0,
    )
    return np.array(keras.ops.convert_to_numpy(model.layers[0].kernel))


def apart(one, other):
    return np.linalg.norm(one - other) / np.linalg.norm(one)


def sgd(momentum=0.0):
    return keras.optimizers.SGD(0.1 * (1 - momentum), momentum=momentum)


RATE = 0.02
decoupled = trained(kl.WeightDecay(RATE, "keras").wrap(sgd()))
coupled = trained(kl.WeightDecay(RATE, "torch").wrap(sgd()))
by_l2 = trained(sgd(), keras.regularizers.L2(RATE / 2))
print(f"coupled: {apart(decoupled, coupled):.1e}")
print(f"L2 of half the rate: {apart(decoupled, by_l2):.1e}")
assert apart(decoupled, coupled) < 1e-3 and apart(decoupled, by_l2) < 1e-3

# %% [markdown]
# With momentum they part. *Coupled* decay (torch, `L2`) is part of the
# gradient, so the momentum sums it up, too. *Decoupled* decay (Keras, AdamW)
# shrinks the weight beside the momentum.

# %%
decoupled = trained(kl.WeightDecay(RATE, "keras").wrap(sgd(0.9)))
coupled = trained(kl.WeightDecay(RATE, "torch").wrap(sgd(0.9)))
by_l2 = trained(sgd(0.9), keras.regularizers.L2(RATE / 2))
print(f"coupled and L2: {apart(coupled, by_l2):.1e}")
print(f"coupled and decoupled: {apart(coupled, decoupled):.1e}")
assert apart(coupled, by_l2) < 1e-3 < 1e-2 < apart(coupled, decoupled)

# %% [markdown]
# No number makes the last two agree, so asking for one is an error that says
# what to do.

# %%
try:
    kl.convert_weight_decay(5e-4, "torch", "keras", momentum=0.9)
except ValueError as error:
    print(error)

# %% [markdown]
# ## How long is the memory?
#
# What decay does for rank is to forget. After `1 / (learning_rate * w)` steps
# `1 / e` of a weight is left, if nothing is added. Momentum shortens the memory
# of a coupled decay tenfold, at 0.9, and does nothing to a decoupled one:

# %%
print("torch,  momentum 0.9:", memory_steps(0.01, 0.05, momentum=0.9), "steps")
print("Keras,  momentum 0.9:", memory_steps(0.01, 0.05), "steps")

# %% [markdown]
# So who copies torch's `weight_decay` into a Keras SGD with momentum loses most
# of the effect. Four trainings show it: plain SGD; momentum with the coupled
# decay; the same number decoupled; ten times the number decoupled.

# %%
spec = ExperimentSpec(
    network={"name": "mlp", "depth": 3, "width": 100},
    data="digits",
    batch_size=32,
    learning_rate=0.1,
    weight_decay=0.05,
    epochs=2 if SMOKE else 40,
    every=4,
)
momentum = spec.replace(momentum=0.9, learning_rate=0.01)
specs = {
    "plain": spec,
    "momentum, coupled": momentum,
    "momentum, decoupled": momentum.replace(decay_coupling="decoupled"),
    "decoupled, times 10": momentum.replace(
        decay_coupling="decoupled", weight_decay=0.5
    ),
}
if SMOKE:
    specs = {"plain": spec}
runs = dict(
    zip(specs, run_all(specs.values(), "runs/weight_decay"), strict=True)
)
draw_panels(
    [
        measure_curves(
            {label: one.recording for label, one in runs.items()}, measure
        )
        for measure in ("stable_rank", "effective_rank")
    ]
)

# %%
means = {
    label: one.recording.measurements[-1].mean("effective_rank")
    for label, one in runs.items()
}
for label, one in runs.items():
    accuracy = one.result["logs"]["val_accuracy"]
    print(f"{label:>20}: effective rank {means[label]:.1f}, {accuracy:.3f}")
assert SMOKE or means["momentum, decoupled"] > 1.3 * means["momentum, coupled"]
assert SMOKE or np.isclose(means["plain"], means["momentum, coupled"], rtol=0.2)

# %% [markdown]
# ## Who decays?
#
# Keras' own `weight_decay` covers every trainable variable, biases and batch
# normalisation too. `explain_weight_decay` shows every route that decay takes
# in a compiled model, and warns where it is likely not meant.

# %%
model = keras.Sequential(
    [
        keras.Input(data.input_shape),
        keras.layers.Dense(50, name="hidden"),
        keras.layers.BatchNormalization(name="norm"),
        keras.layers.Activation("relu"),
        keras.layers.Dense(data.classes, name="logits"),
    ]
)
model.compile(keras.optimizers.SGD(0.1, weight_decay=5e-4), loss)
with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # the table prints them, too
    kl.explain_weight_decay(model).print()

# %% [markdown]
# `WeightDecay` covers kernels, unless you say otherwise: roles, regular
# expressions, layers or variables, in `covers` and `exclude`. What is covered
# is decided once, and saved with the model.

# %%
policy = kl.WeightDecay(
    5e-4, "torch", covers="all", exclude=["normalization", "logits"]
)
model.compile(policy.wrap(keras.optimizers.SGD(0.1)), loss)
table = kl.explain_weight_decay(model)
table.print()
assert {row["name"] for row in table.rows if not row["decay"]} == {
    "norm/gamma",
    "norm/beta",
    "logits/kernel",
    "logits/bias",
}

# %% [markdown]
# ## What to try
#
# - A rate that changes: `kl.WeightDecay(schedule)`, or the callback
#   `kl.WeightDecayScheduler`, which acts on every backend.
# - `kl.TorchSGD` instead of Keras' SGD, with a learning rate that is cut: Keras
#   keeps the learning rate in its velocity, torch does not.
# - `kl.WeightDecay(5e-4).wrap("adam")`: what does `explain_weight_decay` say of
#   an adaptive optimizer, and what with `coupling="coupled"`?
# - The paper decays everything: `covers="all"`. Does batch normalisation's
#   gamma go to zero, and what does `kl.dead_channels(model)` say then?
