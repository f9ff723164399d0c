"""What the points of `run.py` say: which decay, and how many parameters less.

    python examples/compressibility/summarize.py mnist.csv --out DIR

Every choice is made on means over seeds of *validation* accuracies: the decay
that is most accurate has the highest of networks left whole; the smallest point
within a floor has the fewest parameters, on average, of those whose mean is not
below it; the decay that is most compressible is that of the smallest point of
all, fine-tuned, within `LOSS` of the most accurate network. Test accuracies are
only reported.
"""

import argparse
import pathlib

import numpy as np
import pandas as pd

from keras_lowrank.plots import Line
from keras_lowrank.plots import Panel
from keras_lowrank.plots import draw_panels
from keras_lowrank.search import mean_interval
from keras_lowrank.tables import Column
from keras_lowrank.tables import Table
from keras_lowrank.tables import number

LOSS = 0.005  # half a point of accuracy
STAGES = {False: "Truncated", True: "Truncated, then one epoch"}


def whole(points):
    """The networks as they were trained: not truncated, not fine-tuned."""
    return points[(points["energy"] == 1) & ~points["fine_tuned"]]


def most_accurate(points):
    """The decay whose whole networks are most accurate; of equals, less."""
    means = whole(points).groupby("weight_decay")["val_accuracy"].mean()
    return means.round(6).idxmax()


def smallest(points, floor):
    """The rows, one a seed, of the smallest point that keeps a floor."""
    place = ["weight_decay", "energy", "fine_tuned"]
    means = points.groupby(place)[["parameters", "val_accuracy"]].mean()
    # The hair is for means that are equal but for rounding.
    kept = means[means["val_accuracy"] >= floor - 1e-9]
    if kept.empty:
        return None
    return points.set_index(place).loc[[kept["parameters"].idxmin()]]


def best_floor(points):
    """`LOSS` below the most accurate network."""
    best = whole(points[points["weight_decay"] == most_accurate(points)])
    return best["val_accuracy"].mean() - LOSS


def most_compressible(points):
    """The decay of the smallest fine-tuned point within the best floor."""
    tuned = points[points["fine_tuned"]]
    found = smallest(tuned, best_floor(points))
    if found is None:  # not even whole ones: a pass more can do harm
        return most_accurate(points)
    return found.index[0][0]


def roles(points):
    """The decays that are looked at closely, by what they are."""
    return {
        "no decay": points["weight_decay"].min(),
        "most accurate": most_accurate(points),
        "most compressible": most_compressible(points),
    }


def by_seed(rows, name):
    """A column of rows, one of each seed, with the seed as its index."""
    return rows.set_index("seed")[name].sort_index()


def compared(points, tuned, reference):
    """For every decay, its smallest point within `LOSS` of a reference.

    `reference` is a decay, or `None` for each network itself. Where no point
    is, there is only the accuracy of the whole network.
    """
    for decay, own in points.groupby("weight_decay"):
        untouched = whole(own)
        base = untouched
        if reference is not None:
            base = whole(points[points["weight_decay"] == reference])
        row = {
            "weight_decay": decay,
            "accuracy": mean_interval(100 * untouched["test_accuracy"]),
        }
        found = smallest(
            own[own["fine_tuned"] == tuned], base["val_accuracy"].mean() - LOSS
        )
        if found is not None:
            (energy,) = found.index.unique("energy")
            parameters = by_seed(found, "parameters")
            fewer = by_seed(untouched, "parameters") / parameters
            lost = by_seed(base, "test_accuracy") - by_seed(
                found, "test_accuracy"
            )
            row |= {
                "energy": energy,
                "parameters": mean_interval(parameters),
                "fewer": mean_interval(fewer),
                "lost": mean_interval(100 * lost),
                "by_seed": parameters,
            }
        yield row


def alone(points, tuned, reference):
    """For every decay and seed, the parameters that the seed would choose.

    On its own validation accuracies, against the reference of its own seed:
    unlike the sizes of `compared` these spread as the choices do.
    """
    sizes = {}
    for (decay, seed), own in points.groupby(["weight_decay", "seed"]):
        base = whole(points[points["seed"] == seed]).set_index("weight_decay")
        floor = base["val_accuracy"][decay if reference is None else reference]
        found = smallest(own[own["fine_tuned"] == tuned], floor - LOSS)
        if found is not None:
            (size,) = found["parameters"]
            sizes.setdefault(decay, {})[seed] = size
    return {decay: pd.Series(found) for decay, found in sizes.items()}


