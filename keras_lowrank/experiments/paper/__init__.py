"""Every figure of the paper's experiments: its grid, numbers and claims."""

from keras_lowrank.experiments.paper.claims import Verdict
from keras_lowrank.experiments.paper.figure import Figure
from keras_lowrank.experiments.paper.points import Study
from keras_lowrank.experiments.paper.registry import FIGURES
from keras_lowrank.experiments.paper.registry import figures_table
from keras_lowrank.experiments.paper.registry import find_figure
from keras_lowrank.experiments.paper.reproduce import Reproduction
from keras_lowrank.experiments.paper.reproduce import make_task
from keras_lowrank.experiments.paper.reproduce import reproduce
from keras_lowrank.experiments.paper.reproduce import train
