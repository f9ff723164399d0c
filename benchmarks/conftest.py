"""Where benchmarks leave their tables and targets."""

import pytest

from benchmarks import results


def pytest_addoption(parser):
    parser.addoption(
        "--full-epochs",
        action="store_true",
        help="train ResNet-18 for a full epoch of CIFAR-10 on each backend: "
        "about twenty minutes for each on two cores",
    )


@pytest.fixture
def keep(capsys):
    """Write a table to `results/`, and print it."""

    def write(table, name):
        results.write_table(table, name)
        with capsys.disabled():
            print()
            table.print(line_length=200)

    return write


@pytest.fixture
def targets(capsys):
    """A list of `Target`s, written when the test ends, and printed."""
    reached: list[results.Target] = []
    yield reached
    if reached:
        results.write_targets(reached)
        with capsys.disabled():
            for one in reached:
                print(
                    f"{one.verdict:>9}  {one.name}: {one.figure:.3g}{one.unit}"
                    f" (target {one.promise})"
                )
