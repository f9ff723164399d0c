"""The networks of the paper."""

import keras


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
    seeds = iter(range(1000 * seed, 1000 * seed + 2 * (depth + 1)))

    def dense(units, fan_in, name):
        bound = fan_in**-0.5
        return keras.layers.Dense(
            units,
            kernel_initializer=keras.initializers.RandomUniform(
                -bound, bound, seed=next(seeds)
            ),
            bias_initializer=keras.initializers.RandomUniform(
                -bound, bound, seed=next(seeds)
            ),
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
