"""Layers replaced in models that stay, whatever the models are made of."""

import subprocess
import sys

import keras
import numpy as np
import pytest
from keras import layers
from keras import ops

import keras_lowrank as kl
from keras_lowrank.layers import FactoredLayer
from keras_lowrank.layers import LowRankDense
from keras_lowrank.layers import low_rank_class
from keras_lowrank.rewrite import copy_model
from keras_lowrank.rewrite import make_low_rank
from keras_lowrank.rewrite import replace_layers
from keras_lowrank.weights import locate_layers

BACKEND = keras.backend.backend()


@keras.saving.register_keras_serializable("test_rewrite")
class Block(layers.Layer):
    """A layer as users write them: no `build`, layers in lists and dicts."""

    def __init__(self, units, **kwargs):
        super().__init__(**kwargs)
        self.units = units
        self.attend = layers.MultiHeadAttention(2, 3)
        self.mlp = keras.Sequential(
            [layers.Dense(7, activation="relu"), layers.Dense(units)]
        )
        self.more = [layers.Dense(units)]
        self.table = {"a": layers.Dense(units), "b": (layers.Dense(units),)}

    def call(self, x):
        x = self.mlp(x + self.attend(x, x))
        for layer in (*self.more, self.table["a"], *self.table["b"]):
            x = layer(x)
        return x

    def get_config(self):
        return super().get_config() | {"units": self.units}


@keras.saving.register_keras_serializable("test_rewrite")
class Subclassed(keras.Model):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.hidden = layers.Dense(6, activation="relu")
        self.head = layers.Dense(3)

    def call(self, x):
        return self.head(self.hidden(x))


class Unsavable(keras.Model):
    def __init__(self, make):
        super().__init__()
        self.head = make()

    def call(self, x):
        return self.head(x)


def sequential():
    return keras.Sequential(
        [keras.Input((5,)), layers.Dense(6, "relu"), layers.Dense(3)]
    )


def deferred():
    model = keras.Sequential([layers.Dense(6, "relu"), layers.Dense(3)])
    model.build((None, 5))
    return model


def shared_and_nested():
    inputs = keras.Input((5,))
    shared = layers.Dense(5)
    x = shared(shared(inputs))
    inner = keras.Sequential([layers.Dense(6), layers.Dense(5)])
    x = layers.Add()([inner(x), x])
    nested_inputs = keras.Input((5,))
    nested = keras.Model(nested_inputs, layers.Dense(5)(nested_inputs))
    return keras.Model(inputs, layers.Dense(3)(ops.relu(nested(nested(x)))))


def composites():
    inputs = keras.Input((4, 5))
    x = layers.MultiHeadAttention(2, 3)(inputs, inputs)
    x = layers.TimeDistributed(layers.Dense(6))(x)
    return keras.Model(inputs, layers.Dense(3)(Block(6)(x)))


def subclassed():
    model = Subclassed()
    model(np.zeros((1, 5), "float32"))
    return model


# How many low-rank layers each has once all that can have one do.
MODELS = {
    sequential: 2,
    deferred: 2,
    shared_and_nested: 5,
    composites: 4 + 1 + 4 + 2 + 1 + 2 + 1,
    subclassed: 2,
}
every_model = pytest.mark.parametrize("make", MODELS, ids=lambda f: f.__name__)


def samples(model, count=6):
    shape = (
        (4, 5)
        if model.name.startswith("functional") and len(model.input_shape) > 2
        else (5,)
    )
    rng = np.random.default_rng(0)
    return rng.normal(size=(count, *shape)).astype("float32")


def full_rank(model):
    """Every layer that has one gets its low-rank form, at full rank."""
    options = {}
    for name, layer in locate_layers(model, keras.Layer).items():
        form = low_rank_class(layer)
        if form is not None:
            kernel = layer.kernel
            matrix = form.like(layer, 1).factorization(kernel.shape)
            options[name] = {"rank": min(matrix.matrix_shape(kernel.shape))}
    return make_low_rank(model, options)


