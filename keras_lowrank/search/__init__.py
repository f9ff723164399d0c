"""Searches over batch size, learning rate and decay, with rank as a goal."""

from keras_lowrank.search.figures import front_panel
from keras_lowrank.search.figures import iso_rank_map
from keras_lowrank.search.figures import ratio_panel
from keras_lowrank.search.objective import BestAccuracy
from keras_lowrank.search.objective import LowestRank
from keras_lowrank.search.objective import ParetoFront
from keras_lowrank.search.optimize import OptunaObjective
from keras_lowrank.search.pareto import hypervolume
from keras_lowrank.search.pareto import pareto_mask
from keras_lowrank.search.results import SearchResults
from keras_lowrank.search.results import read_search
from keras_lowrank.search.search import search
from keras_lowrank.search.space import Range
from keras_lowrank.search.space import SearchSpace
from keras_lowrank.search.spec import SearchSpec
from keras_lowrank.search.spec import read_search_spec
from keras_lowrank.search.statistics import Interval
from keras_lowrank.search.statistics import mean_interval
from keras_lowrank.search.statistics import paired_difference


def __getattr__(name):
    # A subclass of KerasTuner's, which is an extra.
    if name == "RankHyperModel":
        from keras_lowrank.search.hypermodel import RankHyperModel

        return RankHyperModel
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
