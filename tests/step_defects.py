"""Defects of a training step, planted into one side of a comparison."""

import keras

from keras_lowrank import WeightDecay


def decay_of_normalization(model):
    """Weight decay also of gamma and beta."""
    optimizer = model.optimizer
    policy = WeightDecay(
        optimizer.policy.rate,
        convention=optimizer.policy.convention,
        covers=["kernel", "gamma", "beta"],
    )
    model.compile(
        policy.wrap(optimizer.inner_optimizer), model.loss, metrics=["accuracy"]
    )


def late_learning_rate(model):
    """The learning rate changes one step late."""
    inner = model.optimizer.inner_optimizer
    schedule = inner._learning_rate
    inner._learning_rate = keras.optimizers.schedules.PiecewiseConstantDecay(
        [boundary + 1 for boundary in schedule.boundaries], schedule.values
    )


def fails(model):
    """What somebody's layer may do."""
    raise ArithmeticError("a planted failure")


def no_model(model):
    """Forgets to compile what it returns."""
    return keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
