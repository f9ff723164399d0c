# %% [markdown]
# # 2. Which rank?
#
# A trained matrix has full rank, to the last bit. What is called its rank is
# one of several ways to say how many directions matter. After this tutorial you
# can
#
# - tell the measures apart, and say which one a paper or a plot used,
# - choose a threshold, and see what it decides, and
# - put a baseline beside a number.

# %%
# %matplotlib inline
import functools
import os

import numpy as np

import keras_lowrank as kl
from keras_lowrank.experiments import ExperimentSpec
from keras_lowrank.experiments import run
from keras_lowrank.plots import Line
from keras_lowrank.plots import Panel
from keras_lowrank.plots import draw_panels
from keras_lowrank.plots import measure_curves

SMOKE = "KERAS_LOWRANK_SMOKE" in os.environ  # a rehearsal: nothing is claimed

# %% [markdown]
# ## One spectrum, eight answers
#
# A `Spectrum` is all that a measure needs: the singular values, largest first,
# and the shape of the matrix. Take one whose values fall by a tenth of an
# e-fold each: `exp(-i / 10)` for `i` from 0 to 99.

# %%
spectrum = kl.Spectrum(np.exp(-np.arange(100) / 10), shape=(100, 100))

spectral = functools.partial(kl.numerical_rank, relative_to="spectral")
squared = functools.partial(kl.energy_rank, energy=0.9)
chosen = kl.as_measures(
    {
        "rank": "rank",
        "rank, spectral": spectral,
        "effective": "effective_rank",
        "energy 99 %": "energy_rank",
        "energy 90 %": squared,
        "participation": "participation_ratio",
        "stable": "stable_rank",
        "above the noise": "marchenko_pastur_count",
    }
)
for measure in chosen:
    print(f"{measure.name:>16} {measure(spectrum):6.1f}  {measure.definition}")

# %% [markdown]
# From 61 to 5.5, of one matrix. None is wrong:
#
# - **rank** counts values above a threshold: here 1e-3 of the Frobenius norm,
#   the rule behind the paper's figures. It sees the tail, and jumps.
# - **effective rank** is the exponential of an entropy, **participation ratio**
#   and **stable rank** compare sums. They need no threshold, never jump, and
#   look at the large values.
# - **energy rank** is how many values hold a share of the squared norm. That is
#   what truncation costs, so compression asks for this one.
#
# Four of them always stand in one order, whatever the matrix:

# %%
order = ["stable_rank", "participation_ratio", "effective_rank", "rank"]
values = [kl.as_measure(name)(spectrum) for name in order]
print(" <= ".join(f"{value:.1f}" for value in values))
assert values == sorted(values)
assert [round(value, 1) for value in values] == [5.5, 10.0, 27.2, 61.0]

# %% [markdown]
# ## What the threshold decides
#
# The rank of a *random* matrix, against the threshold. The horizontal axis is
# logarithmic. Relative to the spectral norm all shapes behave alike. Relative
# to the Frobenius norm they do not: it grows with the number of values, and
# each becomes a smaller part of it. `n` equal values are `1 / sqrt(n)` each, so
# that even an identity of 512 x 512 has rank 0 at a threshold of 0.05.

# %%
tolerances = np.logspace(-3, -0.5, 40)


def ranks_of(spectrum, relative_to):
    return np.array(
        [
            kl.numerical_rank(spectrum, tolerance, relative_to)
            for tolerance in tolerances
        ]
    )


untrained = {
    n: kl.initial_spectra((n, n), samples=1)[0] for n in (64, 256, 512)
}
panels = [
    Panel(
        title=f"Untrained matrices, {norm} norm",
        x_label=f"threshold / {norm} norm",
        y_label="rank / n",
        lines=tuple(
            Line(f"{n} x {n}", tolerances, ranks_of(one, norm) / n)
            for n, one in untrained.items()
        ),
        log_x=True,
    )
    for norm in ("frobenius", "spectral")
]
draw_panels(panels)

# %%
coarse = functools.partial(kl.numerical_rank, tolerance=0.05)
for n, one in untrained.items():
    print(f"{n} x {n}: rank {coarse(one):.0f} at 0.05 of the Frobenius norm")
shares = [coarse(one) / n for n, one in untrained.items()]
assert shares == sorted(shares, reverse=True) and shares[-1] < 0.4

# %% [markdown]
# So: **compare ranks of one shape under one rule**, and put the untrained
# matrix beside them.
#
# ## The same training, seen by four measures
#
# `experiments` trains and records in two lines. Everything that decides the
# outcome is in the spec.

# %%
spec = ExperimentSpec(
    network={"name": "mlp", "depth": 3, "width": 100},
    data="digits",
    batch_size=32,
    learning_rate=0.1,
    weight_decay=0.05,
    epochs=2 if SMOKE else 60,
    every=2,
)
recording = run(spec, "runs/which_rank").recording
label = {"weight decay 0.05": recording}
draw_panels([measure_curves(label, name) for name in order])

# %% [markdown]
# Compare *when* each falls. The soft measures fall first: the large values grow
# apart from the rest within a few epochs. The count at 1e-3 stays near full and
# falls late, when the tail at last sinks below the threshold. A paper that
# counts at 0.05 and one that counts at 1e-3 tell different stories about one
# run; here is that run again, under three thresholds:

# %%
measures = {
    f"rank at {tolerance:g}": functools.partial(
        kl.numerical_rank, tolerance=tolerance
    )
    for tolerance in (1e-3, 1e-2, 5e-2)
}
rows = recording.rows(measures)
first, last = min(recording.epochs), max(recording.epochs)
for row in rows:
    if row["weight"] == "hidden_1/kernel" and row["epoch"] in (first, last):
        print(row["epoch"], {name: row[name] for name in measures})

# %% [markdown]
# ## The edges
#
# A zero matrix has rank 0 by every measure. That is a collapse, no success, and
# every table of ours says so. A matrix that holds a NaN measures NaN.

# %%
dead = kl.Spectrum(np.zeros(4), shape=(4, 4))
lost = kl.Spectrum(np.full(4, np.nan), shape=(4, 4), reason="1 entry is NaN")
print([measure(dead) for measure in chosen])
print([measure(lost) for measure in chosen])
assert all(measure(dead) == 0 for measure in chosen)

# %% [markdown]
# And below what the arithmetic resolves, counting is refused rather than
# answered. Spectra are those of float32 weights: values below about 1e-7 of the
# largest are rounding.

# %%
trained = recording.spectra("hidden_1/kernel")[last]
print(f"resolution {trained.resolution:.1e}, largest {trained.values[0]:.2f}")
blurred = kl.Spectrum([1.0, 1e-9], shape=(2, 2), resolution=1e-7)
try:
    kl.numerical_rank(blurred, tolerance=1e-10)
except ValueError as error:
    print(error)

# %% [markdown]
# ## What to try
#
# - Write a measure of your own: any function from a `Spectrum` to a number is
#   one. `recording.to_frame({"gap": lambda s: s.values[0] - s.values[1]})`.
# - `kl.initial_baseline((64, 576), "torch")`: oblong matrices start elsewhere.
# - Draw `kl.plots.spectrum_overlay(label, "hidden_1/kernel", tolerance=0.05)`,
#   and find the count in the picture.
# - The page *Definitions* has every formula.
