"""Convolutions whose kernels have low rank, by channels or by space."""

import keras
import numpy as np
from keras import ops

from keras_lowrank.layers.dense import bias_config
from keras_lowrank.layers.factored import FactoredLayer
from keras_lowrank.linalg import Product
from keras_lowrank.matricize import Matricization


class _LowRankConv(FactoredLayer):
    """What the convolutions share; `dimensions` of space."""

    dimensions: int

    #: The ways to factor the kernel.
    schemes: tuple[str, ...] = ("channel",)

    def __init__(
        self,
        filters,
        kernel_size,
        rank,
        strides=1,
        padding="valid",
        data_format=None,
        dilation_rate=1,
        scheme="channel",
        activation=None,
        use_bias=True,
        kernel_initializer="glorot_uniform",
        bias_initializer="zeros",
        kernel_regularizer=None,
        bias_regularizer=None,
        activity_regularizer=None,
        bias_constraint=None,
        **kwargs,
    ):
        super().__init__(
            rank,
            kernel_initializer,
            kernel_regularizer,
            activity_regularizer=activity_regularizer,
            **kwargs,
        )
        if scheme not in self.schemes:
            raise ValueError(
                f"`scheme` of `{type(self).__name__}` must be one of "
                f"{self.schemes}. Received: scheme={scheme!r}."
            )
        # Keras knows what its arguments may be.
        full = self.full_class(
            filters,
            kernel_size,
            strides=strides,
            padding=padding,
            data_format=data_format,
            dilation_rate=dilation_rate,
        )
        self.filters = filters
        self.kernel_size = full.kernel_size
        self.strides = full.strides
        self.padding = full.padding
        self.data_format = full.data_format
        self.dilation_rate = full.dilation_rate
        self.scheme = scheme
        self.activation = keras.activations.get(activation)
        self.use_bias = use_bias
        self.bias_initializer = keras.initializers.get(bias_initializer)
        self.bias_regularizer = keras.regularizers.get(bias_regularizer)
        self.bias_constraint = keras.constraints.get(bias_constraint)

    @property
    def _channels(self) -> int:
        return 1 if self.data_format == "channels_first" else -1

    def full_shape(self, input_shape):
        """`(*window, input, filters)`."""
        return *self.kernel_size, input_shape[self._channels], self.filters

    def factorization(self, shape):
        """By channels `(window * input, filters)`, by space `(h * i, w * o)`.

        The window is `h x w`, with `i` input and `o` output channels.
        """
        if self.scheme == "spatial":
            return Matricization(rows=(0, 2), columns=(1, 3))
        return Matricization(
            rows=tuple(range(self.dimensions + 1)), columns=(-1,)
        )

    def matricization(self, shape):
        """As a full convolution is measured, `(window * input, filters)`."""
        rows = tuple(range(self.dimensions + 1))
        return Matricization(rows=rows, columns=(-1,))

    def make_factors(self, input_shape, initializers, dtypes):
        """Two convolutions; the second has bias and activation."""
        first: dict = {"padding": self.padding}
        second: dict = {"padding": "valid"}
        for key in ("kernel_size", "strides", "dilation_rate"):
            value = getattr(self, key)
            if self.scheme == "spatial":
                first[key], second[key] = (value[0], 1), (1, value[1])
            else:
                first[key], second[key] = value, (1,) * self.dimensions
        if self.scheme == "spatial":
            second["padding"] = self.padding
        reduce, expand = initializers
        return (
            self.full_class(
                self.rank,
                use_bias=False,
                data_format=self.data_format,
                kernel_initializer=reduce,
                dtype=dtypes[0],
                name="reduce",
                **first,
            ),
            self.full_class(
                self.filters,
                activation=self.activation,
                use_bias=self.use_bias,
                data_format=self.data_format,
                kernel_initializer=expand,
                bias_initializer=self.bias_initializer,
                bias_regularizer=self.bias_regularizer,
                bias_constraint=self.bias_constraint,
                dtype=dtypes[1],
                name="expand",
                **second,
            ),
        )

    def split(self, product, shape):
        """Windows are put in their places, of length 1 where there is none."""
        *window, inputs, outputs = shape
        if self.scheme == "channel":
            ones = (1,) * self.dimensions
            return (
                product.left.reshape(*window, inputs, self.rank),
                product.right.reshape(*ones, self.rank, outputs),
            )
        height, width = window
        right = product.right.reshape(self.rank, width, outputs)
        return (
            product.left.reshape(height, 1, inputs, self.rank),
            right.transpose(1, 0, 2)[None],
        )

    def matrices(self, reduce, expand, xp):
        """The reverse of `split`."""
        if self.scheme == "spatial":
            expand = xp.transpose(expand, (0, 2, 1, 3))
        return (
            xp.reshape(reduce, (-1, self.rank)),
            xp.reshape(expand, (self.rank, -1)),
        )

    def join(self, reduce, expand):
        """Factors of the matrix `(window * input, filters)`.

        By space the horizontal window belongs to both sides: each of its
        places has a row of the left factor, and sums over its own features.
        """
        if self.scheme == "channel":
            return super().join(reduce, expand)
        _, width, rank, outputs = expand.shape
        left = np.einsum("hir,wv->hwivr", reduce[:, 0], np.eye(width))
        return Product(
            left.astype(reduce.dtype).reshape(-1, width * rank),
            expand.reshape(width * rank, outputs),
        )

    def vectors(self, inputs):
        """Windows: by space those of the first layer, which are vertical."""
        window, strides = list(self.kernel_size), list(self.strides)
        dilation = list(self.dilation_rate)
        if self._channels == 1:
            inputs = ops.moveaxis(inputs, 1, -1)
        if self.scheme == "spatial":
            window[1], strides[1], dilation[1] = 1, 1, 1
        padding = self.padding
        if padding == "causal":
            padding = "valid"
            before = dilation[0] * (window[0] - 1)
            inputs = ops.pad(inputs, ((0, 0), (before, 0), (0, 0)))
        if self.dimensions == 1:
            # Patches are known of images alone.
            inputs = inputs[:, None]
            window, strides = [1, *window], [1, *strides]
            dilation = [1, *dilation]
        patches = ops.image.extract_patches(
            inputs,
            tuple(window),
            strides=tuple(strides),
            dilation_rate=tuple(dilation) if max(dilation) > 1 else 1,
            padding=padding,
            data_format="channels_last",
        )
        return ops.reshape(patches, (-1, patches.shape[-1]))

    @property
    def product_equation(self):
        """The sum over the features between."""
        if self.scheme == "spatial":
            return "hxir,ywro->hwio"
        window = "hw"[: self.dimensions]
        return f"{window}ir,{'xy'[: self.dimensions]}ro->{window}io"

    def get_config(self):
        """The arguments as plain values, for saving."""
        return super().get_config() | {
            "filters": self.filters,
            "kernel_size": self.kernel_size,
            "strides": self.strides,
            "padding": self.padding,
            "data_format": self.data_format,
            "dilation_rate": self.dilation_rate,
            "scheme": self.scheme,
            "activation": keras.activations.serialize(self.activation),
            "use_bias": self.use_bias,
            **bias_config(self),
        }


