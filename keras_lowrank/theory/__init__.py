"""The paper's theory, as numbers of a run: pure formulas."""

from keras_lowrank.theory.clock import decay_clock
from keras_lowrank.theory.clock import decay_lost_in_rounding
from keras_lowrank.theory.closed_form import closed_form_rank
from keras_lowrank.theory.closed_form import memory_steps
from keras_lowrank.theory.closed_form import stationary_distance
from keras_lowrank.theory.distance import distance_to_rank
from keras_lowrank.theory.distance import distances_to_ranks
from keras_lowrank.theory.distance import epsilon_rank
from keras_lowrank.theory.memory import MOMENTUM_KINDS
from keras_lowrank.theory.memory import memory
from keras_lowrank.theory.window import Certificate
from keras_lowrank.theory.window import Window
