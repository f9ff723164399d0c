"""Weight decay: trajectories, coverage, schedules, saving, citizenship."""

import copy
import dataclasses
import os
import pickle
import subprocess
import sys

import keras
import numpy as np
import pytest
from keras import ops

from keras_lowrank.decay import DecayedOptimizer
from keras_lowrank.decay import TorchSGD
from keras_lowrank.decay import WeightDecay
from keras_lowrank.decay import WeightDecayScheduler
from keras_lowrank.decay import convert_weight_decay
from keras_lowrank.roles import role_of
from keras_lowrank.tables import KerasLowrankWarning

BACKEND = keras.backend.backend()
STEPS, BATCH, RATE, LR = 20, 8, 0.02, 0.1
RNG = np.random.default_rng(7)
X = RNG.normal(size=(STEPS * BATCH, 4)).astype("float32")
Y = RNG.normal(size=(STEPS * BATCH, 3)).astype("float32")
KERNEL = RNG.normal(size=(4, 3)).astype("float32")
BIAS = RNG.normal(size=3).astype("float32")


def linear(optimizer, **compile_args):
    """One Dense layer whose gradients NumPy can work out."""
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    model.set_weights([KERNEL, BIAS])
    # XLA on TensorFlow takes seconds; `test_however_compiled` has it.
    default = {"jit_compile": "auto" if BACKEND == "jax" else False}
    model.compile(optimizer, "mse", **(default | compile_args))
    return model


def train(model, steps=STEPS, epochs=1, callbacks=(), start=0):
    part = slice(start * BATCH, (start + steps) * BATCH)
    return model.fit(
        X[part],
        Y[part],
        batch_size=BATCH,
        epochs=epochs,
        shuffle=False,
        verbose=0,
        callbacks=list(callbacks),
    )


def weights_of(model):
    return [
        np.asarray(ops.convert_to_numpy(v), "float64") for v in model.weights
    ]


def difference(actual, expected):
    """Largest difference, relative to the largest entry."""
    return max(
        np.abs(a - e).max() / np.abs(e).max()
        for a, e in zip(actual, expected, strict=True)
    )


class NumpySGD:
    def __init__(self, momentum=0.0, keras_style=True, nesterov=False):
        self.momentum, self.keras_style = momentum, keras_style
        self.nesterov, self.state = nesterov, {}

    def step(self, key, gradient, lr, t):
        inside, outside = (lr, 1.0) if self.keras_style else (1.0, lr)
        v = self.momentum * self.state.get(key, 0.0) + inside * gradient
        self.state[key] = v
        step = inside * gradient + self.momentum * v if self.nesterov else v
        return outside * step


class Each:
    def __init__(self, *optimizers):
        self.optimizers = optimizers

    def step(self, key, gradient, lr, t):
        return self.optimizers[key].step(key, gradient, lr, t)


class NumpyAdam:
    def __init__(self):
        self.state = {}

    def step(self, key, gradient, lr, t):
        m, v = self.state.get(key, (0.0, 0.0))
        m, v = 0.9 * m + 0.1 * gradient, 0.999 * v + 0.001 * gradient**2
        self.state[key] = m, v
        # In float32, as Keras does it: 1 - 0.999 keeps but five digits there.
        powers = np.float32([0.9, 0.999]) ** np.float32(t + 1)
        first, second = np.float32(1) - powers
        alpha = lr * np.sqrt(second) / first
        return alpha * m / (np.sqrt(v) + 1e-7)


def numpy_run(
    optimizer,
    w=RATE,
    coupling="decoupled",
    covers=(True, False),
    lr=LR,
    steps=STEPS,
    accumulate=1,
):
    """Weights after `steps` batches; `w` and `lr` may be functions of `t`."""
    values = [KERNEL.astype("float64"), BIAS.astype("float64")]
    held = [0.0, 0.0]
    for batch in range(steps):
        rows = slice(batch * BATCH, (batch + 1) * BATCH)
        x, y = X[rows].astype("float64"), Y[rows].astype("float64")
        error = 2 * (x @ values[0] + values[1] - y) / y.size
        gradients = [x.T @ error, error.sum(0)]
        held = [
            h + g / accumulate for h, g in zip(held, gradients, strict=True)
        ]
        if (batch + 1) % accumulate:
            continue
        t = batch // accumulate
        rate = w(t) if callable(w) else w
        eta = lr(t) if callable(lr) else lr
        for i, gradient in enumerate(held):
            decay = rate * values[i] if covers[i] else 0.0
            if coupling == "coupled":
                step = optimizer.step(i, gradient + decay, eta, t)
            else:
                step = eta * decay + optimizer.step(i, gradient, eta, t)
            values[i] = values[i] - step
        held = [0.0, 0.0]
    return values


OPTIMIZERS = {
    "sgd": (lambda: keras.optimizers.SGD(LR), NumpySGD),
    "momentum": (
        lambda: keras.optimizers.SGD(LR, momentum=0.9),
        lambda: NumpySGD(0.9),
    ),
    "adam": (lambda: keras.optimizers.Adam(LR), NumpyAdam),
    "adamw": (
        lambda: keras.optimizers.AdamW(LR, weight_decay=0.0),
        NumpyAdam,
    ),
    "torch_sgd": (
        lambda: TorchSGD(LR, momentum=0.9, nesterov=True),
        lambda: NumpySGD(0.9, keras_style=False, nesterov=True),
    ),
}
FACTORS = {"keras": 1.0, "torch": 1.0, "l2": 2.0, "paper_lambda": 2.0}


EVERY_OPTIMIZER = [
    name
    for name, kind in vars(keras.optimizers).items()
    if isinstance(kind, type)
    and issubclass(kind, keras.optimizers.Optimizer)
    and name not in ("Optimizer", "LossScaleOptimizer", "MultiOptimizer")
]


def bare(name, rate):
    """An optimizer with Keras' own decay."""
    kind = getattr(keras.optimizers, name)
    rates = [
        key
        for key in ("weight_decay", "adam_weight_decay")
        if hasattr(kind(), key)
    ]
    return kind(LR, **dict.fromkeys(rates, rate))


def by_hand(optimizer, in_gradient=0.0):
    """Weights after five gradients that do not depend on them."""
    variables = [
        keras.Variable(KERNEL, name="kernel"),
        keras.Variable(BIAS, name="bias"),
    ]
    for step in range(5):
        gradients = [
            ops.convert_to_tensor(np.cos(step + value)) + in_gradient * variable
            for value, variable in zip((KERNEL, BIAS), variables, strict=True)
        ]
        optimizer.apply(gradients, variables)
    return [np.asarray(ops.convert_to_numpy(v), "float64") for v in variables]


