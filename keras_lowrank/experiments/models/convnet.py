import keras

from keras_lowrank.experiments.models.conventions import Builder


def convnet(
    input_shape,
    classes: int,
    depth: int = 5,
    width: int = 1000,
    batch_norm: bool = False,
    activation: str = "relu",
    conventions="torch",
    seed: int = 0,
) -> keras.Model:
    """ConvNet-`depth`-`width`: convolutions of one width, without pooling.

    Two 2 x 2 convolutions with stride 2, then `depth` 3 x 3 convolutions that
    keep the size, then a Dense classifier of all positions.

    Args:
        input_shape: Tuple `(height, width, channels)`.
        classes: Int, how many logits.
        depth: Int >= 1, convolutions after the first two.
        width: Int >= 1, channels of each.
        batch_norm: Boolean, whether batch normalisation follows each.
        activation: As for `mlp`.
        conventions: As for `mlp`.
        seed: As for `mlp`.

    Returns:
        An uncompiled Keras model. Its convolutions are `conv_0` and on, the
        two of stride 2 first.

    Reference:
        [Galanti et al., CPAL 2025](https://arxiv.org/abs/2206.05794)
    """
    build = Builder(conventions, activation, seed)
    inputs = keras.Input(input_shape)
    x = _quarter(build, inputs, width, batch_norm)
    for index in range(2, depth + 2):
        x = build.conv(x, width, 3, f"conv_{index}")
        if batch_norm:
            x = build.batch_norm(x, f"normalization_{index}")
        x = build.activation(x, f"activation_{index}")
    x = keras.layers.Flatten(data_format="channels_last", name="flatten")(x)
    outputs = build.dense(x, classes, "classifier")
    return keras.Model(inputs, outputs, name=f"convnet_{depth}_{width}")


def conv_resnet(
    input_shape,
    classes: int,
    depth: int = 5,
    width: int = 100,
    alpha: float = 1.0,
    activation: str = "relu",
    conventions="torch",
    seed: int = 0,
) -> keras.Model:
    """ConvResNet: residual blocks of one width, without pooling.

    Two 2 x 2 convolutions with stride 2 and batch normalisation, then `depth`
    blocks `x + alpha * f(x)`, each followed by the activation; `f` is
    convolution, batch normalisation, ReLU, convolution, batch normalisation.

    Args:
        input_shape: Tuple `(height, width, channels)`.
        classes: Int, how many logits.
        depth: Int >= 1, residual blocks.
        width: Int >= 1, channels.
        alpha: Float, weight of the residual branch.
        activation: As for `mlp`.
        conventions: As for `mlp`.
        seed: As for `mlp`.

    Returns:
        An uncompiled Keras model. Its convolutions are `conv_0` and on.
    """
    build = Builder(conventions, activation, seed)
    inputs = keras.Input(input_shape)
    x = _quarter(build, inputs, width, batch_norm=True)
    for block in range(depth):
        first = 2 + 2 * block
        y = build.conv(x, width, 3, f"conv_{first}")
        y = build.batch_norm(y, f"normalization_{first}")
        y = keras.layers.ReLU(name=f"relu_{first}")(y)
        y = build.conv(y, width, 3, f"conv_{first + 1}")
        y = build.batch_norm(y, f"normalization_{first + 1}")
        if alpha != 1:
            y = keras.layers.Rescaling(alpha, name=f"alpha_{block}")(y)
        x = keras.layers.Add(name=f"add_{block}")([x, y])
        x = build.activation(x, f"activation_{first + 1}")
    x = keras.layers.Flatten(data_format="channels_last", name="flatten")(x)
    outputs = build.dense(x, classes, "classifier")
    return keras.Model(inputs, outputs, name=f"conv_resnet_{depth}_{width}")


def _quarter(build: Builder, x, width: int, batch_norm: bool):
    """Two convolutions that halve the size, and one activation."""
    for index in range(2):
        x = build.conv(x, width, 2, f"conv_{index}", stride=2)
        if batch_norm:
            x = build.batch_norm(x, f"normalization_{index}")
    return build.activation(x, "activation_1")
