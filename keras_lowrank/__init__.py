"""See, steer and use the low rank that SGD with weight decay gives."""

from keras_lowrank.callbacks import RankTracker
from keras_lowrank.callbacks import log_spaced
from keras_lowrank.measures import MEASURES
from keras_lowrank.measures import Measure
from keras_lowrank.measures import as_measure
from keras_lowrank.measures import as_measures
from keras_lowrank.measures import condition_number
from keras_lowrank.measures import effective_rank
from keras_lowrank.measures import energy_rank
from keras_lowrank.measures import frobenius_norm
from keras_lowrank.measures import marchenko_pastur_count
from keras_lowrank.measures import nuclear_norm
from keras_lowrank.measures import numerical_rank
from keras_lowrank.measures import participation_ratio
from keras_lowrank.measures import schatten_norm
from keras_lowrank.measures import spectral_gap
from keras_lowrank.measures import spectral_norm
from keras_lowrank.measures import stable_rank
from keras_lowrank.records import Recording
from keras_lowrank.records import open_run
from keras_lowrank.spectrum import Spectrum
from keras_lowrank.tables import KerasLowrankWarning
from keras_lowrank.version import __version__