class TestTrajectories:
    @pytest.mark.parametrize("optimizer", OPTIMIZERS)
    @pytest.mark.parametrize("convention", FACTORS)
    def test_each_convention(self, convention, optimizer):
        ours, oracle = OPTIMIZERS[optimizer]
        policy = WeightDecay(RATE, convention=convention)
        model = linear(policy.wrap(ours()))
        train(model)
        expected = numpy_run(
            oracle(),
            RATE * FACTORS[convention],
            "decoupled" if convention == "keras" else "coupled",
        )
        assert difference(weights_of(model), expected) < 1e-5

    @pytest.mark.parametrize("coupling", ["coupled", "decoupled"])
    def test_a_coupling_keeps_the_factor(self, coupling):
        policy = WeightDecay(RATE, "paper_lambda", coupling, covers="all")
        model = linear(policy.wrap(keras.optimizers.SGD(LR, momentum=0.9)))
        train(model)
        expected = numpy_run(
            NumpySGD(0.9), 2 * RATE, coupling, covers=(True, True)
        )
        assert difference(weights_of(model), expected) < 1e-5

    def test_decay_is_visible_in_these_trajectories(self):
        with_decay, without = numpy_run(NumpySGD()), numpy_run(NumpySGD(), 0.0)
        assert difference(with_decay, without) > 1e-2

    @pytest.mark.parametrize("nesterov", [False, True])
    def test_torch_sgd_is_torch_through_a_learning_rate_drop(self, nesterov):
        expected = torch_run(nesterov)
        schedule = keras.optimizers.schedules.PiecewiseConstantDecay(
            [9], [LR, LR / 10]
        )
        policy = WeightDecay(RATE, convention="torch", covers="all")
        model = linear(
            policy.wrap(TorchSGD(schedule, momentum=0.9, nesterov=nesterov))
        )
        train(model)
        assert difference(weights_of(model), expected) < 1e-5

    def test_keras_sgd_is_not(self):
        schedule = keras.optimizers.schedules.PiecewiseConstantDecay(
            [9], [LR, LR / 10]
        )
        policy = WeightDecay(RATE, convention="torch", covers="all")
        model = linear(
            policy.wrap(keras.optimizers.SGD(schedule, momentum=0.9))
        )
        train(model)
        assert difference(weights_of(model), torch_run(False)) > 1e-2

    def test_l2_of_keras_is_the_paper_objective(self):
        model = linear(keras.optimizers.SGD(LR, momentum=0.9))
        model.layers[0].kernel.regularizer = keras.regularizers.L2(RATE)
        train(model)
        expected = numpy_run(NumpySGD(0.9), 2 * RATE, "coupled")
        assert difference(weights_of(model), expected) < 1e-5

    @pytest.mark.parametrize("name", EVERY_OPTIMIZER)
    def test_decoupled_is_what_each_keras_optimizer_does(self, name):
        own, none = (by_hand(bare(name, rate)) for rate in (RATE, 0.0))
        policy = WeightDecay(RATE, covers="all")
        ours = by_hand(policy.wrap(bare(name, 0.0)))
        assert difference(ours, own) < 1e-5
        assert difference(none, own) > 1e-4

    @pytest.mark.parametrize("name", EVERY_OPTIMIZER)
    def test_coupled_is_a_decay_in_the_gradient_of_each(self, name):
        own = by_hand(bare(name, 0.0), in_gradient=RATE)
        policy = WeightDecay(RATE, "torch", covers="all")
        ours = by_hand(policy.wrap(bare(name, 0.0)))
        assert difference(ours, own) < 1e-5


def torch_run(nesterov):
    import torch

    values = [
        torch.tensor(v.astype("float64"), requires_grad=True)
        for v in (KERNEL, BIAS)
    ]
    optimizer = torch.optim.SGD(
        values, lr=LR, momentum=0.9, weight_decay=RATE, nesterov=nesterov
    )
    with torch.enable_grad():
        for step in range(STEPS):
            if step == 10:
                optimizer.param_groups[0]["lr"] = LR / 10
            rows = slice(step * BATCH, (step + 1) * BATCH)
            x, y = (
                torch.tensor(X[rows]).double(),
                torch.tensor(Y[rows]).double(),
            )
            optimizer.zero_grad()
            ((x @ values[0] + values[1] - y) ** 2).mean().backward()
            optimizer.step()
    return [value.detach().numpy() for value in values]


