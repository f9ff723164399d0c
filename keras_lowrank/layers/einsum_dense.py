"""`LowRankEinsumDense`: an einsum layer whose kernel has low rank."""

import dataclasses
import math
import string

import keras
from keras import ops

from keras_lowrank.layers.dense import bias_config
from keras_lowrank.layers.factored import FactoredLayer
from keras_lowrank.matricize import Matricization
from keras_lowrank.matricize import einsum_axes
from keras_lowrank.matricize import einsum_matricization


@keras.saving.register_keras_serializable(package="keras_lowrank")
class LowRankEinsumDense(FactoredLayer):
    """An `EinsumDense` layer whose kernel is a product of two.

    The axes that are summed over are the rows of the matrix that is factored,
    the new ones of the output its columns. Axes that input, kernel and output
    share stand for diagonal blocks, each of which has rank `rank`. What the
    attention layers of Keras project with are such layers.

    Args:
        equation: String, as `keras.layers.EinsumDense` takes it.
        output_shape: Tuple of ints or int, as `EinsumDense` takes it.
        rank: Int from 1 to the smaller side of the matrix (of a block).
        activation: Activation of the output, by name or as a function.
        bias_axes: String, letters of the output that the bias has.
        kernel_initializer: Initializer of the full kernel; see
            `LowRankDense`.
        bias_initializer: Initializer of the bias.
        kernel_regularizer: Regularizer of the product.
        bias_regularizer: Regularizer of the bias.
        bias_constraint: Constraint of the bias.
        **kwargs: `lora_rank`, `lora_alpha`, `activity_regularizer`, `name`,
            `dtype`, `trainable`.

    Raises:
        ValueError: when `rank` is out of range, or when no axis is summed
            over, no axis is new, or an axis is summed that the kernel does
            not have.

    Example:

    >>> heads = LowRankEinsumDense("abc,cde->abde", (None, 4, 8), rank=4)
    >>> tuple(heads(np.ones((2, 5, 16))).shape), tuple(heads.kernel.shape)
    ((2, 5, 4, 8), (16, 4, 8))
    """

    full_class = keras.layers.EinsumDense

    def __init__(
        self,
        equation,
        output_shape,
        rank,
        activation=None,
        bias_axes=None,
        kernel_initializer="glorot_uniform",
        bias_initializer="zeros",
        kernel_regularizer=None,
        bias_regularizer=None,
        bias_constraint=None,
        **kwargs,
    ):
        super().__init__(rank, kernel_initializer, kernel_regularizer, **kwargs)
        self.equation = equation
        self.partial_output_shape = (
            (output_shape,)
            if isinstance(output_shape, int)
            else tuple(output_shape)
        )
        self.activation = keras.activations.get(activation)
        self.bias_axes = bias_axes
        self.bias_initializer = keras.initializers.get(bias_initializer)
        self.bias_regularizer = keras.regularizers.get(bias_regularizer)
        self.bias_constraint = keras.constraints.get(bias_constraint)
        self._parts = _split_equation(equation)

    def full_shape(self, input_shape):
        """That of the kernel of an `EinsumDense`."""
        sizes = self._sizes(input_shape)
        return tuple(sizes[letter] for letter in self._parts.kernel)

    def factorization(self, shape):
        """Axes that are summed over are rows, new ones columns."""
        rows, columns, blocks = einsum_axes(self.equation)
        return Matricization(rows, columns, blocks)

    def matricization(self, shape):
        """As for an `EinsumDense`, whose heads may be seen one by one."""
        return einsum_matricization(self.equation)

    def make_factors(self, input_shape, initializers, dtypes):
        """Two einsum layers, the second with bias and activation."""
        parts, sizes = self._parts, self._sizes(input_shape)
        reduced = parts.reduced.replace("0", "")
        # Keras wants the sizes of the output without the batch, which is the
        # first axis unless an ellipsis stands for it.
        if not parts.reduced.startswith("0"):
            reduced = reduced[1:]
        reduce, expand = initializers
        return (
            keras.layers.EinsumDense(
                parts.reduce_equation,
                tuple(sizes.get(letter) for letter in reduced),
                kernel_initializer=reduce,
                dtype=dtypes[0],
                name="reduce",
            ),
            keras.layers.EinsumDense(
                parts.expand_equation,
                self.partial_output_shape,
                activation=self.activation,
                bias_axes=self.bias_axes,
                kernel_initializer=expand,
                bias_initializer=self.bias_initializer,
                bias_regularizer=self.bias_regularizer,
                bias_constraint=self.bias_constraint,
                dtype=dtypes[1],
                name="expand",
            ),
        )

    def split(self, product, shape):
        """Axes in the order blocks, rows, rank and blocks, rank, columns."""
        parts = self._parts
        sizes = dict(zip(parts.kernel, shape, strict=True))
        blocks, rows, columns = (
            tuple(sizes[letter] for letter in letters)
            for letters in (parts.blocks, parts.rows, parts.columns)
        )
        return (
            product.left.reshape(*blocks, *rows, self.rank),
            product.right.reshape(*blocks, self.rank, *columns),
        )

    def matrices(self, reduce, expand, xp):
        """Rows and columns made long; blocks, if any, in front."""
        count = len(self._parts.blocks)
        blocks = math.prod(reduce.shape[:count])
        rows = math.prod(reduce.shape[count:-1])
        stack = (blocks,) if count and blocks > 1 else ()
        return (
            xp.reshape(reduce, (*stack, rows, self.rank)),
            xp.reshape(expand, (*stack, self.rank, -1)),
        )

    @classmethod
    def reason_against(cls, layer) -> str:
        """As for every layer, and where the equation cannot be split."""
        reason = super().reason_against(layer)
        if reason:
            return reason
        try:
            _split_equation(layer.equation)
        except ValueError as error:
            return str(error)
        return ""

    def vectors(self, inputs):
        """Axes that are summed over, of every place along the others."""
        parts = self._parts
        count = len(inputs.shape) - len(parts.inputs.replace("0", ""))
        place = parts.inputs.find("0")
        letters = list(parts.inputs.replace("0", ""))
        if place >= 0:  # axes for which an ellipsis stands
            letters[place:place] = [str(axis) for axis in range(count)]
        order = [
            *(letters.index(letter) for letter in parts.blocks),
            *(i for i, one in enumerate(letters) if one not in parts.kernel),
            *(letters.index(letter) for letter in parts.rows),
        ]
        turned = ops.transpose(inputs, order)
        blocks = math.prod(turned.shape[: len(parts.blocks)])
        rows = math.prod(turned.shape[len(order) - len(parts.rows) :])
        return ops.reshape(
            turned, ((blocks,) if blocks > 1 else ()) + (-1, rows)
        )

    @property
    def product_equation(self):
        """Sum over the rank, in the order of axes of the full kernel."""
        parts = self._parts
        return f"{parts.reduce_kernel},{parts.expand_kernel}->{parts.kernel}"

    def full_initializer(self, shape):
        """With fans by the equation, as `EinsumDense` counts them."""
        drawn = self.kernel_initializer
        if (
            not isinstance(drawn, keras.initializers.VarianceScaling)
            or getattr(drawn, "input_axes", 0) is not None
        ):
            return drawn
        rows, columns, blocks = einsum_axes(self.equation)
        # The seed is the one it has, which its config leaves out if it was
        # not given.
        return type(drawn).from_config(
            drawn.get_config()
            | {
                "seed": drawn.seed,
                "input_axes": list(rows),
                "output_axes": sorted((*columns, *blocks)),
            }
        )

    def _sizes(self, input_shape) -> dict[str, int]:
        """Size of every letter that is known."""
        parts = self._parts
        sizes = {parts.rank: self.rank}
        letters = parts.inputs
        if letters.startswith("0"):
            letters = letters[1:]
            known = input_shape[len(input_shape) - len(letters) :]
        else:
            letters = letters.rstrip("0")
            known = input_shape[: len(letters)]
        sizes |= zip(letters, known, strict=True)
        letters = parts.output
        letters = letters[1:].rstrip("0")  # without batch or ellipsis
        known = self.partial_output_shape[: len(letters)]
        for letter, size in zip(letters, known, strict=True):
            sizes.setdefault(letter, size)
        return sizes

    def get_config(self):
        """The arguments as plain values, for saving."""
        return super().get_config() | {
            "equation": self.equation,
            "output_shape": self.partial_output_shape,
            "activation": keras.activations.serialize(self.activation),
            "bias_axes": self.bias_axes,
            **bias_config(self),
        }


