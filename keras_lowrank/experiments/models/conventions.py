"""What torch and Keras do differently when nobody says otherwise."""

import dataclasses
import itertools

import keras
import numpy as np


@dataclasses.dataclass(frozen=True)
class Conventions:
    """How layers begin and what they do at edges.

    Args:
        initialization: `"torch"`, uniform within `1 / sqrt(fan_in)` for
            kernels and biases; or `"keras"`, Glorot uniform and zeros.
        epsilon: Float, of batch and layer normalisation.
        momentum: Float, of the moving statistics of batch normalisation.
        padding: `"torch"`, as much on all sides; or `"keras"`, what is left
            over after a stride at the right and bottom.
        leaky_slope: Float, of leaky ReLU.
    """

    initialization: str = "torch"
    epsilon: float = 1e-5
    momentum: float = 0.9
    padding: str = "torch"
    leaky_slope: float = 0.01


CONVENTIONS = {
    "torch": Conventions(),
    "keras": Conventions("keras", 1e-3, 0.99, "keras", 0.3),
}

ACTIVATIONS = ("relu", "leaky_relu")


@keras.saving.register_keras_serializable(package="keras_lowrank")
class SeededUniform(keras.initializers.Initializer):
    """Uniform within a bound, the same on every backend.

    Drawn by NumPy: Keras' own initializers give other values on each backend.

    Args:
        bound: Float; values lie in `[-bound, bound)`.
        seed: Sequence of ints >= 0.

    Example:

    >>> tuple(SeededUniform(0.1, seed=(0, 1))((2,)).shape)
    (2,)
    """

    def __init__(self, bound: float, seed):
        self.bound = bound
        self.seed = tuple(seed)

    def __call__(self, shape, dtype=None):
        """Values of a shape, as a tensor."""
        rng = np.random.default_rng(self.seed)
        values = rng.uniform(-self.bound, self.bound, shape)
        return keras.ops.convert_to_tensor(
            values.astype("float32"), dtype=dtype
        )

    def get_config(self):
        """The arguments, for saving."""
        return {"bound": self.bound, "seed": self.seed}


class Builder:
    """Adds layers to a functional model, all in the same conventions.

    Args:
        conventions: `Conventions`, or a name out of `CONVENTIONS`.
        activation: String, one of `ACTIVATIONS`.
        seed: Int >= 0. Every kernel and bias has a stream of its own, by its
            position.

    Raises:
        ValueError: for unknown conventions or another activation.
    """

    def __init__(self, conventions, activation: str, seed: int):
        if isinstance(conventions, str) and conventions in CONVENTIONS:
            conventions = CONVENTIONS[conventions]
        if not isinstance(conventions, Conventions):
            raise ValueError(
                f"`conventions` must be one of {tuple(CONVENTIONS)}, or a "
                f"`Conventions`. Received: conventions={conventions!r}."
            )
        if activation not in ACTIVATIONS:
            raise ValueError(
                f"`activation` must be one of {ACTIVATIONS}. "
                f"Received: activation={activation!r}."
            )
        self.conventions = conventions
        self.activation_name = activation
        self._seeds = ((seed, position) for position in itertools.count())

    def uniform(self, bound: float) -> SeededUniform:
        """An initializer with the next seed."""
        return SeededUniform(bound, next(self._seeds))

    def initializers(self, fan_in: int, fan_out: int, use_bias: bool = True):
        """Keyword arguments of a layer: initializers of kernel and bias."""
        if self.conventions.initialization == "keras":
            bound = (6 / (fan_in + fan_out)) ** 0.5
            return {"kernel_initializer": self.uniform(bound)}
        chosen = {"kernel_initializer": self.uniform(fan_in**-0.5)}
        if use_bias:
            chosen["bias_initializer"] = self.uniform(fan_in**-0.5)
        return chosen

    def dense(self, x, units: int, name: str):
        """A Dense layer with bias, of vectors or of each token."""
        inputs = x.shape[-1]
        layer = keras.layers.Dense(
            units, name=name, **self.initializers(inputs, units)
        )
        return layer(x)

    def conv(
        self,
        x,
        filters: int,
        size: int,
        name: str,
        stride: int = 1,
        use_bias: bool = True,
    ):
        """A convolution that keeps the size, but for its stride.

        Odd kernels are padded by `size // 2`, even ones not at all.
        """
        padding = "same" if size % 2 else "valid"
        if stride > 1 and size > 1 and self.conventions.padding == "torch":
            if size % 2:
                pad = keras.layers.ZeroPadding2D(
                    size // 2, data_format="channels_last", name=f"{name}_pad"
                )
                x = pad(x)
            padding = "valid"
        area = size**2
        layer = keras.layers.Conv2D(
            filters,
            size,
            strides=stride,
            padding=padding,
            use_bias=use_bias,
            data_format="channels_last",
            name=name,
            **self.initializers(
                area * x.shape[-1], area * filters, use_bias=use_bias
            ),
        )
        return layer(x)

    def batch_norm(self, x, name: str):
        """Batch normalisation over all but the channels."""
        return keras.layers.BatchNormalization(
            momentum=self.conventions.momentum,
            epsilon=self.conventions.epsilon,
            name=name,
        )(x)

    def layer_norm(self, x, name: str):
        """Layer normalisation over the features."""
        return keras.layers.LayerNormalization(
            epsilon=self.conventions.epsilon, name=name
        )(x)

    def activation(self, x, name: str):
        """The activation of the network."""
        if self.activation_name == "relu":
            return keras.layers.ReLU(name=name)(x)
        slope = self.conventions.leaky_slope
        return keras.layers.LeakyReLU(negative_slope=slope, name=name)(x)
