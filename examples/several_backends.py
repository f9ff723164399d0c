"""Train one experiment on every backend that is installed, and compare.

    python examples/several_backends.py

Each backend runs in a process of its own, from the same weights and batches.
The verdict says whether they differ by more than rounding explains, and if so
from which step on and in which weights.
"""

import argparse
import importlib.util

from keras_lowrank.experiments import ExperimentSpec
from keras_lowrank.experiments.compare import compare


def main():
    """Compare, print the report, and leave it as Markdown and HTML."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--out", default="runs/several_backends")
    parser.add_argument("--smoke", action="store_true", help="one epoch")
    arguments = parser.parse_args()
    installed = [
        name
        for name in ("jax", "torch", "tensorflow")
        if importlib.util.find_spec(name)
    ]
    if len(installed) < 2:
        raise SystemExit(
            f"Only {installed[0]} is installed: nothing to compare."
        )
    smoke = arguments.smoke
    spec = ExperimentSpec(
        network={"name": "mlp", "depth": 2, "width": 16 if smoke else 100},
        data="digits",
        batch_size=64,
        learning_rate=0.1,
        weight_decay=0.02,
        epochs=1 if smoke else arguments.epochs,
    )
    comparison = compare(
        spec,
        installed[:2] if smoke else installed,
        arguments.out,
        steps=5 if smoke else 100,
    )
    comparison.print()
    for path in comparison.save(arguments.out).values():
        print(path)


if __name__ == "__main__":
    main()
