import json

import keras
import numpy as np
import pytest
from keras import layers

from keras_lowrank import dead_channels
from keras_lowrank import weight_matrices
from keras_lowrank.channels import channel_rows

NORMALIZATIONS = {
    "batch": (layers.BatchNormalization, "gamma"),
    "layer": (layers.LayerNormalization, "gamma"),
    "group": (lambda **options: layers.GroupNormalization(2, **options), None),
    "rms": (layers.RMSNormalization, "scale"),
}


def sequential(*stack, shape=(6,)):
    return keras.Sequential([keras.Input(shape), *stack])


def zero(variable, *places):
    """Set entries of a variable to zero, and all others to 1, 2, ..."""
    size = int(np.prod(variable.shape))
    values = np.arange(1.0, size + 1).reshape(variable.shape)
    for place in places:
        values[place] = 0
    variable.assign(values)


def only_row(model, **options):
    (row,) = dead_channels(model, **options).rows
    return row


COLUMN, ROW = np.s_[..., 1], np.s_[..., 2, :]


class TestKernels:
    def test_dense(self):
        model = sequential(layers.Dense(5, name="first"))
        zero(model.layers[0].kernel, COLUMN, np.s_[2], np.s_[4])
        assert only_row(model) == {
            "weight": "first/kernel",
            "shape": (6, 5),
            "outputs": 5,
            "zero_outputs": 1,
            "silenced_outputs": None,
            "dead_outputs": 1,
            "inputs": 6,
            "dead_inputs": 2,
            "live_rank": 4,
            "normalization": None,
            "reason": None,
        }

    def test_fresh_ones_live(self):
        model = sequential(layers.Dense(5), layers.Dense(4))
        table = dead_channels(model)
        assert [row["dead_outputs"] for row in table.rows] == [0, 0]
        assert [row["live_rank"] for row in table.rows] == [5, 4]
        assert "0 of 9 outputs, 0 of 11 inputs" in table.title

    @pytest.mark.parametrize(
        "layer, shape, inputs, outputs",
        [
            (lambda: layers.Conv1D(5, 3), (8, 4), 4, 5),
            (lambda: layers.Conv2D(5, 3), (8, 8, 4), 4, 5),
            (lambda: layers.Conv3D(5, 2), (4, 4, 4, 4), 4, 5),
            (lambda: layers.Conv2DTranspose(4, 3), (8, 8, 5), 5, 4),
        ],
        ids=["conv1d", "conv2d", "conv3d", "transposed"],
    )
    def test_convolutions(self, layer, shape, inputs, outputs):
        model = sequential(layer(), shape=shape)
        kernel = model.layers[0].kernel
        zero(kernel, COLUMN, ROW)
        row = only_row(model)
        assert (row["inputs"], row["outputs"]) == (inputs, outputs)
        assert (row["dead_inputs"], row["dead_outputs"]) == (1, 1)

    def test_the_rank_of_one_live_input_is_that_of_the_window(self):
        """FIELD: the paper's ranks of 9, 18 and 27."""
        model = sequential(layers.Conv2D(64, 3), shape=(8, 8, 16))
        zero(model.layers[0].kernel, np.s_[:, :, 3:])
        assert only_row(model)["live_rank"] == 27

    def test_a_transposed_one_by_its_own_axes(self):
        model = sequential(layers.Conv1DTranspose(4, 3), shape=(8, 20))
        zero(model.layers[0].kernel, np.s_[:, 1:])  # (window, output, input)
        row = only_row(model)
        assert (row["dead_outputs"], row["dead_inputs"]) == (3, 0)
        assert row["live_rank"] == 3

    def test_groups_have_channels_of_their_own(self):
        model = sequential(layers.Conv2D(6, 3, groups=2), shape=(8, 8, 8))
        zero(model.layers[0].kernel, np.s_[..., 3:], np.s_[:, :, 0])
        one, two = dead_channels(model).rows
        assert two["weight"] == "conv2d/kernel[group_1]"
        assert (one["outputs"], one["inputs"]) == (3, 4)
        assert (one["dead_outputs"], one["dead_inputs"]) == (0, 1)
        assert (two["dead_outputs"], two["dead_inputs"]) == (3, 4)
        merged = weight_matrices(model, views={"groups": "merged"})
        (row,) = channel_rows(model, merged, 1e-6)
        assert (row["outputs"], row["inputs"]) == (6, 8)
        assert (row["dead_outputs"], row["dead_inputs"]) == (3, 5)
        assert row["live_rank"] == one["live_rank"] == 3

    def test_depthwise_kernels_are_skipped_as_by_weight_matrices(self):
        model = sequential(layers.SeparableConv2D(5, 3), shape=(8, 8, 4))
        table = dead_channels(model)
        (row,) = table.rows
        assert row["weight"] == "separable_conv2d/pointwise_kernel"
        assert (row["inputs"], row["outputs"]) == (4, 5)
        (note,) = (n for n in table.notes if n.startswith("Not counted"))
        assert "depthwise: one 9 x 1 matrix per channel" in note
        assert note.endswith(": separable_conv2d/depthwise_kernel")

    def test_other_layers(self):
        model = keras.Sequential(
            [keras.Input((7,)), layers.Embedding(9, 4), layers.LSTM(3)]
        )
        zero(model.layers[0].embeddings, np.s_[:2])
        table, kernel, recurrent = dead_channels(model).rows
        assert (table["inputs"], table["dead_inputs"]) == (9, 2)
        assert (kernel["inputs"], kernel["outputs"]) == (4, 12)
        assert recurrent["dead_outputs"] == 0

    def test_a_layer_alone(self):
        layer = layers.Dense(3)
        layer.build((None, 4))
        assert only_row(layer)["weight"] == "kernel"

    def test_all_of_a_zero_matrix_is_dead(self):
        model = sequential(layers.Dense(5, kernel_initializer="zeros"))
        row = only_row(model)
        assert (row["dead_outputs"], row["dead_inputs"]) == (5, 6)
        assert row["live_rank"] == 0

    def test_what_is_not_finite_is_not_counted(self):
        model = sequential(layers.Dense(5), layers.Dense(3))
        model.layers[0].kernel.assign(np.full((6, 5), np.nan))
        table = dead_channels(model)
        assert table.rows[0]["reason"] == "not finite"
        assert "dead_outputs" not in table.rows[0]
        assert "Not counted, not finite: dense/kernel" in table.notes
        assert "0 of 3 outputs" in table.title

    def test_the_threshold_is_relative(self):
        model = sequential(layers.Dense(3, use_bias=False), shape=(3,))
        model.layers[0].kernel.assign(1e-3 * np.diag([1.0, 1e-5, 1e-7]))
        assert only_row(model)["dead_outputs"] == 1
        assert only_row(model, threshold=1e-4)["dead_outputs"] == 2
        assert only_row(model, threshold=0)["dead_outputs"] == 0

    def test_squares_that_would_underflow(self):
        model = sequential(layers.Dense(2), shape=(2,))
        model.layers[0].kernel.assign(1e-30 * np.eye(2))
        assert only_row(model)["dead_outputs"] == 0


