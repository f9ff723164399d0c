import keras

from keras_lowrank.experiments.models.conventions import Builder

_BLOCKS = ((64, 64), (128, 128), (256,) * 3, (512,) * 3, (512,) * 3)


def vgg16(
    input_shape,
    classes: int,
    dropout: float = 0.0,
    activation: str = "relu",
    conventions="torch",
    seed: int = 0,
) -> keras.Model:
    """VGG-16 with batch normalisation and one Dense layer, as on CIFAR.

    Args:
        input_shape: Tuple `(height, width, channels)`, from 32 x 32 on.
        classes: Int, how many logits.
        dropout: Float in [0, 1), before the classifier; 0.5 in the paper's
            `vgg_dropout`.
        activation: As for `mlp`.
        conventions: As for `mlp`.
        seed: As for `mlp`.

    Returns:
        An uncompiled Keras model. Its convolutions are `conv_0` to `conv_12`,
        as the paper numbers them.

    Reference:
        [Simonyan & Zisserman, 2015](https://arxiv.org/abs/1409.1556)
    """
    build = Builder(conventions, activation, seed)
    inputs = keras.Input(input_shape)
    x, index = inputs, 0
    for block, widths in enumerate(_BLOCKS):
        for filters in widths:
            x = build.conv(x, filters, 3, f"conv_{index}")
            x = build.batch_norm(x, f"normalization_{index}")
            x = build.activation(x, f"activation_{index}")
            index += 1
        x = keras.layers.MaxPooling2D(
            data_format="channels_last", name=f"pool_{block}"
        )(x)
    x = keras.layers.Flatten(data_format="channels_last", name="flatten")(x)
    if dropout:
        x = keras.layers.Dropout(dropout, seed=seed, name="dropout")(x)
    outputs = build.dense(x, classes, "classifier")
    return keras.Model(inputs, outputs, name="vgg16")
