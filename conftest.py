"""What every test, and every example in a docstring, may count on."""

import functools
import inspect

import numpy as np
import pytest


def pytest_addoption(parser):
    parser.addoption(
        "--not-once",
        action="store_true",
        help="leave out the tests that do not depend on the backend",
    )


def pytest_collection_modifyitems(config, items):
    if config.getoption("--not-once"):
        once = [item for item in items if item.get_closest_marker("once")]
        config.hook.pytest_deselected(items=once)
        items[:] = [item for item in items if item not in once]


@pytest.fixture(autouse=True)
def seeded():
    import keras

    keras.utils.set_random_seed(0)
    yield
    keras.backend.clear_session(free_memory=False)


@pytest.fixture(autouse=True)
def doctest_names(doctest_namespace, seeded):
    import keras

    import keras_lowrank

    # What `from keras_lowrank import *` gives: no modules, which may bear the
    # name of a function in them.
    doctest_namespace |= {
        name: value
        for name, value in vars(keras_lowrank).items()
        if not (name.startswith("_") or inspect.ismodule(value))
    }
    doctest_namespace |= {"keras": keras, "np": np, "functools": functools}
