"""Which low-rank layer stands for which layer of Keras."""

from keras_lowrank.layers.conv import LowRankConv1D
from keras_lowrank.layers.conv import LowRankConv2D
from keras_lowrank.layers.dense import LowRankDense
from keras_lowrank.layers.einsum_dense import LowRankEinsumDense
from keras_lowrank.layers.embedding import LowRankEmbedding
from keras_lowrank.layers.factored import FactoredLayer

_FORMS: dict[type, type[FactoredLayer]] = {
    form.full_class: form
    for form in (
        LowRankConv1D,
        LowRankConv2D,
        LowRankDense,
        LowRankEinsumDense,
        LowRankEmbedding,
    )
}


def low_rank_class(layer) -> type[FactoredLayer] | None:
    """The class of low-rank layers that stands for a layer.

    Args:
        layer: Keras layer. That of a subclass may compute something else, so
            only the classes of Keras themselves have one.

    Returns:
        A subclass of `FactoredLayer`, or `None`.

    Example:

    >>> low_rank_class(keras.layers.Dense(3)).__name__
    'LowRankDense'
    >>> low_rank_class(keras.layers.LSTM(3)) is None
    True
    """
    return _FORMS.get(type(layer))