@every_model
class TestEveryModel:
    def test_full_rank_changes_nothing_but_the_layers(self, make):
        model = make()
        x = samples(model)
        expected = model.predict(x, verbose=0)
        names = kl.weight_matrices(model).names
        replaced = full_rank(model)
        assert len(replaced) == MODELS[make]
        assert len(locate_layers(model, FactoredLayer)) == MODELS[make]
        np.testing.assert_allclose(
            model.predict(x, verbose=0), expected, rtol=1e-5, atol=1e-5
        )
        assert kl.weight_matrices(model).names == names

    def test_saved_and_loaded(self, make, tmp_path):
        model = make()
        x = samples(model)
        full_rank(model)
        expected = model.predict(x, verbose=0)
        model.save(tmp_path / "small.keras")
        loaded = keras.saving.load_model(tmp_path / "small.keras")
        assert len(locate_layers(loaded, FactoredLayer)) == MODELS[make]
        np.testing.assert_array_equal(loaded.predict(x, verbose=0), expected)
        # What was loaded can be saved as well.
        loaded.save(tmp_path / "again.keras")
        again = keras.saving.load_model(tmp_path / "again.keras")
        np.testing.assert_array_equal(again.predict(x, verbose=0), expected)

    def test_every_factor_is_trained(self, make):
        model = make()
        full_rank(model)
        model.compile("sgd", "mse")
        x = samples(model)
        before = model.get_weights()
        target = np.ones_like(model.predict(x, verbose=0))
        model.fit(x, target, batch_size=3, epochs=1, verbose=0)
        after = model.get_weights()
        assert len(before) == len(after)
        paths = [weight.path for weight in model.weights]
        still = [
            path
            for path, old, new in zip(paths, before, after, strict=True)
            if np.array_equal(old, new)
        ]
        # The softmax does not see what is added to every key.
        assert all("key" in path for path in still)

    def test_a_copy_is_apart(self, make):
        model = make()
        copy = copy_model(model)
        for weight in copy.weights:
            weight.assign(weight + 1)
        x = samples(model)
        assert np.any(copy.predict(x, verbose=0) != model.predict(x, verbose=0))


def test_what_is_not_in_the_model_cannot_be_replaced():
    model = sequential()
    other = sequential().layers[0]
    new = LowRankDense.from_layer(other, 2)
    with pytest.raises(ValueError, match="does not hold so"):
        replace_layers(model, {other: new})
    with pytest.raises(ValueError, match="no layers of the names"):
        make_low_rank(model, {"nowhere": {"rank": 2}})
    with pytest.raises(ValueError, match="has no low-rank form"):
        make_low_rank(composites(), {"multi_head_attention": {"rank": 2}})


def test_another_model_of_the_same_graph_goes_on():
    model = sequential()
    features = keras.Model(model.inputs, model.layers[0].output)
    x = samples(model)
    expected = features.predict(x, verbose=0)
    full_rank(model)
    assert features.predict(x, verbose=0) == pytest.approx(expected, abs=1e-5)


def test_a_class_of_ones_own_stays_what_it_is():
    model = subclassed()
    full_rank(model)
    assert isinstance(model, Subclassed)
    assert type(model).__name__ == "Subclassed"
    assert isinstance(model.hidden, LowRankDense)
    block = composites().layers[-2]
    full_rank(block)
    assert isinstance(block, Block)
    assert isinstance(block.table["b"][0], LowRankDense)


def test_clone_model_keeps_low_rank():
    model = composites()
    full_rank(model)
    clone = keras.models.clone_model(model)
    clone.set_weights(model.get_weights())
    x = samples(model)
    np.testing.assert_allclose(
        clone.predict(x, verbose=0), model.predict(x, verbose=0), atol=1e-6
    )


def test_what_cannot_be_saved_cannot_be_copied():
    model = Unsavable(lambda: layers.Dense(3))
    model(np.zeros((1, 5), "float32"))
    with pytest.raises(ValueError, match="clone="):
        copy_model(model)


