"""Search for hyperparameters that give low rank and keep the accuracy."""

from keras_lowrank.search.pareto import hypervolume
from keras_lowrank.search.pareto import pareto_mask
