"""The gradient-rank lemma: how often a matrix is used, and what follows."""

from keras_lowrank.gradients.ranks import GradientRank
from keras_lowrank.gradients.ranks import GradientRanks
from keras_lowrank.gradients.ranks import gradient_spectra
from keras_lowrank.gradients.registry import register_uses
from keras_lowrank.gradients.uses import Uses
from keras_lowrank.gradients.uses import weight_uses
