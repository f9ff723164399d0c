"""Mean rank against epoch, of the complete runs of a directory, as CSV.

    python results/tabulate.py RUNS > results/TABLE.csv

`RUNS` is the `--out` of `keras-lowrank run`, or its `runs` of `keras-lowrank
reproduce`. Ranks are means over the weight matrices that the paper averages
over; `rank_0.03` counts singular values above 0.03 of the Frobenius norm, the
tolerance of the paper's figures 7 to 9, `rank_0.001` those above 0.001.
"""

import csv
import functools
import sys

from keras_lowrank import as_measures
from keras_lowrank import numerical_rank
from keras_lowrank.experiments import read_runs
from keras_lowrank.experiments.runs import Run
from keras_lowrank.records import measure_all

MEASURES = as_measures(
    {
        "rank_0.03": functools.partial(numerical_rank, tolerance=0.03),
        "rank_0.001": functools.partial(numerical_rank, tolerance=1e-3),
        "stable_rank": "stable_rank",
    }
)
LOGS = ("train_accuracy", "val_accuracy", "train_loss", "val_loss")


def rows(run: Run):
    """One dict for each measurement of a run that a table has room for."""
    spec = run.spec
    recording = run.recording
    # The paper looks last after 490 epochs.
    shown = {*range(101), *range(150, 10_000, 50), 490, recording.epochs[-1]}
    for item in recording.measurements:
        if item.epoch not in shown:
            continue
        values = [
            measure_all(MEASURES, record.spectrum) for record in item.records
        ]
        yield {
            "network": spec.network.name,
            "data": spec.data.name,
            "backend": run.backend,
            "batch_size": spec.batch_size,
            "learning_rate": spec.learning_rate,
            "weight_decay": spec.weight_decay,
            "seed": spec.seed,
            "epoch": item.epoch,
            **{
                measure.name: round(
                    sum(value[measure.name] for value in values) / len(values),
                    3,
                )
                for measure in MEASURES
            },
            **{
                name: round(item.logs[name], 5)
                for name in LOGS
                if name in item.logs
            },
        }


def main(directory: str) -> None:
    """Write the table to standard output."""
    complete = [run for run in read_runs(directory) if run.complete]
    found = [row for run in complete for row in rows(run)]
    order = ("batch_size", "learning_rate", "weight_decay", "seed", "epoch")
    found.sort(key=lambda row: [row[name] for name in order])
    columns = list(dict.fromkeys(name for row in found for name in row))
    writer = csv.DictWriter(sys.stdout, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(found)


if __name__ == "__main__":
    main(sys.argv[1])
