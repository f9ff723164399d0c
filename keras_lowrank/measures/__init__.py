"""One function per measure: a `Spectrum` in, a number out."""

from keras_lowrank.measures.config import measure_config
from keras_lowrank.measures.config import measure_from_config
from keras_lowrank.measures.measure import MEASURES
from keras_lowrank.measures.measure import Measure
from keras_lowrank.measures.measure import as_measure
from keras_lowrank.measures.measure import as_measures
from keras_lowrank.measures.norms import condition_number
from keras_lowrank.measures.norms import frobenius_norm
from keras_lowrank.measures.norms import nuclear_norm
from keras_lowrank.measures.norms import schatten_norm
from keras_lowrank.measures.norms import spectral_gap
from keras_lowrank.measures.norms import spectral_norm
from keras_lowrank.measures.ranks import effective_rank
from keras_lowrank.measures.ranks import energy_rank
from keras_lowrank.measures.ranks import log_det
from keras_lowrank.measures.ranks import marchenko_pastur_count
from keras_lowrank.measures.ranks import numerical_rank
from keras_lowrank.measures.ranks import participation_ratio
from keras_lowrank.measures.ranks import stable_rank