class TestCoverage:
    def model(self):
        return keras.Sequential(
            [
                keras.Input((4,)),
                keras.layers.Dense(5, name="first"),
                keras.layers.BatchNormalization(name="norm"),
                keras.layers.Dense(3, name="last"),
            ]
        )

    def decayed(self, covers, exclude=(), coupling=None, model=None):
        """Names of the variables that shrink when there is no loss."""
        model = model or self.model()
        covers, exclude = (
            [v(model) if callable(v) else v for v in selectors]
            for selectors in (covers, exclude)
        )
        policy = WeightDecay(0.5, "keras", coupling, covers, exclude)
        optimizer = policy.wrap(keras.optimizers.SGD(LR))
        variables = model.trainable_variables
        for variable in variables:
            variable.assign(np.ones(variable.shape))
        optimizer.build(variables)
        optimizer.apply([ops.zeros(v.shape) for v in variables], variables)
        values = [ops.convert_to_numpy(v) for v in variables]
        for value in values:
            assert np.allclose(value, 1.0) or np.allclose(value, 0.95)
        return {
            variable.path.split("/", 1)[-1]
            for variable, value in zip(variables, values, strict=True)
            if np.allclose(value, 0.95)
        }

    @pytest.mark.parametrize("coupling", ["coupled", "decoupled"])
    @pytest.mark.parametrize(
        ("covers", "exclude", "expected"),
        [
            (["kernels"], [], {"first/kernel", "last/kernel"}),
            (["biases"], [], {"first/bias", "last/bias"}),
            (["kernel"], [], {"first/kernel", "last/kernel"}),
            (["normalization"], [], {"norm/gamma", "norm/beta"}),
            (["kernels"], [r"last/"], {"first/kernel"}),
            (
                ["all"],
                ["biases", "normalization"],
                {"first/kernel", "last/kernel"},
            ),
            ([r"first/"], [], {"first/kernel", "first/bias"}),
            (
                ["all"],
                [r"(^|/)norm/"],
                {
                    "first/kernel",
                    "first/bias",
                    "last/kernel",
                    "last/bias",
                },
            ),
            (["kernels"], [lambda m: m.get_layer("last")], {"first/kernel"}),
            (
                ["kernels"],
                [lambda m: m.get_layer("first").kernel],
                {"last/kernel"},
            ),
            ([lambda m: m.get_layer("norm")], [], {"norm/gamma", "norm/beta"}),
            ([lambda m: m.get_layer("last").bias], [], {"last/bias"}),
            (["all"], ["all"], set()),
            ([], [], set()),
        ],
    )
    def test_selectors(self, covers, exclude, expected, coupling):
        assert self.decayed(covers, exclude, coupling) == expected

    def test_everything(self):
        assert len(self.decayed(["all"])) == 6

    def test_all_excluded_trains(self):
        model = linear(WeightDecay(RATE, exclude="all").wrap("sgd"))
        train(model)
        reference = linear("sgd")
        train(reference)
        assert difference(weights_of(model), weights_of(reference)) < 1e-7

    def test_a_layer_that_is_built_later(self):
        last = keras.layers.Dense(3)
        policy = WeightDecay(RATE, covers="all", exclude=last)
        model = keras.Sequential([keras.layers.Dense(5), last])
        model.compile(policy.wrap("sgd"), "mse")
        train(model)
        assert model.optimizer.coverage.covered == (True, True, False, False)

    @pytest.mark.parametrize("argument", ["covers", "exclude"])
    @pytest.mark.parametrize(
        ("selector", "message"),
        [
            ("no_such", "no_such.*matches no trainable variable.*first/kernel"),
            ("kernelss", "Did you mean 'kernels'"),
            (keras.layers.Dense(2, name="stray"), "<layer 'stray'>"),
            (keras.Variable([1.0], name="lone"), "<variable 'lone'>"),
        ],
    )
    def test_what_matches_nothing_warns_once(self, selector, message, argument):
        policy = WeightDecay(RATE, **{argument: selector})
        model = self.model()
        model.compile(policy.wrap("sgd"), "mse")
        with pytest.warns(KerasLowrankWarning, match=message) as caught:
            train(model, epochs=2)
        ours = [w for w in caught if w.category is KerasLowrankWarning]
        assert len(ours) == 1

    def test_l2_on_a_covered_variable_warns_once(self):
        model = linear(WeightDecay(RATE).wrap("sgd"))
        model.layers[0].kernel.regularizer = keras.regularizers.L1L2(0, 1e-3)
        with pytest.warns(KerasLowrankWarning, match="L2 regularizer.*dense"):
            train(model, epochs=2)

    @pytest.mark.parametrize("coupling", ["coupled", "decoupled"])
    def test_embeddings(self, coupling):
        model = keras.Sequential(
            [
                keras.layers.Embedding(10, 3),
                keras.layers.GlobalAveragePooling1D(),
                keras.layers.Dense(1),
            ]
        )
        policy = WeightDecay(0.5, "torch", coupling, covers="embeddings")
        model.compile(policy.wrap(keras.optimizers.SGD(LR)), "mse")
        model.build((None, 2))
        before = ops.convert_to_numpy(model.layers[0].embeddings)
        model.fit(np.array([[1, 2]]), np.array([[0.0]]), verbose=0)
        after = ops.convert_to_numpy(model.layers[0].embeddings)
        # Rows that were not looked up have no gradient, and decay as well.
        np.testing.assert_allclose(after[3:], 0.95 * before[3:], rtol=1e-5)

    @pytest.mark.skipif(BACKEND == "torch", reason="Keras has none on torch")
    @pytest.mark.parametrize("coupling", ["coupled", "decoupled"])
    def test_sparse_gradients(self, coupling):
        if BACKEND == "tensorflow":
            import tensorflow as tf

            gradient = tf.IndexedSlices(tf.ones((1, 3)), [1], (4, 3))
        else:
            from jax.experimental.sparse import BCOO

            row = ops.ones((1, 3)), ops.ones((1, 1), "int32")
            gradient = BCOO(row, shape=(4, 3))
        variable = keras.Variable(np.ones((4, 3)), name="embeddings")
        policy = WeightDecay(0.5, coupling=coupling, covers="embeddings")
        policy.wrap(keras.optimizers.SGD(LR)).apply([gradient], [variable])
        rows = ops.convert_to_numpy(variable)[:, 0]
        np.testing.assert_allclose(rows, [0.95, 0.85, 0.95, 0.95], rtol=1e-6)

    @pytest.mark.filterwarnings("ignore:Gradients do not exist")
    @pytest.mark.parametrize("coupling", ["coupled", "decoupled"])
    def test_a_variable_without_gradient_stays(self, coupling):
        variables = [keras.Variable(np.ones((2, 2))) for _ in range(2)]
        policy = WeightDecay(0.5, "torch", coupling, covers="all")
        optimizer = policy.wrap(keras.optimizers.SGD(LR))
        optimizer.apply([ops.zeros((2, 2)), None], variables)
        values = [ops.convert_to_numpy(v)[0, 0] for v in variables]
        np.testing.assert_allclose(values, [0.95, 1.0], rtol=1e-6)

    def test_roles(self):
        layers = keras.layers
        model = keras.Sequential([keras.Input((6, 4)), layers.LSTM(3)])
        assert [role_of(v) for v in model.weights] == [
            "kernel",
            "kernel",
            "bias",
        ]
        attention = layers.MultiHeadAttention(2, 3)
        attention.build((None, 5, 4), (None, 5, 4))
        kinds = {(v.name, role_of(v)) for v in attention.weights}
        assert kinds == {("kernel", "kernel"), ("bias", "bias")}
        dense = layers.Dense(3)
        dense.build((None, 4))
        dense.enable_lora(2)
        assert [role_of(v) for v in dense.trainable_variables] == [
            "bias",
            "kernel",
            "kernel",
        ]
        slopes = layers.PReLU()
        slopes.build((None, 5, 4))
        norm = layers.RMSNormalization()
        norm.build((None, 4))
        table = layers.Embedding(3, 2)
        table.build(None)
        assert role_of(slopes.weights[0]) == "vector"
        assert role_of(norm.weights[0]) == "normalization"
        assert role_of(table.weights[0]) == "embedding"
        assert role_of(keras.Variable(np.ones((2, 2)), name="w")) == "kernel"
        assert role_of(keras.Variable(np.ones(2), name="w")) == "vector"


