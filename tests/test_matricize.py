import itertools
import math

import keras
import numpy as np
import pytest
import scipy.linalg
from hypothesis import given
from hypothesis import settings
from hypothesis import strategies as st

from keras_lowrank.matricize import DEFAULT_VIEWS
from keras_lowrank.matricize import Matricization
from keras_lowrank.matricize import Skip
from keras_lowrank.matricize import as_views
from keras_lowrank.matricize import einsum_axes
from keras_lowrank.matricize import matricize
from keras_lowrank.matricize import register_matricization
from keras_lowrank.matricize import registry

layers = keras.layers


def singular_values(matrix):
    return np.linalg.svd(matrix, compute_uv=False)


def in_full(stack):
    """A matrix, or the block-diagonal one of a stack, by SciPy."""
    return stack if stack.ndim == 2 else scipy.linalg.block_diag(*stack)


@st.composite
def tensors_with_axes(draw):
    """A small tensor and its axes shared out to rows, columns and blocks."""
    shape = draw(st.lists(st.integers(1, 4), min_size=2, max_size=5))
    axes = draw(st.permutations(range(len(shape))))
    rows = draw(st.integers(1, len(shape) - 1))
    columns = draw(st.integers(1, len(shape) - rows))
    seed = draw(st.integers(0, 99))
    array = np.random.default_rng(seed).normal(size=shape)
    return array, axes[:rows], axes[rows:][:columns], axes[rows + columns :]


