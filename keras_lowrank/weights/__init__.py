"""The weight matrices of a model: each has a name, none is forgotten."""

from keras_lowrank.weights.collect import weight_matrices
from keras_lowrank.weights.matrices import SkippedWeight
from keras_lowrank.weights.matrices import WeightMatrices
from keras_lowrank.weights.matrices import WeightMatrix
from keras_lowrank.weights.naming import locate_layers
from keras_lowrank.weights.naming import locate_variables