@keras.saving.register_keras_serializable(package="tests")
def falling(step):
    return 0.5 / (1.0 + step)


@keras.saving.register_keras_serializable(package="tests")
def branching(step):
    return ops.cond(step < 5, lambda: 0.5 + 0.0 * step, lambda: 0.0 * step)


SCHEDULE = keras.optimizers.schedules.PiecewiseConstantDecay([4], [0.5, 0.0])


class TestSchedules:
    @pytest.mark.parametrize("coupling", ["coupled", "decoupled"])
    @pytest.mark.parametrize(
        ("rate", "oracle"),
        [
            (SCHEDULE, lambda t: 0.5 if t <= 4 else 0.0),
            (falling, lambda t: 0.5 / (1 + t)),
            (branching, lambda t: 0.5 if t < 5 else 0.0),
            (lambda step: RATE, lambda t: RATE),
            (lambda step: 0.1 * step, lambda t: 0.1 * t),
            (
                lambda step: ops.where(step % 2 == 0, 0.5, 0.0),
                lambda t: 0.5 if t % 2 == 0 else 0.0,
            ),
        ],
    )
    def test_a_rate_that_changes_with_the_step(self, rate, oracle, coupling):
        policy = WeightDecay(rate, coupling=coupling)
        model = linear(policy.wrap(keras.optimizers.SGD(LR, momentum=0.9)))
        train(model)
        expected = numpy_run(NumpySGD(0.9), oracle, coupling)
        assert difference(weights_of(model), expected) < 1e-5

    def test_steps_are_updates(self):
        optimizer = keras.optimizers.SGD(LR, gradient_accumulation_steps=4)
        model = linear(WeightDecay(falling).wrap(optimizer))
        train(model)
        expected = numpy_run(NumpySGD(), lambda t: 0.5 / (1 + t), accumulate=4)
        assert difference(weights_of(model), expected) < 1e-5

    def test_the_current_rate_can_be_read(self):
        optimizer = WeightDecay(falling).wrap("sgd")
        assert float(optimizer.weight_decay) == 0.5
        with pytest.raises(TypeError, match=r"follows a schedule.*0\.1"):
            optimizer.weight_decay = 0.1

    @pytest.mark.parametrize(
        "rate",
        [
            lambda step: 1e-3 if step < 10 else 1e-4,
            lambda step: float(step),
            lambda step: np.cos(step),
            lambda step: min(step, 3),
        ],
    )
    def test_what_cannot_be_traced_is_refused_on_every_backend(self, rate):
        with pytest.raises(ValueError, match=r"keras\.ops\.where"):
            WeightDecay(rate)

    @pytest.mark.parametrize(
        "rate", [lambda step: ops.ones(3) * step, lambda step: None]
    )
    def test_what_gives_no_number_is_refused(self, rate):
        with pytest.raises(ValueError, match="a number for each step"):
            WeightDecay(rate)

    def test_assignment_during_fit(self):
        class Assign(keras.callbacks.Callback):
            def on_epoch_begin(self, epoch, logs=None):
                self.model.optimizer.weight_decay = 0.5 if epoch == 1 else 0.0

        model = linear(WeightDecay(0.0).wrap(keras.optimizers.SGD(LR)))
        train(model, steps=1, epochs=3, callbacks=[Assign()])
        reference = linear(keras.optimizers.SGD(LR))
        train(reference, steps=1)
        before = weights_of(reference)
        train(reference, steps=1)
        after = weights_of(reference)
        after[0] = after[0] - 0.5 * LR * before[0]
        reference.set_weights(after)
        train(reference, steps=1)
        assert difference(weights_of(model), weights_of(reference)) < 1e-6

    @pytest.mark.parametrize("policy", ["float32", "mixed_float16"])
    def test_the_scheduler(self, policy):
        keras.config.set_dtype_policy(policy)
        try:
            model = linear(WeightDecay(0.4).wrap(keras.optimizers.SGD(LR)))
        finally:
            keras.config.set_dtype_policy("float32")
        scheduler = WeightDecayScheduler(lambda epoch, rate: rate / 2)
        history = train(model, 2, 3, [scheduler]).history
        np.testing.assert_allclose(history["weight_decay"], [0.2, 0.1, 0.05])
        if policy == "float32":
            oracle = numpy_epochs([0.2, 0.1, 0.05])
            assert difference(weights_of(model), oracle) < 1e-5

    def test_the_scheduler_says_what_it_does(self, capsys):
        model = linear(WeightDecay(0.4).wrap("sgd"))
        scheduler = WeightDecayScheduler(lambda epoch, rate: 0.25, verbose=1)
        train(model, 1, 1, [scheduler])
        assert "setting weight_decay to 0.25" in capsys.readouterr().out

    def test_the_scheduler_needs_a_weight_decay(self):
        scheduler = WeightDecayScheduler(lambda epoch, rate: rate)
        with pytest.raises(ValueError, match="Received: AdamW"):
            train(linear(keras.optimizers.AdamW()), 1, 1, [scheduler])
        scheduler = WeightDecayScheduler(lambda epoch, rate: "much")
        with pytest.raises(TypeError, match="'much'"):
            train(linear(WeightDecay(0.1).wrap("sgd")), 1, 1, [scheduler])


def numpy_epochs(rates):
    """Two batches per epoch, again and again, at these rates."""
    values = [KERNEL.astype("float64"), BIAS.astype("float64")]
    for rate in rates:
        for batch in range(2):
            rows = slice(batch * BATCH, (batch + 1) * BATCH)
            x, y = X[rows].astype("float64"), Y[rows].astype("float64")
            error = 2 * (x @ values[0] + values[1] - y) / y.size
            values = [
                values[0] * (1 - LR * rate) - LR * (x.T @ error),
                values[1] - LR * error.sum(0),
            ]
    return values


@keras.saving.register_keras_serializable(package="tests")
class Subclassed(keras.Model):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.hidden = keras.layers.Dense(5)
        self.last = keras.layers.Dense(3)

    def build(self, input_shape):
        self.hidden.build(input_shape)
        self.last.build((None, 5))
        self.built = True

    def call(self, inputs):
        return self.last(self.hidden(inputs))


def sequential():
    return keras.Sequential(
        [keras.Input((4,)), keras.layers.Dense(5), keras.layers.Dense(3)]
    )


def subclassed():
    model = Subclassed()
    model.build((None, 4))
    return model


def with_momentum():
    """An optimizer with a state, so that losing it would show."""
    return keras.optimizers.SGD(LR, momentum=0.9)