@pytest.mark.once
class TestMatricization:
    @settings(derandomize=True, deadline=None)
    @given(drawn=tensors_with_axes())
    def test_entries_stand_where_the_axes_say(self, drawn):
        array, rows, columns, blocks = drawn
        how = Matricization(rows, columns, blocks)
        how.check(array.shape)
        full = in_full(how.matrix(array))
        assert full.shape == how.matrix_shape(array.shape)
        expected = np.zeros_like(full)
        sizes = [[array.shape[a] for a in axes] for axes in (rows, columns)]
        for index in np.ndindex(array.shape):
            block = np.ravel_multi_index(
                [index[a] for a in blocks] or [0],
                [array.shape[a] for a in blocks] or [1],
            )
            row, column = (
                np.ravel_multi_index([index[a] for a in axes], size)
                for axes, size in zip((rows, columns), sizes, strict=True)
            )
            row += block * math.prod(sizes[0])
            column += block * math.prod(sizes[1])
            expected[row, column] = array[index]
        np.testing.assert_array_equal(full, expected)

    @settings(derandomize=True, deadline=None)
    @given(drawn=tensors_with_axes())
    def test_negative_axes_are_the_same(self, drawn):
        array, *groups = drawn
        negative = [[axis - array.ndim for axis in axes] for axes in groups]
        np.testing.assert_array_equal(
            Matricization(*groups).matrix(array),
            Matricization(*negative).matrix(array),
        )

    @settings(derandomize=True, deadline=None)
    @given(drawn=tensors_with_axes())
    def test_transposing_and_permuting_keep_the_spectrum(self, drawn):
        array, rows, columns, _ = drawn
        blocks = [a for a in range(array.ndim) if a not in (*rows, *columns)]
        plain = Matricization(rows, columns, blocks).matrix(array)
        turned = Matricization(columns[::-1], rows[::-1], blocks[::-1])
        np.testing.assert_allclose(
            np.sort(singular_values(in_full(plain))),
            np.sort(singular_values(in_full(turned.matrix(array)))),
            atol=1e-12,
        )

    @settings(derandomize=True, deadline=None)
    @given(drawn=tensors_with_axes())
    def test_the_parts_of_blocks_are_the_blocks(self, drawn):
        array, rows, columns, blocks = drawn
        how = Matricization(rows, columns, blocks)
        parts = [
            how.matrix(array, part) for part in range(how.count(array.shape))
        ]
        assert {how.matrix_shape(array.shape, 0)} == {p.shape for p in parts}
        np.testing.assert_array_equal(
            scipy.linalg.block_diag(*parts), in_full(how.matrix(array))
        )

    def test_parts_of_two_axes_count_row_by_row(self):
        array = np.arange(24.0).reshape(2, 3, 4)
        how = Matricization((0,), (1, 2), parts=(0, 1), labels=tuple("abcdef"))
        assert how.count(array.shape) == 6
        assert how.label(4) == "group_e"
        np.testing.assert_array_equal(how.matrix(array, 4), array[1:, 1])

    def test_lists_and_numpy_ints_become_tuples(self):
        how = Matricization([np.int64(0)], np.array([1]), labels=["x"])
        assert how == Matricization((0,), (1,), labels=("x",))
        assert hash(how) == hash(Matricization((0,), (1,), labels=("x",)))

    @pytest.mark.parametrize("view", DEFAULT_VIEWS)
    def test_labels_by_default(self, view):
        how = Matricization((1,), (2,), (0,), view=view)
        assert how.label(3) == f"{view.rstrip('s')}_3"

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"rows": (0,), "columns": (1,)}, "must name every axis once"),
            ({"rows": (0, 1), "columns": (1, 2)}, "must name every axis once"),
            ({"rows": (0, 1), "columns": (2, -1)}, "must name every axis"),
            ({"rows": (0, 1), "columns": (3,)}, r"columns=\(3,\)"),
            ({"rows": (), "columns": (0, 1, 2)}, "at least one row"),
            ({"rows": (0, 1, 2), "columns": ()}, "one column axis"),
            (
                {"rows": (0,), "columns": (1, 2), "split": (2, 3)},
                r"split=\(2, 3\) for a tensor of shape \(2, 3, 4\)",
            ),
            (
                {"rows": (0,), "columns": (1, 2), "parts": (5,)},
                r"`parts` must be some of the axes",
            ),
            (
                {"rows": (0,), "columns": (1, 2), "labels": ("a", "b")},
                "`labels` must name every part",
            ),
        ],
    )
    def test_what_does_not_fit_a_tensor(self, arguments, message):
        how = Matricization(**arguments)
        with pytest.raises(ValueError, match=message):
            how.check((2, 3, 4))

    @pytest.mark.parametrize("rows", [0, "01", None, (0.5,), [None]])
    def test_axes_must_be_ints(self, rows):
        with pytest.raises(TypeError, match="`rows` must be a tuple of ints"):
            Matricization(rows, (1,))

    def test_an_unknown_view(self):
        with pytest.raises(ValueError, match=r"`view` must be one of .*'eyes'"):
            Matricization((0,), (1,), view="eyes")


@pytest.mark.once
class TestViews:
    def test_none_is_the_defaults(self):
        assert as_views() == as_views({}) == dict(DEFAULT_VIEWS)
        assert as_views() is not DEFAULT_VIEWS

    @pytest.mark.parametrize("choice", ["merged", "split", "both"])
    def test_one_choice_for_all(self, choice):
        assert as_views(choice) == dict.fromkeys(DEFAULT_VIEWS, choice)

    @pytest.mark.parametrize(
        ("kind", "choice"),
        list(itertools.product(DEFAULT_VIEWS, ["merged", "split", "both"])),
    )
    def test_one_kind_alone(self, kind, choice):
        assert as_views({kind: choice}) == {**DEFAULT_VIEWS, kind: choice}

    @pytest.mark.parametrize(
        ("views", "message"),
        [
            (
                {"head": "split"},
                r"knows the kinds .*'heads'.* Received: 'head'",
            ),
            ({"heads": "splt"}, r"view of 'heads' must be one of .*'splt'"),
            ({"heads": "skip"}, "view of 'heads' must be one of"),
            ({"heads": None}, "Received: None"),
            ({"heads": ["split"]}, r"Received: \['split'\]"),
            ("skip", "view of 'heads' must be one of"),
            ("each", "Received: 'each'"),
        ],
    )
    def test_bad_values(self, views, message):
        with pytest.raises(ValueError, match=message):
            as_views(views)

    @pytest.mark.parametrize("views", [["heads"], 3, True, ("split",)])
    def test_bad_types(self, views):
        with pytest.raises(TypeError, match="`views` must be a dict"):
            as_views(views)


