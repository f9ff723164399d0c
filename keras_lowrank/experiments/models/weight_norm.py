"""Weight normalisation with one gain for a whole layer."""

import keras
from keras import ops

from keras_lowrank.matricize import Matricization
from keras_lowrank.matricize import register_matricization


@keras.saving.register_keras_serializable(package="keras_lowrank")
class WeightNormDense(keras.layers.Layer):
    """Dense layer whose kernel is a direction times a scalar gain.

    Computes `x @ (gain * kernel / norm(kernel)) + bias`, with the Frobenius
    norm over the whole kernel, and starts with the gain that makes this the
    initial kernel. A decay of `kernel` alone does not change what is computed.

    `weight_matrices` gives the direction, `kernel`: its spectrum is that of
    the weight applied, but for the scale, which is the `gain`.

    Args:
        units: Int >= 1.
        kernel_initializer: Initializer of the kernel.
        bias_initializer: Initializer of the bias.
        **kwargs: `name`, `dtype` and so on, as for every layer.

    Input shape:
        `(..., inputs)`.

    Output shape:
        `(..., units)`.

    Reference:
        [Salimans & Kingma, 2016](https://arxiv.org/abs/1602.07868), with one
        gain instead of one for each unit.
    """

    def __init__(
        self,
        units: int,
        kernel_initializer="glorot_uniform",
        bias_initializer="zeros",
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.units = units
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.bias_initializer = keras.initializers.get(bias_initializer)

    def build(self, input_shape):
        """Create kernel, gain and bias.

        Args:
            input_shape: Tuple, `(..., inputs)`.
        """
        self.kernel = self.add_weight(
            shape=(input_shape[-1], self.units),
            initializer=self.kernel_initializer,
            name="kernel",
        )
        self.gain = self.add_weight(shape=(), initializer="ones", name="gain")
        self.gain.assign(ops.norm(ops.cast(self.kernel, self.variable_dtype)))
        self.bias = self.add_weight(
            shape=(self.units,), initializer=self.bias_initializer, name="bias"
        )

    def call(self, inputs):
        """Apply the layer."""
        kernel = ops.cast(self.kernel, self.compute_dtype)
        scale = ops.cast(self.gain, self.compute_dtype) / ops.norm(kernel)
        outputs = ops.matmul(inputs, kernel * scale)
        return outputs + ops.cast(self.bias, self.compute_dtype)

    def compute_output_shape(self, input_shape):
        """Shape of the output."""
        return (*input_shape[:-1], self.units)

    def get_config(self):
        """The arguments, for saving."""
        serialize = keras.initializers.serialize
        return super().get_config() | {
            "units": self.units,
            "kernel_initializer": serialize(self.kernel_initializer),
            "bias_initializer": serialize(self.bias_initializer),
        }


@register_matricization(WeightNormDense)
def _weight_norm_dense(layer, variable):
    if variable.name == "kernel":
        return Matricization(rows=(0,), columns=(1,))
    return None
