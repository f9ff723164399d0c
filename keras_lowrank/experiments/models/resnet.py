import keras

from keras_lowrank.experiments.models.conventions import Builder

# Blocks in each stage, and whether they are bottlenecks.
_STAGES = {
    18: ((2, 2, 2, 2), False),
    34: ((3, 4, 6, 3), False),
    50: ((3, 4, 6, 3), True),
    101: ((3, 4, 23, 3), True),
    152: ((3, 8, 36, 3), True),
}


def resnet(
    input_shape,
    classes: int,
    depth: int = 18,
    width: int = 64,
    activation: str = "relu",
    conventions="torch",
    seed: int = 0,
) -> keras.Model:
    """ResNet for images of 32 x 32, as on CIFAR.

    A 3 x 3 convolution instead of the 7 x 7 one with stride and pooling of
    ImageNet; then four stages, each of twice the channels of the one before.

    The convolutions that the paper numbers as layers 0, 1, ... are `conv_0`,
    `conv_1`, ...; the 1 x 1 convolutions of shortcuts, which it leaves out,
    are `shortcut_<k>`, beside the first convolution of their block.

    Args:
        input_shape: Tuple `(height, width, channels)`.
        classes: Int, how many logits.
        depth: Int: 18, 34, 50, 101 or 152.
        width: Int >= 1, channels of the first stage: 64 in the paper, so that
            the last has 512.
        activation: As for `mlp`.
        conventions: As for `mlp`.
        seed: As for `mlp`.

    Returns:
        An uncompiled Keras model.

    Raises:
        ValueError: for another depth.

    Reference:
        [He et al., 2016](https://arxiv.org/abs/1512.03385)
    """
    if depth not in _STAGES:
        raise ValueError(
            f"`depth` must be one of {tuple(_STAGES)}. Received: {depth!r}."
        )
    build = Builder(conventions, activation, seed)
    blocks, bottleneck = _STAGES[depth]
    inputs = keras.Input(input_shape)
    x = build.conv(inputs, width, 3, "conv_0", use_bias=False)
    x = build.batch_norm(x, "normalization_0")
    x = build.activation(x, "activation_0")
    index = 1
    for stage, count in enumerate(blocks):
        filters = width * 2**stage
        for block in range(count):
            stride = 2 if stage and not block else 1
            plan = (
                ((filters, 1, 1), (filters, 3, stride), (4 * filters, 1, 1))
                if bottleneck
                else ((filters, 3, stride), (filters, 3, 1))
            )
            x = _block(build, x, plan, stride, index)
            index += len(plan)
    x = keras.layers.GlobalAveragePooling2D(
        data_format="channels_last", name="pool"
    )(x)
    outputs = build.dense(x, classes, "classifier")
    return keras.Model(inputs, outputs, name=f"resnet{depth}")


def _block(build: Builder, x, plan, stride: int, first: int):
    """Convolutions `first` and on, and what is added to them."""
    shortcut = x
    for offset, (filters, size, step) in enumerate(plan):
        index = first + offset
        x = build.conv(
            x, filters, size, f"conv_{index}", stride=step, use_bias=False
        )
        x = build.batch_norm(x, f"normalization_{index}")
        if offset < len(plan) - 1:
            x = build.activation(x, f"activation_{index}")
    if stride > 1 or shortcut.shape[-1] != x.shape[-1]:
        shortcut = build.conv(
            shortcut,
            x.shape[-1],
            1,
            f"shortcut_{first}",
            stride=stride,
            use_bias=False,
        )
        shortcut = build.batch_norm(shortcut, f"shortcut_{first}_normalization")
    x = keras.layers.Add(name=f"add_{index}")([x, shortcut])
    return build.activation(x, f"activation_{index}")