class TestSaving:
    @pytest.mark.parametrize("by", ["layer", "variable", "rule"])
    @pytest.mark.parametrize("coupling", ["coupled", "decoupled"])
    @pytest.mark.parametrize("build", [sequential, subclassed])
    def test_going_on_is_not_having_stopped(
        self, build, coupling, by, tmp_path
    ):
        model = build()
        last = model.layers[-1]
        exclude = {"layer": last, "variable": last.kernel, "rule": r"dense_\d+"}
        covers = "kernels" if by == "variable" else "all"
        if by == "rule":
            exclude["rule"] = last.name + "/"
        policy = WeightDecay(0.5, "torch", coupling, covers, exclude[by])
        model.compile(policy.wrap(with_momentum()), "mse")
        train(model, 5)
        model.save(tmp_path / "model.keras")
        coverage = model.optimizer.coverage.covered
        train(model, 5, start=5)
        keras.backend.clear_session(free_memory=False)
        # Other names than before, as in another process.
        keras.layers.Dense(1), keras.layers.Dense(1)
        loaded = keras.models.load_model(tmp_path / "model.keras")
        assert loaded.optimizer.coverage.covered == coverage
        assert True in coverage and False in coverage
        train(loaded, 5, start=5)
        assert difference(weights_of(loaded), weights_of(model)) < 1e-6

    def test_names_differ_in_another_process(self, tmp_path):
        # Excluded by a path that the loaded model does not have.
        keras.layers.Dense(1)
        model = subclassed()
        assert model.hidden.name != "dense"
        policy = WeightDecay(0.5, covers="all", exclude=model.hidden)
        model.compile(policy.wrap("sgd"), "mse")
        train(model, 1)
        model.save(tmp_path / "model.keras")
        keras.backend.clear_session(free_memory=False)
        loaded = keras.models.load_model(tmp_path / "model.keras")
        assert loaded.hidden.name == "dense"
        assert loaded.optimizer.coverage.covered == (False, False, True, True)

    def test_the_rate_that_was_set_is_saved(self, tmp_path):
        model = linear(WeightDecay(0.5).wrap(with_momentum()))
        train(model, 1)
        model.optimizer.weight_decay = 0.125
        model.save(tmp_path / "model.keras")
        loaded = keras.models.load_model(tmp_path / "model.keras")
        assert float(loaded.optimizer.weight_decay) == 0.125
        assert loaded.optimizer.policy.rate == 0.125

    @pytest.mark.parametrize("rate", [SCHEDULE, falling])
    def test_schedules_are_saved(self, rate, tmp_path):
        model = linear(WeightDecay(rate).wrap(with_momentum()))
        train(model, 3)
        model.save(tmp_path / "model.keras")
        train(model, 5, start=3)
        loaded = keras.models.load_model(tmp_path / "model.keras")
        train(loaded, 5, start=3)
        assert difference(weights_of(loaded), weights_of(model)) < 1e-6

    def test_weights_files(self, tmp_path):
        model = linear(WeightDecay(0.5).wrap(with_momentum()))
        train(model, 3)
        model.optimizer.weight_decay = 0.25
        model.save_weights(tmp_path / "model.weights.h5")
        train(model, 3, start=3)
        other = linear(WeightDecay(0.5).wrap(with_momentum()))
        other.optimizer.build(other.trainable_variables)
        other.load_weights(tmp_path / "model.weights.h5")
        assert float(other.optimizer.weight_decay) == 0.25
        train(other, 3, start=3)
        assert difference(weights_of(other), weights_of(model)) < 1e-6

    @pytest.mark.filterwarnings("ignore:Skipping variable loading")
    def test_weights_of_an_optimizer_without_decay(self, tmp_path):
        schedule = keras.optimizers.schedules.ExponentialDecay(0.1, 10, 0.9)
        plain = linear(keras.optimizers.SGD(schedule))
        train(plain, 3)
        plain.save_weights(tmp_path / "model.weights.h5")
        other = linear(WeightDecay(0.5).wrap("sgd"))
        other.optimizer.build(other.trainable_variables)
        other.load_weights(tmp_path / "model.weights.h5")
        assert float(other.optimizer.weight_decay) == 0.5

    def test_no_variable_twice_and_none_lost(self):
        model = linear(WeightDecay(0.5).wrap(with_momentum()))
        train(model, 1)
        variables = model.optimizer.variables
        names = [v.name for v in variables]
        assert len({id(v) for v in variables}) == len(variables)
        assert names[:3] == ["weight_decay", "iteration", "learning_rate"]
        assert len(names) == 5
        values = [ops.convert_to_numpy(v) for v in variables]
        model.optimizer.set_weights([2 * value for value in values])
        assert float(model.optimizer.weight_decay) == 1.0

    @pytest.mark.parametrize(
        "duplicate",
        [copy.deepcopy, lambda one: pickle.loads(pickle.dumps(one))],
        ids=["deepcopy", "pickle"],
    )
    def test_copies(self, duplicate):
        layer = keras.layers.Dense(3, name="kept")
        policy = WeightDecay(0.5, "torch", covers=["all"], exclude=[layer])
        optimizer = duplicate(policy.wrap(with_momentum()))
        assert optimizer.policy.convention == "torch"
        assert optimizer.inner_optimizer.momentum == 0.9
        model = keras.Sequential(
            [keras.layers.Dense(2), keras.layers.Dense(3, name="kept")]
        )
        model.compile(optimizer, "mse")
        train(model, 1)
        assert optimizer.coverage.covered == (True, True, False, False)
        assert duplicate(policy).get_config() == policy.get_config()

    def test_another_model_resolves_afresh(self):
        optimizer = WeightDecay(0.5).wrap("sgd")
        optimizer.build(sequential().trainable_variables)
        twin = DecayedOptimizer.from_config(optimizer.get_config())
        variables = [keras.Variable(np.ones((2, 2)), name="kernel")]
        twin.build(variables)
        assert twin.coverage.covered == (True,)

    def test_backup_and_restore(self, tmp_path):
        class Stop(keras.callbacks.Callback):
            def on_epoch_end(self, epoch, logs=None):
                if epoch == 1:
                    raise RuntimeError("on purpose")

        backup = keras.callbacks.BackupAndRestore(tmp_path)
        scheduler = WeightDecayScheduler(lambda epoch, rate: rate / 2)
        model = linear(WeightDecay(0.5).wrap(with_momentum()))
        with pytest.raises(RuntimeError, match="on purpose"):
            train(model, 4, 4, [scheduler, backup, Stop()])
        resumed = linear(WeightDecay(0.5).wrap(with_momentum()))
        scheduler = WeightDecayScheduler(lambda epoch, rate: rate / 2)
        backup = keras.callbacks.BackupAndRestore(tmp_path)
        train(resumed, 4, 4, [scheduler, backup])
        whole = linear(WeightDecay(0.5).wrap(with_momentum()))
        scheduler = WeightDecayScheduler(lambda epoch, rate: rate / 2)
        train(whole, 4, 4, [scheduler])
        assert difference(weights_of(resumed), weights_of(whole)) < 1e-6


