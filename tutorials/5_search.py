# %% [markdown]
# # 5. Searching with rank as an objective
#
# After this tutorial you can
#
# - search batch size, learning rate and decay for the lowest rank that costs no
#   accuracy,
# - say what of the gain is more than luck, and
# - read the front of accuracy and rank.

# %%
# %matplotlib inline
import os

from keras_lowrank.experiments import ExperimentSpec
from keras_lowrank.plots import draw_panels
from keras_lowrank.search import LowestRank
from keras_lowrank.search import SearchSpec
from keras_lowrank.search import front_panel
from keras_lowrank.search import ratio_panel
from keras_lowrank.search import search

SMOKE = "KERAS_LOWRANK_SMOKE" in os.environ  # a rehearsal: nothing is claimed

# %% [markdown]
# ## What is searched, and for what
#
# A search starts from a *default*, an experiment that you would run anyway. It
# is trained first, and every trial is compared with it. The space names fields
# of the experiment and their values. Every point is trained with several seeds,
# since one seed cannot tell a gain from luck.
#
# The objective here: the lowest mean rank among the points that are as accurate
# as the default. A rank that is bought with accuracy does not count.

# %%
default = ExperimentSpec(
    network={"name": "mlp", "depth": 2, "width": 100},
    data="digits",
    batch_size=32,
    learning_rate=0.1,
    weight_decay=5e-4,
    epochs=2 if SMOKE else 30,
    every=10,
)
asked = SearchSpec(
    default,
    space={
        "batch_size": [32] if SMOKE else [32, 128],
        "weight_decay": [0.02] if SMOKE else [0.02, 0.05, 0.1],
    },
    objective=LowestRank(accuracy_floor=0.97, rank="effective_rank_mean"),
    method="grid",
    trials=None,
    seeds=2,
)

# %% [markdown]
# ## Search
#
# Everything goes into a directory. Call it again and nothing is trained twice:
# a search that was killed goes on. `workers=2` trains trials side by side, in
# processes of their own.

# %%
results = search(asked, "searches/tutorial")
results.table().print()

# %% [markdown]
# Each number is a mean over the seeds with half the width of its 95 % interval.
# Two seeds give wide ones: that is honest, and a reason to ask for five.
#
# ## What was gained?
#
# The best point against the default, seed by seed:

# %%
for sentence in results.against_default():
    print(sentence)

# %%
best, first = results.best()[0], results["default"]
print(dict(best.values))
for name in ("effective_rank_mean", "val_accuracy"):
    print(f"{name}: {first.metrics[name]:.3f} -> {best.metrics[name]:.3f}")
assert SMOKE or best.metrics["val_accuracy"] >= 0.97 - 1e-6
assert (
    SMOKE
    or best.metrics["effective_rank_mean"]
    < 0.8 * first.metrics["effective_rank_mean"]
)

# %% [markdown]
# Beware of one thing no interval shows. The floor is kept on the data the
# trials are compared on, and the best of many is partly the luckiest. Keep a
# test set that no choice looks at, and report that one.
#
# ## The front, and the paper's ratio
#
# On the left every point by accuracy and rank; those that no other beats in
# both are the front. On the right the same ranks against `batch_size /
# (learning_rate * weight_decay)`, which the paper's theorem says decides. See
# whether it orders the points.

# %%
draw_panels(
    [
        front_panel(results, rank="effective_rank_mean"),
        ratio_panel(results, rank="effective_rank_mean"),
    ]
)

# %%
for trial in results.pareto():
    print(trial.id, dict(trial.values), f"{trial.metrics['val_accuracy']:.3f}")

# %% [markdown]
# ## What to try
#
# - `equal="steps"` or `equal="decay_clock"` in `SearchSpec`: at equal epochs a
#   smaller batch makes more steps, so batch size and length are one thing.
#   Which of the two lowered the rank?
# - `method="optuna"` with `objective=ParetoFront()` searches for the front
#   itself; `Range(1e-3, 1e-1)` in place of a list searches between.
# - A model of your own, with any tuner of KerasTuner: `RankHyperModel` in the
#   how-to *Search*.
# - `keras-lowrank search examples/search_digits.toml` does the same from a
#   file, with five seeds, in a few minutes.
