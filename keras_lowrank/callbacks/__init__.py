"""Callbacks: thin. When due, measure, hand over records."""

from keras_lowrank.callbacks.rank_tracker import RankTracker
from keras_lowrank.callbacks.schedule import log_spaced
