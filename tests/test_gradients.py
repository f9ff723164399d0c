import keras
import numpy as np
import pytest
from keras import layers

from keras_lowrank.gradients import gradient_spectra
from keras_lowrank.gradients import register_uses
from keras_lowrank.gradients import weight_uses


def net(shape, *stack, dtype=None):
    return keras.Sequential([keras.Input(shape, dtype=dtype), *stack])


def outputs_like(model, x, seed=1):
    shape = (len(x), *model.output_shape[1:])
    return np.random.default_rng(seed).normal(size=shape)


def inputs(model, batch, seed=0):
    shape = (batch, *model.input_shape[1:])
    rng = np.random.default_rng(seed)
    if model.inputs[0].dtype == "int32":
        return rng.permutation(50)[: np.prod(shape)].reshape(shape)
    return rng.normal(size=shape)


# Layer by layer: a network, the matrix looked at, its uses for a sample, and
# whether the bound is reached by random data.
CASES = {
    "dense": (lambda: net((20,), layers.Dense(30)), "dense/kernel", 1),
    "dense_of_tokens": (
        lambda: net((5, 20), layers.Dense(30)),
        "dense/kernel",
        5,
    ),
    "convolution": (
        lambda: net((6, 6, 4), layers.Conv2D(40, 3, strides=2)),
        "conv2d/kernel",
        4,
    ),
    "padded": (
        lambda: net((4, 4, 8), layers.Conv2D(70, 3, strides=2, padding="same")),
        "conv2d/kernel",
        4,
    ),
    "dilated": (
        lambda: net((7, 7, 4), layers.Conv2D(40, 3, dilation_rate=2)),
        "conv2d/kernel",
        9,
    ),
    "one_dimension": (
        lambda: net((9, 8), layers.Conv1D(30, 3, strides=3)),
        "conv1d/kernel",
        3,
    ),
    "three_dimensions": (
        lambda: net((4, 4, 4, 2), layers.Conv3D(40, 2, strides=2)),
        "conv3d/kernel",
        8,
    ),
    "grouped": (
        # Two blocks, each of which meets the four patches of a sample.
        lambda: net((4, 4, 12), layers.Conv2D(60, 2, strides=2, groups=2)),
        "conv2d/kernel",
        8,
    ),
    "transposed": (
        lambda: net((2, 2, 30), layers.Conv2DTranspose(9, 3, strides=2)),
        "conv2d_transpose/kernel",
        4,
    ),
    "pointwise": (
        lambda: net((2, 2, 30), layers.SeparableConv2D(25, 2, padding="same")),
        "separable_conv2d/pointwise_kernel",
        4,
    ),
    "einsum_dense": (
        lambda: net((4, 16), layers.EinsumDense("abc,cde->abde", (4, 4, 5))),
        "einsum_dense/kernel",
        4,
    ),
    "einsum_dense_with_ellipsis": (
        lambda: net((6, 16), layers.EinsumDense("...x,xy->...y", 20)),
        "einsum_dense/kernel",
        6,
    ),
    "batch_normalization": (
        lambda: net(
            (20,), layers.Dense(30), layers.BatchNormalization(), layers.ReLU()
        ),
        "dense/kernel",
        1,
    ),
    "embedding": (
        lambda: net((3,), layers.Embedding(50, 20), dtype="int32"),
        "embedding/embeddings",
        3,
    ),
    "lstm": (
        lambda: net((4, 20), layers.LSTM(10)),
        "lstm/lstm_cell/kernel",
        4,
    ),
    "gru_recurrent": (
        lambda: net((4, 20), layers.GRU(24, return_sequences=True)),
        "gru/gru_cell/recurrent_kernel",
        4,
    ),
    "simple_rnn": (
        lambda: net((4, 20), layers.SimpleRNN(24, return_sequences=True)),
        "simple_rnn/simple_rnn_cell/kernel",
        4,
    ),
    "time_distributed": (
        lambda: net((3, 20), layers.TimeDistributed(layers.Dense(30))),
        "time_distributed/dense/kernel",
        3,
    ),
}

# What a batch misses: the first recurrent state is zero, and batch
# normalisation takes out the mean over the batch.
SHORT = {
    "gru_recurrent": lambda batch: batch,
    "batch_normalization": lambda batch: 1,
}

# Grouped convolutions are seen as one block-diagonal matrix.
VIEWS = {"groups": "merged"}


