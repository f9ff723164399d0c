"""Data sets as float32 arrays, the same on every backend."""

from keras_lowrank.experiments.data.data import Data
from keras_lowrank.experiments.data.load import DATASETS
from keras_lowrank.experiments.data.load import load
from keras_lowrank.experiments.data.made import digits
from keras_lowrank.experiments.data.made import teacher_student