@keras.saving.register_keras_serializable(package="keras_lowrank")
class LowRankConv1D(_LowRankConv):
    """A `Conv1D` whose kernel is a product: the window, then channels.

    A convolution over the whole window to `rank` features, then one of window
    1 to `filters`: `rank * (k * i + filters)` weights in place of
    `k * i * filters`, with `i` input channels.

    Args:
        filters: Int, number of output channels.
        kernel_size: Int or tuple of one, the window.
        rank: Int from 1 to `min(kernel_size * i, filters)`.
        strides: As for `keras.layers.Conv1D`.
        padding: `"valid"`, `"same"` or `"causal"`.
        data_format: As for `keras.layers.Conv1D`.
        dilation_rate: As for `keras.layers.Conv1D`.
        scheme: `"channel"`, the only one in one dimension.
        activation: Activation of the output, by name or as a function.
        use_bias: Boolean.
        kernel_initializer: Initializer of the full kernel; see
            `LowRankDense`.
        bias_initializer: Initializer of the bias.
        kernel_regularizer: Regularizer of the product.
        bias_regularizer: Regularizer of the bias.
        activity_regularizer: Regularizer of the output.
        bias_constraint: Constraint of the bias.
        **kwargs: `lora_rank`, `lora_alpha`, `name`, `dtype`, `trainable`.

    Raises:
        ValueError: when `rank` or another argument is out of range.

    Example:

    >>> layer = LowRankConv1D(32, 5, rank=4, padding="causal")
    >>> tuple(layer(np.ones((2, 20, 16))).shape)
    (2, 20, 32)
    """

    full_class = keras.layers.Conv1D
    dimensions = 1


@keras.saving.register_keras_serializable(package="keras_lowrank")
class LowRankConv2D(_LowRankConv):
    """A `Conv2D` whose kernel is a product of two, by one of two schemes.

    With a window `h x w`, `i` input channels and `o` filters:

    - `"channel"`: the whole window to `rank` features, then `1 x 1` to the
      filters. Exact where the matrix `(h * w * i, o)`, which this library
      measures by default, has rank `rank`; `rank * (h * w * i + o)` weights.
    - `"spatial"`: `h x 1` to `rank` features, then `1 x w`. Exact where the
      matrix `(h * i, w * o)` has rank `rank`; `rank * (h * i + w * o)`
      weights.

    Args:
        filters: Int, number of output channels.
        kernel_size: Int or tuple of two, the window.
        rank: Int from 1 to the smaller side of the matrix of the scheme.
        strides: As for `keras.layers.Conv2D`.
        padding: `"valid"` or `"same"`.
        data_format: As for `keras.layers.Conv2D`.
        dilation_rate: As for `keras.layers.Conv2D`.
        scheme: `"channel"` or `"spatial"`.
        activation: Activation of the output, by name or as a function.
        use_bias: Boolean.
        kernel_initializer: Initializer of the full kernel; see
            `LowRankDense`.
        bias_initializer: Initializer of the bias.
        kernel_regularizer: Regularizer of the product.
        bias_regularizer: Regularizer of the bias.
        activity_regularizer: Regularizer of the output.
        bias_constraint: Constraint of the bias.
        **kwargs: `lora_rank`, `lora_alpha`, `name`, `dtype`, `trainable`.

    Raises:
        ValueError: when `rank` or another argument is out of range.

    Example:

    >>> layer = LowRankConv2D(64, 3, rank=8, padding="same", scheme="spatial")
    >>> tuple(layer(np.ones((2, 10, 10, 16))).shape), layer.count_params()
    ((2, 10, 10, 64), 1984)

    Reference:
        [Jaderberg et al., 2014](https://arxiv.org/abs/1405.3866) for the
        spatial scheme, [Denton et al., 2014](https://arxiv.org/abs/1404.0736)
        for that of channels.
    """

    full_class = keras.layers.Conv2D
    dimensions = 2
    schemes = ("channel", "spatial")
