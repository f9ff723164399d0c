"""Layers whose kernels are products of two, and one that measures."""

from keras_lowrank.layers.conv import LowRankConv1D
from keras_lowrank.layers.conv import LowRankConv2D
from keras_lowrank.layers.dense import LowRankDense
from keras_lowrank.layers.einsum_dense import LowRankEinsumDense
from keras_lowrank.layers.embedding import LowRankEmbedding
from keras_lowrank.layers.factored import FactoredLayer
from keras_lowrank.layers.feature_rank import FeatureRank
from keras_lowrank.layers.forms import low_rank_class