@dataclasses.dataclass(frozen=True)
class _Parts:
    """Letters of an einsum equation, an ellipsis written as 0."""

    inputs: str
    kernel: str
    output: str
    rows: str
    columns: str
    blocks: str
    rank: str

    @property
    def reduced(self) -> str:
        """Letters between the factors: the rank in place of the rows."""
        first = self.inputs.index(self.rows[0])
        return "".join(
            self.rank if place == first else letter
            for place, letter in enumerate(self.inputs)
            if place == first or letter not in self.rows
        )

    @property
    def reduce_kernel(self) -> str:
        return self.blocks + self.rows + self.rank

    @property
    def expand_kernel(self) -> str:
        return self.blocks + self.rank + self.columns

    @property
    def reduce_equation(self) -> str:
        text = f"{self.inputs},{self.reduce_kernel}->{self.reduced}"
        return text.replace("0", "...")

    @property
    def expand_equation(self) -> str:
        text = f"{self.reduced},{self.expand_kernel}->{self.output}"
        return text.replace("0", "...")


def _split_equation(equation: str) -> _Parts:
    short = equation.replace(" ", "").replace("...", "0")
    inputs, rest = short.split(",")
    kernel, output = rest.split("->")
    rows, columns, blocks = (
        "".join(kernel[axis] for axis in axes) for axes in einsum_axes(equation)
    )
    alone = [
        letter
        for letter in inputs
        if letter not in kernel and letter not in output
    ]
    if not rows or not columns or alone:
        raise ValueError(
            "A low-rank einsum layer needs an axis that is summed over with "
            "the kernel and one that is new, and no axis that is summed over "
            f"without the kernel. Received: equation={equation!r}. Use "
            "`keras.layers.EinsumDense`."
        )
    rank = next(
        letter for letter in "r" + string.ascii_letters if letter not in short
    )
    return _Parts(inputs, kernel, output, rows, columns, blocks, rank)
