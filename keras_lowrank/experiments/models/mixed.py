import keras

from keras_lowrank.experiments.models.conventions import Builder


def mixed_resnet(
    input_shape,
    classes: int,
    conv_blocks: int = 5,
    dense_blocks: int = 5,
    width: int = 256,
    activation: str = "relu",
    conventions="torch",
    seed: int = 0,
) -> keras.Model:
    """The paper's network with convolutional and dense residual blocks.

    A 3 x 3 convolution, residual blocks of two 3 x 3 convolutions, each with
    batch normalisation and activation, at full resolution; then a Dense layer
    of all positions, residual blocks of two Dense layers, each with layer
    normalisation and activation, and a Dense classifier.

    The paper states that 64 * 32 * 32 values are flattened, which contradicts
    its 256 channels: here it is 256 * 32 * 32, and the first Dense layer alone
    has 67 million weights.

    Args:
        input_shape: Tuple `(height, width, channels)`.
        classes: Int, how many logits.
        conv_blocks: Int >= 0, convolutional residual blocks.
        dense_blocks: Int >= 0, dense residual blocks.
        width: Int >= 1, channels and units.
        activation: As for `mlp`.
        conventions: As for `mlp`.
        seed: As for `mlp`.

    Returns:
        An uncompiled Keras model. The matrices of its blocks are `conv_0` and
        `hidden_0` and on; those before the blocks are `conv_stem` and
        `hidden_entry`, which the paper's averages do not seem to be over.

    Reference:
        [Galanti et al., CPAL 2025](https://arxiv.org/abs/2206.05794), B
    """
    build = Builder(conventions, activation, seed)

    def conv(x, index):
        x = build.conv(x, width, 3, f"conv_{index}", use_bias=False)
        x = build.batch_norm(x, f"normalization_{index}")
        return build.activation(x, f"activation_{index}")

    def dense(x, index):
        x = build.dense(x, width, f"hidden_{index}")
        x = build.layer_norm(x, f"hidden_normalization_{index}")
        return build.activation(x, f"hidden_activation_{index}")

    inputs = keras.Input(input_shape)
    x = conv(inputs, "stem")
    for block in range(conv_blocks):
        y = conv(conv(x, 2 * block), 2 * block + 1)
        x = keras.layers.Add(name=f"add_{block}")([x, y])
    x = keras.layers.Flatten(data_format="channels_last", name="flatten")(x)
    x = dense(x, "entry")
    for block in range(dense_blocks):
        y = dense(dense(x, 2 * block), 2 * block + 1)
        x = keras.layers.Add(name=f"hidden_add_{block}")([x, y])
    outputs = build.dense(x, classes, "classifier")
    return keras.Model(inputs, outputs, name="mixed_resnet")
