import inspect
import json
import math
import os
import pathlib
import re
import subprocess
import sys

import keras
import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings
from hypothesis import strategies as st

from keras_lowrank.linalg import host_array
from keras_lowrank.matricize import Matricization
from keras_lowrank.matricize import Skip
from keras_lowrank.matricize import register_matricization
from keras_lowrank.matricize import registry
from keras_lowrank.names import sibling_names
from keras_lowrank.weights import weight_matrices
from keras_lowrank.weights.naming import locate_variables

layers = keras.layers
BACKEND = keras.backend.backend()
RNG = np.random.default_rng(0)


def assert_accounted(model, **arguments):
    """Every variable is measured or skipped, once; returns the matrices."""
    matrices = weight_matrices(model, **arguments)
    measured = {id(matrix.variable) for matrix in matrices}
    skipped = [id(weight.variable) for weight in matrices.skipped]
    assert measured.isdisjoint(skipped)
    assert len(skipped) == len(set(skipped))
    assert measured | set(skipped) == {id(w) for w in model.weights}
    assert len(measured) + len(skipped) == len(model.weights)
    assert all(weight.reason for weight in matrices.skipped)
    names = matrices.names + [weight.name for weight in matrices.skipped]
    assert len(names) == len(set(names)), names
    order = {id(w): i for i, w in enumerate(model.weights)}
    places = [order[id(matrix.variable)] for matrix in matrices]
    assert places == sorted(places)
    for matrix in matrices:
        assert any(matrix.variable is w for w in matrix.layer.weights)
    return matrices


def reasons(matrices):
    return {weight.name: weight.reason for weight in matrices.skipped}


def randomize(model, scale=1.0):
    """Give every float variable entries without a pattern."""
    for weight in model.weights:
        if keras.backend.is_float_dtype(weight.dtype):
            weight.assign(scale * RNG.normal(size=weight.shape))


# --- every layer of Keras ---------------------------------------------------


class Cell(layers.Layer):
    """A recurrent cell with a matrix, a stack of matrices and a bias."""

    def __init__(self, units, **arguments):
        super().__init__(**arguments)
        self.units = self.state_size = units

    def build(self, input_shape):
        shape = (input_shape[-1], self.units)
        self.matrix = self.add_weight(shape=shape, name="matrix")
        self.stack = self.add_weight(
            shape=(2, self.units, self.units), name="stack"
        )
        self.shift = self.add_weight(shape=(self.units,), name="bias")

    def call(self, inputs, states):
        hidden = states[0] @ (self.stack[0] + self.stack[1])
        output = inputs @ self.matrix + hidden + self.shift
        return output, [output]


def jax_layer(name):
    if name == "TorchModuleWrapper":
        torch = pytest.importorskip("torch")
        if BACKEND != "torch":
            pytest.skip("Keras wraps modules on torch only")
        return layers.TorchModuleWrapper(torch.nn.Linear(4, 3))
    if BACKEND not in ("jax", "tensorflow"):
        pytest.skip("Keras wraps JAX functions on JAX and TensorFlow only")
    if name == "FlaxLayer":
        flax = pytest.importorskip("flax.linen")
        return layers.FlaxLayer(flax.Dense(3))
    jax = pytest.importorskip("jax")

    def init(rng, inputs):
        return {
            "w": jax.random.normal(rng, (inputs.shape[-1], 3)),
            "deep": [jax.numpy.ones((3,)), jax.numpy.ones((3, 3))],
        }

    def call(params, inputs):
        one, two = params["deep"]
        return (inputs @ params["w"] + one) @ two

    return layers.JaxLayer(call, init)


# Name -> (make the layer, shape of its input, how many matrices it has).
WITH_VARIABLES = {
    "AdditiveAttention": (lambda: layers.AdditiveAttention(), None, 0),
    "Attention": (
        lambda: layers.Attention(use_scale=True, score_mode="concat"),
        None,
        0,
    ),
    "BatchNormalization": (lambda: layers.BatchNormalization(), (4,), 0),
    "Bidirectional": (
        lambda: layers.Bidirectional(layers.LSTM(3)),
        (5, 4),
        4,
    ),
    "Conv1D": (lambda: layers.Conv1D(3, 2), (5, 4), 1),
    "Conv1DTranspose": (lambda: layers.Conv1DTranspose(3, 2), (5, 4), 1),
    "Conv2D": (lambda: layers.Conv2D(3, 2), (5, 5, 4), 1),
    "Conv2DTranspose": (lambda: layers.Conv2DTranspose(3, 2), (5, 5, 4), 1),
    "Conv3D": (lambda: layers.Conv3D(3, 2), (4, 4, 4, 2), 1),
    "Conv3DTranspose": (
        lambda: layers.Conv3DTranspose(3, 2),
        (4, 4, 4, 2),
        1,
    ),
    "ConvLSTM1D": (lambda: layers.ConvLSTM1D(3, 2), (2, 5, 4), 2),
    "ConvLSTM2D": (lambda: layers.ConvLSTM2D(3, 2), (2, 5, 5, 4), 2),
    "ConvLSTM3D": (lambda: layers.ConvLSTM3D(3, 2), (2, 4, 4, 4, 2), 2),
    "Dense": (lambda: layers.Dense(3), (4,), 1),
    "DepthwiseConv1D": (lambda: layers.DepthwiseConv1D(2), (5, 4), 0),
    "DepthwiseConv2D": (lambda: layers.DepthwiseConv2D(2), (5, 5, 4), 0),
    "EinsumDense": (
        lambda: layers.EinsumDense("...x,xy->...y", 3, bias_axes="y"),
        (2, 4),
        1,
    ),
    "Embedding": (lambda: layers.Embedding(9, 4), (5,), 1),
    "FlaxLayer": (lambda: jax_layer("FlaxLayer"), (4,), 1),
    "GRU": (lambda: layers.GRU(3), (5, 4), 2),
    "GRUCell": (lambda: layers.GRUCell(3), None, 2),
    "GroupNormalization": (lambda: layers.GroupNormalization(2), (4,), 0),
    "GroupQueryAttention": (
        lambda: layers.GroupQueryAttention(2, 4, 2, use_gate=True),
        None,
        5,
    ),
    "JaxLayer": (lambda: jax_layer("JaxLayer"), (4,), 2),
    "LSTM": (lambda: layers.LSTM(3), (5, 4), 2),
    "LSTMCell": (lambda: layers.LSTMCell(3), None, 2),
    "LayerNormalization": (
        lambda: layers.LayerNormalization(axis=(1, 2)),
        (3, 4),
        0,
    ),
    "MultiHeadAttention": (
        lambda: layers.MultiHeadAttention(2, 3, output_shape=(2, 3)),
        None,
        4,
    ),
    "Normalization": (lambda: layers.Normalization(), (4,), 0),
    "PReLU": (lambda: layers.PReLU(), (3, 4), 0),
    "RMSNormalization": (lambda: layers.RMSNormalization(), (4,), 0),
    "RNN": (
        lambda: layers.RNN([layers.LSTMCell(3), Cell(2)]),
        (5, 4),
        3,
    ),
    "ReversibleEmbedding": (
        lambda: layers.ReversibleEmbedding(9, 4, tie_weights=False),
        (5,),
        2,
    ),
    "STFTSpectrogram": (
        lambda: layers.STFTSpectrogram("log", 16, 8, 16),
        (64, 1),
        0,
    ),
    "SeparableConv1D": (lambda: layers.SeparableConv1D(3, 2), (5, 4), 1),
    "SeparableConv2D": (lambda: layers.SeparableConv2D(3, 2), (5, 5, 4), 1),
    "SimpleRNN": (lambda: layers.SimpleRNN(3), (5, 4), 2),
    "SimpleRNNCell": (lambda: layers.SimpleRNNCell(3), None, 2),
    "SpectralNormalization": (
        lambda: layers.SpectralNormalization(layers.Dense(3)),
        (4,),
        1,
    ),
    "StackedRNNCells": (
        lambda: layers.StackedRNNCells([layers.GRUCell(3), Cell(2)]),
        None,
        3,
    ),
    "TimeDistributed": (
        lambda: layers.TimeDistributed(layers.Dense(3)),
        (5, 4),
        1,
    ),
    "TorchModuleWrapper": (lambda: jax_layer("TorchModuleWrapper"), (4,), 1),
}
# How to build those that need more than the shape of one input.
SPECIAL_BUILDS = {
    "AdditiveAttention": lambda layer: layer([np.ones((1, 2, 4))] * 2),
    "Attention": lambda layer: layer([np.ones((1, 2, 4))] * 2),
    "GRUCell": lambda layer: layer.build((None, 4)),
    "GroupQueryAttention": lambda layer: layer(*[np.ones((1, 2, 4))] * 2),
    "LSTMCell": lambda layer: layer.build((None, 4)),
    "MultiHeadAttention": lambda layer: layer(*[np.ones((1, 2, 4))] * 2),
    "SimpleRNNCell": lambda layer: layer.build((None, 4)),
    "StackedRNNCells": lambda layer: layer.build((None, 4)),
}
# Their sources look as if they made variables: these make none, or are there
# to inherit from, or wrap what a user has saved.
WITHOUT_VARIABLES = {
    "AugMix",
    "IntegerLookup",
    "MelSpectrogram",
    "RandAugment",
    "RandomColorJitter",
    "StringLookup",
    "Subtract",
    "TFSMLayer",
    "Wrapper",
}