@pytest.mark.once
@pytest.mark.parametrize(
    ("equation", "axes"),
    [
        ("ab,bc->ac", ((0,), (1,), ())),
        ("abc,cde->abde", ((0,), (1, 2), ())),
        ("abcd,cde->abe", ((0, 1), (2,), ())),
        ("...x,xy->...y", ((0,), (1,), ())),
        ("...x, yx -> ...y", ((1,), (0,), ())),
        ("abc,bcd->abd", ((1,), (2,), (0,))),
        ("ab,b->ab", ((), (), (0,))),
        ("ab,b->a", ((0,), (), ())),
    ],
)
def test_axes_of_an_equation(equation, axes):
    assert einsum_axes(equation) == axes


class Custom(layers.Layer):
    """Variables of the shapes given, under the names given."""

    def __init__(self, shapes, **arguments):
        super().__init__(**arguments)
        self.shapes = shapes

    def build(self, input_shape=None):
        for name, shape in self.shapes.items():
            setattr(self, name, self.add_weight(shape=shape, name=name))


def decide(shape, name="kernel"):
    layer = Custom({name: shape})
    layer.build()
    return matricize([layer], layer.weights[0])


class TestWithoutARule:
    @pytest.mark.parametrize(
        ("shape", "expected"),
        [
            ((3, 4), (3, 4)),
            ((1, 1), (1, 1)),
            ((1, 5), (1, 5)),
            ((5, 1), (5, 1)),
            ((1, 7, 5), (7, 5)),
            ((1, 1, 7, 5), (7, 5)),
            ((7, 1, 5), (7, 5)),
        ],
    )
    def test_matrices_are_measured_as_they_are(self, shape, expected):
        assert decide(shape).matrix_shape(shape) == expected

    @pytest.mark.parametrize(
        "shape", [(2, 3, 4), (3, 3, 1, 4), (2, 2, 2, 2, 2)]
    )
    def test_more_axes_are_unknown(self, shape):
        assert decide(shape).unsupported
        assert "register_matricization" in decide(shape).reason

    @pytest.mark.parametrize("shape", [(3, 3, 1), (3, 3, 1, 1), (5, 4, 1, 1)])
    def test_a_last_axis_of_size_1_is_no_reason_to_guess(self, shape):
        # A convolution with one output has a matrix of one column.
        assert decide(shape).unsupported

    @pytest.mark.parametrize(
        ("shape", "name", "reason"),
        [
            ((), "kernel", "scalar"),
            ((4,), "kernel", "vector"),
            ((1, 4, 1), "kernel", "vector"),
            ((1, 1, 1), "kernel", "vector"),
            ((4,), "bias", "bias"),
            ((2, 4), "recurrent_bias", "bias"),
            ((4,), "gamma", "normalization"),
            ((0, 4), "kernel", "empty: no entries"),
            ((0,), "kernel", "empty: no entries"),
        ],
    )
    def test_what_is_no_matrix(self, shape, name, reason):
        assert decide(shape, name) == Skip(reason)


@pytest.fixture
def rules(monkeypatch):
    """Rules registered in a test are forgotten after it."""
    monkeypatch.setattr(registry, "_RULES", dict(registry._RULES))