class TestCitizenship:
    @pytest.mark.parametrize("coupling", ["coupled", "decoupled"])
    @pytest.mark.parametrize(
        "how",
        [{"jit_compile": True}, {"jit_compile": False}, {"run_eagerly": True}],
        ids=str,
    )
    def test_however_compiled(self, how, coupling):
        if BACKEND == "torch" and how.get("jit_compile"):
            pytest.skip("torch.compile needs a compiler at run time")
        policy = WeightDecay(RATE, coupling=coupling)
        model = linear(policy.wrap(with_momentum()), **how)
        train(model)
        expected = numpy_run(NumpySGD(0.9), RATE, coupling)
        assert difference(weights_of(model), expected) < 1e-5

    @pytest.mark.skipif(BACKEND == "torch", reason="Keras refuses it on torch")
    def test_steps_per_execution(self):
        model = linear(
            WeightDecay(RATE).wrap(with_momentum()), steps_per_execution=4
        )
        train(model)
        expected = numpy_run(NumpySGD(0.9))
        assert difference(weights_of(model), expected) < 1e-5

    @pytest.mark.parametrize("coupling", ["coupled", "decoupled"])
    def test_gradient_accumulation(self, coupling):
        optimizer = keras.optimizers.SGD(
            LR, momentum=0.9, gradient_accumulation_steps=4
        )
        model = linear(WeightDecay(0.5, coupling=coupling).wrap(optimizer))
        # Two batches are left over and must not have decayed anything.
        train(model, 18)
        expected = numpy_run(
            NumpySGD(0.9), 0.5, coupling, steps=16, accumulate=4
        )
        assert difference(weights_of(model), expected) < 1e-5
        assert int(model.optimizer.iterations) == 4

    @pytest.mark.parametrize("coupling", ["coupled", "decoupled"])
    def test_a_fixed_loss_scale_changes_nothing(self, coupling):
        optimizer = keras.optimizers.SGD(LR, loss_scale_factor=64.0)
        model = linear(WeightDecay(RATE, coupling=coupling).wrap(optimizer))
        train(model)
        expected = numpy_run(NumpySGD(), RATE, coupling)
        assert difference(weights_of(model), expected) < 1e-5

    @pytest.mark.parametrize("coupling", ["coupled", "decoupled"])
    def test_a_loss_scale_optimizer(self, coupling):
        policy = WeightDecay(RATE, coupling=coupling)
        scaled = keras.optimizers.LossScaleOptimizer(
            with_momentum(),
            initial_scale=16.0,
            dynamic_growth_steps=7,
            name="scaled",
        )
        outside = keras.optimizers.LossScaleOptimizer(
            policy.wrap(with_momentum()), 16.0
        )
        inside = policy.wrap(scaled)
        assert isinstance(inside, keras.optimizers.LossScaleOptimizer)
        assert inside.initial_scale == 16.0
        assert inside.dynamic_growth_steps == 7
        assert inside.name == "scaled"
        expected = numpy_run(NumpySGD(0.9), RATE, coupling)
        for optimizer in (inside, outside):
            assert isinstance(optimizer.inner_optimizer, DecayedOptimizer)
            model = linear(optimizer)
            train(model)
            assert difference(weights_of(model), expected) < 1e-5

    def test_a_step_with_infinite_gradients_decays_nothing(self):
        policy = WeightDecay(0.5)
        model = linear(
            keras.optimizers.LossScaleOptimizer(
                policy.wrap(with_momentum()), 16.0
            )
        )
        x = np.full((BATCH, 4), np.inf, "float32")
        model.fit(x, Y[:BATCH], batch_size=BATCH, verbose=0)
        np.testing.assert_array_equal(weights_of(model)[0], KERNEL)
        train(model, 1)
        assert not np.array_equal(weights_of(model)[0], KERNEL)

    @pytest.mark.parametrize("coupling", ["coupled", "decoupled"])
    @pytest.mark.parametrize(
        ("policy", "tolerance"),
        [
            ("mixed_float16", 2e-2),
            ("mixed_bfloat16", 2e-2),
            ("bfloat16", 1e-1),
            ("float64", 1e-6),
        ],
    )
    def test_dtype_policies(self, policy, tolerance, coupling):
        keras.config.set_dtype_policy(policy)
        try:
            optimizer = WeightDecay(0.5, coupling=coupling).wrap(
                keras.optimizers.SGD(LR)
            )
            model = linear(optimizer)
        finally:
            keras.config.set_dtype_policy("float32")
        train(model)
        expected = numpy_run(NumpySGD(), 0.5, coupling)
        values = [w.astype("float64") for w in weights_of(model)]
        assert difference(values, expected) < tolerance
        scaled = isinstance(
            model.optimizer, keras.optimizers.LossScaleOptimizer
        )
        assert scaled == (policy == "mixed_float16")

    def test_the_fraction_is_computed_in_float32(self):
        def rounded(values):
            values = ops.cast(ops.cast(values, "bfloat16"), "float32")
            return ops.convert_to_numpy(values)

        start = rounded(np.linspace(1, 2, 100, dtype="float32"))
        variable = keras.Variable(start, dtype="bfloat16", name="kernel")
        optimizer = WeightDecay(0.3, covers="all").wrap(
            keras.optimizers.SGD(1.0)
        )
        optimizer.apply([ops.zeros(100, "bfloat16")], [variable])
        expected = rounded((0.7 * start.astype("float64")).astype("float32"))
        np.testing.assert_array_equal(rounded(variable), expected)

    @pytest.mark.parametrize("coupling", ["coupled", "decoupled"])
    def test_variables_that_hold_their_gradient_are_left_alone(self, coupling):
        scale = keras.Variable(np.ones(2), name="scale")
        scale.overwrite_with_gradient = True
        kernel = keras.Variable(np.ones((2, 2)), name="kernel")
        policy = WeightDecay(0.5, coupling=coupling, covers="all")
        optimizer = policy.wrap(keras.optimizers.SGD(LR))
        gradients = [ops.ones(2) * 3, ops.zeros((2, 2))]
        optimizer.apply(gradients, [scale, kernel])
        np.testing.assert_array_equal(ops.convert_to_numpy(scale), [3, 3])

    @pytest.mark.parametrize("frequency", [None, 3])
    def test_moving_averages(self, frequency):
        def averaged():
            return {
                "use_ema": True,
                "ema_momentum": 0.5,
                "ema_overwrite_frequency": frequency,
            }

        own = linear(keras.optimizers.SGD(LR, weight_decay=0.5, **averaged()))
        train(own)
        ours = linear(
            WeightDecay(0.5, covers="all").wrap(
                keras.optimizers.SGD(LR, **averaged())
            )
        )
        train(ours)
        assert difference(weights_of(ours), weights_of(own)) < 1e-6

    @pytest.mark.parametrize("scaled", [False, True])
    def test_swapped_averages(self, scaled):
        optimizer = WeightDecay(0.5).wrap(
            keras.optimizers.SGD(LR, use_ema=True, ema_momentum=0.5)
        )
        if scaled:
            optimizer = keras.optimizers.LossScaleOptimizer(optimizer, 1.0)
        model = linear(optimizer)
        swap = keras.callbacks.SwapEMAWeights()
        model.fit(
            X,
            Y,
            batch_size=BATCH,
            shuffle=False,
            verbose=0,
            epochs=2,
            validation_data=(X, Y),
            callbacks=[swap],
        )
        inner = optimizer.inner_optimizer
        averages = [
            np.asarray(ops.convert_to_numpy(v), "float64")
            for v in inner._model_variables_moving_average
        ]
        assert difference(weights_of(model), averages) < 1e-6

    def test_stock_callbacks_reach_the_learning_rate(self):
        model = linear(WeightDecay(RATE).wrap(with_momentum()))
        halve = keras.callbacks.LearningRateScheduler(lambda epoch, lr: lr / 2)
        plateau = keras.callbacks.ReduceLROnPlateau(
            monitor="loss", factor=0.1, patience=1, min_delta=100.0
        )
        history = train(model, 2, 2, [halve]).history
        np.testing.assert_allclose(history["learning_rate"], [LR / 2, LR / 4])
        train(model, 2, 2, [plateau])
        np.testing.assert_allclose(
            float(model.optimizer.learning_rate), LR / 40, rtol=1e-6
        )

    def test_clipping_sees_a_coupled_decay(self):
        variable = keras.Variable(np.full((2, 2), 10.0), name="kernel")
        optimizer = WeightDecay(1.0, "torch").wrap(
            keras.optimizers.SGD(1.0, clipvalue=0.5)
        )
        optimizer.apply([ops.zeros((2, 2))], [variable])
        assert float(ops.convert_to_numpy(variable)[0, 0]) == 9.5
        assert optimizer.clipvalue == 0.5
        optimizer.clipvalue = 0.25
        assert optimizer.inner_optimizer.clipvalue == 0.25

    def test_constraints_hold_after_the_decay(self):
        model = linear(WeightDecay(RATE).wrap(with_momentum()))
        model.layers[0].kernel.constraint = keras.constraints.NonNeg()
        train(model, 2)
        assert weights_of(model)[0].min() >= 0

    def test_inside_a_multi_optimizer(self):
        optimizers = keras.optimizers.OptimizerMap(keras.optimizers.SGD(LR))
        optimizers[".*kernel"] = WeightDecay(RATE).wrap(with_momentum())
        model = linear(keras.optimizers.MultiOptimizer(optimizers))
        train(model, 5)
        kernel, bias = NumpySGD(0.9), NumpySGD()
        expected = numpy_run(Each(kernel, bias), steps=5)
        assert difference(weights_of(model), expected) < 1e-5
        scheduler = WeightDecayScheduler(lambda epoch, rate: 0.125)
        history = train(model, 1, 1, [scheduler]).history
        assert history["weight_decay"] == [0.125]

    def test_an_optimizer_that_has_been_at_work(self):
        model = linear(with_momentum())
        train(model, 3)
        optimizer = model.optimizer
        model.compile(WeightDecay(0.5).wrap(optimizer), "mse")
        train(model, 3, start=3)
        expected = numpy_run(
            NumpySGD(0.9), lambda t: 0.0 if t < 3 else 0.5, steps=6
        )
        assert difference(weights_of(model), expected) < 1e-5

    def test_an_optimizer_that_does_not_guard_its_build(self):
        class Unguarded(keras.optimizers.SGD):
            def build(self, variables):
                self.built = False
                super().build(variables)

        inner, variable = Unguarded(LR, momentum=0.9), keras.Variable(KERNEL)
        inner.apply([ops.ones((4, 3))], [variable])
        optimizer = WeightDecay(0.0).wrap(inner)
        before = len(optimizer.variables)
        optimizer.build([variable])
        assert len(optimizer.variables) == before

    def test_a_loop_by_hand(self):
        variables = [keras.Variable(KERNEL, name="kernel")]
        optimizer = WeightDecay(0.5).wrap(keras.optimizers.SGD(LR))
        gradients = [ops.zeros((4, 3))]
        optimizer.apply(gradients, variables)
        optimizer.apply(gradients)
        optimizer.apply_gradients(zip(gradients, variables, strict=True))
        actual = ops.convert_to_numpy(variables[0])
        np.testing.assert_allclose(actual, 0.95**3 * KERNEL, rtol=1e-5)
        assert int(optimizer.iterations) == 3
        with pytest.raises(ValueError, match="Unknown variable"):
            optimizer.apply(gradients, [keras.Variable(KERNEL)])

    @pytest.mark.slow
    @pytest.mark.skipif(BACKEND != "tensorflow", reason="of TensorFlow alone")
    def test_replicas_decay_once(self):
        result = subprocess.run(
            [sys.executable, "-c", REPLICAS],
            capture_output=True,
            text=True,
            env=os.environ,
            timeout=300,
        )
        assert result.returncode == 0, result.stderr[-3000:]
        assert result.stdout.split()[-1] == "agree"