def keras_layers():
    """Public layer classes, under one name each."""
    found = {}
    for name in dir(layers):
        value = getattr(layers, name)
        if inspect.isclass(value) and issubclass(value, layers.Layer):
            known = found.get(value)
            if known is None or name in WITH_VARIABLES:
                found[value] = name
    return {name: value for value, name in found.items()}


def may_own_variables(layer_class):
    """Whether the source of a class or its parents makes any."""
    parents = [
        parent
        for parent in layer_class.__mro__
        if issubclass(parent, layers.Layer) and parent is not layers.Layer
    ]
    return any(
        re.search(r"add_weight|Variable\(|\.build\(", inspect.getsource(parent))
        for parent in parents
    )


class TestEveryKerasLayer:
    @pytest.mark.once
    def test_the_table_knows_them_all(self):
        # Fails where a new Keras has a new layer: add it to a table, and a
        # rule to `keras_lowrank.matricize.rules` where it needs one.
        unknown = {
            name
            for name, layer_class in keras_layers().items()
            if may_own_variables(layer_class)
            and name not in (*WITH_VARIABLES, *WITHOUT_VARIABLES)
        }
        assert unknown == set()
        assert set(WITH_VARIABLES) <= set(keras_layers())

    @pytest.mark.parametrize("name", WITH_VARIABLES)
    def test_every_variable_is_accounted_for(self, name):
        make, input_shape, count = WITH_VARIABLES[name]
        layer = make()
        if name in SPECIAL_BUILDS:
            SPECIAL_BUILDS[name](layer)
        else:
            layer(np.ones((1, *input_shape)))
        assert layer.weights
        matrices = assert_accounted(layer)
        assert len(matrices) == count, matrices
        unsupported = [w.name for w in matrices.skipped if w.unsupported]
        assert all("stack" in name for name in unsupported)
        split = assert_accounted(layer, views="split")
        both = assert_accounted(layer, views="both")
        merged = assert_accounted(layer, views="merged")
        assert len(split) >= len(merged) >= len(matrices)
        assert {*split.names, *merged.names} == set(both.names)
        for matrix in both:
            array = matrix.to_numpy()
            rows, columns = matrix.matrix_shape
            blocks = 1 if array.ndim == 2 else len(array)
            assert array.shape[-2:] == (rows // blocks, columns // blocks)
            assert matrix.spectrum().shape == matrix.matrix_shape


# --- layers that apply other matrices than they store -----------------------


def response(layer, input_shape):
    """What a linear layer does to each unit vector."""
    size = math.prod(input_shape)
    units = np.eye(size, dtype="float32").reshape(size, *input_shape)
    nothing = host_array(layer(0 * units[:1]))
    return (host_array(layer(units)) - nothing).reshape(size, -1)


def rows_of(layer):
    return host_array(layer(np.arange(layer.input_dim)))


DENSE = {
    "dense": (lambda: layers.Dense(5), (12,)),
    "einsum": (
        lambda: layers.EinsumDense("abc,cd->abd", (None, 5), bias_axes="d"),
        (1, 12),
    ),
    "einsum turned": (
        lambda: layers.EinsumDense("abc,dc->abd", (None, 5)),
        (1, 12),
    ),
    "query": (
        lambda: layers.EinsumDense("abc,cde->abde", (None, 3, 3)),
        (1, 12),
    ),
    "attention output": (
        lambda: layers.EinsumDense("abcd,cde->abe", (None, 5)),
        (1, 3, 4),
    ),
    "heads turned": (
        lambda: layers.EinsumDense("abc,ecd->abde", (None, 3, 2)),
        (1, 12),
    ),
    "ellipsis": (lambda: layers.EinsumDense("...x,xy->...y", 5), (12,)),
    "embedding": (lambda: layers.Embedding(12, 7), None),
}


def made(kind):
    make, input_shape = DENSE[kind]
    layer = make()
    if input_shape is None:
        layer.build()
        applied = lambda: rows_of(layer)  # noqa: E731
    else:
        layer(np.ones((1, *input_shape), "float32"))
        applied = lambda: response(layer, input_shape)  # noqa: E731
    randomize(layer)
    return layer, applied


def quantization_config(mode):
    if not mode.startswith("int4/"):
        return mode, None
    config = keras.quantizers.Int4QuantizationConfig(
        block_size=int(mode.split("/")[1])
    )
    return "int4", config


def quantize(layer, mode):
    if "..." in getattr(layer, "equation", ""):
        pytest.skip("Keras does not quantize an EinsumDense with an ellipsis")
    name, config = quantization_config(mode)
    layer.quantize(name, config=config)


def enable_lora(layer, alpha=None):
    layer.enable_lora(2, lora_alpha=alpha)
    for weight in layer.trainable_weights:
        weight.assign(RNG.normal(size=weight.shape))


QUANTIZED = ["int8", "int4", "int4/5"]


@pytest.mark.parametrize("kind", DENSE)
class TestWhatALayerApplies:
    def assert_the_only_matrix(self, layer, expected, note, tolerance=1e-5):
        (matrix,) = assert_accounted(layer, strict=True)
        assert matrix.note == note
        assert matrix.matrix_shape == expected.shape
        scale = np.abs(expected).max()
        np.testing.assert_allclose(
            matrix.to_numpy(), expected, atol=tolerance * scale
        )
        return matrix

    def test_plain(self, kind):
        layer, applied = made(kind)
        matrix = self.assert_the_only_matrix(layer, applied(), "")
        assert matrix.trainable
        layer.trainable = False
        assert not matrix.trainable

    @pytest.mark.parametrize("alpha", [None, 7])
    def test_lora(self, kind, alpha):
        layer, applied = made(kind)
        enable_lora(layer, alpha)
        matrix = self.assert_the_only_matrix(layer, applied(), "with LoRA")
        assert matrix.trainable
        found = set(reasons(weight_matrices(layer)).values())
        assert found - {"bias"} == {
            f"LoRA factor, part of the merged `{matrix.role}`"
        }

    @pytest.mark.parametrize("mode", QUANTIZED)
    def test_quantized(self, kind, mode):
        layer, applied = made(kind)
        before = applied()
        quantize(layer, mode)
        matrix = self.assert_the_only_matrix(layer, applied(), mode[:4])
        assert not matrix.trainable
        # Not the stored integers, but nearly the matrix from before.
        likeness = np.corrcoef(matrix.to_numpy().flat, before.flat)[0, 1]
        assert 0.95 < likeness < 1

    @pytest.mark.parametrize("mode", ["int8", "int4/5"])
    def test_quantized_with_lora(self, kind, mode):
        if "turned" in kind:
            pytest.skip("Keras applies LoRA to the last axis of the output")
        layer, applied = made(kind)
        quantize(layer, mode)
        enable_lora(layer)
        note = f"{mode[:4]} with LoRA"
        matrix = self.assert_the_only_matrix(layer, applied(), note)
        assert matrix.trainable

    def test_float8(self, kind):
        if kind == "embedding":
            pytest.skip("Keras has no float8 Embedding")
        layer, applied = made(kind)
        before = applied()
        quantize(layer, "float8")
        layer.kernel_scale.assign(1.5)
        matrix = self.assert_the_only_matrix(layer, applied(), "float8")
        assert matrix.trainable
        assert 1e-3 < np.abs(matrix.to_numpy() - before).max() < 0.2


class TestConvolutionsWithLora:
    @pytest.mark.parametrize(
        ("layer_class", "window", "groups"),
        [
            (layers.Conv1D, (3,), 1),
            (layers.Conv2D, (3, 2), 2),
        ],
    )
    def test_they_apply_one_kernel(self, layer_class, window, groups):
        layer = layer_class(6, window, groups=groups, use_bias=False)
        expected = response(layer, (*window, 4))
        enable_lora(layer, alpha=3)
        before, expected = expected, response(layer, (*window, 4))
        assert np.abs(expected - before).max() > 0.1
        expected = expected.reshape(
            -1, groups, 4 // groups, groups, 6 // groups
        )
        matrices = assert_accounted(layer, strict=True)
        assert len(matrices) == groups
        for group, matrix in enumerate(matrices):
            assert matrix.note == "with LoRA"
            part = expected[:, group, :, group]
            np.testing.assert_allclose(
                matrix.to_numpy(),
                part.reshape(matrix.matrix_shape),
                atol=1e-4,
            )


class TestQuantizedElsewhere:
    @pytest.mark.filterwarnings("ignore:Layer .* does not have a `quantize`")
    def test_a_whole_model(self):
        model = savable_model()
        before = weight_matrices(model)
        model.quantize("int8")
        after = assert_accounted(model, strict=True)
        assert after.names == before.names
        assert [m.matrix_shape for m in after] == [
            m.matrix_shape for m in before
        ]
        assert {m.note for m in after} == {"", "int8"}
        assert "quantization scale" in reasons(after).values()

    def test_a_model_built_quantized(self):
        policy = keras.dtype_policies.get("int8_from_float32")
        layer = layers.Dense(3, dtype=policy)
        layer.build((None, 4))
        (matrix,) = assert_accounted(layer, strict=True)
        assert matrix.note == "int8" and matrix.spectrum().values.sum() == 0

    @pytest.mark.parametrize(
        ("mode", "tied"),
        [
            ("int8", True),
            ("int8", False),
            ("int4", False),
            ("int4/3", True),
            ("int4/3", False),
        ],
    )
    def test_reversible_embedding(self, mode, tied):
        layer = layers.ReversibleEmbedding(9, 7, tie_weights=tied)
        layer.build()
        randomize(layer)
        quantize(layer, mode)
        matrices = assert_accounted(layer, strict=True)
        np.testing.assert_allclose(
            matrices["embeddings"].to_numpy(), rows_of(layer), atol=1e-5
        )
        assert len(matrices) == (1 if tied else 2)
        if not tied:
            expected = host_array(
                layer(np.eye(7, dtype="float32"), reverse=True)
            )
            np.testing.assert_allclose(
                matrices["reverse_embeddings"].to_numpy(), expected, atol=1e-5
            )

    @pytest.mark.parametrize("layer_class", [layers.Dense, layers.Embedding])
    def test_layers_with_a_precision_of_their_own(self, layer_class):
        layer = layer_class(
            *((9, 4) if layer_class is layers.Embedding else (4,)),
            dtype="mixed_bfloat16",
        )
        layer.build((None, 9))
        (matrix,) = assert_accounted(layer)
        np.testing.assert_array_equal(
            matrix.to_numpy(), host_array(layer.weights[0])
        )

    @pytest.mark.parametrize(
        ("mode", "kind", "group_size"),
        [
            ("gptq", "dense", -1),
            ("gptq", "query", 4),
            ("gptq", "attention output", 5),
            ("awq", "dense", 4),
            ("awq", "query", -1),
            ("awq", "attention output", 5),
        ],
    )
    def test_calibrated(self, mode, kind, group_size):
        layer, applied = made(kind)
        before = applied()
        configs = {
            "gptq": keras.quantizers.GPTQConfig,
            "awq": keras.quantizers.AWQConfig,
        }
        config = configs[mode](
            dataset=None, tokenizer=None, weight_bits=4, group_size=group_size
        )
        layer.quantize(mode, config=config)
        matrices = assert_accounted(layer, strict=True)
        (matrix,) = matrices
        np.testing.assert_allclose(matrix.to_numpy(), before, atol=1e-5)
        calibrate(layer, mode)
        expected = applied()
        assert np.abs(expected - before).max() > 1e-3
        (matrix,) = assert_accounted(layer, strict=True)
        assert matrix.note == mode and not matrix.trainable
        assert matrix.matrix_shape == before.shape
        np.testing.assert_allclose(matrix.to_numpy(), expected, atol=1e-5)

    def test_a_kernel_that_cannot_be_read(self):
        class Mine(layers.Layer):
            def build(self, input_shape=None):
                self.kernel = self.add_weight(
                    shape=(3, 4), dtype="int8", name="kernel", trainable=False
                )

        layer = Mine(dtype="int8_from_float32")
        layer.build()
        (weight,) = assert_accounted(layer).skipped
        assert weight.unsupported and "int8 kernel" in weight.reason
        with pytest.raises(ValueError, match="before quantizing"):
            weight_matrices(layer, strict=True)

    def test_complex_entries(self):
        layer = layers.Layer()
        layer.table = keras.Variable(
            np.ones((3, 4), "complex64"), dtype="complex64"
        )
        layer.built = True
        (weight,) = assert_accounted(layer).skipped
        assert weight.unsupported
        assert weight.reason.startswith("complex64 entries: measure real and")

    @pytest.mark.parametrize("dtype", ["int32", "uint8", "bool"])
    def test_entries_that_are_no_weights(self, dtype):
        layer = layers.Layer()
        layer.table = layer.add_weight(
            shape=(3, 4), dtype=dtype, initializer="zeros", trainable=False
        )
        layer.built = True
        (weight,) = assert_accounted(layer, strict=True).skipped
        assert weight.reason == f"{dtype} entries, no weights"

    def test_a_matrix_that_is_gone(self):
        layer = layers.Dense(3)
        layer.build((None, 4))
        (before,) = weight_matrices(layer)
        layer.enable_lora(1)
        factor = layer.lora_kernel_a
        assert before.note == "with LoRA"
        stale = type(before)("old", factor, layer, before.matricization)
        with pytest.raises(ValueError, match="Call `weight_matrices` again"):
            stale.to_numpy()


def calibrate(layer, mode):
    """Put random integers where calibration would leave its own."""
    layer.quantized_kernel.assign(
        RNG.integers(0, 256, layer.quantized_kernel.shape)
    )
    layer.kernel_zero.assign(RNG.integers(0, 16, layer.kernel_zero.shape))
    layer.kernel_scale.assign(RNG.uniform(0.5, 2, layer.kernel_scale.shape))
    groups = layer.kernel_zero.shape[1]
    layer.g_idx.assign(RNG.integers(0, groups, layer.g_idx.shape))
    if mode == "awq":
        layer.awq_scales.assign(RNG.uniform(0.5, 2, layer.awq_scales.shape))
    layer._tracker.unlock()
    del layer._kernel
    layer._tracker.lock()
    setattr(layer, f"is_{mode}_calibrated", True)


# --- heads, gates and their names -------------------------------------------


class TestAttention:
    @pytest.mark.parametrize("heads", [1, 3])
    def test_one_token_passes_through_values_and_output(self, heads):
        layer = layers.MultiHeadAttention(heads, 4)
        token = np.eye(5, dtype="float32")[:, None]
        layer(token, token)
        randomize(layer)
        for weight in layer.weights:
            if weight.name == "bias":
                weight.assign(np.zeros(weight.shape))
        expected = host_array(layer(token, token))[:, 0]
        both = assert_accounted(layer, views={"heads": "both"})

        def product(part=""):
            value = both[f"value/kernel{part}"].to_numpy()
            return value @ both[f"attention_output/kernel{part}"].to_numpy()

        np.testing.assert_allclose(product(), expected, atol=1e-4)
        parts = [product(f"[head_{head}]") for head in range(heads)]
        np.testing.assert_allclose(sum(parts), expected, atol=1e-4)

    def test_heads_of_queries(self):
        layer = layers.MultiHeadAttention(3, 4)
        layer(*[np.ones((1, 2, 5))] * 2)
        split = assert_accounted(layer, views={"heads": "split"})
        assert split.names[:3] == [f"query/kernel[head_{h}]" for h in range(3)]
        kernel = host_array(layer.query_dense.kernel)
        for head in range(3):
            np.testing.assert_array_equal(
                split[head].to_numpy(), kernel[:, head]
            )
        assert len(split) == 12
        merged = assert_accounted(layer)
        np.testing.assert_array_equal(
            merged["query/kernel"].to_numpy(), kernel.reshape(5, 12)
        )

    def test_two_attention_axes_and_an_output_shape_of_two(self):
        layer = layers.MultiHeadAttention(
            2, 3, attention_axes=(1, 2), output_shape=(4, 5)
        )
        layer(*[np.ones((1, 2, 2, 6))] * 2)
        split = assert_accounted(layer, views={"heads": "split"})
        shapes = {m.name: m.matrix_shape for m in split}
        assert shapes == {
            **{
                f"{part}/kernel[head_{head}]": (6, 3)
                for part in ("query", "key", "value")
                for head in (0, 1)
            },
            **{
                f"attention_output/kernel[head_{head}]": (3, 20)
                for head in (0, 1)
            },
        }
        kernel = host_array(layer.output_dense.kernel)
        np.testing.assert_array_equal(
            split["attention_output/kernel[head_1]"].to_numpy(),
            kernel[1].reshape(3, 20),
        )

    def test_grouped_queries(self):
        layer = layers.GroupQueryAttention(2, 4, 2)
        layer(*[np.ones((1, 2, 5))] * 2)
        split = assert_accounted(layer, views={"heads": "split"})
        counts = {
            part: sum(name.startswith(part) for name in split.names)
            for part in ("query", "key", "value", "attention_output")
        }
        assert counts == {
            "query": 4,
            "key": 2,
            "value": 2,
            "attention_output": 4,
        }


class TestRecurrent:
    @pytest.mark.parametrize(
        ("layer_class", "gates"), [(layers.LSTM, "ifco"), (layers.GRU, "zrh")]
    )
    def test_gates(self, layer_class, gates):
        layer = layer_class(3)
        layer.build((None, 5, 2))
        both = assert_accounted(layer, views={"gates": "both"})
        prefix = f"{layer_class.__name__.lower()}_cell"
        for name in ("kernel", "recurrent_kernel"):
            whole = both[f"{prefix}/{name}"].to_numpy()
            parts = [both[f"{prefix}/{name}[gate_{g}]"] for g in gates]
            np.testing.assert_array_equal(
                whole, np.hstack([part.to_numpy() for part in parts])
            )
            np.testing.assert_array_equal(
                whole, host_array(getattr(layer.cell, name))
            )
        assert len(both) == 2 * (1 + len(gates))

    def test_convolutional_gates(self):
        layer = layers.ConvLSTM2D(3, 2)
        layer.build((None, 5, 4, 4, 2))
        split = assert_accounted(layer, views={"gates": "split"})
        kernel = host_array(layer.cell.kernel)
        np.testing.assert_array_equal(
            split["conv_lstm_cell/kernel[gate_c]"].to_numpy(),
            kernel[..., 6:9].reshape(8, 3),
        )

    def test_bidirectional_names(self):
        layer = layers.Bidirectional(layers.GRU(3))
        layer.build((None, 5, 2))
        assert assert_accounted(layer).names == [
            f"{way}_gru/gru_cell/{name}"
            for way in ("forward", "backward")
            for name in ("kernel", "recurrent_kernel")
        ]

    def test_a_custom_cell(self):
        layer = layers.RNN(Cell(3))
        layer.build((None, 5, 2))
        matrices = assert_accounted(layer)
        assert matrices.names == ["cell/matrix"]
        with pytest.raises(ValueError, match="'cell/stack' of shape"):
            weight_matrices(layer, strict=True)


class TestGroups:
    @pytest.mark.parametrize("view", ["split", "merged", "both"])
    def test_views(self, view):
        layer = layers.Conv2D(6, 3, groups=2)
        layer.build((None, 8, 8, 4))
        matrices = assert_accounted(layer, views={"groups": view})
        names = {
            "split": ["kernel[group_0]", "kernel[group_1]"],
            "merged": ["kernel"],
        }
        names["both"] = names["merged"] + names["split"]
        assert matrices.names == names[view]
        sizes = [m.matrix_shape for m in matrices]
        assert sizes == [
            (36, 6) if name == "kernel" else (18, 3) for name in names[view]
        ]
        values = [m.spectrum().values for m in matrices]
        if view == "both":
            together = np.sort(np.concatenate(values[1:]))[::-1]
            np.testing.assert_allclose(values[0], together)

    def test_channels_are_skipped_with_the_way_to_see_them(self):
        layer = layers.DepthwiseConv2D(3, depth_multiplier=2)
        layer.build((None, 8, 8, 4))
        (skipped, _) = assert_accounted(layer, strict=True).skipped
        assert skipped.reason == (
            "depthwise: one 9 x 2 matrix per channel, see "
            '`views={"channels": "split"}`'
        )
        split = assert_accounted(layer, views={"channels": "split"})
        assert split.names == [f"kernel[channel_{c}]" for c in range(4)]
        (merged,) = assert_accounted(layer, views={"channels": "merged"})
        assert merged.matrix_shape == (36, 8)
        assert merged.spectrum().values.shape == (8,)


# --- models -----------------------------------------------------------------


class Block(keras.Model):
    """A subclassed model with layers in a list, in a dict, and loose ones."""

    def __init__(self, units=4, **arguments):
        super().__init__(**arguments)
        self.several = [layers.Dense(units), layers.Dense(units)]
        self.by_name = {"a": layers.Dense(units), "b": layers.Dropout(0.1)}
        self.pair = (layers.LayerNormalization(), layers.Dense(units))
        self.last = layers.Dense(units, name="last")
        self.unnamed = self.add_weight(shape=(units, units))
        self.other = self.add_weight(shape=(units, units))
        self.scalar = keras.Variable(1.0)
        self.loose = keras.Variable(np.ones((units, units)), dtype="float32")

    def call(self, inputs):
        x = inputs
        for layer in (*self.several, *self.by_name.values(), *self.pair):
            x = layer(x)
        return self.last(x @ self.unnamed @ self.other @ self.loose)


def nested_model():
    """A Sequential inside a functional model inside another, and a block."""
    inner = keras.Sequential(
        [layers.Dense(4), layers.Dense(4), layers.BatchNormalization()]
    )
    inputs = keras.Input((3, 4))
    shared = layers.Dense(4, name="shared")
    x = shared(inner(shared(inputs)))
    middle = keras.Model(inputs, layers.LSTM(4, return_sequences=True)(x))
    inputs = keras.Input((3, 4))
    x = middle(inputs)
    x = layers.MultiHeadAttention(2, 2)(x, x)
    x = Block()(middle(x))
    x = layers.Bidirectional(layers.GRU(3))(x)
    x = layers.Embedding(5, 4)(keras.ops.cast(x, "int32"))
    x = layers.SeparableConv1D(4, 2)(layers.Conv1D(4, 2, groups=2)(x))
    frozen = layers.Dense(2, trainable=False)
    return keras.Model(inputs, frozen(layers.Flatten()(x)))


NESTED_NAMES = [
    "functional/shared/kernel",
    "functional/shared/bias",
    "functional/sequential/dense/kernel",
    "functional/sequential/dense/bias",
    "functional/sequential/dense_1/kernel",
    "functional/sequential/dense_1/bias",
    "functional/sequential/batch_normalization/gamma",
    "functional/sequential/batch_normalization/beta",
    "functional/sequential/batch_normalization/moving_mean",
    "functional/sequential/batch_normalization/moving_variance",
    "functional/lstm/lstm_cell/kernel",
    "functional/lstm/lstm_cell/recurrent_kernel",
    "functional/lstm/lstm_cell/bias",
    "multi_head_attention/query/kernel",
    "multi_head_attention/query/bias",
    "multi_head_attention/key/kernel",
    "multi_head_attention/key/bias",
    "multi_head_attention/value/kernel",
    "multi_head_attention/value/bias",
    "multi_head_attention/attention_output/kernel",
    "multi_head_attention/attention_output/bias",
    "block/variable",
    "block/variable_1",
    "block/variable_2",
    "block/variable_3",
    "block/dense/kernel",
    "block/dense/bias",
    "block/dense_1/kernel",
    "block/dense_1/bias",
    "block/dense_2/kernel",
    "block/dense_2/bias",
    "block/layer_normalization/gamma",
    "block/layer_normalization/beta",
    "block/dense_3/kernel",
    "block/dense_3/bias",
    "block/last/kernel",
    "block/last/bias",
    "bidirectional/forward_gru/gru_cell/kernel",
    "bidirectional/forward_gru/gru_cell/recurrent_kernel",
    "bidirectional/forward_gru/gru_cell/bias",
    "bidirectional/backward_gru/gru_cell/kernel",
    "bidirectional/backward_gru/gru_cell/recurrent_kernel",
    "bidirectional/backward_gru/gru_cell/bias",
    "embedding/embeddings",
    "conv1d/kernel",
    "conv1d/bias",
    "separable_conv1d/depthwise_kernel",
    "separable_conv1d/pointwise_kernel",
    "separable_conv1d/bias",
    "dense/kernel",
    "dense/bias",
]


def all_names(model):
    return [location.name for location in locate_variables(model)]


class TestNames:
    def test_of_a_nested_model(self):
        model = nested_model()
        matrices = assert_accounted(model, strict=True)
        assert all_names(model) == NESTED_NAMES
        assert not matrices.unbuilt
        # Depthwise kernels are skipped and groups are split.
        assert len(matrices) == 26

    def test_of_a_second_model_in_one_process(self):
        nested_model(), nested_model()
        assert all_names(nested_model()) == NESTED_NAMES

    def test_after_clear_session(self):
        nested_model()
        keras.backend.clear_session()
        assert all_names(nested_model()) == NESTED_NAMES

    @pytest.mark.once
    @pytest.mark.slow
    def test_in_another_process(self):
        code = (
            "import json, keras\n"
            "from tests.test_weights import all_names, nested_model\n"
            "[keras.layers.Dense(1) for _ in range(7)]\n"
            "print(json.dumps(all_names(nested_model())))"
        )
        result = subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            check=True,
            env=os.environ | {"KERAS_BACKEND": BACKEND},
            cwd=pathlib.Path(__file__).parents[1],
        )
        assert json.loads(result.stdout.splitlines()[-1]) == NESTED_NAMES

    def test_after_saving_and_loading(self, tmp_path):
        layers.Dense(1), layers.Conv1D(1, 1)
        model = savable_model()
        model.save(tmp_path / "model.keras")
        layers.Dense(1), layers.LSTM(1), layers.Dense(1)
        loaded = keras.saving.load_model(tmp_path / "model.keras")
        assert all_names(loaded) == all_names(model)
        assert "dense_1/kernel" in all_names(model)

    def test_after_cloning(self):
        model = savable_model()
        assert all_names(keras.models.clone_model(model)) == all_names(model)

    def test_in_the_trials_of_a_search(self):
        def build(units, depth):
            model = keras.Sequential([keras.Input((3,))])
            for _ in range(depth):
                model.add(layers.Dense(units))
            model.add(layers.Dense(2))
            return model

        for trial in range(4):
            model = build(units=2 + trial, depth=trial)
            assert weight_matrices(model).names == [
                f"dense_{i}/kernel" if i else "dense/kernel"
                for i in range(trial + 1)
            ]

    def test_names_that_were_given_stay(self):
        model = keras.Sequential(
            [
                keras.Input((3,)),
                layers.Dense(3, name="dense"),
                layers.Dense(3, name="dense_9"),
                layers.Dense(3, name="classifier"),
                layers.Dense(3, name="conv2d_7"),
            ]
        )
        assert weight_matrices(model).names == [
            "dense/kernel",
            "dense_1/kernel",
            "classifier/kernel",
            "conv2d_7/kernel",
        ]

    @pytest.mark.once
    @pytest.mark.parametrize(
        ("named", "expected"),
        [
            ([("a", "X"), ("a", "X")], ["a", "a_1"]),
            ([("a", "X"), ("a", "X"), ("a_1", "X")], ["a", "a_2", "a_1"]),
            ([("dense_4", "Dense"), ("dense", "Other")], ["dense_1", "dense"]),
            ([("dense_x", "Dense")], ["dense_x"]),
            ([("lstm_1", "LSTM"), ("lstm", "LSTM")], ["lstm", "lstm_1"]),
            ([("conv2d_3", "Conv2D")], ["conv2d"]),
            ([("my_conv2d_x_3", "MyConv2DX")], ["my_conv2d_x_3"]),
            ([("backward_gru_8", "GRU")], ["backward_gru"]),
            ([], []),
        ],
    )
    def test_siblings(self, named, expected):
        assert sibling_names(named) == expected

    @pytest.mark.once
    @settings(derandomize=True, deadline=None)
    @given(
        named=st.lists(
            st.tuples(
                st.sampled_from(["a", "a_1", "dense", "dense_1", "dense_2"]),
                st.sampled_from(["Dense", "A", "Other"]),
            ),
            max_size=8,
        )
    )
    def test_siblings_all_differ(self, named):
        names = sibling_names(named)
        assert len(set(names)) == len(named)
        # The names we gave are names that give themselves.
        again = [
            (name, kind) for name, (_, kind) in zip(names, named, strict=True)
        ]
        assert len(set(sibling_names(again))) == len(named)

    def test_automatic_names_of_odd_classes(self):
        class HTTPConv2DX(layers.Dense):
            pass

        class dense(layers.Dense):  # noqa: N801
            pass

        HTTPConv2DX(1), dense(1)
        model = keras.Sequential(
            [keras.Input((2,)), HTTPConv2DX(2), dense(2), layers.Dense(2)]
        )
        names = weight_matrices(model).names
        assert len(set(names)) == 3
        assert not any(re.search(r"_[2-9]", name) for name in names), names

    def test_variables_of_one_name(self):
        class Twice(layers.Layer):
            def build(self, input_shape=None):
                self.first = self.add_weight(shape=(2, 3), name="kernel")
                self.second = self.add_weight(shape=(2, 4), name="kernel")
                self.third = self.add_weight(shape=(2, 5))
                self.fourth = [self.add_weight(shape=(2, 6))]

        keras.Variable(1.0)
        layer = Twice()
        layer.build()
        assert assert_accounted(layer).names == [
            "kernel",
            "kernel_1",
            "variable",
            "variable_1",
        ]


