"""Experiments: data, networks, and runs that compare."""

from keras_lowrank.experiments.data import Data
from keras_lowrank.experiments.data import digits
from keras_lowrank.experiments.models import mlp
