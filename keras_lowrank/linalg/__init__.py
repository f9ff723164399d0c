"""The seam: tensors in, float64 spectra and factors out.

The only room that knows devices, dtypes and backends. Whatever the backend
that trains, the numbers are computed here in float64, by NumPy on the host or
on the device that trains, so the same weights give the same spectrum
everywhere.
"""

import importlib
from typing import TYPE_CHECKING

from keras_lowrank.linalg.certified import CertifiedSpectrum
from keras_lowrank.linalg.certified import certified
from keras_lowrank.linalg.certified import certified_spectra
from keras_lowrank.linalg.host import eagerly
from keras_lowrank.linalg.host import host_array
from keras_lowrank.linalg.host import non_finite_reason
from keras_lowrank.linalg.product import Product
from keras_lowrank.linalg.routes import CheaperRoute
from keras_lowrank.linalg.routes import check_route
from keras_lowrank.linalg.shrinkage import soft_threshold
from keras_lowrank.linalg.spectra import METHODS
from keras_lowrank.linalg.spectra import check_method
from keras_lowrank.linalg.spectra import gram_spectrum
from keras_lowrank.linalg.spectra import spectra
from keras_lowrank.linalg.spectra import spectrum
from keras_lowrank.linalg.truncation import truncate
from keras_lowrank.linalg.truncation import whitened

if TYPE_CHECKING:
    from keras_lowrank.linalg.device import device_spectra
    from keras_lowrank.linalg.device import device_tensor
    from keras_lowrank.linalg.device import on_accelerator
    from keras_lowrank.linalg.iterations import leading_subgradient
    from keras_lowrank.linalg.iterations import polar_factor
    from keras_lowrank.linalg.iterations import thresholded
    from keras_lowrank.linalg.scopes import compiled_by_xla
    from keras_lowrank.linalg.scopes import float64
    from keras_lowrank.linalg.scopes import full_precision
    from keras_lowrank.linalg.scopes import runs_eagerly
    from keras_lowrank.linalg.tensors import finite_blocks
    from keras_lowrank.linalg.tensors import log_det
    from keras_lowrank.linalg.tensors import product_core
    from keras_lowrank.linalg.tensors import squared_norm_of_product
    from keras_lowrank.linalg.tensors import tensor_spectrum
    from keras_lowrank.linalg.tensors import triangular_basis

# These take tensors, and import Keras when they are asked for. The others
# measure what is in a file without Keras, and so without a backend.
_OF_TENSORS = {
    "device_spectra": "device",
    "device_tensor": "device",
    "on_accelerator": "device",
    "leading_subgradient": "iterations",
    "polar_factor": "iterations",
    "thresholded": "iterations",
    "compiled_by_xla": "scopes",
    "float64": "scopes",
    "full_precision": "scopes",
    "runs_eagerly": "scopes",
    "finite_blocks": "tensors",
    "log_det": "tensors",
    "product_core": "tensors",
    "squared_norm_of_product": "tensors",
    "tensor_spectrum": "tensors",
    "triangular_basis": "tensors",
}


def __getattr__(name: str):
    if name not in _OF_TENSORS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = importlib.import_module(f"{__name__}.{_OF_TENSORS[name]}")
    return getattr(module, name)
