"""`LowRankDense`: a dense layer whose kernel has low rank."""

import keras

from keras_lowrank.layers.factored import FactoredLayer
from keras_lowrank.matricize import Matricization


@keras.saving.register_keras_serializable(package="keras_lowrank")
class LowRankDense(FactoredLayer):
    """A `Dense` layer whose kernel is a product of two: `W = A B`.

    Maps `(..., m)` to `(..., units)` through `rank` features, with
    `rank * (m + units)` weights in place of `m * units`. That is fewer, and
    less work, below a rank of `m * units / (m + units)`.

    Args:
        units: Int, size of the output.
        rank: Int from 1 to `min(m, units)`.
        activation: Activation of the output, by name or as a function.
        use_bias: Boolean.
        kernel_initializer: Initializer of the full kernel `(m, units)`. The
            factors start as its best approximation of rank `rank`, split
            evenly (*spectral initialization*).
        bias_initializer: Initializer of the bias.
        kernel_regularizer: Regularizer of the product `A B`, not of the
            factors: an `L2` is Frobenius decay, and does not form the product.
        bias_regularizer: Regularizer of the bias.
        activity_regularizer: Regularizer of the output.
        bias_constraint: Constraint of the bias.
        **kwargs: `lora_rank`, `lora_alpha`, `name`, `dtype`, `trainable`.

    Raises:
        ValueError: when `rank` is not between 1 and `min(m, units)`.

    Example:

    >>> layer = LowRankDense(64, rank=4)
    >>> tuple(layer(np.ones((2, 32))).shape), layer.count_params()
    ((2, 64), 448)
    >>> full = keras.layers.Dense(64)
    >>> full.build((None, 32))
    >>> LowRankDense.from_layer(full, rank=8).rank
    8

    Reference:
        [Khodak et al., 2021](https://arxiv.org/abs/2105.01029): spectral
        initialization and Frobenius decay.
    """

    full_class = keras.layers.Dense

    def __init__(
        self,
        units,
        rank,
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
        self.supports_masking = True
        self.units = units
        self.activation = keras.activations.get(activation)
        self.use_bias = use_bias
        self.bias_initializer = keras.initializers.get(bias_initializer)
        self.bias_regularizer = keras.regularizers.get(bias_regularizer)
        self.bias_constraint = keras.constraints.get(bias_constraint)

    def full_shape(self, input_shape):
        """`(m, units)`."""
        return input_shape[-1], self.units

    def factorization(self, shape):
        """Inputs are rows."""
        return Matricization(rows=(0,), columns=(1,))

    def make_factors(self, input_shape, initializers, dtypes):
        """Two dense layers, the second with bias and activation."""
        reduce, expand = initializers
        return (
            keras.layers.Dense(
                self.rank,
                use_bias=False,
                kernel_initializer=reduce,
                dtype=dtypes[0],
                name="reduce",
            ),
            keras.layers.Dense(
                self.units,
                activation=self.activation,
                use_bias=self.use_bias,
                kernel_initializer=expand,
                bias_initializer=self.bias_initializer,
                bias_regularizer=self.bias_regularizer,
                bias_constraint=self.bias_constraint,
                dtype=dtypes[1],
                name="expand",
            ),
        )

    def split(self, product, shape):
        """The matrices are the kernels."""
        return product.left, product.right

    def matrices(self, reduce, expand, xp):
        """The kernels are the matrices."""
        return reduce, expand

    def vectors(self, inputs):
        """Along the last axis."""
        return keras.ops.reshape(inputs, (-1, inputs.shape[-1]))

    @property
    def product_equation(self):
        """As a matrix product."""
        return "mr,rn->mn"

    def get_config(self):
        """The arguments as plain values, for saving."""
        return super().get_config() | {
            "units": self.units,
            "activation": keras.activations.serialize(self.activation),
            "use_bias": self.use_bias,
            **bias_config(self),
        }


def bias_config(layer) -> dict:
    """Config of what concerns the bias."""
    return {
        "bias_initializer": keras.initializers.serialize(
            layer.bias_initializer
        ),
        "bias_regularizer": keras.regularizers.serialize(
            layer.bias_regularizer
        ),
        "bias_constraint": keras.constraints.serialize(layer.bias_constraint),
    }
