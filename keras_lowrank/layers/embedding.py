"""`LowRankEmbedding`: an embedding whose table has low rank."""

import keras

from keras_lowrank.layers.factored import FactoredLayer
from keras_lowrank.matricize import Matricization


@keras.saving.register_keras_serializable(package="keras_lowrank")
class LowRankEmbedding(FactoredLayer):
    """An `Embedding` whose table is a product of two.

    Looks up `rank` features of each token and expands them, with
    `rank * (input_dim + output_dim)` weights in place of
    `input_dim * output_dim`. The table gets smaller; looking up gets slower,
    by one small matrix product.

    Args:
        input_dim: Int, size of the vocabulary.
        output_dim: Int, size of the embedding.
        rank: Int from 1 to `min(input_dim, output_dim)`.
        embeddings_initializer: Initializer of the full table; see
            `LowRankDense`.
        embeddings_regularizer: Regularizer of the product.
        mask_zero: Boolean, whether token 0 is padding, as in Keras.
        **kwargs: `lora_rank`, `lora_alpha`, `name`, `dtype`, `trainable`.

    Raises:
        ValueError: when `rank` is not between 1 and
            `min(input_dim, output_dim)`.

    Example:

    >>> layer = LowRankEmbedding(1000, 64, rank=8)
    >>> tuple(layer(np.array([[1, 2, 3]])).shape), layer.count_params()
    ((1, 3, 64), 8512)
    """

    full_class = keras.layers.Embedding
    kernel_name = "embeddings"

    def __init__(
        self,
        input_dim,
        output_dim,
        rank,
        embeddings_initializer="uniform",
        embeddings_regularizer=None,
        mask_zero=False,
        **kwargs,
    ):
        super().__init__(
            rank, embeddings_initializer, embeddings_regularizer, **kwargs
        )
        self.input_dim = input_dim
        self.output_dim = output_dim
        self.embeddings_initializer = self.kernel_initializer
        self.embeddings_regularizer = self.kernel_regularizer
        self.mask_zero = mask_zero
        self.supports_masking = mask_zero
        self.autocast = False  # tokens are no floats, even where they look so

    @property
    def embeddings(self):
        """The table that the factors make, a tensor formed when asked."""
        return self.kernel

    def build(self, input_shape=None):
        """Create the factors; the shape of the input does not matter."""
        super().build((None,) if input_shape is None else input_shape)

    @staticmethod
    def shape_of_inputs(layer):
        """Any shape will do."""
        return (None,)

    def full_shape(self, input_shape):
        """`(input_dim, output_dim)`."""
        return self.input_dim, self.output_dim

    def factorization(self, shape):
        """Tokens are rows."""
        return Matricization(rows=(0,), columns=(1,))

    def make_factors(self, input_shape, initializers, dtypes):
        """A narrow embedding and a dense layer."""
        reduce, expand = initializers
        return (
            keras.layers.Embedding(
                self.input_dim,
                self.rank,
                embeddings_initializer=reduce,
                mask_zero=self.mask_zero,
                dtype=dtypes[0],
                name="reduce",
            ),
            keras.layers.Dense(
                self.output_dim,
                use_bias=False,
                kernel_initializer=expand,
                dtype=dtypes[1],
                name="expand",
            ),
        )

    def split(self, product, shape):
        """The matrices are table and kernel."""
        return product.left, product.right

    def matrices(self, reduce, expand, xp):
        """Table and kernel are the matrices."""
        return reduce, expand

    @property
    def product_equation(self):
        """As a matrix product."""
        return "mr,rn->mn"

    def compute_mask(self, inputs, mask=None):
        """As in Keras: tokens that are not 0, if `mask_zero`."""
        if not self.mask_zero:
            return None
        return keras.ops.not_equal(inputs, 0)

    def get_config(self):
        """The arguments as plain values, for saving."""
        return super().get_config() | {
            "input_dim": self.input_dim,
            "output_dim": self.output_dim,
            "mask_zero": self.mask_zero,
        }
