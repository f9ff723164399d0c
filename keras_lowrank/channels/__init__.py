"""Channels that carry nothing, which a low rank may come from."""

from keras_lowrank.channels.count import THRESHOLD
from keras_lowrank.channels.count import Channels
from keras_lowrank.channels.count import count_channels
from keras_lowrank.channels.dead import channel_rows
from keras_lowrank.channels.dead import dead_channels
