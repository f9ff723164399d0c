"""Pictures of recordings and certificates: data and drawing apart."""

from keras_lowrank.plots.certificates import certificate_curve
from keras_lowrank.plots.certificates import certified_curves
from keras_lowrank.plots.certificates import certified_ranks
from keras_lowrank.plots.curves import clock_curves
from keras_lowrank.plots.curves import compressibility_curves
from keras_lowrank.plots.curves import final_map
from keras_lowrank.plots.curves import final_values
from keras_lowrank.plots.curves import norm_ratio_curves
from keras_lowrank.plots.curves import norm_ratios
from keras_lowrank.plots.curves import rank_and_metric
from keras_lowrank.plots.curves import weight_curves
from keras_lowrank.plots.data import Line
from keras_lowrank.plots.data import Panel
from keras_lowrank.plots.data import measure_curves
from keras_lowrank.plots.data import spectrum_overlay
from keras_lowrank.plots.draw import draw_panels
from keras_lowrank.plots.heat import Heat
from keras_lowrank.plots.heat import spectrum_over_time
from keras_lowrank.plots.maps import Map
