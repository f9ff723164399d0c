"""One experiment on several backends: where they part, and by which weight."""

from keras_lowrank.experiments.compare.compare import compare
from keras_lowrank.experiments.compare.comparison import Comparison
from keras_lowrank.experiments.compare.divergence import Divergence
from keras_lowrank.experiments.compare.divergence import Excess
from keras_lowrank.experiments.compare.side import Side