class TestGains:
    @pytest.mark.parametrize("name", NORMALIZATIONS)
    def test_every_normalization(self, name):
        make, attribute = NORMALIZATIONS[name]
        model = sequential(layers.Dense(4, name="d"), make(name="n"))
        attribute = attribute or "gamma"
        zero(model.layers[0].kernel, COLUMN)
        zero(getattr(model.layers[1], attribute), np.s_[:2])
        row = only_row(model)
        assert row["normalization"] == f"n/{attribute}"
        assert row["silenced_outputs"] == 2
        assert (row["zero_outputs"], row["dead_outputs"]) == (1, 2)
        assert row["live_rank"] == 2

    def test_a_gain_of_either_sign(self):
        model = sequential(layers.Dense(4), layers.BatchNormalization())
        model.layers[1].gamma.assign([1.0, -1e-7, -0.5, 1e-5])
        assert only_row(model)["silenced_outputs"] == 1
        assert only_row(model, threshold=1e-4)["silenced_outputs"] == 2

    def test_a_block_that_died_as_a_whole(self):
        """Where all are small, none is small beside the others."""
        model = sequential(layers.Dense(4), layers.BatchNormalization())
        model.layers[1].gamma.assign(np.full(4, 1e-20))
        row = only_row(model)
        assert (row["dead_outputs"], row["live_rank"]) == (4, 0)

    @pytest.mark.parametrize(
        "make",
        [
            lambda: layers.BatchNormalization(scale=False),
            lambda: layers.LayerNormalization(scale=False),
            lambda: layers.GroupNormalization(2, scale=False),
            lambda: layers.UnitNormalization(),
            lambda: layers.BatchNormalization(axis=1),
            lambda: layers.LayerNormalization(axis=[1, 2]),
        ],
        ids=["batch", "layer", "group", "unit", "other_axis", "two_axes"],
    )
    def test_without_a_gain_of_the_channels(self, make):
        model = sequential(layers.Dense(4), make(), shape=(4, 6))
        row = only_row(model)
        assert row["normalization"] is None
        assert row["silenced_outputs"] is None

    def test_without_an_offset(self):
        model = sequential(
            layers.Dense(4), layers.BatchNormalization(center=False)
        )
        zero(model.layers[1].gamma, 0)
        assert only_row(model)["silenced_outputs"] == 1

    @pytest.mark.parametrize("groups", [1, 2])
    def test_of_a_convolution(self, groups):
        model = sequential(
            layers.Conv2D(4, 3, groups=groups, use_bias=False),
            layers.BatchNormalization(),
            shape=(8, 8, 2),
        )
        zero(model.layers[1].gamma, np.s_[1:])
        rows = dead_channels(model).rows
        silenced = [row["silenced_outputs"] for row in rows]
        assert silenced == ([3] if groups == 1 else [1, 2])
        assert [row["live_rank"] for row in rows] == [1, 0][:groups]

    def test_of_a_separable_convolution_it_is_that_of_the_last_kernel(self):
        model = sequential(
            layers.SeparableConv1D(4, 3),
            layers.BatchNormalization(),
            shape=(8, 4),
        )
        zero(model.layers[1].gamma, 0)
        matrices = weight_matrices(model, views={"channels": "split"})
        *depthwise, pointwise = channel_rows(model, matrices, 1e-6)
        assert [row["normalization"] for row in depthwise] == [None] * 4
        assert [row["inputs"] for row in depthwise] == [1] * 4
        assert pointwise["silenced_outputs"] == 1

    def test_channels_first(self):
        model = sequential(
            layers.Conv2D(8, 3, data_format="channels_first"),
            layers.BatchNormalization(axis=1),
            shape=(2, 10, 10),
        )
        assert only_row(model)["silenced_outputs"] == 0
        model = sequential(  # the last axis is 8 too, but no channel
            layers.Conv2D(8, 3, data_format="channels_first"),
            layers.BatchNormalization(),
            shape=(2, 10, 10),
        )
        assert only_row(model)["silenced_outputs"] is None

    def test_after_an_activation_of_the_layer(self):
        model = sequential(
            layers.Dense(4, activation="relu"), layers.BatchNormalization()
        )
        assert only_row(model)["silenced_outputs"] == 0

    def test_a_sequential_built_layer_by_layer_and_late(self):
        model = keras.Sequential([layers.Dense(4), layers.BatchNormalization()])
        model.add(layers.Dense(2))
        model(np.ones((3, 6), "float32"))
        first, last = dead_channels(model).rows
        assert first["normalization"] == "batch_normalization/gamma"
        assert last["normalization"] is None

    def test_blocks_within_a_model(self):
        def block(name):
            stack = [layers.Dense(6), layers.BatchNormalization()]
            return keras.Sequential(stack, name=name)

        inputs = keras.Input((6,))
        x = inputs
        for name in ("one", "two"):
            x = x + block(name)(x)
        model = keras.Model(inputs, x)
        zero(model.get_layer("two").layers[-1].gamma, np.s_[:])
        one, two = dead_channels(model).rows
        assert one["dead_outputs"] == 0
        assert two["normalization"] == "two/batch_normalization/gamma"
        assert two["dead_outputs"] == 6

    def test_a_loaded_model(self, tmp_path):
        model = sequential(layers.Dense(4), layers.BatchNormalization())
        zero(model.layers[1].gamma, 0)
        model.save(tmp_path / "model.keras")
        loaded = keras.saving.load_model(tmp_path / "model.keras")
        assert only_row(loaded) == only_row(model)


