"""Smaller models: ranks planned, layers factored, the gain measured."""

from keras_lowrank.compress.candidates import kernel_layers
from keras_lowrank.compress.candidates import layer_names
from keras_lowrank.compress.compress import compress
from keras_lowrank.compress.layer_plan import LayerPlan
from keras_lowrank.compress.plan import CompressionPlan
from keras_lowrank.compress.planning import compression_plan
from keras_lowrank.compress.planning import quick_plan
from keras_lowrank.compress.switch import switch_to_low_rank
from keras_lowrank.compress.verification import Verification
from keras_lowrank.compress.verify import compress_and_verify
