"""Which axes of which kernel are rows, columns and blocks of a matrix."""

from keras_lowrank.matricize.matricization import Matricization
from keras_lowrank.matricize.matricization import Skip
from keras_lowrank.matricize.parts import part_name
from keras_lowrank.matricize.parts import seen_parts
from keras_lowrank.matricize.products import Factored
from keras_lowrank.matricize.products import factored_by
from keras_lowrank.matricize.products import register_factored
from keras_lowrank.matricize.registry import matricize
from keras_lowrank.matricize.registry import matricize_stored
from keras_lowrank.matricize.registry import register_matricization
from keras_lowrank.matricize.rules import einsum_axes
from keras_lowrank.matricize.rules import einsum_matricization
from keras_lowrank.matricize.views import DEFAULT_VIEWS
from keras_lowrank.matricize.views import as_views
