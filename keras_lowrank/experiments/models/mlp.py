import keras

from keras_lowrank.experiments.models.conventions import Builder
from keras_lowrank.experiments.models.weight_norm import WeightNormDense


def mlp(
    input_shape,
    classes: int,
    depth: int = 10,
    width: int = 100,
    batch_norm: bool = True,
    weight_norm: bool = False,
    residual: bool = False,
    activation: str = "relu",
    conventions="torch",
    seed: int = 0,
) -> keras.Model:
    """The paper's MLP: MLP-BN-`depth`-`width`, and its relatives.

    Flatten, then `depth` times Dense, batch normalisation and activation,
    then a Dense classifier that gives logits.

    Args:
        input_shape: Tuple, the shape of one sample.
        classes: Int, how many logits.
        depth: Int >= 1, hidden layers; their names are `hidden_0` and on.
        width: Int >= 1, units in each.
        batch_norm: Boolean, whether batch normalisation follows each.
        weight_norm: Boolean, whether hidden kernels are a direction times a
            scalar gain, as in the paper's MLP-WN, which has no batch
            normalisation.
        residual: Boolean, whether hidden layers after the first add to what
            they are given.
        activation: `"relu"` or `"leaky_relu"`.
        conventions: `"torch"`, which the paper used, `"keras"`, or a
            `Conventions`.
        seed: Int >= 0, of the initial weights, which are the same on every
            backend.

    Returns:
        An uncompiled Keras model.

    Reference:
        [Galanti et al., CPAL 2025](https://arxiv.org/abs/2206.05794), 4.1
    """
    build = Builder(conventions, activation, seed)
    inputs = keras.Input(input_shape)
    x = keras.layers.Flatten(data_format="channels_last", name="flatten")(
        inputs
    )
    for index in range(depth):
        before = x
        name = f"hidden_{index}"
        if weight_norm:
            layer = WeightNormDense(
                width, name=name, **build.initializers(x.shape[-1], width)
            )
            x = layer(x)
        else:
            x = build.dense(x, width, name)
        if batch_norm:
            x = build.batch_norm(x, f"normalization_{index}")
        x = build.activation(x, f"activation_{index}")
        if residual and index:
            x = keras.layers.Add(name=f"add_{index}")([before, x])
    outputs = build.dense(x, classes, "classifier")
    return keras.Model(inputs, outputs, name=f"mlp_{depth}_{width}")