def savable_model():
    """Branches, a shared layer and nested models, without custom classes."""
    inputs = keras.Input((6, 4))
    shared = layers.Dense(4)
    inner = keras.Sequential([layers.Dense(4), layers.Dense(4)])
    late = layers.Dense(4)
    left = layers.Conv1D(4, 1)(shared(inputs))
    right = late(inner(shared(layers.Dense(4)(inputs))))
    other = layers.Dense(4)(layers.GRU(4, return_sequences=True)(inputs))
    x = layers.Add()([right, left, other])
    outputs = [layers.Dense(2)(x), layers.Dense(3)(left)]
    return keras.Model(inputs, outputs)


class TestModels:
    def test_a_subclassed_model(self):
        model = Block()
        model(np.ones((1, 4)))
        matrices = assert_accounted(model, strict=True)
        assert len(matrices) == 8

    def test_a_shared_layer_and_a_layer_used_twice(self):
        shared = layers.Dense(4)
        one, two = (
            keras.Sequential([keras.Input((4,)), shared]) for _ in range(2)
        )
        inputs = keras.Input((4,))
        model = keras.Model(inputs, one(two(shared(inputs))))
        (matrix,) = assert_accounted(model)
        assert matrix.variable is shared.kernel

    def test_a_tied_variable(self):
        class Tied(layers.Layer):
            def __init__(self, other):
                super().__init__()
                self.other = other

            def build(self, input_shape):
                self.kernel = self.other.kernel
                self.shift = self.add_weight(shape=(4,), name="bias")

            def call(self, inputs):
                return inputs @ keras.ops.transpose(self.kernel) + self.shift

        dense = layers.Dense(3)
        model = keras.Sequential([keras.Input((4,)), dense, Tied(dense)])
        (matrix,) = assert_accounted(model)
        assert matrix.name == "dense/kernel" and matrix.layer is dense

    def test_a_variable_of_two_owners(self):
        class Owner(layers.Layer):
            def __init__(self, variable, **arguments):
                super().__init__(**arguments)
                self.mine = variable

            def call(self, inputs):
                return inputs @ self.mine

        variable = keras.Variable(np.eye(4), name="mine")
        model = keras.Sequential(
            [keras.Input((4,)), Owner(variable), Owner(variable)]
        )
        (matrix,) = assert_accounted(model)
        assert matrix.name == "owner/mine"

    def test_a_layer_that_holds_its_parent(self):
        class Child(layers.Layer):
            def build(self, input_shape=None):
                self.kernel = self.add_weight(shape=(2, 3), name="kernel")

        class Parent(layers.Layer):
            def __init__(self):
                super().__init__()
                self.child = Child()

            def build(self, input_shape=None):
                self.child.build()

        parent = Parent()
        parent.build()
        (matrix,) = assert_accounted(parent)
        assert matrix.name == "child/kernel"

    def test_a_layer_of_length_zero(self):
        class Bag(layers.Layer):
            def __len__(self):
                return 0

            def build(self, input_shape=None):
                self.bias = self.add_weight(shape=(2,), name="bias")
                self.kernel = self.add_weight(shape=(2, 2), name="kernel")

        bag = Bag()
        bag.build()
        matrices = assert_accounted(bag)
        assert matrices.skipped[0].layer is bag
        assert_accounted(bag, weights=lambda matrix: True)
        assert len(assert_accounted(bag, weights=bag)) == 1

    def test_spectral_normalization_leaves_the_kernel_to_its_layer(self):
        layer = layers.SpectralNormalization(layers.Conv2D(3, 2))
        layer.build((None, 5, 5, 2))
        matrices = assert_accounted(layer, strict=True)
        assert matrices.names == ["conv2d/kernel"]
        assert reasons(matrices)["vector_u"] == "normalization"

    def test_a_compiled_and_fitted_model(self):
        model = keras.Sequential(
            [layers.Normalization(), layers.Dropout(0.5), layers.Dense(2)]
        )
        data = RNG.normal(size=(8, 3)).astype("float32")
        model.layers[0].adapt(data)
        model.compile("adam", "mse", metrics=["mae"])
        model.fit(data, data[:, :2], verbose=0)
        matrices = assert_accounted(model, strict=True)
        assert matrices.names == ["dense/kernel"]
        assert set(reasons(matrices)) == {
            "normalization/mean",
            "normalization/variance",
            "normalization/count",
            "dense/bias",
        }
        np.testing.assert_array_equal(
            matrices[0].to_numpy(), host_array(model.layers[-1].kernel)
        )

    def test_matrices_follow_training(self):
        model = keras.Sequential([keras.Input((3,)), layers.Dense(2)])
        (matrix,) = weight_matrices(model)
        before = matrix.to_numpy()
        model.layers[0].kernel.assign(2 * before)
        np.testing.assert_array_equal(matrix.to_numpy(), 2 * before)
        np.testing.assert_allclose(
            matrix.spectrum().values,
            2 * np.linalg.svd(before, compute_uv=False),
            rtol=1e-6,
        )

    def test_frozen_weights(self):
        model = keras.Sequential([keras.Input((3,)), layers.Dense(2)])
        model.trainable = False
        (matrix,) = assert_accounted(model)
        assert matrix.trainable is False

    @pytest.mark.parametrize(
        "policy",
        ["float64", "bfloat16", "float16", "mixed_bfloat16", "mixed_float16"],
    )
    def test_dtype_policies(self, policy):
        layer = layers.Dense(3, dtype=policy)
        layer.build((None, 4))
        (matrix,) = assert_accounted(layer)
        array = matrix.to_numpy()
        # JAX makes float32 variables, unless told to have 64 bits.
        wide = policy == "float64" and BACKEND != "jax"
        assert array.dtype == ("float64" if wide else "float32")
        # Widening is exact, so narrowing gives the same bits back.
        again = keras.ops.cast(array, layer.kernel.dtype)
        np.testing.assert_array_equal(host_array(again), array)
        np.testing.assert_allclose(
            matrix.spectrum().values,
            np.linalg.svd(array.astype("float64"), compute_uv=False),
            rtol=1e-6,
        )

    def test_a_model_without_variables(self):
        model = keras.Sequential([keras.Input((3,)), layers.Flatten()])
        assert len(assert_accounted(model)) == 0

    def test_one_row_one_column_and_one_entry(self):
        model = keras.Sequential(
            [keras.Input((1,)), layers.Dense(1), layers.Dense(5)]
        )
        model.add(layers.Dense(1))
        shapes = [m.matrix_shape for m in assert_accounted(model)]
        assert shapes == [(1, 1), (1, 5), (5, 1)]

    def test_an_empty_kernel(self):
        layer = layers.Dense(3, kernel_initializer="zeros")
        layer.build((None, 0))
        matrices = assert_accounted(layer, strict=True)
        assert reasons(matrices)["kernel"] == "empty: no entries"

    def test_zeros_and_what_is_not_finite(self):
        layer = layers.Dense(3, kernel_initializer="zeros")
        layer.build((None, 4))
        (matrix,) = weight_matrices(layer)
        assert not matrix.spectrum().values.any()
        layer.kernel.assign(np.full((4, 3), np.nan))
        assert matrix.spectrum().reason == "12 NaN of 12 entries"

    @pytest.mark.filterwarnings("ignore:`build..` was called on layer 'lazy'")
    def test_layers_that_are_not_built_yet_are_named(self):
        class Lazy(keras.Model):
            def __init__(self):
                super().__init__()
                self.now = layers.Dense(2)
                self.later = keras.Sequential([layers.Dense(2)])
                self.never = layers.Dense(2, name="never")

            def call(self, inputs):
                return self.now(inputs)

        model = Lazy()
        model(np.ones((1, 3)))
        matrices = assert_accounted(model)
        assert matrices.names == ["now/kernel"] or matrices.names == [
            "dense/kernel"
        ]
        assert matrices.unbuilt == ["sequential", "never"]

    @pytest.mark.parametrize("wrong", [None, "model.keras", [1], keras.Model])
    def test_what_is_no_model(self, wrong):
        with pytest.raises(TypeError, match="must be a Keras model or layer"):
            weight_matrices(wrong)

    @pytest.mark.parametrize(
        "make", [lambda: layers.Dense(2), lambda: Block(), keras.Sequential]
    )
    def test_what_is_not_built(self, make):
        with pytest.raises(ValueError, match="is not built, so its weights"):
            weight_matrices(make())

    def test_strict_names_every_kernel_it_cannot_read(self):
        class Deep(layers.Layer):
            def build(self, input_shape=None):
                self.a = self.add_weight(shape=(2, 3, 4), name="a")
                self.b = self.add_weight(shape=(2, 3, 4, 5), name="b")

        layer = Deep()
        layer.build()
        assert len(assert_accounted(layer)) == 0
        with pytest.raises(ValueError) as caught:
            weight_matrices(layer, strict=True)
        message = str(caught.value)
        assert "'a' of shape (2, 3, 4) in a `Deep`" in message
        assert "'b' of shape (2, 3, 4, 5)" in message
        assert "register_matricization" in message

    def test_a_registered_layer(self, monkeypatch):
        monkeypatch.setattr(registry, "_RULES", dict(registry._RULES))

        @register_matricization(Cell)
        def rule(layer, variable):
            if variable.name == "stack":
                return Matricization((1,), (2,), (0,), view="gates")
            if variable.name == "matrix":
                return Skip("not now")

        layer = layers.RNN(Cell(3))
        layer.build((None, 5, 2))
        split = {"gates": "split"}
        matrices = assert_accounted(layer, views=split, strict=True)
        assert matrices.names == [
            "cell/stack[gate_0]",
            "cell/stack[gate_1]",
        ]
        assert reasons(matrices)["cell/matrix"] == "not now"
        (merged,) = weight_matrices(layer)
        assert merged.matrix_shape == (6, 6)


