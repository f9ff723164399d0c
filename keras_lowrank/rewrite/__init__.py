"""Layers replaced by others, in a model that goes on as it was."""

from keras_lowrank.rewrite.copying import check_copy
from keras_lowrank.rewrite.copying import compile_like
from keras_lowrank.rewrite.copying import copy_model
from keras_lowrank.rewrite.low_rank import make_low_rank
from keras_lowrank.rewrite.replace import replace_layers
