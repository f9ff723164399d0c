"""Callbacks: thin. When due, measure, hand over records."""

from keras_lowrank.callbacks.fit_context import build_as_fit_will
from keras_lowrank.callbacks.rank_tracker import DEFAULT_MEASURES
from keras_lowrank.callbacks.rank_tracker import RankTracker
from keras_lowrank.callbacks.recorder import Recorder
from keras_lowrank.callbacks.run_info import run_info
from keras_lowrank.callbacks.schedule import as_schedule
from keras_lowrank.callbacks.schedule import log_spaced
from keras_lowrank.callbacks.switch import SwitchToLowRank
from keras_lowrank.callbacks.theory_tracker import TheoryTracker
from keras_lowrank.callbacks.threshold import SingularValueThreshold