# --- random models ----------------------------------------------------------

KINDS = [
    "dense",
    "einsum",
    "conv",
    "grouped",
    "separable",
    "depthwise",
    "lstm",
    "bidirectional",
    "attention",
    "normalization",
    "distributed",
    "prelu",
    "dropout",
    "block",
    "custom",
    "lora",
]


class Loose(layers.Layer):
    """Variables without names, in containers and with three axes."""

    def build(self, input_shape):
        self.pile = [self.add_weight(shape=(4, 4)) for _ in range(2)]
        self.book = {"deep": self.add_weight(shape=(2, 4, 4))}
        self.gain = keras.Variable(np.ones(4), dtype="float32")

    def call(self, inputs):
        x = inputs @ self.pile[0] @ self.pile[1]
        return x @ (self.book["deep"][0] + self.book["deep"][1]) * self.gain


class Attend(layers.Layer):
    def build(self, input_shape):
        self.attention = layers.MultiHeadAttention(2, 2)
        self.attention.build(input_shape, input_shape)

    def call(self, inputs):
        return self.attention(inputs, inputs)


def make_layer(kind):
    same = {"padding": "same"}
    if kind == "lora":
        return layers.Dense(4, lora_rank=1)
    return {
        "dense": lambda: layers.Dense(4),
        "einsum": lambda: layers.EinsumDense("abc,cd->abd", (None, 4)),
        "conv": lambda: layers.Conv1D(4, 2, **same),
        "grouped": lambda: layers.Conv1D(4, 2, groups=2, **same),
        "separable": lambda: layers.SeparableConv1D(4, 2, **same),
        "depthwise": lambda: layers.DepthwiseConv1D(2, **same),
        "lstm": lambda: layers.LSTM(4, return_sequences=True),
        "bidirectional": lambda: layers.Bidirectional(
            layers.SimpleRNN(4, return_sequences=True), merge_mode="sum"
        ),
        "attention": Attend,
        "normalization": layers.BatchNormalization,
        "distributed": lambda: layers.TimeDistributed(layers.Dense(4)),
        "prelu": layers.PReLU,
        "dropout": lambda: layers.Dropout(0.5),
        "block": Block,
        "custom": Loose,
    }[kind]()


