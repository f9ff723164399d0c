"""Experiments: data, networks, and runs that compare."""

from keras_lowrank.experiments.batches import Batches
from keras_lowrank.experiments.batches import epoch_order
from keras_lowrank.experiments.compare import Comparison
from keras_lowrank.experiments.compare import compare
from keras_lowrank.experiments.data import Data
from keras_lowrank.experiments.data import digits
from keras_lowrank.experiments.events import write_events
from keras_lowrank.experiments.models import mlp
from keras_lowrank.experiments.progress import Progress
from keras_lowrank.experiments.run import run
from keras_lowrank.experiments.run_all import run_all
from keras_lowrank.experiments.runs import Run
from keras_lowrank.experiments.runs import find_run
from keras_lowrank.experiments.runs import read_runs
from keras_lowrank.experiments.runs import runs_table
from keras_lowrank.experiments.runs import summary
from keras_lowrank.experiments.spec import ExperimentSpec
from keras_lowrank.experiments.specs import read_specs
from keras_lowrank.experiments.specs import sweep
