"""Ranks of the weights in a file, read one at a time and without Keras."""

from keras_lowrank.checkpoints.conditions import Condition
from keras_lowrank.checkpoints.conditions import violations
from keras_lowrank.checkpoints.formats import open_checkpoint
from keras_lowrank.checkpoints.inspection import inspect_file
from keras_lowrank.checkpoints.stored import Checkpoint
from keras_lowrank.checkpoints.stored import CheckpointError
from keras_lowrank.checkpoints.stored import StoredTensor
from keras_lowrank.checkpoints.stored import printable
