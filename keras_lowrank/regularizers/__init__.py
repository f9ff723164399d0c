"""Regularizers of singular values, for any kernel of any layer."""

from keras_lowrank.regularizers.norms import NuclearNorm
from keras_lowrank.regularizers.norms import SchattenNorm
from keras_lowrank.regularizers.norms import SpectralNorm
from keras_lowrank.regularizers.norms import SquaredFrobeniusNorm
from keras_lowrank.regularizers.penalty import METHODS
from keras_lowrank.regularizers.penalty import SpectralRegularizer
from keras_lowrank.regularizers.ranks import EffectiveRank
from keras_lowrank.regularizers.ranks import LogDet
from keras_lowrank.regularizers.ranks import MeasurePenalty
from keras_lowrank.regularizers.ranks import StableRank
