"""The same spectra, whoever computes them."""

import keras
import numpy as np
import pytest

from keras_lowrank import linalg
from keras_lowrank import weight_matrices
from tests.planted import families
from tests.planted import planted

layers = keras.layers


def many_kinds():
    """Kernels of one shape and of many, in blocks, heads, gates and LoRA."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((8, 8, 4))
    x = layers.Conv2D(8, 3, padding="same")(inputs)
    x = layers.Conv2D(8, 3, groups=2, padding="same")(x)
    x = layers.Reshape((64, 8))(x)
    x = layers.MultiHeadAttention(2, 4)(x, x)
    x = layers.LSTM(6)(x)
    for _ in range(3):
        x = layers.Dense(6, activation="relu")(x)
    adapted = layers.Dense(5)
    x = adapted(x)
    x = layers.Dense(9, dtype="bfloat16")(x)
    model = keras.Model(inputs, layers.Dense(3, dtype="float64")(x))
    adapted.enable_lora(2)
    return model


def assert_same(ours, theirs):
    for one, other in zip(ours, theirs, strict=True):
        assert one.shape == other.shape
        assert one.values.dtype == np.float64
        seen = other.resolved
        np.testing.assert_allclose(
            one.values[seen],
            other.values[seen],
            atol=1e-9 * other.values[0],
            rtol=0,
        )


class TestDeviceRoute:
    @pytest.mark.parametrize("views", [None, {"heads": "split"}], ids=str)
    def test_every_kind_of_kernel_has_the_spectrum_of_the_host(self, views):
        matrices = weight_matrices(many_kinds(), views=views)
        host = list(matrices.spectra(device="host"))
        device = list(matrices.spectra(device="device"))
        assert_same(device, host)
        taken = [
            matrix.name
            for matrix, array in zip(
                matrices, matrices._arrays("device"), strict=True
            )
            if not isinstance(array, np.ndarray)
        ]
        skipped = set(matrices.names) - set(taken)
        assert len(skipped) == 2  # with LoRA, and float64
        assert len(taken) > 8

    @pytest.mark.parametrize("shape", [(40, 40), (30, 90)], ids=str)
    @pytest.mark.parametrize("method", linalg.METHODS)
    def test_hard_spectra(self, shape, method):
        arrays = [
            planted(values, shape).astype(np.float32)
            for values in families(min(shape)).values()
        ]
        variables = [keras.Variable(array) for array in arrays]
        tensors = [linalg.device_tensor(variable) for variable in variables]
        found = linalg.device_spectra(tensors, method)
        assert_same(found, linalg.spectra(arrays, method))

    def test_promised_digits_are_those_of_the_host(self):
        values = np.r_[np.ones(30), np.geomspace(1e-2, 1.2e-4, 30)]
        array = planted(values, (60, 60)).astype(np.float32)
        tensor = linalg.device_tensor(keras.Variable(array))
        (found,) = linalg.device_spectra([tensor])
        exact = np.linalg.svd(array.astype(np.float64), compute_uv=False)
        np.testing.assert_allclose(found.values, exact, rtol=1e-10)

    def test_what_is_not_finite_spoils_no_neighbour(self):
        good = np.diag([3.0, 2.0, 1.0]).astype(np.float32)
        bad = good.copy()
        bad[0, 1] = np.nan
        zero = np.zeros((3, 3), np.float32)
        tensors = [
            linalg.device_tensor(keras.Variable(array))
            for array in (good, bad, zero)
        ]
        one, other, nothing = linalg.device_spectra(tensors)
        np.testing.assert_allclose(one.values, [3, 2, 1], rtol=1e-12)
        assert np.isnan(other.values).all()
        assert other.reason == "1 NaN of 9 entries"
        assert nothing.values.tolist() == [0.0, 0.0, 0.0]

    def test_stacks_are_cut_to_a_size(self, monkeypatch):
        stacks = []
        compute = linalg.device._gram_values

        def seen(tensors):
            stacks.append(len(tensors))
            return compute(tensors)

        monkeypatch.setattr(linalg.device, "_gram_values", seen)
        rng = np.random.default_rng(0)
        arrays = [rng.normal(size=(4, 6)).astype("float32") for _ in range(10)]
        variables = [keras.Variable(array) for array in arrays]
        tensors = [linalg.device_tensor(variable) for variable in variables]
        assert_same(linalg.device_spectra(tensors), linalg.spectra(arrays))
        assert stacks == [10]
        monkeypatch.setattr(linalg.device, "STACK_ENTRIES", 60)
        stacks.clear()
        assert_same(linalg.device_spectra(tensors), linalg.spectra(arrays))
        assert stacks == [3, 3, 3, 1]

    def test_precision_of_the_backend_stays(self):
        tensor = linalg.device_tensor(
            keras.Variable(np.eye(3, dtype="float32"))
        )
        linalg.device_spectra([tensor])
        one = keras.ops.convert_to_tensor(np.ones(3, np.float64)) * 1.0
        expected = "float32" if keras.backend.backend() == "jax" else "float64"
        assert keras.backend.standardize_dtype(one.dtype) == expected

    def test_unknown_route(self):
        matrices = weight_matrices(many_kinds())
        with pytest.raises(ValueError, match="Received: device='gpu'"):
            list(matrices.spectra(device="gpu"))


@pytest.mark.once
class TestCheaperRoute:
    def test_nothing_is_tried_on_a_cpu(self):
        route = linalg.CheaperRoute(accelerated=False)
        for _ in range(5):
            assert route.choice == "host"
            route.took(1.0)

    @pytest.mark.parametrize(
        ("host", "device", "choice"), [(2.0, 1.0, "device"), (1.0, 2.0, "host")]
    )
    def test_the_cheaper_one_stays(self, host, device, choice):
        route = linalg.CheaperRoute(accelerated=True)
        tried = []
        for seconds in (host, 9.0, device, 0.1, 100.0):
            tried.append(route.choice)
            route.took(seconds)
        assert tried == ["host", "device", "device", choice, choice]

    def test_the_matrices_of_a_model_try_both(self, monkeypatch):
        monkeypatch.setattr(linalg, "on_accelerator", lambda variable: True)
        matrices = weight_matrices(many_kinds())
        asked = []
        by = matrices._spectra_by
        monkeypatch.setattr(
            matrices,
            "_spectra_by",
            lambda *how: asked.append(how[0]) or by(*how),
        )
        for _ in range(3):
            list(matrices.spectra())
        assert asked == ["host", "device", "device"]