@pytest.mark.usefixtures("rules")
class TestRegister:
    def test_a_rule_and_its_decorated_function(self):
        class Mine(Custom):
            pass

        @register_matricization(Mine)
        def rule(layer, variable):
            if variable.name == "kernel":
                return Matricization(rows=(0, 1), columns=(2,))
            if variable.name == "spare":
                return Skip("spare part")

        layer = Mine({"kernel": (2, 3, 4), "spare": (3, 3), "bias": (4,)})
        layer.build()
        answers = [matricize([layer], weight) for weight in layer.weights]
        assert answers == [
            Matricization((0, 1), (2,)),
            Skip("spare part"),
            Skip("bias"),
        ]
        assert rule(layer, layer.kernel) == answers[0]

    def test_it_holds_for_subclasses_until_they_have_their_own(self):
        class Parent(Custom):
            pass

        class Child(Parent):
            pass

        register_matricization(Parent)(lambda layer, variable: Skip("parent"))
        child = Child({"kernel": (2, 3, 4)})
        child.build()
        assert matricize([child], child.kernel) == Skip("parent")
        register_matricization(Child)(lambda layer, variable: Skip("child"))
        assert matricize([child], child.kernel) == Skip("child")

    def test_a_later_rule_of_a_class_replaces_the_earlier(self):
        layer = Custom({"kernel": (2, 2)})
        layer.build()
        for reason in ("first", "second"):
            answer = Skip(reason)
            register_matricization(Custom)(lambda *_, a=answer: a)
            assert matricize([layer], layer.kernel) == answer

    def test_several_classes_and_mixins(self):
        class Mixin:
            pass

        class One(Mixin, Custom):
            pass

        class Two(layers.Layer):
            pass

        register_matricization(One, Two)(lambda *_: Skip("both"))
        one = One({"kernel": (2, 2)})
        one.build()
        assert matricize([one], one.kernel) == Skip("both")

    def test_rules_of_keras_can_be_replaced(self):
        layer = layers.Dense(3)
        layer.build((None, 2))
        register_matricization(layers.Dense)(lambda *_: Skip("not now"))
        assert matricize([layer], layer.kernel) == Skip("not now")

    @pytest.mark.parametrize("inner", [False, True])
    def test_inner_speaks_for_layers_inside_without_a_rule(self, inner):
        class Outer(layers.Layer):
            pass

        asked = []

        @register_matricization(Outer, inner=inner)
        def rule(layer, variable):
            asked.append(variable.name)
            return Skip("outer")

        inside, dense = Custom({"kernel": (2, 3)}), layers.BatchNormalization()
        inside.build()
        dense.build((None, 2))
        outer = Outer()
        answer = matricize([inside, outer], inside.kernel)
        assert (answer == Skip("outer")) == inner
        # A layer with a rule of its own does not ask further.
        assert matricize([dense, outer], dense.gamma) == Skip("normalization")
        assert asked == (["kernel"] if inner else [])

    def test_an_opinion_is_asked_for_from_the_inside_out(self):
        class Near(layers.Layer):
            pass

        class Far(layers.Layer):
            pass

        inside = Custom({"kernel": (2, 3)})
        inside.build()
        register_matricization(Near, inner=True)(lambda *_: None)
        register_matricization(Far, inner=True)(lambda *_: Skip("far"))
        chain = [inside, Near(), Far()]
        assert matricize(chain, inside.kernel) == Skip("far")
        register_matricization(Near, inner=True)(lambda *_: Skip("near"))
        assert matricize(chain, inside.kernel) == Skip("near")

    @pytest.mark.parametrize("answer", [(0, 1), "skip", True, Skip])
    def test_a_wrong_answer(self, answer):
        layer = Custom({"kernel": (2, 3)})
        layer.build()
        register_matricization(Custom)(lambda *_: answer)
        with pytest.raises(
            TypeError, match=r"must return .*rule of `Custom` for variable"
        ):
            matricize([layer], layer.kernel)

    def test_an_answer_that_does_not_fit(self):
        layer = Custom({"kernel": (2, 3, 4)})
        layer.build()
        register_matricization(Custom)(lambda *_: Matricization((0,), (1,)))
        with pytest.raises(
            ValueError, match="rule of `Custom` does not fit variable"
        ):
            matricize([layer], layer.kernel)

    @pytest.mark.parametrize("wrong", [int, "Dense", None, layers.Dense(1)])
    def test_only_layer_classes(self, wrong):
        with pytest.raises(TypeError, match="takes subclasses of"):
            register_matricization(wrong)

    def test_the_decorator_without_a_class(self):
        with pytest.raises(TypeError, match="at least one layer class"):
            register_matricization()

        with pytest.raises(TypeError, match="takes subclasses of"):

            @register_matricization
            def rule(layer, variable):
                return None