def test_a_copy_has_lambdas_and_functions_of_ones_own():
    def shifted(x):
        return ops.relu(x + 1.0)

    model = keras.Sequential(
        [
            keras.Input((5,)),
            layers.Dense(4, activation=shifted),
            layers.Lambda(lambda x: x * 2),
        ]
    )
    x = samples(model)
    np.testing.assert_array_equal(
        copy_model(model).predict(x, verbose=0), model.predict(x, verbose=0)
    )


def test_one_import_loads_it(tmp_path):
    inputs = keras.Input((4, 5))
    x = layers.MultiHeadAttention(2, 3)(inputs, inputs)
    model = keras.Model(inputs, layers.Dense(3)(x))
    full_rank(model)
    path = tmp_path / "small.keras"
    model.save(path)
    program = (
        "import sys, keras, keras_lowrank, numpy as np\n"
        "model = keras.saving.load_model(sys.argv[1])\n"
        "print(model.predict(np.ones((1, 4, 5)), verbose=0).sum())"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(path)],
        capture_output=True,
        text=True,
        check=True,
    )
    expected = model.predict(np.ones((1, 4, 5)), verbose=0).sum()
    assert float(done.stdout) == pytest.approx(float(expected), rel=1e-5)


def test_one_that_no_longer_fits_its_class_says_so(tmp_path):
    block = Block(6, name="block")
    inputs = keras.Input((4, 6))
    model = keras.Model(inputs, block(inputs))
    full_rank(model)
    config = block.get_config()
    config["low_rank"]["gone"] = config["low_rank"].pop("dense")
    with pytest.raises(ValueError, match=r"in the places of \['gone'\]"):
        type(block).from_config(config)


# The optimizer ----------------------------------------------------------------

SLOTS = {
    "sgd": lambda: keras.optimizers.SGD(0.1, momentum=0.9),
    "torch": lambda: kl.TorchSGD(0.1, momentum=0.9),
    "adam": lambda: keras.optimizers.Adam(
        0.01, amsgrad=True, use_ema=True, gradient_accumulation_steps=2
    ),
    "adamax": lambda: keras.optimizers.Adamax(0.01),
    "rmsprop": lambda: keras.optimizers.RMSprop(0.01, centered=True),
    "muon": lambda: keras.optimizers.Muon(0.01),
    "scaled": lambda: keras.optimizers.LossScaleOptimizer(
        keras.optimizers.Adam(0.01)
    ),
    "decayed": lambda: kl.WeightDecay(0.01).wrap(
        keras.optimizers.SGD(0.1, momentum=0.9)
    ),
}


def trained(optimizer, **options):
    model = sequential()
    model.compile(optimizer, "mse", **options)
    x = samples(model, 12)
    model.fit(x, x[:, :3], batch_size=3, epochs=2, verbose=0)
    return model


def slots_of(optimizer, variable):
    """What the innermost optimizer keeps of a variable, by name."""
    while getattr(optimizer, "inner_optimizer", None) is not None:
        optimizer = optimizer.inner_optimizer
    index = optimizer._get_variable_index(variable)
    count = len(optimizer._trainable_variables)
    return {
        name: ops.convert_to_numpy(slots[index]).astype(float)
        for name, slots in vars(optimizer).items()
        if isinstance(slots, list)
        and len(slots) == count
        and slots is not optimizer._trainable_variables
        and slots[index] is not None
    }


