import keras
import numpy as np
import pytest

from keras_lowrank import weight_matrices
from keras_lowrank.experiments import ExperimentSpec
from keras_lowrank.experiments import models
from keras_lowrank.experiments import run
from keras_lowrank.experiments.run import load_data
from keras_lowrank.experiments.start import change_start
from keras_lowrank.experiments.training import build_model


def matrices(model, weights=None):
    return {
        matrix.name: matrix.to_numpy().astype(np.float64)
        for matrix in weight_matrices(model, weights=weights)
    }


def a_model(name="mlp", **options):
    if name == "mlp":
        options = {"depth": 2, "width": 9} | options
    return models.build(name, (16, 16, 3), 4, **options)


NETWORKS = {
    "dense": {},
    "convolutions": {"name": "convnet", "depth": 2, "width": 8},
    "attention": {
        "name": "vit",
        "depth": 1,
        "width": 8,
        "mlp_width": 8,
        "heads": 2,
        "patch": 8,
    },
}


class TestChangeStart:
    @pytest.mark.parametrize("options", NETWORKS.values(), ids=list(NETWORKS))
    def test_nearest_of_the_rank_with_the_norm(self, options):
        model = a_model(**options)
        before = matrices(model)
        change_start(model, rank=2)
        for name, after in matrices(model).items():
            left, sigma, right = np.linalg.svd(
                before[name], full_matrices=False
            )
            nearest = (left[:, :2] * sigma[:2]) @ right[:2]
            nearest *= np.linalg.norm(sigma) / np.linalg.norm(sigma[:2])
            np.testing.assert_allclose(after, nearest, atol=1e-6)

    def test_scale(self):
        model = a_model()
        before = matrices(model)
        change_start(model, scale=0.25)
        for name, after in matrices(model).items():
            np.testing.assert_array_equal(after, before[name] / 4)

    def test_both(self):
        model = a_model()
        before = matrices(model)
        change_start(model, rank=1, scale=0.5)
        for name, after in matrices(model).items():
            assert np.linalg.matrix_rank(after, tol=1e-6) == 1
            assert np.linalg.norm(after) == pytest.approx(
                np.linalg.norm(before[name]) / 2
            )

    def test_a_rank_that_it_has_changes_nothing(self):
        model = a_model()
        before = matrices(model)
        change_start(model, rank=1000)
        for name, after in matrices(model).items():
            np.testing.assert_allclose(after, before[name], atol=1e-7)

    def test_only_the_weights_that_are_named(self):
        model = a_model()
        before = matrices(model)
        change_start(model, weights="^hidden_1", scale=0.5)
        changed = [
            name
            for name, after in matrices(model).items()
            if not np.array_equal(after, before[name])
        ]
        assert changed == ["hidden_1/kernel"]

    def test_a_zero_matrix_stays(self):
        model = a_model()
        change_start(model, scale=1e-300)
        change_start(model, rank=2)
        assert not any(values.any() for values in matrices(model).values())

    def test_a_matrix_that_is_no_variable(self):
        layer = keras.layers.Dense(5, name="low")
        model = keras.Sequential([keras.Input((6,)), layer])
        layer.enable_lora(2)
        layer.lora_kernel_b.assign(np.ones((2, 5)))
        before = matrices(model)["low/kernel"]
        with pytest.raises(ValueError, match=r"Received: 'low/kernel' of Den"):
            change_start(model, rank=2)
        np.testing.assert_array_equal(matrices(model)["low/kernel"], before)


class TestSpec:
    base = ExperimentSpec(
        network={"name": "mlp", "depth": 2, "width": 8},
        data={"name": "digits", "train_samples": 96, "test_samples": 96},
        epochs=1,
    )

    def test_what_is_measured_begins_so_and_the_classifier_does_not(self):
        data = load_data(self.base.data)
        plain = matrices(build_model(self.base, data))
        model = build_model(self.base.replace(initial_rank=1), data)
        changed = matrices(model)
        np.testing.assert_array_equal(
            plain["classifier/kernel"], changed["classifier/kernel"]
        )
        for index in range(2):
            kernel = changed[f"hidden_{index}/kernel"]
            assert np.linalg.matrix_rank(kernel, tol=1e-6) == 1

    def test_the_first_record_shows_it(self, tmp_path):
        spec = self.base.replace(initial_rank=2, initial_scale=0.1)
        done = run(spec, tmp_path)
        for record in done.recording.measurements[0].records:
            values = record.spectrum.values
            assert np.sum(values > 1e-6 * values[0]) == 2
        assert keras.backend.backend() in str(done.run_dir)
