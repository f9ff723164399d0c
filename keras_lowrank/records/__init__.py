"""What a run leaves behind, in memory, on disk and for TensorBoard."""

from keras_lowrank.records.certificates import CertificateLog
from keras_lowrank.records.certificates import Certificates
from keras_lowrank.records.certificates import read_certificates
from keras_lowrank.records.finding import find_runs
from keras_lowrank.records.hparams import write_experiment
from keras_lowrank.records.hparams import write_hparams
from keras_lowrank.records.layout import theorem_layout
from keras_lowrank.records.reading import open_run
from keras_lowrank.records.record import Measurement
from keras_lowrank.records.record import Record
from keras_lowrank.records.record import measure_all
from keras_lowrank.records.recording import Recording
from keras_lowrank.records.store import Store
from keras_lowrank.records.tensorboard import EventWriter
from keras_lowrank.records.tensorboard import layout_of
from keras_lowrank.records.tensorboard import tensorboardx
