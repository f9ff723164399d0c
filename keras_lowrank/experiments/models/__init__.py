"""The networks of the paper, in torch's conventions, which it used."""

from keras_lowrank.experiments.models.conventions import CONVENTIONS
from keras_lowrank.experiments.models.conventions import Conventions
from keras_lowrank.experiments.models.conventions import SeededUniform
from keras_lowrank.experiments.models.convnet import conv_resnet
from keras_lowrank.experiments.models.convnet import convnet
from keras_lowrank.experiments.models.mixed import mixed_resnet
from keras_lowrank.experiments.models.mlp import mlp
from keras_lowrank.experiments.models.registry import NETWORKS
from keras_lowrank.experiments.models.registry import PAPER_WEIGHTS
from keras_lowrank.experiments.models.registry import build
from keras_lowrank.experiments.models.resnet import resnet
from keras_lowrank.experiments.models.vgg import vgg16
from keras_lowrank.experiments.models.vit import vit
from keras_lowrank.experiments.models.weight_norm import WeightNormDense
