"""Soft thresholds of singular values, and the callback that applies them."""

import copy
import pickle

import keras
import numpy as np
import pytest
from keras import layers
from keras import ops

import keras_lowrank as kl
from keras_lowrank import linalg
from keras_lowrank.linalg import soft_threshold
from tests.planted import planted

VALUES = np.array([3.0, 2.0, 2.0, 0.9, 0.5, 0.0])


def lowered(matrix, threshold):
    left, values, right = np.linalg.svd(matrix, full_matrices=False)
    return (left * np.maximum(values - threshold, 0)) @ right


@pytest.mark.once
class TestSoftThreshold:
    @pytest.mark.parametrize("shape", [(6, 6), (6, 9), (9, 6)])
    @pytest.mark.parametrize("threshold", [0.0, 1e-9, 0.7, 2.0, 5.0])
    def test_against_numpy(self, shape, threshold):
        matrix = planted(VALUES, shape)
        np.testing.assert_allclose(
            soft_threshold(matrix, threshold),
            lowered(matrix, threshold),
            atol=1e-13,
        )

    @pytest.mark.parametrize("scale", [1e-200, 1e-30, 1e30, 1e150])
    def test_any_scale(self, scale):
        matrix = planted(VALUES, (6, 7))
        np.testing.assert_allclose(
            soft_threshold(scale * matrix, scale * 0.7) / scale,
            lowered(matrix, 0.7),
            atol=1e-12,
        )

    def test_rank_falls_to_the_values_above(self):
        matrix = planted(VALUES, (40, 6)).astype("float32")
        result = soft_threshold(matrix, 0.6)
        assert result.dtype == np.float32
        values = linalg.spectrum(result).values
        np.testing.assert_allclose(values[:4], VALUES[:4] - 0.6, rtol=1e-6)
        assert np.all(values[4:] < 1e-6 * values[0])
        assert np.all(soft_threshold(matrix, 3.1) == 0)

    def test_blocks_share_the_threshold(self):
        blocks = np.random.default_rng(0).normal(size=(3, 4, 5))
        result = soft_threshold(blocks, 0.8)
        for block, one in zip(blocks, result, strict=True):
            np.testing.assert_allclose(one, lowered(block, 0.8), atol=1e-13)

    @pytest.mark.parametrize("blocks", [(), (3,)])
    def test_product(self, blocks):
        rng = np.random.default_rng(0)
        left = rng.normal(size=(*blocks, 9, 4))
        right = rng.normal(size=(*blocks, 4, 6))
        left[..., 3] = 0.0  # a direction that is there on the right only
        product = linalg.Product(left, right)
        values = linalg.spectrum(product).values
        threshold = float(values[len(values) // 2])
        result = soft_threshold(product, threshold)
        matrix, wanted = left @ right, result.to_numpy()
        if not blocks:
            matrix, wanted = matrix[None], wanted[None]
        for one, other in zip(matrix, wanted, strict=True):
            np.testing.assert_allclose(
                other, lowered(one, threshold), atol=1e-12
            )
        # Training can fill a direction, as long as one factor has it.
        assert np.linalg.matrix_rank(result.right).min() == 4
        rows = left if not blocks else left[0]
        after = result.left if not blocks else result.left[0]
        assert np.linalg.norm(after) < np.linalg.norm(rows)

    def test_product_keeps_a_left_factor_without_a_right_one(self):
        product = linalg.Product(np.ones((4, 2)), np.zeros((2, 3)))
        result = soft_threshold(product, 0.5)
        assert np.all(result.left == 1) and np.all(result.right == 0)

    @pytest.mark.parametrize("threshold", [-1.0, np.nan, np.inf])
    def test_threshold_out_of_range(self, threshold):
        with pytest.raises(ValueError, match="0 or larger"):
            soft_threshold(np.eye(2), threshold)

    def test_not_finite(self):
        with pytest.raises(ValueError, match="1 NaN of 4 entries"):
            soft_threshold(np.array([[1.0, np.nan], [0.0, 1.0]]), 0.1)


@pytest.mark.parametrize("shape", [(6, 9), (9, 6)])
@pytest.mark.parametrize("threshold", [0.0, 0.7, 2.0, 5.0])
def test_by_products_against_numpy(shape, threshold):
    matrix = planted(VALUES, shape).astype("float32")
    result = ops.convert_to_numpy(
        linalg.thresholded(ops.convert_to_tensor(matrix), threshold)
    )
    error = np.linalg.norm(result - lowered(matrix, threshold), 2)
    assert error < 1e-6 * VALUES[0]


def network(*more, rate=0.1):
    model = keras.Sequential(
        [keras.Input((6,)), layers.Dense(8, "tanh"), *more, layers.Dense(5)]
    )
    model.compile(keras.optimizers.SGD(rate), "mse")
    return model


def data(samples=16):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(samples, 6)).astype("float32")
    return x, np.zeros((samples, 5), "float32")


def fit(model, callback, **options):
    x, y = data()
    options = {"epochs": 1, "batch_size": 4, "verbose": 0} | options
    model.fit(x, y, callbacks=[callback], shuffle=False, **options)


class Copy(keras.callbacks.Callback):
    """Weights after each epoch, as a callback after it finds them."""

    def __init__(self):
        super().__init__()
        self.kernels = []

    def on_epoch_end(self, epoch, logs=None):
        self.kernels.append(
            [m.to_numpy() for m in kl.weight_matrices(self.model)]
        )


def still(model):
    """The model with a loss that has no gradient."""
    model.compile(model.optimizer, lambda y, p: 0.0 * ops.mean(p, axis=-1))
    return model


class TestCallback:
    @pytest.mark.parametrize("method", ["exact", "newton_schulz"])
    def test_lowers_by_learning_rate_times_updates(self, method):
        model = still(network())
        before = [m.to_numpy() for m in kl.weight_matrices(model)]
        callback = kl.SingularValueThreshold(0.5, method=method)
        fit(model, callback)  # 4 updates at 0.1
        for matrix, kernel in zip(
            kl.weight_matrices(model), before, strict=True
        ):
            np.testing.assert_allclose(
                matrix.to_numpy(), lowered(kernel, 0.2), atol=3e-6
            )

    @pytest.mark.parametrize("steps", [1, 3])
    def test_after_every_so_many_updates_it_comes_to_the_same(self, steps):
        model = still(network())
        before = kl.weight_matrices(model)[0].to_numpy()
        fit(model, kl.SingularValueThreshold(0.5, "dense/", steps=steps))
        after = kl.weight_matrices(model)[0].to_numpy()
        np.testing.assert_allclose(after, lowered(before, 0.2), atol=1e-6)

    def test_batch_hook_only_where_asked_for(self):
        plain = kl.SingularValueThreshold(0.5)
        assert keras.callbacks.CallbackList([plain])._async_train or (
            keras.backend.backend() != "jax"
        )
        own = keras.callbacks.Callback.on_train_batch_end
        assert type(plain).on_train_batch_end is own
        assert "on_train_batch_end" not in vars(plain)
        asked = kl.SingularValueThreshold(0.5, steps=2)
        for again in (copy.deepcopy(asked), pickle.loads(pickle.dumps(asked))):
            assert again.on_train_batch_end.__self__ is again

    def test_learning_rates_of_a_schedule_are_summed(self):
        schedule = keras.optimizers.schedules.PiecewiseConstantDecay(
            [1], [0.4, 0.1]
        )
        model = still(network(rate=schedule))
        before = kl.weight_matrices(model)[0].to_numpy()
        fit(model, kl.SingularValueThreshold(0.5))
        wanted = lowered(before, 0.5 * (0.4 + 0.4 + 0.1 + 0.1))
        after = kl.weight_matrices(model)[0].to_numpy()
        np.testing.assert_allclose(after, wanted, atol=1e-6)

    def test_accumulated_gradients_are_one_update(self):
        schedule = keras.optimizers.schedules.PiecewiseConstantDecay(
            [2], [0.4, 0.1]
        )
        model = network()
        model.compile(
            keras.optimizers.SGD(schedule, gradient_accumulation_steps=2)
        )
        model = still(model)
        before = kl.weight_matrices(model)[0].to_numpy()
        fit(model, kl.SingularValueThreshold(0.5))
        # Two updates, by the second and by the fourth batch.
        wanted = lowered(before, 0.5 * (0.4 + 0.1))
        after = kl.weight_matrices(model)[0].to_numpy()
        np.testing.assert_allclose(after, wanted, atol=1e-6)

    def test_the_rate_of_an_optimizer_with_decay(self):
        model = network()
        optimizer = kl.WeightDecay(0.0).wrap(keras.optimizers.SGD(0.1))
        model.compile(optimizer)
        model = still(model)
        before = kl.weight_matrices(model)[0].to_numpy()
        fit(model, kl.SingularValueThreshold(0.5))
        after = kl.weight_matrices(model)[0].to_numpy()
        np.testing.assert_allclose(after, lowered(before, 0.2), atol=1e-6)

    def test_rank_falls_and_stays_exact_in_training(self):
        model, seen = network(), Copy()
        callback = kl.SingularValueThreshold(0.4, scale_by_learning_rate=False)
        x, y = data()
        model.fit(x, y, epochs=3, verbose=0, callbacks=[callback, seen])
        ranks = [
            np.linalg.matrix_rank(kernels[0], tol=1e-6)
            for kernels in seen.kernels
        ]
        assert ranks == sorted(ranks, reverse=True)
        assert 0 < ranks[-1] < 6

    def test_layers_that_are_replaced_meanwhile(self):
        model = keras.Sequential(
            [keras.Input((6,)), layers.Dense(8, name="hidden")]
        )
        model.compile(keras.optimizers.SGD(0.1))
        model = still(model)
        (before,) = kl.weight_matrices(model)
        before = before.to_numpy()
        callback = kl.SingularValueThreshold(0.5, model.layers[0])
        switch = kl.SwitchToLowRank(rank=2, min_delta=1.0, patience=1)
        x = np.zeros((4, 6), "float32")
        model.fit(
            x,
            np.zeros((4, 8), "float32"),
            epochs=3,
            verbose=0,
            callbacks=[callback, switch],
        )
        assert switch.switched
        left, values, right = np.linalg.svd(before, full_matrices=False)
        ((epoch, _),) = switch.switched.values()
        # At once in the epochs before, of two values in those after.
        values = np.maximum(values - 0.05 * 3, 0)
        after = kl.weight_matrices(model)[0].to_numpy()
        wanted = (left[:, :2] * values[:2]) @ right[:2]
        assert epoch < 3
        np.testing.assert_allclose(after, wanted, atol=1e-5)

    def test_momentum_is_left_as_it_is(self):
        def trained(*callbacks):
            keras.utils.set_random_seed(1)
            model = network()
            model.compile(
                keras.optimizers.SGD(0.1, momentum=0.9, use_ema=True), "mse"
            )
            x, y = data()
            model.fit(x, y, batch_size=16, verbose=0, callbacks=callbacks)
            # At the end of `fit` the average becomes the weights.
            return [
                ops.convert_to_numpy(v) for v in model.optimizer.variables[2:]
            ]

        for ours, theirs in zip(
            trained(kl.SingularValueThreshold(0.5)), trained(), strict=True
        ):
            np.testing.assert_array_equal(ours, theirs)

    def test_chosen_weights_and_parts(self):
        attention = layers.MultiHeadAttention(2, 3)
        x = keras.Input((4, 6))
        model = keras.Model(x, layers.Dense(5)(attention(x, x)))
        model.compile(keras.optimizers.SGD(0.1))
        model = still(model)
        callback = kl.SingularValueThreshold(
            0.3,
            "query/kernel",
            scale_by_learning_rate=False,
            views={"heads": "split"},
        )
        views = {"heads": "split"}
        before = {
            matrix.name: matrix.to_numpy()
            for matrix in kl.weight_matrices(model, views=views)
        }
        model.fit(
            np.zeros((4, 4, 6), "float32"),
            np.zeros((4, 4, 5), "float32"),
            callbacks=[callback],
            verbose=0,
        )
        for matrix in kl.weight_matrices(model, views=views):
            wanted = before[matrix.name]
            if "query" in matrix.name:
                wanted = lowered(wanted, 0.3)
            np.testing.assert_allclose(matrix.to_numpy(), wanted, atol=1e-6)

    def test_groups_of_a_convolution(self):
        model = keras.Sequential(
            [keras.Input((8, 8, 4)), layers.Conv2D(6, 3, groups=2)]
        )
        model.compile(keras.optimizers.SGD(0.1))
        model = still(model)
        before = [m.to_numpy() for m in kl.weight_matrices(model)]
        x = np.zeros((2, 8, 8, 4), "float32")
        callback = kl.SingularValueThreshold(0.5, scale_by_learning_rate=False)
        model.fit(x, np.zeros((2, 6, 6, 6)), callbacks=[callback], verbose=0)
        after = [m.to_numpy() for m in kl.weight_matrices(model)]
        assert len(after) == 2
        for one, other in zip(after, before, strict=True):
            np.testing.assert_allclose(one, lowered(other, 0.5), atol=1e-6)

    @pytest.mark.parametrize(
        "layer",
        [
            lambda: kl.LowRankDense(8, 3),
            lambda: kl.LowRankEinsumDense("bc,cd->bd", 8, 3),
        ],
        ids=["dense", "einsum"],
    )
    def test_low_rank_layers_lower_the_product(self, layer):
        model = still(network(layer()))
        before = kl.weight_matrices(model)[1].to_numpy()
        fit(model, kl.SingularValueThreshold(2.0))
        after = kl.weight_matrices(model)[1].to_numpy()
        np.testing.assert_allclose(after, lowered(before, 0.8), atol=1e-5)

    def test_blocks_of_a_low_rank_layer(self):
        layer = kl.LowRankEinsumDense("abc,bcd->abd", (5, 4), 2)
        model = keras.Sequential([keras.Input((5, 6)), layer])
        model.compile(keras.optimizers.SGD(0.1))
        model = still(model)
        before = [m.to_numpy() for m in kl.weight_matrices(model)]
        callback = kl.SingularValueThreshold(0.3, scale_by_learning_rate=False)
        x = np.zeros((2, 5, 6), "float32")
        model.fit(x, np.zeros((2, 5, 4)), callbacks=[callback], verbose=0)
        after = [m.to_numpy() for m in kl.weight_matrices(model)]
        assert len(after) == 5
        for one, other in zip(after, before, strict=True):
            np.testing.assert_allclose(one, lowered(other, 0.3), atol=1e-6)

    def test_what_is_not_stored_or_frozen_is_left_out_or_refused(self):
        model = network(layers.Dense(8, name="middle"))
        model.get_layer("middle").enable_lora(2)
        model.layers[0].trainable = False
        model.compile(keras.optimizers.SGD(0.1))
        model = still(model)
        callback = kl.SingularValueThreshold(0.5)
        fit(model, callback)
        assert callback.skipped == {
            "dense/kernel": "it is frozen",
            "middle/kernel": "the layer does not store it (with LoRA)",
        }
        chosen = kl.SingularValueThreshold(0.5, "middle")
        with pytest.raises(ValueError, match=r"'middle/kernel': .*with LoRA"):
            fit(model, chosen)

    def test_spatial_factors_are_those_of_another_matrix(self):
        model = keras.Sequential(
            [
                keras.Input((8, 8, 3)),
                kl.LowRankConv2D(6, 3, 2, scheme="spatial"),
            ]
        )
        (matrix,) = kl.weight_matrices(model)
        assert "another matrix" in matrix.reason_against_assign()
        with pytest.raises(ValueError, match="cannot be set"):
            matrix.assign(matrix.to_numpy())

    def test_a_diverged_kernel_is_left_alone(self):
        model = still(network())
        kernel = model.layers[0].kernel
        kernel.assign(np.full(kernel.shape, np.nan))
        fit(model, kl.SingularValueThreshold(0.5))
        assert np.isnan(ops.convert_to_numpy(model.layers[0].kernel)).all()

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"threshold": -1}, "0 or larger"),
            ({"threshold": np.nan}, "0 or larger"),
            ({"threshold": 1, "steps": 0}, "steps=0"),
            ({"threshold": 1, "method": "svd"}, "method='svd'"),
        ],
    )
    def test_arguments_out_of_range(self, options, message):
        with pytest.raises(ValueError, match=message):
            kl.SingularValueThreshold(**options)

    def test_model_that_is_not_compiled(self):
        callback = kl.SingularValueThreshold(0.5)
        callback.set_model(keras.Sequential([layers.Dense(2)]))
        with pytest.raises(ValueError, match="not compiled"):
            callback.on_train_begin()


class TestAssign:
    def test_shape(self):
        model = network()
        with pytest.raises(ValueError, match=r"has the shape \(6, 8\)"):
            kl.weight_matrices(model)[0].assign(np.zeros((8, 6)))

    def test_product(self):
        layer = kl.LowRankDense(4, 2)
        layer.build((None, 5))
        (matrix,) = kl.weight_matrices(layer)
        product = linalg.truncate(np.ones((5, 4)), 2)
        matrix.assign(product)
        np.testing.assert_allclose(matrix.to_numpy(), 1.0, atol=1e-6)
        with pytest.raises(ValueError, match=r"Give `assign` a `linalg\.Pro"):
            matrix.assign(np.ones((5, 4)))
