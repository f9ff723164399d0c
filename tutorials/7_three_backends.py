# %% [markdown]
# # 7. The same experiment on three backends
#
# TensorFlow, JAX and torch round differently, and training magnifies that until
# two correct runs have nothing in common but their statistics. So how would one
# notice that a backend *computes* something else? After this tutorial you can
#
# - train one experiment on every backend you have, from the same weights and
#   batches,
# - say whether one of them differs by more than rounding does, and
# - hold a layer or an optimizer of your own against Keras'.

# %%
# %matplotlib inline
import importlib.util
import os

import keras

from keras_lowrank.experiments import ExperimentSpec
from keras_lowrank.experiments import compare
from keras_lowrank.experiments import run
from keras_lowrank.plots import draw_panels
from keras_lowrank.plots import measure_curves

SMOKE = "KERAS_LOWRANK_SMOKE" in os.environ  # a rehearsal: one backend
installed = [
    name
    for name in ("jax", "torch", "tensorflow")
    if importlib.util.find_spec(name)
]
print("Installed:", ", ".join(installed))

# %% [markdown]
# ## One spec
#
# Equal specs give equal runs: initial weights are drawn, and data are ordered,
# by NumPy from the seed. On one backend the run repeats to the last bit.

# %%
spec = ExperimentSpec(
    network={"name": "mlp", "depth": 2, "width": 50},
    data="digits",
    batch_size=64,
    learning_rate=0.1,
    weight_decay=0.05,
    epochs=1 if SMOKE else 10,
)
print(spec.id)

# %% [markdown]
# ## Compare
#
# Keras fixes its backend when it is imported, so each trains in a process of
# its own. The first is the reference. Short legs start from states of the
# reference all over the run; *shadows* of it that err by rounding at every step
# show how far rounding alone would lead. Whoever goes further differs by
# something else.
#
# With one backend installed there is nothing to compare, and the cell says so.

# %%
backends = [keras.backend.backend()] if SMOKE else installed
found = None
if len(backends) > 1:
    found = compare(spec, backends, "runs/backends", steps=40)
    found.print(line_length=100)
else:
    print("One backend: install another, as in `pip install torch`.")

# %% [markdown]
# Read the verdict first. *Agree* means that no variable differs by more than
# rounding explains at any step that was judged. After a few steps nothing is
# judged: from there on rounding alone may drive two runs apart.

# %%
if found is not None:
    print("\n".join(found.verdict()))
    assert found.agrees and not found.failed

# %% [markdown]
# ## What may differ, and what may not
#
# Over as few steps as here even whole runs may stay together. Over thousands
# they part: in `examples/compare_demo`, where all three agree step by step,
# test accuracies end at 0.983, 0.975 and 0.992. Then they are as close as those
# of two seeds would be, and no more is to be expected.

# %%
if found is not None:
    runs = found.runs
    print("Written:", sorted(found.save("runs/backends")))
else:
    runs = {keras.backend.backend(): run(spec, "runs/backends/runs")}
ranks = {}
for label, one in runs.items():
    ranks[label] = one.recording.measurements[-1].mean("effective_rank")
    print(
        f"{label:>10}: effective rank {ranks[label]:.2f}, "
        f"accuracy {one.result['logs']['val_accuracy']:.3f}"
    )
assert max(ranks.values()) < 1.1 * min(ranks.values())

# %%
recordings = {label: one.recording for label, one in runs.items()}
draw_panels(
    [
        measure_curves(recordings, "effective_rank"),
        measure_curves(recordings, "stable_rank"),
    ]
)

# %% [markdown]
# The spectra themselves are no part of the differences: they are computed in
# float64 outside of the backend, and the same weights give the same singular
# values everywhere.
#
# ## From a command line
#
# ```
# keras-lowrank compare spec.toml --backends jax,torch,tensorflow
# keras-lowrank compare spec.toml --backends jax,jax+my_layers:install
# ```
#
# The second compares JAX with itself under a change: a function of your module
# that is given the compiled model. That is a test for a layer or an optimizer
# that should be the same as Keras' and may not be. The exit status is 2 where
# two sides differ, so it can stand in CI.
#
# ## What to try
#
# - `momentum=0.9`, then `precision="mixed_bfloat16"` in the spec. How many
#   steps are judged then?
# - Put a mistake into a layer (`+ 1e-5` on its output) and name it as a change.
#   From which step on is it found, and in which weight?
# - Three seeds of one backend: is the spread between seeds larger than between
#   backends?
