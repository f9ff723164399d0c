"""Layers replaced by others, in a model that goes on as it was."""

from keras_lowrank.rewrite.replace import replace_layers