# A model is a list of layers, of models, and of places in the list to reuse.
plans = st.recursive(
    st.lists(
        st.one_of(st.sampled_from(KINDS), st.integers(0, 3)),
        min_size=2,
        max_size=4,
    ),
    lambda inner: st.lists(
        st.one_of(st.sampled_from(KINDS), st.integers(0, 3), inner),
        min_size=2,
        max_size=4,
    ),
    max_leaves=4,
)


def build(plan, functional=True):
    """The model of a plan, functional and sequential ones in turn."""
    parts = []
    for item in plan:
        if isinstance(item, list):
            parts.append(build(item, not functional))
        elif isinstance(item, str):
            parts.append(make_layer(item))
        elif parts and functional:
            parts.append(parts[item % len(parts)])  # used twice
    inputs = keras.Input((3, 4))
    if not functional:
        return keras.Sequential([inputs, *parts])
    x = inputs
    for part in parts:
        x = layers.Add()([x, part(x)])
    return keras.Model(inputs, x)


@pytest.mark.slow
@settings(derandomize=True, deadline=None, max_examples=20)
@given(plan=plans)
def test_random_models_are_accounted_for(plan):
    model = build(plan)
    for views in (None, "split", "both"):
        assert_accounted(model, views=views)
    names = all_names(model)
    assert len(set(names)) == len(names) == len(model.weights)
    assert all_names(build(plan)) == names


