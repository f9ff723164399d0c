"""The networks of the paper."""

import itertools

import keras
import numpy as np


@keras.saving.register_keras_serializable(package="keras_lowrank")
class TorchUniform(keras.initializers.Initializer):
    """Uniform within `1 / sqrt(fan_in)`: torch's for kernels and biases.

    Drawn by NumPy, so that a seed gives the same weights on every backend,
    which Keras' own initializers do not.

    Args:
        fan_in: Int, inputs of a unit.
        seed: Sequence of ints >= 0.

    Example:

    >>> TorchUniform(100, seed=(0, 1))((2,)).shape
    (2,)
    """

    def __init__(self, fan_in: int, seed):
        self.fan_in = fan_in
        self.seed = tuple(seed)

    def __call__(self, shape, dtype=None):
        """Values of a shape, as a tensor."""
        bound = self.fan_in**-0.5
        values = np.random.default_rng(self.seed).uniform(-bound, bound, shape)
        return keras.ops.convert_to_tensor(
            values.astype("float32"), dtype=dtype
        )

    def get_config(self):
        """The arguments, for saving."""
        return {"fan_in": self.fan_in, "seed": self.seed}


def mlp(
    input_shape,
    classes: int,
    depth: int = 5,
    width: int = 100,
    seed: int = 0,
) -> keras.Model:
    """The paper's MLP with batch normalisation, MLP-BN-`depth`-`width`.

    Flatten, then `depth` times Dense, batch normalisation and ReLU, then a
    Dense classifier that gives logits. Initialisation and batch normalisation
    follow torch, which the paper used: weights and biases uniform within
    `1 / sqrt(fan_in)`, epsilon 1e-5, momentum 0.9.

    Args:
        input_shape: Tuple, the shape of one sample.
        classes: Int, how many logits.
        depth: Int >= 1, hidden layers; their names are `hidden_0` and on.
        width: Int >= 1, units in each.
        seed: Int, of the initialisation.

    Returns:
        An uncompiled `keras.Sequential`.

    Reference:
        [Galanti et al., CPAL 2025](https://arxiv.org/abs/2206.05794), 4.1
    """
    seeds = ((seed, position) for position in itertools.count())

    def dense(units, fan_in, name):
        return keras.layers.Dense(
            units,
            kernel_initializer=TorchUniform(fan_in, next(seeds)),
            bias_initializer=TorchUniform(fan_in, next(seeds)),
            name=name,
        )

    model = keras.Sequential(
        [keras.Input(input_shape), keras.layers.Flatten()],
        name=f"mlp_bn_{depth}_{width}",
    )
    for index in range(depth):
        fan_in = model.output_shape[-1]
        model.add(dense(width, fan_in, f"hidden_{index}"))
        model.add(
            keras.layers.BatchNormalization(
                momentum=0.9, epsilon=1e-5, name=f"normalization_{index}"
            )
        )
        model.add(keras.layers.ReLU(name=f"relu_{index}"))
    model.add(dense(classes, width, "classifier"))
    return model


# TMP
def build(name, input_shape, classes, seed=0, **o):
    return mlp(input_shape, classes, seed=seed, **o)


def paper_weights(model):
    return r"^hidden"