def branch():
    """The output goes around the normalization, too."""
    inputs = keras.Input((4,))
    x = layers.Dense(4)(inputs)
    return keras.Model(inputs, x + layers.BatchNormalization()(x))


def two_readers():
    inputs = keras.Input((4,))
    x = layers.Dense(4)(inputs)
    normalized = [layers.BatchNormalization()(x) for _ in range(2)]
    return keras.Model(inputs, normalized)


def output_too():
    inputs = keras.Input((4,))
    x = layers.Dense(4)(inputs)
    return keras.Model(inputs, [x, layers.BatchNormalization()(x)])


def called_twice():
    inputs = keras.Input((4,))
    layer = layers.Dense(4)
    x = layers.BatchNormalization()(layer(inputs))
    return keras.Model(inputs, layer(x))


def in_two_blocks():
    layer = layers.Dense(4)
    one = keras.Sequential([keras.Input((4,)), layer])
    one.add(layers.BatchNormalization())
    two = keras.Sequential([keras.Input((4,)), layer])
    two.add(layers.Activation("relu"))
    inputs = keras.Input((4,))
    return keras.Model(inputs, one(inputs) + two(inputs))


def something_between():
    return sequential(
        layers.Dense(4),
        layers.Activation("relu"),
        layers.BatchNormalization(),
        shape=(4,),
    )