class TestEveryLayer:
    @pytest.mark.parametrize("name", CASES)
    def test_uses(self, name):
        make, weight, uses = CASES[name]
        found = weight_uses(make(), views=VIEWS)[weight]
        assert found.count == uses, found.reason

    @pytest.mark.parametrize("batch", [1, 2])
    @pytest.mark.parametrize("name", CASES)
    def test_rank_of_the_gradient_is_the_bound(self, name, batch):
        """Not more, as Lemma 3.1 says; and not less, so that it is sharp."""
        make, weight, uses = CASES[name]
        model = make()
        x = inputs(model, batch)
        gradients = gradient_spectra(
            model, x, outputs_like(model, x), loss="mse", views=VIEWS
        )
        gradient = gradients[weight]
        assert gradient.bound == min(uses * batch, *gradient.spectrum.shape)
        missing = SHORT[name](batch) if name in SHORT else 0
        assert gradient.rank == gradient.bound - missing

    def test_attention(self):
        source = keras.Input((5, 24))
        attended = layers.MultiHeadAttention(4, 6, name="attention")(
            source, source
        )
        model = keras.Model(source, attended)
        uses = weight_uses(model)
        assert {name.split("/")[-2]: u.count for name, u in uses.items()} == {
            "query": 5,
            "key": 5,
            "value": 5,
            "attention_output": 5,
        }
        x = inputs(model, 2)
        gradients = gradient_spectra(
            model, x, outputs_like(model, x), loss="mse"
        )
        for gradient in gradients.values():
            assert gradient.rank <= gradient.bound == 10
        assert gradients["attention/value/kernel"].rank == 10

    def test_a_layer_that_is_shared_is_used_twice(self):
        layer = layers.Dense(20, name="shared")
        first, second = keras.Input((20,)), keras.Input((20,))
        outputs = layers.Concatenate()([layer(first), layer(layer(second))])
        model = keras.Model([first, second], outputs)
        assert weight_uses(model)["shared/kernel"].count == 3
        x = [np.random.default_rng(i).normal(size=(2, 20)) for i in (0, 1)]
        y = np.random.default_rng(2).normal(size=(2, 40))
        gradient = gradient_spectra(model, x, y, "mse")["shared/kernel"]
        assert gradient.rank == gradient.bound == 6

    def test_a_softmax_head_has_one_less_than_classes(self):
        """D8: rows of the gradient of cross entropy sum to zero."""
        model = net((20,), layers.Dense(4, name="head"))
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        x = np.random.default_rng(0).normal(size=(12, 20))
        gradient = gradient_spectra(model, x, np.arange(12) % 4, loss)
        assert gradient["head/kernel"].rank == 3

    def test_parts(self):
        model = CASES["grouped"][0]()
        uses = weight_uses(model, views={"groups": "split"})
        assert [item.count for item in uses.values()] == [4, 4]