@pytest.mark.parametrize("name", SLOTS)
def test_state_of_the_optimizer_is_carried(name):
    model = trained(SLOTS[name]())
    optimizer, (hidden, head) = model.optimizer, model.layers
    before = slots_of(optimizer, hidden.kernel)
    bias = slots_of(optimizer, hidden.bias)
    other = slots_of(optimizer, head.kernel)
    steps = int(ops.convert_to_numpy(optimizer.iterations))
    make_low_rank(model, {"dense": {"rank": 3}})
    new = model.layers[0]
    left, right = (
        ops.convert_to_numpy(factor).astype(float)
        for factor in new.factor_variables
    )
    found = [slots_of(model.optimizer, one) for one in new.factor_variables]
    assert before
    for slot, kept in before.items():
        if slot in ("_momentums", "momentums", "velocities", "_m") or (
            slot in ("_average_gradients", "_accumulated_gradients")
        ):
            expected = kept @ right.T, left.T @ kept
        elif slot == "_u":
            expected = tuple(
                np.sqrt(part)
                for part in (kept**2 @ right.T**2, left.T**2 @ kept**2)
            )
        elif slot == "_model_variables_moving_average":
            projected = kept @ np.linalg.pinv(right) @ right
            np.testing.assert_allclose(
                found[0][slot] @ found[1][slot], projected, atol=1e-5
            )
            continue
        elif "_average_gradients" in before:
            mean = before["_average_gradients"]
            spread = np.maximum(kept - mean**2, 0)
            expected = (
                (mean @ right.T) ** 2 + spread @ right.T**2,
                (left.T @ mean) ** 2 + left.T**2 @ spread,
            )
        else:
            expected = kept @ right.T**2, left.T**2 @ kept
        for side in (0, 1):
            np.testing.assert_allclose(
                found[side][slot], expected[side], rtol=1e-4, atol=1e-6
            )
    for variable, kept in ((new.bias, bias), (head.kernel, other)):
        after = slots_of(model.optimizer, variable)
        assert set(after) == set(kept)
        for slot in kept:
            np.testing.assert_array_equal(after[slot], kept[slot])
    assert int(ops.convert_to_numpy(model.optimizer.iterations)) == steps
    if BACKEND == "jax" and getattr(model.optimizer, "use_ema", False):
        return  # Keras 3.15 donates an average twice in any second `fit`
    x = samples(model, 12)
    model.fit(x, x[:, :3], batch_size=3, epochs=1, verbose=0)
    assert np.isfinite(model.get_weights()[0]).all()


def test_settings_of_the_optimizer_stay():
    optimizer = keras.optimizers.SGD(0.1, weight_decay=0.1)
    model = sequential()
    optimizer.exclude_from_weight_decay([model.layers[0].kernel])
    model.compile(optimizer, "mse")
    x = samples(model)
    model.fit(x, x[:, :3], epochs=1, verbose=0)
    model.optimizer.learning_rate = 0.025
    make_low_rank(model, {"dense": {"rank": 3}, "dense_1": {"rank": 2}})
    new = model.optimizer
    assert float(ops.convert_to_numpy(new.learning_rate)) == (
        pytest.approx(0.025)
    )
    decayed = [new._use_weight_decay(v) for v in model.trainable_variables]
    # The factors and the bias of the first layer, then those of the second.
    assert decayed == [False, False, True, True, True, True]


def test_state_without_meaning_begins_anew():
    model = trained(keras.optimizers.RMSprop(0.01, momentum=0.5))
    with pytest.warns(kl.KerasLowrankWarning, match="RMSprop keeps as mom"):
        make_low_rank(model, {"dense": {"rank": 3}})
    left = slots_of(model.optimizer, model.layers[0].factor_variables[0])
    assert not left["_momentums"].any()
    assert left["_velocities"].any()


def test_several_optimizers_are_refused_before_anything_changes():
    one = keras.optimizers.SGD(0.1)
    model = sequential()
    model.compile(keras.optimizers.MultiOptimizer(lambda variable: one), "mse")
    with pytest.raises(ValueError, match="MultiOptimizer"):
        make_low_rank(model, {"dense": {"rank": 3}})
    assert not locate_layers(model, FactoredLayer)


def test_exported(tmp_path):
    model = shared_and_nested()
    full_rank(model)
    x = samples(model, 1)  # Keras exports to torch for one sample
    expected = model.predict(x, verbose=0)
    if BACKEND == "torch":
        import torch

        path = tmp_path / "model.pt2"
        model.export(path, format="torch", verbose=False)
        module = torch.export.load(path).module()
        found = module(torch.tensor(x)).detach().numpy()
    else:
        tf = pytest.importorskip("tensorflow")
        model.export(tmp_path / "model", verbose=False)
        loaded = tf.saved_model.load(str(tmp_path / "model"))
        found = loaded.serve(x).numpy()
    np.testing.assert_allclose(found, expected, atol=1e-6)
