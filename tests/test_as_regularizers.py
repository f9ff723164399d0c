"""Measures of tensors, as a regularizer would use them: finite gradients."""

import keras
import numpy as np
import pytest
from keras import ops

from keras_lowrank import Spectrum
from keras_lowrank import effective_rank
from keras_lowrank import frobenius_norm
from keras_lowrank import nuclear_norm
from keras_lowrank import participation_ratio
from keras_lowrank import schatten_norm
from keras_lowrank import spectral_norm
from keras_lowrank import stable_rank

BACKEND = keras.backend.backend()
SMOOTH = (
    effective_rank,
    frobenius_norm,
    nuclear_norm,
    participation_ratio,
    schatten_norm,
    spectral_norm,
    stable_rank,
)
STARTS = {
    "zeros": np.zeros((6, 6)),
    "identity": np.eye(6),
    "orthogonal": np.linalg.qr(np.random.default_rng(0).normal(size=(6, 6)))[0],
    "rank one": np.outer(np.arange(1.0, 7.0), np.ones(6)),
    "repeated": np.diag([2.0, 2.0, 1.0, 1.0, 0.0, 0.0]),
}


@pytest.mark.parametrize("jit_compile", [False, True])
@pytest.mark.parametrize("start", STARTS)
@pytest.mark.parametrize("measure", SMOOTH, ids=lambda f: f.__name__)
def test_gradients_are_finite_where_singular_values_vanish_or_repeat(
    measure, start, jit_compile
):
    if BACKEND == "torch" and jit_compile:
        pytest.skip("torch.compile needs a compiler at run time")
    if jit_compile and measure is not nuclear_norm:
        pytest.skip("XLA takes seconds for an SVD; one measure is enough")

    def penalty(kernel):
        # Never through the singular vectors, which are arbitrary here.
        values = ops.svd(ops.convert_to_tensor(kernel), compute_uv=False)
        return measure(Spectrum(values, tuple(kernel.shape)))

    kernel = STARTS[start].astype("float32")
    layer = keras.layers.Dense(6, use_bias=False, kernel_regularizer=penalty)
    model = keras.Sequential([keras.Input((6,)), layer])
    layer.kernel.assign(kernel)
    model.compile(keras.optimizers.SGD(0.01), "mse", jit_compile=jit_compile)
    x = np.zeros((4, 6), "float32")
    model.fit(x, x, epochs=2, batch_size=4, verbose=0)
    trained = ops.convert_to_numpy(layer.kernel)
    assert np.isfinite(trained).all()
    norms = (nuclear_norm, schatten_norm, frobenius_norm)
    if measure in norms and start != "zeros":
        assert np.linalg.norm(trained) <= np.linalg.norm(kernel)
    if measure is nuclear_norm and start in ("identity", "orthogonal"):
        # Its gradient is U V^T: here the matrix itself.
        np.testing.assert_allclose(trained, 0.98 * kernel, atol=1e-5)