# --- filters ----------------------------------------------------------------


@pytest.fixture
def chain():
    """Three layers, one of them with heads."""
    inputs = keras.Input((3, 4))
    x = layers.Dense(4, name="first")(inputs)
    x = layers.MultiHeadAttention(2, 2, name="attention")(x, x)
    return keras.Model(inputs, layers.Dense(2, name="last")(x))


class TestFilters:
    def select(self, model, weights, **arguments):
        matrices = assert_accounted(model, weights=weights, **arguments)
        left_out = [
            w.name
            for w in matrices.skipped
            if w.reason == "not selected by `weights`"
        ]
        everything = weight_matrices(model, **arguments).names
        assert sorted(matrices.names + left_out) == sorted(everything)
        return matrices.names

    @pytest.mark.parametrize(
        "weights",
        [
            "first",
            "first/kernel",
            "^first",
            re.compile("FIRST", re.IGNORECASE),
            ["first"],
            ("first",),
            {"first"},
            lambda matrix: matrix.name.startswith("first"),
        ],
    )
    def test_one_of_them(self, chain, weights):
        assert self.select(chain, weights) == ["first/kernel"]

    def test_layers_and_variables(self, chain):
        first, _, last = (
            chain.get_layer(name) for name in ("first", "attention", "last")
        )
        assert self.select(chain, first) == ["first/kernel"]
        assert self.select(chain, last.kernel) == ["last/kernel"]
        assert self.select(chain, [last.kernel, first]) == [
            "first/kernel",
            "last/kernel",
        ]
        attention = chain.get_layer("attention")
        assert len(self.select(chain, attention)) == 4
        assert len(self.select(chain, chain)) == 6

    def test_a_list_is_a_union_in_the_order_of_the_model(self, chain):
        assert self.select(chain, ["last", "query", "last"]) == [
            "attention/query/kernel",
            "last/kernel",
        ]

    def test_parts_by_their_name(self, chain):
        name = "attention/query/kernel[head_1]"
        views = {"heads": "split"}
        matrices = weight_matrices(chain, weights=name, views=views)
        assert matrices.names == [name]
        assert len(matrices.skipped) > 0
        names = weight_matrices(chain, weights=r"head_1\]$", views=views).names
        assert len(names) == 4

    def test_a_name_is_preferred_to_a_pattern(self):
        model = keras.Sequential(
            [keras.Input((2,)), layers.Dense(2), layers.Dense(2)]
        )
        assert self.select(model, "dense/kernel") == ["dense/kernel"]
        assert len(self.select(model, "dense")) == 2

    def test_paths_of_keras_are_searched_last(self):
        layers.Dense(1)
        model = keras.Sequential([keras.Input((2,)), layers.Dense(2)])
        path = model.layers[0].kernel.path
        assert path != "dense/kernel"
        assert self.select(model, path) == ["dense/kernel"]

    @pytest.mark.parametrize(
        ("weights", "message"),
        [
            ("frist", r"selects no matrix. Received: 'frist'.*first/kernel"),
            (["first", "frist"], "Received: 'frist'"),
            ("first/bias", r"Skipped: 'first/bias' \(bias\)"),
            ("kernel[", r"no regular expression: .* Received: 'kernel\['"),
            ([], "is an empty list"),
            (lambda matrix: False, "selects no matrix"),
        ],
    )
    def test_what_selects_nothing(self, chain, weights, message):
        with pytest.raises(ValueError, match=message):
            weight_matrices(chain, weights=weights)

    def test_layers_and_variables_without_a_matrix(self, chain):
        bias = chain.get_layer("first").bias
        with pytest.raises(ValueError, match=r"Skipped: 'first/bias' \(bias"):
            weight_matrices(chain, weights=bias)
        model = keras.Sequential(
            [keras.Input((3,)), layers.BatchNormalization(), layers.Dense(2)]
        )
        with pytest.raises(ValueError, match=r"gamma' \(normalization\)"):
            weight_matrices(model, weights=model.layers[0])

    def test_a_layer_of_another_model(self, chain):
        with pytest.raises(ValueError, match="selects no matrix"):
            weight_matrices(chain, weights=layers.Dense(2))

    @pytest.mark.parametrize("weights", [3, 2.5, {"first": 1}, layers.Dense])
    def test_bad_types(self, chain, weights):
        with pytest.raises(TypeError, match="must be a regular expression"):
            weight_matrices(chain, weights=weights)

    def test_every_head_left_out_is_told(self, chain):
        matrices = weight_matrices(
            chain, weights="first", views={"heads": "split"}
        )
        left_out = [w for w in matrices.skipped if "head" in w.name]
        assert len(left_out) == 8