REPLICAS = """
import tensorflow as tf
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(
    cpu, [tf.config.LogicalDeviceConfiguration()] * 2
)
import keras
import numpy as np
from keras_lowrank.decay import WeightDecay

x = np.random.default_rng(0).normal(size=(32, 4)).astype("float32")
y = x[:, :2]

def run(coupling, scaled):
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    policy = WeightDecay(0.5, coupling=coupling, covers="all")
    optimizer = policy.wrap(keras.optimizers.SGD(0.1, momentum=0.9))
    if scaled:
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer, 4.0)
    model.compile(optimizer, "mse", jit_compile=False)
    model.fit(x, y, batch_size=8, epochs=2, shuffle=False, verbose=0)
    return model.get_weights()

# Replicas have copies of the variables, or share them.
devices = ["CPU:0", "CPU:1"]
experimental = tf.distribute.experimental
for strategy, scaled in (
    (tf.distribute.MirroredStrategy(devices), False),
    (tf.distribute.MirroredStrategy(devices), True),
    (experimental.CentralStorageStrategy(devices, "CPU:0"), False),
):
    assert strategy.num_replicas_in_sync == 2
    for coupling in ("coupled", "decoupled"):
        one = run(coupling, scaled)
        with strategy.scope():
            two = run(coupling, scaled)
        for a, b in zip(one, two):
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
print("agree")
"""