def subclass():
    class Own(keras.Model):
        def __init__(self):
            super().__init__()
            self.layer = layers.Dense(4)
            self.normalization = layers.BatchNormalization()

        def call(self, inputs):
            return self.normalization(self.layer(inputs)) + inputs

    model = Own()
    model(np.ones((2, 4), "float32"))
    return model


def own_call():
    class Own(keras.Sequential):
        def call(self, inputs, training=None, mask=None):
            return self.layers[0](inputs)

    return Own(
        [keras.Input((4,)), layers.Dense(4), layers.BatchNormalization()]
    )


class TestWhereItIsNotCertain:
    @pytest.mark.parametrize(
        "make",
        [
            branch,
            two_readers,
            output_too,
            called_twice,
            in_two_blocks,
            something_between,
            subclass,
            own_call,
        ],
        ids=lambda make: make.__name__,
    )
    def test_nothing_is_said(self, make):
        row = only_row(make())
        assert row["normalization"] is None
        assert row["silenced_outputs"] is None
        assert row["outputs"] == 4


class TestTable:
    def test_it_prints_what_it_counts(self):
        model = sequential(
            layers.Dense(5, name="first"), layers.BatchNormalization(name="n")
        )
        zero(model.layers[0].kernel, COLUMN)
        zero(model.layers[1].gamma, 0)
        table = dead_channels(model)
        text = table.render(120)
        assert "2 of 5 outputs" in table.title
        assert "first/kernel" in text and "n/gamma" in text
        assert "zero kernel = norm at most 1e-06 of the largest" in text
        assert "zero gain = at most 1e-06" in text
        rows = json.loads(table.to_json())["rows"]
        assert rows[0]["dead_outputs"] == 2

    def test_gains_are_explained_where_there_are_some(self):
        text = dead_channels(sequential(layers.Dense(5))).render(120)
        assert "zero gain =" not in text

    def test_weights(self):
        model = sequential(layers.Dense(5, name="a"), layers.Dense(2, name="b"))
        assert only_row(model, weights="b")["weight"] == "b/kernel"

    def test_it_changes_nothing(self):
        model = sequential(layers.Dense(5), layers.BatchNormalization())
        before = [keras.ops.convert_to_numpy(w) for w in model.weights]
        dead_channels(model)
        for old, weight in zip(before, model.weights, strict=True):
            np.testing.assert_array_equal(old, weight)

    @pytest.mark.parametrize("threshold", [-1e-3, 1, float("nan")])
    def test_threshold(self, threshold):
        model = sequential(layers.Dense(5))
        with pytest.raises(ValueError, match=f"Received: .*{threshold}"):
            dead_channels(model, threshold)

    def test_what_is_no_model(self):
        with pytest.raises(TypeError, match="must be a Keras model or layer"):
            dead_channels("model.keras")