class TestSequence:
    def test_it_is_a_sequence_with_names(self, chain):
        matrices = weight_matrices(chain)
        assert len(matrices) == len(matrices.names) == 6
        assert matrices[0] is matrices["first/kernel"]
        assert matrices[-1].name == "last/kernel"
        assert [m.name for m in matrices[1:3]] == matrices.names[1:3]
        assert matrices["last/kernel"] in matrices
        assert [m.name for m in matrices] == matrices.names

    def test_missing_names(self, chain):
        matrices = weight_matrices(chain)
        with pytest.raises(KeyError, match="It was skipped: bias"):
            matrices["first/bias"]
        with pytest.raises(KeyError, match=r"No matrix is named 'none'.*first"):
            matrices["none"]

    @pytest.mark.parametrize("workers", [1, 2])
    @pytest.mark.parametrize("views", [None, "both"])
    def test_spectra_are_those_of_the_matrices(self, chain, workers, views):
        matrices = weight_matrices(chain, views=views)
        spectra = matrices.spectra(workers=workers)
        for matrix, spectrum in zip(matrices, spectra, strict=True):
            assert spectrum.shape == matrix.matrix_shape
            np.testing.assert_allclose(
                spectrum.values,
                np.linalg.svd(
                    matrix.to_numpy().astype("float64"), compute_uv=False
                ),
                rtol=1e-6,
            )

    def test_what_is_printed(self, chain):
        matrices = weight_matrices(chain)
        assert repr(matrices).splitlines()[:2] == [
            "<WeightMatrices: 6 matrices, 6 skipped>",
            "  first/kernel: 4 x 4",
        ]
        assert "first/kernel" in repr(matrices[0])
        assert "bias" in repr(matrices.skipped[0])