class TestGradients:
    def model(self):
        return net(
            (6,),
            layers.Dense(8, name="first"),
            layers.BatchNormalization(name="norm"),
            layers.Dropout(0.5, seed=0),
            layers.Dense(3, name="last"),
        )

    def test_they_are_those_of_numpy(self):
        model = net((5,), layers.Dense(4, name="only"))
        rng = np.random.default_rng(0)
        x, y = rng.normal(size=(3, 5)), rng.normal(size=(3, 4))
        kernel, bias = model.get_layer("only").get_weights()
        expected = x.T @ (2 * (x @ kernel + bias - y) / y.size)
        gradient = gradient_spectra(model, x, y, "mse")["only/kernel"]
        np.testing.assert_allclose(
            gradient.spectrum.values,
            np.linalg.svd(expected, compute_uv=False),
            rtol=1e-4,
            atol=1e-6,
        )

    def test_without_regularizer_and_decay(self):
        plain = net((5,), layers.Dense(4, name="only"))
        penalised = net(
            (5,), layers.Dense(4, name="only", kernel_regularizer="l2")
        )
        penalised.set_weights(plain.get_weights())
        x = np.random.default_rng(0).normal(size=(1, 5))
        ranks = [
            gradient_spectra(model, x, np.ones((1, 4)), "mse")["only/kernel"]
            for model in (plain, penalised)
        ]
        assert [gradient.rank for gradient in ranks] == [1, 1]

    def test_the_model_is_left_as_it_was(self):
        model = self.model()
        model.compile("sgd", "mse")
        before = [keras.ops.convert_to_numpy(v).copy() for v in model.variables]
        x = np.random.default_rng(0).normal(size=(4, 6))
        gradient_spectra(model, x, np.ones((4, 3)))
        for variable, value in zip(model.variables, before, strict=True):
            np.testing.assert_array_equal(
                keras.ops.convert_to_numpy(variable), value
            )
        if keras.backend.backend() == "torch":
            assert all(v.value.grad is None for v in model.trainable_variables)
        model.fit(x, np.ones((4, 3)), verbose=0)

    def test_training_mode(self):
        model = net((6,), layers.Dense(30), layers.BatchNormalization())
        x = np.random.default_rng(0).normal(size=(4, 6))
        y = np.random.default_rng(1).normal(size=(4, 30))
        ranks = [
            gradient_spectra(model, x, y, "mse", training=mode)[
                "dense/kernel"
            ].rank
            for mode in (True, False)
        ]
        # In training mode the mean over the batch is taken out.
        assert ranks == [3, 4]

    def test_frozen_weights_are_left_out(self):
        model = self.model()
        model.get_layer("first").trainable = False
        x = np.random.default_rng(0).normal(size=(4, 6))
        gradients = gradient_spectra(model, x, np.ones((4, 3)), "mse")
        assert list(gradients) == ["last/kernel"]

    def test_a_model_in_a_model(self):
        model = keras.Sequential(
            [keras.Input((6,)), self.model(), layers.Dense(2, name="top")]
        )
        uses = weight_uses(model)
        assert {item.count for item in uses.values()} == {1}
        assert len(uses) == 3

    def test_table(self):
        model = net(
            (4, 4, 3),
            layers.Conv2D(8, 3),
            layers.Flatten(),
            layers.Dense(9, name="head"),
        )
        x = inputs(model, 2)
        gradients = gradient_spectra(
            model, x, outputs_like(model, x), loss="mse"
        )
        text = gradients.table().render(line_length=120)
        assert "conv2d/kernel" in text
        assert "vacuous" in text
        assert "Gradients of a batch of 2" in text
        assert "2 weight matrices" in repr(gradients)

    def test_errors(self):
        model = self.model()
        with pytest.raises(ValueError, match="needs one loss"):
            gradient_spectra(model, np.ones((2, 6)), np.ones((2, 3)))


class TestOwnLayers:
    def test_a_rule(self):
        class Twice(layers.Layer):
            def build(self, input_shape):
                size = input_shape[-1]
                self.kernel = self.add_weight(shape=(size, size), name="kernel")

            def call(self, x):
                once = keras.ops.matmul(x, self.kernel)
                return keras.ops.matmul(once, self.kernel)

        model = net((7,), Twice(name="twice"))
        unknown = weight_uses(model)["twice/kernel"]
        assert unknown.count is None
        assert "Twice has no rule" in unknown.reason
        x = inputs(model, 2)
        gradients = gradient_spectra(
            model, x, outputs_like(model, x), loss="mse"
        )
        assert gradients["twice/kernel"].bound is None
        assert "register_uses" in gradients.table().render(line_length=200)

        @register_uses(Twice)
        def twice(layer, variable, input_shape, output_shape):
            return 2

        assert weight_uses(model)["twice/kernel"].count == 2

    def test_a_layer_that_is_not_called(self):
        class Branch(keras.Model):
            def __init__(self):
                super().__init__()
                self.used = layers.Dense(3, name="used")
                self.idle = layers.Dense(3, name="idle")

            def call(self, x, training=None):
                return self.idle(x) if training else self.used(x)

        model = Branch()
        model(np.ones((1, 4)))
        model(np.ones((1, 4)), training=True)
        uses = weight_uses(model, np.ones((5, 4)))
        assert uses["used/kernel"].count == 1
        assert uses["idle/kernel"].count is None
        assert "not used" in uses["idle/kernel"].reason

    def test_shapes_that_are_not_known(self):
        model = net((None, 4), layers.Dense(3))
        with pytest.raises(ValueError, match=r"Give a sample: `x=x_train"):
            weight_uses(model)
        uses = weight_uses(model, np.ones((3, 9, 4)))
        assert uses["dense/kernel"].count == 9

    def test_what_is_no_layer(self):
        with pytest.raises(TypeError, match="subclasses of"):
            register_uses(int)
        with pytest.raises(TypeError, match="at least one"):
            register_uses()