def gains(points, tuned, reference, rows):
    """How many times smaller decay makes the smallest point, seed by seed."""
    together = {row["weight_decay"]: row.get("by_seed") for row in rows}
    each = alone(points, tuned, reference)
    none, *others = dict.fromkeys(roles(points).values())
    for decay in others:
        missing = [d for d in (none, decay) if together[d] is None]
        if missing:
            yield f"Weight decay {missing[0]:g} has no such network."
            continue
        ratio = mean_interval(together[none] / together[decay])
        text = (
            f"Weight decay {decay:g}: {ratio} times fewer parameters than "
            f"with {none:g}"
        )
        if none in each and decay in each:
            ratios = (each[none] / each[decay]).reindex(points["seed"].unique())
            ratio = mean_interval(ratios)
            text += f"; {ratio} where each seed chooses its own energy"
        yield f"{text}."


def table(points, tuned, reference):
    """`compared` as a table, with what it says of decay."""
    rows = list(compared(points, tuned, reference))
    against = "itself before"
    if reference is not None:
        against = f"the most accurate (weight decay {reference:g})"
    return Table(
        f"{STAGES[tuned]}: fewest parameters within {100 * LOSS:g} points of "
        f"{against}",
        [
            Column("weight_decay", "Weight\ndecay", "{:g}".format),
            Column("accuracy", "Accuracy,\nwhole (%)"),
            Column("energy", "Energy", number(3)),
            Column("parameters", "Parameters"),
            Column("fewer", "Times\nfewer"),
            Column("lost", "Points\nlost"),
        ],
        rows,
        dict.fromkeys(gains(points, tuned, reference, rows)),
    )


def panels(points):
    """Test error against parameters at every energy, at both stages."""
    floor = whole(points[points["weight_decay"] == most_accurate(points)])
    floor = 1 - floor["test_accuracy"].mean() + LOSS
    sizes = points["parameters"]
    for tuned, title in STAGES.items():
        lines = []
        for decay in dict.fromkeys(roles(points).values()):
            these = points[
                (points["weight_decay"] == decay)
                & (points["fine_tuned"] == tuned)
            ]
            groups = these.assign(error=1 - these["test_accuracy"]).groupby(
                "energy"
            )
            error = groups["error"]
            lines.append(
                Line(
                    f"weight decay {decay:g}",
                    groups["parameters"].mean().to_numpy(),
                    error.mean().to_numpy(),
                    low=error.min().to_numpy(),
                    high=error.max().to_numpy(),
                )
            )
        across = np.array([sizes.min(), sizes.max()])
        name = f"{100 * LOSS:g} points below the most accurate"
        lines.append(Line(name, across, np.full(2, floor), faint=True))
        yield Panel(
            title=title,
            x_label="parameters",
            y_label="test error",
            lines=tuple(lines),
            log_x=True,
            log_y=True,
            caption="one point for each energy: mean, lowest and highest of "
            "the seeds",
        )


def summarize(points, out):
    """Print the tables; leave them in `report.md`, and `figure.png` beside."""
    tables = [
        table(points, tuned, reference)
        for reference in (None, most_accurate(points))
        for tuned in STAGES
    ]
    named = [f"{role} {decay:g}" for role, decay in roles(points).items()]
    about = (
        f"Weight decays: {', '.join(named)}. Means over "
        f"{points['seed'].nunique()} seeds ± half the width of the 95 % "
        "interval (Student's t), differences and ratios seed by seed. Chosen "
        "on validation data, reported on test data."
    )
    print(about)
    for one in tables:
        one.print()
    text = "\n".join([about, "", *(one.to_markdown() for one in tables)])
    (out / "report.md").write_text(text, encoding="utf-8")
    draw_panels(list(panels(points))).savefig(out / "figure.png", dpi=150)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("points", help="`points.csv` as `run.py` leaves it")
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path())
    options = parser.parse_args()
    summarize(pd.read_csv(options.points), options.out)
