"""A table of the ranks of a model, like `model.summary()`."""

from keras_lowrank.report.report import DEFAULT_MEASURES
from keras_lowrank.report.report import RankReport
from keras_lowrank.report.report import rank_report
from keras_lowrank.report.values import METHODS
from keras_lowrank.report.values import certified_notes
from keras_lowrank.report.values import measured_values
from keras_lowrank.report.values import status_of