class TestArguments:
    @pytest.mark.parametrize(
        ("arguments", "error", "message"),
        [
            ({"rate": -1.0}, ValueError, "0 or larger. Received: rate=-1.0"),
            ({"rate": float("nan")}, ValueError, "rate=nan"),
            ({"rate": float("inf")}, ValueError, "rate=inf"),
            ({"rate": True}, TypeError, "rate=True"),
            ({"rate": "5e-4"}, TypeError, "rate='5e-4'"),
            ({"rate": None}, TypeError, "rate=None"),
            ({"convention": "tf"}, ValueError, "'keras', 'torch'.*'tf'"),
            ({"coupling": "loose"}, ValueError, "'decoupled'.*'loose'"),
            ({"covers": 3}, TypeError, "`covers` must be one of.*3"),
            ({"covers": [None]}, TypeError, "Received: None"),
            ({"covers": ""}, ValueError, "empty string"),
            ({"exclude": "(("}, ValueError, r"`exclude`.*'\(\('"),
        ],
    )
    def test_bad_policies(self, arguments, error, message):
        with pytest.raises(error, match=message):
            WeightDecay(**({"rate": 0.1} | arguments))

    @pytest.mark.parametrize(
        ("optimizer", "error", "message"),
        [
            (lambda: "adamw", ValueError, "AdamW with weight_decay=0.004"),
            (
                lambda: keras.optimizers.SGD(weight_decay=0.1),
                ValueError,
                "twice. Received: SGD with weight_decay=0.1",
            ),
            (
                lambda: keras.optimizers.Muon(weight_decay=0.0),
                ValueError,
                "adam_weight_decay",
            ),
            (
                lambda: WeightDecay(0.1).wrap("sgd"),
                ValueError,
                "has a `WeightDecay` already",
            ),
            (
                lambda: keras.optimizers.LossScaleOptimizer(
                    WeightDecay(0.1).wrap("sgd")
                ),
                ValueError,
                "has a `WeightDecay` already",
            ),
            (
                lambda: keras.optimizers.MultiOptimizer(
                    keras.optimizers.OptimizerMap(keras.optimizers.SGD())
                ),
                ValueError,
                "MultiOptimizer, which leaves that",
            ),
            (lambda: 3, TypeError, "must be a Keras optimizer.*3"),
        ],
    )
    def test_bad_optimizers(self, optimizer, error, message):
        with pytest.raises(error, match=message):
            WeightDecay(0.1).wrap(optimizer())

    def test_a_built_loss_scale_optimizer(self):
        scaled = keras.optimizers.LossScaleOptimizer(with_momentum())
        scaled.build([keras.Variable(KERNEL)])
        with pytest.raises(ValueError, match="once it is built"):
            WeightDecay(0.1).wrap(scaled)

    def test_a_decayed_optimizer_needs_a_policy(self):
        with pytest.raises(TypeError, match=r"`policy` must be.*0\.1"):
            DecayedOptimizer(with_momentum(), 0.1)

    @pytest.mark.parametrize("rate", [-0.1, np.nan, True])
    def test_bad_assignments(self, rate):
        optimizer = WeightDecay(0.1).wrap("sgd")
        with pytest.raises((TypeError, ValueError), match="weight_decay="):
            optimizer.weight_decay = rate

    def test_keras_exclusions_are_refused(self):
        optimizer = WeightDecay(0.1).wrap("sgd")
        with pytest.raises(ValueError, match=r"exclude=\[\.\.\.\]"):
            optimizer.exclude_from_weight_decay(var_names=["bias"])

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"momentum": 1.5}, r"momentum=1\.5"),
            ({"nesterov": True}, "needs a momentum"),
            ({"weight_decay": 0.1}, "does not decay by itself"),
        ],
    )
    def test_bad_torch_sgd(self, arguments, message):
        with pytest.raises(ValueError, match=message):
            TorchSGD(0.1, **arguments)

    def test_torch_sgd_round_trip(self):
        config = TorchSGD(0.1, momentum=0.9, nesterov=True).get_config()
        twin = TorchSGD.from_config(config)
        assert (twin.momentum, twin.nesterov) == (0.9, True)

    def test_a_policy_is_frozen(self):
        with pytest.raises(dataclasses.FrozenInstanceError):
            WeightDecay(0.1).rate = 0.2


class TestConversions:
    @pytest.mark.parametrize(
        ("source", "target", "expected"),
        [
            ("torch", "keras", 5e-4),
            ("torch", "l2", 2.5e-4),
            ("torch", "paper_lambda", 2.5e-4),
            ("l2", "paper_lambda", 5e-4),
            ("paper_lambda", "torch", 1e-3),
            ("keras", "l2", 2.5e-4),
        ],
    )
    def test_conversions(self, source, target, expected):
        assert convert_weight_decay(5e-4, source, target) == expected
        assert WeightDecay(5e-4, source).rate_in(target) == expected

    def test_momentum(self):
        assert convert_weight_decay(5e-4, "torch", "l2", momentum=0.9) == 2.5e-4
        with pytest.raises(
            ValueError, match="L2, matches torch under momentum"
        ):
            convert_weight_decay(5e-4, "torch", "keras", momentum=0.9)

    def test_unknown_names(self):
        with pytest.raises(ValueError, match=r"`target` must be one of.*'tf'"):
            convert_weight_decay(5e-4, "torch", "tf")

    def test_a_schedule_has_no_single_value(self):
        with pytest.raises(ValueError, match="changes with the step"):
            WeightDecay(falling).rate_in("l2")
