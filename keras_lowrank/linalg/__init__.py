"""The seam: tensors in, float64 spectra and factors out.

The only room that knows devices, dtypes and backends. Whatever the backend
that trains, the numbers are computed here, in float64 NumPy on the host, so
the same weights give the same spectrum everywhere.
"""

from keras_lowrank.linalg.host import eagerly
from keras_lowrank.linalg.host import host_array
from keras_lowrank.linalg.host import non_finite_reason
from keras_lowrank.linalg.product import Product
from keras_lowrank.linalg.spectra import METHODS
from keras_lowrank.linalg.spectra import check_method
from keras_lowrank.linalg.spectra import gram_spectrum
from keras_lowrank.linalg.spectra import spectra
from keras_lowrank.linalg.spectra import spectrum
from keras_lowrank.linalg.truncation import truncate
from keras_lowrank.linalg.truncation import whitened
