"""Recorded runs as figures and as one page that tells their story."""

from keras_lowrank.pages.gallery import KINDS
from keras_lowrank.pages.gallery import Picture
from keras_lowrank.pages.gallery import gallery
from keras_lowrank.pages.story import run_page