def read(layer, name, **view):
    """The matrix a layer's variable becomes, as NumPy array."""
    (variable,) = (w for w in layer.weights if w.name == name)
    how = matricize([layer], variable)
    assert isinstance(how, Matricization), how
    return how.matrix(keras.ops.convert_to_numpy(variable), **view)


def response(layer, input_shape):
    """What a linear layer does to each unit vector: an oracle of its matrix.

    Of shape `(inputs, outputs)`, both flattened.
    """
    size = math.prod(input_shape)
    units = np.eye(size, dtype="float32").reshape(size, *input_shape)
    output = keras.ops.convert_to_numpy(layer(units))
    nothing = keras.ops.convert_to_numpy(layer(0 * units[:1]))
    return (output - nothing).reshape(size, -1)


CONVOLUTIONS = [
    (layers.Conv1D, (3,)),
    (layers.Conv2D, (3, 2)),
    (layers.Conv3D, (2, 1, 3)),
]


class TestKerasLayers:
    @pytest.mark.parametrize(("layer_class", "window"), CONVOLUTIONS)
    def test_convolution(self, layer_class, window):
        # On an input as large as the window there is one output position.
        layer = layer_class(5, window, bias_initializer="ones")
        expected = response(layer, (*window, 4))
        np.testing.assert_allclose(read(layer, "kernel"), expected, atol=1e-6)

    @pytest.mark.parametrize(("layer_class", "window"), CONVOLUTIONS)
    def test_grouped_convolution(self, layer_class, window):
        if keras.backend.backend() == "tensorflow" and len(window) == 3:
            pytest.skip("TensorFlow has no grouped Conv3D on a CPU")
        groups = 2
        layer = layer_class(8, window, groups=groups)
        expected = response(layer, (*window, 4))
        size = 4 // groups
        expected = expected.reshape(-1, groups, size, groups, 8 // groups)
        parts = []
        for group in range(groups):
            part = expected[:, group, :, group].reshape(-1, 8 // groups)
            found = read(layer, "kernel", part=group)
            np.testing.assert_allclose(found, part, atol=1e-6)
            parts.append(part)
            # Nothing passes from one group to another.
            others = np.delete(expected[:, group], group, axis=2)
            np.testing.assert_allclose(others, 0, atol=1e-6)
        np.testing.assert_allclose(
            in_full(read(layer, "kernel")),
            scipy.linalg.block_diag(*parts),
            atol=1e-6,
        )

    @pytest.mark.parametrize(
        ("layer_class", "window"),
        [
            (layers.Conv1DTranspose, (3,)),
            (layers.Conv2DTranspose, (3, 2)),
            (layers.Conv3DTranspose, (2, 1, 3)),
        ],
    )
    def test_transposed_convolution(self, layer_class, window):
        layer = layer_class(5, window)
        expected = response(layer, (*[1] * len(window), 4))
        np.testing.assert_allclose(read(layer, "kernel").T, expected, atol=1e-6)

    @pytest.mark.once
    @pytest.mark.parametrize("transposed", [False, True])
    def test_torch_gives_the_same_spectrum(self, transposed):
        torch = pytest.importorskip("torch")
        layer_class, module = (
            (layers.Conv2DTranspose, torch.nn.ConvTranspose2d(4, 5, 3))
            if transposed
            else (layers.Conv2D, torch.nn.Conv2d(4, 5, 3))
        )
        layer = layer_class(5, 3)
        layer.build((None, 7, 7, 4))
        # torch keeps (output, input, *window), turned when transposed.
        weight = module.weight.detach().numpy()
        layer.kernel.assign(weight.transpose(2, 3, 1, 0))
        layer.bias.assign(module.bias.detach().numpy())
        images = np.random.default_rng(0).normal(size=(2, 7, 7, 4))
        images = images.astype("float32")
        expected = module(torch.as_tensor(images.transpose(0, 3, 1, 2)))
        np.testing.assert_allclose(
            keras.ops.convert_to_numpy(layer(images)),
            expected.detach().numpy().transpose(0, 2, 3, 1),
            atol=1e-5,
        )
        reference = weight.reshape(len(weight), -1)
        np.testing.assert_allclose(
            singular_values(read(layer, "kernel")),
            singular_values(reference),
            rtol=1e-5,
        )

    @pytest.mark.parametrize(
        ("layer_class", "window"),
        [(layers.DepthwiseConv1D, (3,)), (layers.DepthwiseConv2D, (3, 2))],
    )
    @pytest.mark.parametrize("multiplier", [1, 2])
    def test_depthwise_convolution(self, layer_class, window, multiplier):
        layer = layer_class(window, depth_multiplier=multiplier)
        expected = response(layer, (*window, 4)).reshape(-1, 4, 4, multiplier)
        for channel in range(4):
            np.testing.assert_allclose(
                read(layer, "kernel", part=channel),
                expected[:, channel, channel],
                atol=1e-6,
            )
        np.testing.assert_allclose(
            in_full(read(layer, "kernel")),
            expected.transpose(1, 0, 2, 3).reshape(-1, 4 * multiplier),
            atol=1e-6,
        )

    @pytest.mark.parametrize(
        ("layer_class", "window"),
        [(layers.SeparableConv1D, (3,)), (layers.SeparableConv2D, (3, 2))],
    )
    def test_separable_convolution(self, layer_class, window):
        layer = layer_class(5, window, depth_multiplier=2)
        expected = response(layer, (*window, 4))
        depthwise = in_full(read(layer, "depthwise_kernel"))
        depthwise = depthwise.reshape(4, -1, 8).transpose(1, 0, 2)
        product = depthwise.reshape(-1, 8) @ read(layer, "pointwise_kernel")
        np.testing.assert_allclose(product, expected, atol=1e-6)

    @pytest.mark.parametrize(
        ("equation", "input_shape", "output_shape"),
        [
            ("ab,bc->ac", (4,), 5),
            ("ab,cb->ac", (4,), 5),
            ("...x,xy->...y", (4,), 5),
            ("abc,cde->abde", (1, 4), (None, 2, 3)),
            ("abc,dce->abde", (1, 4), (None, 2, 3)),
            ("abcd,cde->abe", (1, 2, 3), (None, 5)),
            ("abcd,cdef->abef", (1, 2, 3), (None, 2, 2)),
            ("abc,cdef->abdef", (1, 4), (None, 3, 2, 2)),
        ],
    )
    def test_einsum_dense(self, equation, input_shape, output_shape):
        layer = layers.EinsumDense(equation, output_shape)
        expected = response(layer, input_shape)
        np.testing.assert_allclose(read(layer, "kernel"), expected, atol=1e-6)

    def test_einsum_dense_with_a_kept_axis_is_block_diagonal(self):
        layer = layers.EinsumDense("abc,bcd->abd", (3, 5))
        expected = response(layer, (3, 4))
        np.testing.assert_allclose(
            in_full(read(layer, "kernel")), expected, atol=1e-6
        )

    def test_einsum_dense_that_scales(self):
        layer = layers.EinsumDense("abc,c->abc", (None, 4))
        layer.build((None, 2, 4))
        answer = matricize([layer], layer.weights[0])
        assert answer == Skip("scale: no sum over one axis gives another")

    @pytest.mark.parametrize(
        ("equation", "input_shape", "output_shape", "axis"),
        [
            ("abc,cde->abde", (1, 4), (None, 2, 3), 1),
            ("abcd,cde->abe", (1, 2, 3), (None, 5), 0),
            # The output of attention with an `output_shape` of two axes.
            ("abcd,cdef->abef", (1, 2, 3), (None, 2, 2), 0),
        ],
    )
    def test_heads(self, equation, input_shape, output_shape, axis):
        layer = layers.EinsumDense(equation, output_shape)
        layer.build((None, *input_shape))
        kernel = keras.ops.convert_to_numpy(layer.kernel)
        how = matricize([layer], layer.kernel)
        assert how.view == "heads" and how.count(kernel.shape) == 2
        for head in (0, 1):
            expected = np.take(kernel, [head], axis)
            expected = how.matrix(expected)
            np.testing.assert_array_equal(how.matrix(kernel, head), expected)
            assert expected.size == kernel.size / 2

    def test_lstm_gates_do_what_they_are_called(self):
        layer = layers.LSTMCell(3, bias_initializer="uniform")
        inputs, hidden, carry = np.random.default_rng(0).normal(size=(3, 2, 3))
        _, states = layer(inputs, [hidden, carry])
        output, new_carry = map(keras.ops.convert_to_numpy, states)
        bias = np.split(keras.ops.convert_to_numpy(layer.bias), 4)

        def gate(part):
            return (
                inputs @ read(layer, "kernel", part=part)
                + hidden @ read(layer, "recurrent_kernel", part=part)
                + bias[part]
            )

        how = matricize([layer], layer.kernel)
        assert [how.label(part) for part in range(4)] == [
            "gate_i",
            "gate_f",
            "gate_c",
            "gate_o",
        ]
        i, f, o = (1 / (1 + np.exp(-gate(part))) for part in (0, 1, 3))
        expected_carry = f * carry + i * np.tanh(gate(2))
        np.testing.assert_allclose(new_carry, expected_carry, atol=1e-5)
        np.testing.assert_allclose(
            output, o * np.tanh(expected_carry), atol=1e-5
        )

    @pytest.mark.parametrize("reset_after", [False, True])
    def test_gru_gates_do_what_they_are_called(self, reset_after):
        layer = layers.GRUCell(3, reset_after=reset_after, use_bias=False)
        inputs, hidden = np.random.default_rng(0).normal(size=(2, 2, 3))
        output = keras.ops.convert_to_numpy(layer(inputs, [hidden])[0])
        kernel = [read(layer, "kernel", part=part) for part in range(3)]
        recurrent = [
            read(layer, "recurrent_kernel", part=part) for part in range(3)
        ]
        how = matricize([layer], layer.kernel)
        assert [how.label(part) for part in range(3)] == [
            "gate_z",
            "gate_r",
            "gate_h",
        ]
        z, r = (
            1 / (1 + np.exp(-inputs @ kernel[k] - hidden @ recurrent[k]))
            for k in (0, 1)
        )
        past = (
            r * (hidden @ recurrent[2])
            if reset_after
            else (r * hidden) @ recurrent[2]
        )
        candidate = np.tanh(inputs @ kernel[2] + past)
        np.testing.assert_allclose(
            output, z * hidden + (1 - z) * candidate, atol=1e-5
        )

    @pytest.mark.parametrize("layer_class", [layers.LSTMCell, layers.GRUCell])
    def test_merged_gates_are_the_kernel_itself(self, layer_class):
        layer = layer_class(3)
        layer.build((None, 2))
        for name in ("kernel", "recurrent_kernel"):
            np.testing.assert_array_equal(
                read(layer, name),
                keras.ops.convert_to_numpy(getattr(layer, name)),
            )

    def test_a_cell_with_other_gates_than_its_parent_is_no_error(self):
        class Peephole(layers.LSTMCell):
            def build(self, input_shape):
                self.kernel = self.add_weight(
                    shape=(input_shape[-1], 5 * self.units), name="kernel"
                )

        layer = Peephole(3)
        layer.build((None, 2))
        assert read(layer, "kernel").shape == (2, 15)
