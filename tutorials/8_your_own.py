# %% [markdown]
# # 8. Your own layer, measure and sink
#
# After this tutorial you can
#
# - have the kernels of a layer of your own measured as the matrices they are,
# - write a measure, and use it wherever a name would do, and
# - send every measurement wherever you like.

# %%
# %matplotlib inline
import json
import os
import pathlib

import keras
import numpy as np
from keras import ops

import keras_lowrank as kl
from keras_lowrank.experiments import digits
from keras_lowrank.plots import draw_panels
from keras_lowrank.plots import measure_curves

SMOKE = "KERAS_LOWRANK_SMOKE" in os.environ  # a rehearsal: few epochs
data = digits()

# %% [markdown]
# ## A layer
#
# Four small experts, each with a matrix of its own, in one kernel of three
# axes. Which axes are rows? The library cannot know, and does not guess: the
# kernel is skipped, with a reason, until you say.


# %%
class Experts(keras.layers.Layer):
    """Every expert transforms the input; their mean comes out."""

    def __init__(self, experts, units, **kwargs):
        super().__init__(**kwargs)
        self.experts = experts
        self.units = units

    def build(self, input_shape):
        self.kernel = self.add_weight(
            shape=(self.experts, input_shape[-1], self.units),
            initializer="he_normal",
            name="kernel",
        )

    def call(self, inputs):
        outputs = ops.einsum("bi,eio->beo", inputs, self.kernel)
        return ops.mean(ops.relu(outputs), axis=1)


keras.utils.set_random_seed(0)
model = keras.Sequential(
    [
        keras.Input(data.input_shape),
        Experts(4, 48, name="experts"),
        keras.layers.Dense(data.classes, name="logits"),
    ]
)
report = kl.rank_report(model, measures=["rank", "stable_rank"])
report.print()
assert report["experts/kernel"]["status"] == "skipped"

# %% [markdown]
# A rule says what its axes mean. Here each expert is a *block*, and blocks are
# measured one by one; `views={"groups": "merged"}` shows them as one matrix,
# which is block-diagonal.


# %%
@kl.register_matricization(Experts)
def experts(layer, variable):
    return kl.Matricization(rows=(1,), columns=(2,), blocks=(0,))


report = kl.rank_report(model, measures=["rank", "stable_rank"])
report.print()
assert len(report.measured) == 5

# %% [markdown]
# Two further rules are for other cases: `register_factored` for a kernel that a
# layer makes of two variables, and `register_uses` for how often a sample uses
# a kernel, which the theorem asks for.
#
# ## A measure
#
# A measure is a function from a `Spectrum` to a number, its parameters keyword
# arguments. This one asks how much of the energy the first directions hold. A
# zero matrix measures 0, as everywhere.


# %%
def leading_share(spectrum, directions=5):
    """Share of the squared singular values that the first ones hold."""
    energy = spectrum.values**2
    total = energy.sum()
    return energy[:directions].sum() / total if total else 0.0


measure = kl.as_measure(leading_share)
print(measure.name, "=", measure.definition)
assert measure(kl.Spectrum([2.0, 1.0], shape=(2, 2))) == 1.0

# %% [markdown]
# It is now as good as a name: in reports, callbacks, plots and tables, and for
# a recording that was made before you thought of it. In logs it is
# `leading_share_mean`.
#
# ## A sink
#
# By itself a tracker fills memory, the store of `run_dir` and TensorBoard. For
# anything else, say a line of JSON for a service, give it a function: it is
# called with every measurement, once that is recorded.

# %%
lines = pathlib.Path("runs/ranks.jsonl")
lines.parent.mkdir(exist_ok=True)
lines.write_text("")


def write_line(measurement):
    """Append a measurement as a line of JSON."""
    values = {record.weight: record.values for record in measurement.records}
    line = {"epoch": measurement.epoch, "step": measurement.step} | values
    with lines.open("a") as file:
        file.write(json.dumps(line) + "\n")


tracker = kl.RankTracker(
    measures=["stable_rank", leading_share], every=1, sinks=[write_line]
)
model.compile(
    kl.WeightDecay(0.02).wrap(keras.optimizers.SGD(0.2)),
    keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    metrics=["accuracy"],
)
history = model.fit(
    data.x_train,
    data.y_train,
    epochs=2 if SMOKE else 15,
    callbacks=[tracker],
    verbose=0,
)
sent = [json.loads(line) for line in lines.read_text().splitlines()]
print(f"{len(sent)} lines; the last:", sent[-1])
assert len(sent) == len(tracker.recording) == len(history.epoch) + 1

# %% [markdown]
# The first line is the initialisation. Each has the step and the epoch that its
# values are of, also where an asynchronous tracker hands them over later. What
# is to happen *between* measurements belongs in a callback; list it after the
# tracker, and `tracker.recording` is up to date.

# %%
shares = history.history["leading_share_mean"]
print(f"the first five directions: {shares[0]:.2f} -> {shares[-1]:.2f}")
assert SMOKE or shares[-1] > shares[0]
draw_panels(
    [
        measure_curves({"experts": tracker.recording}, name)
        for name in (leading_share, "stable_rank")
    ]
)

# %% [markdown]
# ## Without `fit`
#
# The parts are there by themselves, for a loop of your own: `weight_matrices`
# gives every matrix with its name and spectrum.

# %%
for matrix in kl.weight_matrices(model):
    print(f"{matrix.name:>24} {leading_share(matrix.spectrum()):.2f}")

whole = kl.weight_matrices(model, views={"groups": "merged"})["experts/kernel"]
print(whole.matrix_shape, whole.spectrum())
assert np.isclose(
    np.linalg.norm(ops.convert_to_numpy(model.layers[0].kernel)),
    kl.frobenius_norm(whole.spectrum()),
)

# %% [markdown]
# ## What to try
#
# - Penalise your measure: `kl.MeasurePenalty` takes it, if it computes with
#   `spectrum.xp` rather than NumPy, so that there are gradients.
# - `keras.saving.register_keras_serializable` on layer and measure, and save
#   the model.
# - `RankTracker(asynchronous=True)` with the sink: are all lines still there?
