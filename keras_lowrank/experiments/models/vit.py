import keras
from keras import ops

from keras_lowrank.experiments.models.conventions import Builder


@keras.saving.register_keras_serializable(package="keras_lowrank")
class AddPositions(keras.layers.Layer):
    """Adds a learned vector to each token.

    Args:
        initializer: Initializer of the vectors.
        **kwargs: `name`, `dtype` and so on, as for every layer.

    Input shape:
        `(batch, tokens, features)`.

    Output shape:
        The same.
    """

    def __init__(self, initializer="zeros", **kwargs):
        super().__init__(**kwargs)
        self.initializer = keras.initializers.get(initializer)

    def build(self, input_shape):
        """Create one vector for each token.

        Args:
            input_shape: Tuple `(batch, tokens, features)`.
        """
        self.embedding = self.add_weight(
            shape=input_shape[1:],
            initializer=self.initializer,
            name="position_embedding",
        )

    def call(self, inputs):
        """Add the vectors."""
        return inputs + ops.cast(self.embedding, self.compute_dtype)

    def get_config(self):
        """The arguments, for saving."""
        initializer = keras.initializers.serialize(self.initializer)
        return super().get_config() | {"initializer": initializer}


def vit(
    input_shape,
    classes: int,
    depth: int = 6,
    heads: int = 8,
    width: int = 512,
    mlp_width: int = 512,
    patch: int = 4,
    dropout: float = 0.1,
    conventions="torch",
    seed: int = 0,
) -> keras.Model:
    """A small vision transformer.

    Patches, a learned position for each, then `depth` blocks of attention and
    of two Dense layers with GELU, with layer normalisation before each and
    dropout after; a last layer normalisation, the mean over the tokens, and a
    Dense classifier.

    The paper gives patches of 4 x 4, 6 blocks, 8 heads and dropout 0.1. It
    leaves open the widths, where the normalisation stands, whether there is a
    class token, and how positions begin. Here: 512, which fits the rank it
    reports at the start; before; none; uniform within 0.02.

    Args:
        input_shape: Tuple `(height, width, channels)`, multiples of `patch`.
        classes: Int, how many logits.
        depth: Int >= 1, blocks.
        heads: Int >= 1, attention heads; divides `width`.
        width: Int >= 1, features of a token.
        mlp_width: Int >= 1, units of the first Dense layer of a block.
        patch: Int >= 1, side of a patch.
        dropout: Float in [0, 1).
        conventions: As for `mlp`.
        seed: As for `mlp`.

    Returns:
        An uncompiled Keras model. In block `i` its kernels are `query_i`,
        `key_i`, `value_i`, `attention_i`, `dense_i_0` and `dense_i_1`.

    Raises:
        ValueError: when sizes do not divide each other.

    Reference:
        [Dosovitskiy et al., 2021](https://arxiv.org/abs/2010.11929)
    """
    rows, columns, channels = input_shape
    if rows % patch or columns % patch:
        raise ValueError(
            f"`patch` must divide the image. Received: patch={patch} for "
            f"images of {rows} x {columns}."
        )
    if width % heads:
        raise ValueError(
            "`heads` must divide `width`. "
            f"Received: heads={heads}, width={width}."
        )
    build = Builder(conventions, "relu", seed)
    seeds = iter(range(1000 * seed, 1000 * (seed + 1)))

    def drop(x, name):
        if not dropout:
            return x
        return keras.layers.Dropout(dropout, seed=next(seeds), name=name)(x)

    inputs = keras.Input(input_shape)
    tokens = (rows // patch) * (columns // patch)
    patches = keras.layers.Conv2D(
        width,
        patch,
        strides=patch,
        data_format="channels_last",
        name="patches",
        **build.initializers(patch**2 * channels, patch**2 * width),
    )
    x = keras.layers.Reshape((tokens, width), name="tokens")(patches(inputs))
    x = AddPositions(build.uniform(0.02), name="positions")(x)
    for block in range(depth):
        y = build.layer_norm(x, f"attention_norm_{block}")
        y = _attention(build, y, heads, block)
        x = keras.layers.Add(name=f"attention_add_{block}")(
            [x, drop(y, f"attention_dropout_{block}")]
        )
        y = build.layer_norm(x, f"dense_norm_{block}")
        y = build.dense(y, mlp_width, f"dense_{block}_0")
        y = keras.layers.Activation("gelu", name=f"gelu_{block}")(y)
        y = drop(y, f"dense_dropout_{block}_0")
        y = build.dense(y, width, f"dense_{block}_1")
        x = keras.layers.Add(name=f"dense_add_{block}")(
            [x, drop(y, f"dense_dropout_{block}_1")]
        )
    x = build.layer_norm(x, "norm")
    x = keras.layers.GlobalAveragePooling1D(
        data_format="channels_last", name="mean"
    )(x)
    outputs = build.dense(x, classes, "classifier")
    return keras.Model(inputs, outputs, name=f"vit_{depth}_{width}")


def _attention(build: Builder, x, heads: int, block: int):
    """Self-attention, with each of its four kernels a Dense layer."""
    _, tokens, width = x.shape
    torch = build.conventions.initialization == "torch"

    def project(x, name, bound):
        # Torch begins attention with Xavier bounds and without biases.
        chosen = (
            {"kernel_initializer": build.uniform(bound)}
            if torch
            else build.initializers(width, width)
        )
        return keras.layers.Dense(width, name=f"{name}_{block}", **chosen)(x)

    # Torch keeps the three in one matrix, and takes its fans.
    together = (6 / (width + 3 * width)) ** 0.5
    parts = [
        keras.layers.Reshape(
            (tokens, heads, width // heads), name=f"{name}_heads_{block}"
        )(project(x, name, together))
        for name in ("query", "key", "value")
    ]
    mixed = ops.dot_product_attention(*parts)
    joined = keras.layers.Reshape((tokens, width), name=f"joined_{block}")
    return project(joined(mixed), "attention", width**-0.5)
