"""Weight decay that means one thing on every backend."""

from keras_lowrank.decay.convention import convert_weight_decay
from keras_lowrank.decay.explain import WeightDecayTable
from keras_lowrank.decay.explain import explain_weight_decay
from keras_lowrank.decay.explain import weight_decay_table
from keras_lowrank.decay.optimizer import DecayedOptimizer
from keras_lowrank.decay.policy import WeightDecay
from keras_lowrank.decay.routes import decaying
from keras_lowrank.decay.routes import updater
from keras_lowrank.decay.scheduler import WeightDecayScheduler
from keras_lowrank.decay.scheduler import decayed_optimizers
from keras_lowrank.decay.torch_sgd import TorchSGD
