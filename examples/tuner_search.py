"""Search for the lowest rank that keeps the accuracy, with KerasTuner.

    python examples/tuner_search.py

Batch size, learning rate and weight decay are searched beside whatever the
function that builds the model asks for: here the width.
"""

import argparse

import keras
import keras_tuner

from keras_lowrank.search import LowestRank
from keras_lowrank.search import Range
from keras_lowrank.search import RankHyperModel
from keras_lowrank.search import SearchSpace
from keras_lowrank.search import read_search


def build(hp):
    """A network whose width is searched, too."""
    width = hp.Choice("width", [32, 64])
    model = keras.Sequential(
        [
            keras.Input((64,)),
            keras.layers.Dense(width, activation="relu", name="hidden_1"),
            keras.layers.Dense(width, activation="relu", name="hidden_2"),
            keras.layers.Dense(10, name="logits"),
        ]
    )
    model.compile(
        keras.optimizers.SGD(0.1),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    return model


def main():
    """Search, and print the trials and the front of rank and accuracy."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=8)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--out", default="searches")
    parser.add_argument("--smoke", action="store_true", help="two trials")
    arguments = parser.parse_args()
    smoke = arguments.smoke
    from sklearn.datasets import load_digits

    x, y = load_digits(return_X_y=True)
    x = x.astype("float32") / 16
    space = SearchSpace(
        batch_size=[16, 64],
        learning_rate=Range(0.02, 0.2),
        weight_decay=Range(1e-3, 1e-1),
    )
    hypermodel = RankHyperModel(
        build,
        space,
        LowestRank(accuracy_floor=0.01 if smoke else 0.9),
        seeds=1 if smoke else 2,
    )
    tuner = keras_tuner.RandomSearch(
        hypermodel,
        objective=hypermodel.objective,
        max_trials=2 if smoke else arguments.trials,
        seed=0,
        directory=arguments.out,
        project_name="digits",
    )
    tuner.search(
        x[:1400],
        y[:1400],
        validation_data=(x[1400:], y[1400:]),
        epochs=1 if smoke else arguments.epochs,
        verbose=0,
    )
    results = read_search(tuner.project_dir)
    results.table().print()


if __name__ == "__main__":
    main()
