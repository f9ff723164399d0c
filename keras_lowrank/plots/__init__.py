"""Pictures of recordings and certificates: data and drawing apart."""

from keras_lowrank.plots.certificates import certificate_curve
from keras_lowrank.plots.certificates import certified_ranks
from keras_lowrank.plots.data import Line
from keras_lowrank.plots.data import Panel
from keras_lowrank.plots.data import measure_curves
from keras_lowrank.plots.data import spectrum_overlay
from keras_lowrank.plots.draw import draw_panels
from keras_lowrank.plots.maps import Map
