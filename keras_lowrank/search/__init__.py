"""Search for hyperparameters that give low rank and keep the accuracy."""

from keras_lowrank.search.pareto import hypervolume
from keras_lowrank.search.pareto import pareto_mask
from keras_lowrank.search.statistics import Interval
from keras_lowrank.search.statistics import mean_interval
from keras_lowrank.search.statistics import paired_difference
