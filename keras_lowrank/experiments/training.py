"""From a spec to a compiled model, and the state that training changes."""

import contextlib
import inspect
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_lowrank.decay import DecayedOptimizer
from keras_lowrank.decay import TorchSGD
from keras_lowrank.experiments import models
from keras_lowrank.experiments.data import Data
from keras_lowrank.experiments.plan import Plan
from keras_lowrank.experiments.spec import ExperimentSpec
from keras_lowrank.experiments.start import change_start

EVALUATION_BATCH = 1000


# What a spec cannot say: a function that is given the compiled model.
Change = Callable[[keras.Model], Any]


def build_model(
    spec: ExperimentSpec,
    data: Data,
    learning_rate=None,
    change: Change | None = None,
) -> keras.Model:
    """The network of an experiment, initialised, compiled and built.

    Args:
        spec: `ExperimentSpec`.
        data: The `Data` it is trained on.
        learning_rate: What the optimizer takes instead of the learning rates
            of the spec.
        change: Function given the compiled model, which changes it in place
            or returns another.

    Returns:
        Compiled Keras model, with an optimizer that has its variables.

    Raises:
        TypeError: when `change` returns what is no compiled Keras model.
    """
    with _policy(spec.precision):
        model = models.build(
            spec.network.name,
            data.x_train.shape[1:],
            data.classes,
            seed=spec.seed,
            **spec.network.keywords,
        )
    change_start(
        model, measured_weights(spec), spec.initial_rank, spec.initial_scale
    )
    if learning_rate is None:
        learning_rate = _schedule(spec.plan(len(data.x_train)))
    model.compile(
        spec.decay.wrap(make_optimizer(spec, learning_rate)),
        make_loss(spec.loss),
        metrics=[keras.metrics.SparseCategoricalAccuracy(name="accuracy")],
    )
    if change is not None:
        model = _changed(model, change)
    model.optimizer.build(model.trainable_variables)
    return model


def _changed(model: keras.Model, change: Change) -> keras.Model:
    changed = change(model)
    changed = model if changed is None else changed
    if not isinstance(changed, keras.Model) or not changed.compiled:
        raise TypeError(
            "A change must return a compiled Keras model, or None when it "
            f"changed the model it was given. Received: {changed!r} from "
            f"{getattr(change, '__qualname__', change)}."
        )
    return changed


def measured_weights(spec: ExperimentSpec) -> str:
    """Which weight matrices an experiment measures."""
    return models.PAPER_WEIGHTS if spec.weights is None else spec.weights


def make_optimizer(spec: ExperimentSpec, learning_rate):
    """The optimizer of an experiment, without any weight decay.

    Args:
        spec: `ExperimentSpec`.
        learning_rate: Float or schedule.

    Returns:
        Keras optimizer.

    Raises:
        ValueError: for an unknown optimizer or option.
    """
    name, options = spec.optimizer.name, spec.optimizer.keywords
    if spec.momentum:
        options["momentum"] = spec.momentum
    try:
        if name == "torch_sgd":
            return TorchSGD(learning_rate=learning_rate, **options)
        kind = type(keras.optimizers.get(name))
        # The decay is that of the spec, not one that the optimizer has.
        for key, parameter in inspect.signature(kind).parameters.items():
            if key.endswith("weight_decay") and parameter.default:
                options.setdefault(key, 0.0)
        return kind(learning_rate=learning_rate, **options)
    except (TypeError, ValueError) as error:
        raise ValueError(
            "The `optimizer` must be 'torch_sgd' or the name of a Keras "
            "optimizer, with options that it has. Received: "
            f"optimizer={spec.optimizer.to_dict()}, "
            f"momentum={spec.momentum}. {error}"
        ) from error


def make_loss(name: str):
    """The loss of that name, of integer labels and logits."""
    if name == "cross_entropy":
        return keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    return squared_error_of_one_hot


@keras.saving.register_keras_serializable(package="keras_lowrank")
def squared_error_of_one_hot(y_true, y_pred):
    """Mean squared error of logits against one-hot labels.

    Args:
        y_true: Integer tensor of shape `(batch,)` or `(batch, 1)`.
        y_pred: Float tensor of shape `(batch, classes)`.

    Returns:
        Tensor of shape `(batch,)`, means over the classes.
    """
    labels = ops.reshape(ops.cast(y_true, "int32"), (-1,))
    target = ops.one_hot(labels, y_pred.shape[-1], dtype=y_pred.dtype)
    return ops.mean(ops.square(y_pred - target), axis=-1)


def evaluate(model: keras.Model, data: Data) -> dict[str, float]:
    """Loss and accuracy on both halves of the data, in inference mode.

    Args:
        model: Compiled Keras model.
        data: `Data`.

    Returns:
        Dict of `train_loss`, `train_accuracy`, `val_loss`, `val_accuracy`.
    """
    logs: dict[str, float] = {}
    for half, x, y in (
        ("train", data.x_train, data.y_train),
        ("val", data.x_test, data.y_test),
    ):
        values = model.evaluate(
            x, y, batch_size=EVALUATION_BATCH, verbose=0, return_dict=True
        )
        logs |= {f"{half}_{name}": value for name, value in values.items()}
    return logs


def state_variables(model: keras.Model) -> list:
    """The variables that training changes, in an order that stays.

    Not the learning rate and the decay, which are variables of some
    optimizers: they follow from the spec.
    """
    given = list(given_variables(model).values())
    return [
        *model.trainable_variables,
        *model.non_trainable_variables,
        *(
            variable
            for variable in model.optimizer.variables
            if not any(variable is item for item in given)
        ),
    ]


def given_variables(model: keras.Model) -> dict[str, keras.Variable]:
    """The variables of the optimizer that hold what the spec gives.

    Returns:
        Dict with `learning_rate`, unless it is a schedule, and
        `weight_decay`.
    """
    optimizer = model.optimizer
    # Past a `LossScaleOptimizer`; a changed model may have none of ours.
    while not isinstance(optimizer, DecayedOptimizer) and hasattr(
        optimizer, "inner_optimizer"
    ):
        optimizer = optimizer.inner_optimizer
    found = {
        "learning_rate": optimizer.learning_rate,
        "weight_decay": optimizer.weight_decay,
    }
    return {
        name: value
        for name, value in found.items()
        if isinstance(value, keras.Variable)
    }


def get_state(model: keras.Model) -> list[np.ndarray]:
    """The values of `state_variables`, copied to the host."""
    return [
        np.array(ops.convert_to_numpy(variable))
        for variable in state_variables(model)
    ]


def set_state(model: keras.Model, values) -> None:
    """Give `state_variables` their values."""
    for variable, value in zip(state_variables(model), values, strict=True):
        variable.assign(value)


def _schedule(plan: Plan):
    if not plan.boundaries:
        return plan.rates[0]
    # Keras changes the rate after the step of a boundary, we at that step.
    return keras.optimizers.schedules.PiecewiseConstantDecay(
        [step - 1 for step in plan.boundaries], list(plan.rates)
    )


@contextlib.contextmanager
def _policy(name: str):
    """Keras' dtype policy for the layers made inside, and only for those."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(name)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)
