"""Keras layers: those that measure what passes through them."""

from keras_lowrank.layers.feature_rank import FeatureRank
