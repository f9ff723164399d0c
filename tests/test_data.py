import gzip
import pickle

import keras
import numpy as np
import pytest
import scipy.io

from keras_lowrank.experiments import Batches
from keras_lowrank.experiments import Data
from keras_lowrank.experiments import epoch_order
from keras_lowrank.experiments.data import digits
from keras_lowrank.experiments.data import load
from keras_lowrank.experiments.data.files import VARIABLE


def images(count=12, shape=(32, 32, 3), seed=0):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (count, *shape), dtype=np.uint8)


def labels(count=12):
    return np.arange(count) % 4


def arrays(**changes):
    return {
        "x_train": images(),
        "y_train": labels(),
        "x_test": images(5, seed=1),
        "y_test": labels(5),
    } | changes


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Where data are looked for."""
    monkeypatch.setenv(VARIABLE, str(tmp_path))
    return tmp_path


@pytest.mark.once
class TestLoad:
    def test_digits(self):
        data = load("digits")
        assert data.x_train.shape == (1438, 64)
        assert data.x_test.shape == (359, 64)
        assert (data.classes, data.input_shape) == (10, (64,))
        assert data.x_train.dtype == np.float32
        assert data.y_train.dtype == np.int32
        np.testing.assert_array_equal(data.x_train, digits().x_train)

    @pytest.mark.parametrize(
        "name, mean, std",
        [
            ("cifar10", (0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)),
            ("cifar100", (0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)),
        ],
    )
    def test_cifar_as_the_paper_takes_it(self, folder, name, mean, std):
        np.savez(folder / f"{name}.npz", **arrays(y_train=labels()[:, None]))
        data = load(name)
        expected = (images() / 255 - mean) / std
        np.testing.assert_allclose(data.x_train, expected, atol=1e-6)
        assert data.y_train.shape == (12,)
        assert "0.4865" in data.scale
        unit = load(name, normalization="unit")
        np.testing.assert_allclose(unit.x_train, images() / 255, atol=1e-6)

    def test_mnist_is_padded(self, folder):
        small = images(shape=(28, 28))
        np.savez(
            folder / "mnist.npz", **arrays(x_train=small, x_test=small[:5])
        )
        data = load("mnist")
        assert data.x_train.shape == (12, 32, 32, 1)
        background = (0 - 0.1307) / 0.3081
        np.testing.assert_allclose(data.x_train[:, :2], background, rtol=1e-5)
        inside = data.x_train[:, 2:-2, 2:-2, 0]
        np.testing.assert_allclose(
            inside, (small / 255 - 0.1307) / 0.3081, rtol=1e-4, atol=1e-5
        )
        assert load("mnist", pad=0).x_train.shape == (12, 28, 28, 1)
        assert data.scale.startswith("padded by 2, divided by 255")

    def test_svhn(self, folder):
        x = images()
        for half in ("train", "test"):
            scipy.io.savemat(
                folder / f"{half}_32x32.mat",
                {"X": np.moveaxis(x, 0, -1), "y": np.arange(1, 13)[:, None]},
            )
        data = load("svhn")
        np.testing.assert_allclose(data.x_train, x / 255 * 2 - 1, atol=1e-6)
        # The files call the digit 0 "10".
        assert data.y_train.tolist() == [*range(1, 10), 0, 1, 2]
        (folder / "test_32x32.mat").unlink()
        with pytest.raises(FileNotFoundError, match=r"ufldl.*test_32x32\.mat"):
            load("svhn")

    def test_any_file(self, tmp_path):
        x = np.random.default_rng(0).normal(size=(12, 7))
        path = tmp_path / "mine.npz"
        np.savez(path, **arrays(x_train=x, x_test=x[:5]))
        data = load(str(path))
        assert data.name == "mine"
        assert data.scale == "as given"
        np.testing.assert_array_equal(data.x_train, x.astype("float32"))
        standard = load(str(path), normalization="standard")
        assert np.abs(standard.x_train.mean(0)).max() < 1e-6
        assert np.abs(standard.x_train.std(0) - 1).max() < 1e-6
        given = load(str(path), mean=[1.0], std=[2.0])
        np.testing.assert_allclose(given.x_train, (x - 1) / 2, rtol=1e-5)

    def test_keras_own_loading(self, tmp_path, monkeypatch):
        """What `keras.datasets` downloads, in small."""
        monkeypatch.delenv(VARIABLE, raising=False)
        x = images(shape=(3, 32, 32)).reshape(12, -1)
        (tmp_path / "cifar-100-python").mkdir()
        for half in ("train", "test"):
            with open(tmp_path / "cifar-100-python" / half, "wb") as file:
                pickle.dump(
                    {b"data": x, b"fine_labels": labels().tolist()}, file
                )
        asked = []

        def get_file(*args, **kwargs):
            asked.append(kwargs)
            return str(tmp_path)

        monkeypatch.setattr(keras.src.datasets.cifar100, "get_file", get_file)
        data = load("cifar100", normalization="unit")
        assert asked
        assert data.x_train.shape == (12, 32, 32, 3)
        expected = x.reshape(12, 3, 32, 32).transpose(0, 2, 3, 1) / 255
        np.testing.assert_allclose(data.x_train, expected, atol=1e-6)
        keras.config.set_image_data_format("channels_first")
        try:
            again = load("cifar100", normalization="unit")
        finally:
            keras.config.set_image_data_format("channels_last")
        np.testing.assert_array_equal(again.x_train, data.x_train)
        assert data.y_train.tolist() == labels().tolist()

    def test_keras_own_loading_of_fashion_mnist(self, tmp_path, monkeypatch):
        monkeypatch.delenv(VARIABLE, raising=False)

        def get_file(fname, **kwargs):
            path = tmp_path / fname
            with gzip.open(path, "wb") as file:
                if "labels" in fname:
                    file.write(b"\0" * 8 + bytes([1, 2]))
                else:
                    file.write(b"\0" * 16 + images(2, (28, 28)).tobytes())
            return str(path)

        module = keras.src.datasets.fashion_mnist
        monkeypatch.setattr(module, "get_file", get_file)
        data = load("fashion_mnist", normalization="unit", pad=2)
        assert data.x_train.shape == (2, 32, 32, 1)
        assert data.y_test.tolist() == [1, 2]

    def test_no_file_and_no_network(self, monkeypatch):
        monkeypatch.delenv(VARIABLE, raising=False)

        def get_file(*args, **kwargs):
            raise Exception("URL fetch failure on https://there")

        monkeypatch.setattr(keras.src.datasets.cifar10, "get_file", get_file)
        with pytest.raises(
            OSError, match=r"https://there.*`cifar10\.npz`.*KERAS_LOWRANK_DATA"
        ):
            load("cifar10")

    def test_a_file_that_is_not_there(self, tmp_path):
        with pytest.raises(FileNotFoundError, match=r"no file.*cifar10\.npz"):
            load("cifar10", path=str(tmp_path))

    def test_names_and_options(self):
        with pytest.raises(ValueError, match=r"one of digits.*'cifar'"):
            load("cifar")
        with pytest.raises(ValueError, match=r"no option pat\..*path"):
            load("cifar10", pat="x")

    @pytest.mark.parametrize(
        "change, message",
        [
            ({"x_train": None}, "Missing: x_train"),
            ({"y_train": labels(11)}, "12 samples and 11 labels in `train`"),
            ({"y_test": np.eye(4)[labels(5)]}, r"one-hot, use `y\.argmax"),
            ({"y_test": labels(5) + 0.5}, "whole numbers"),
            ({"y_test": labels(5) - 1}, "from -1 on"),
            ({"x_test": images(5, (8, 8, 3))}, "must have one shape"),
            ({"x_train": np.full((12, 3), np.nan)}, "36 values that are not"),
            ({"x_train": images(0), "y_train": labels(0)}, r"shape \(0, 32"),
            ({"x_train": np.array(["a"] * 12)}, "must be numbers"),
        ],
        ids=range(9),
    )
    def test_arrays_that_are_no_task(self, tmp_path, change, message):
        content = {k: v for k, v in arrays(**change).items() if v is not None}
        np.savez(tmp_path / "bad.npz", **content)
        with pytest.raises(ValueError, match=message):
            load(str(tmp_path / "bad.npz"))

    def test_no_npz(self, tmp_path):
        (tmp_path / "bad.npz").write_text("no")
        with pytest.raises(ValueError, match="cannot be read"):
            load(str(tmp_path / "bad.npz"))

    @pytest.mark.parametrize(
        "options, message",
        [
            ({"normalization": "zscore"}, "`normalization` must be one of"),
            ({"mean": [0.5]}, "given together"),
            ({"mean": [0, 0], "std": [1, 1]}, "one value, or 3"),
            ({"mean": [0], "std": [0]}, "larger than 0"),
        ],
        ids=["name", "one", "two", "zero"],
    )
    def test_scales_that_do_not_fit(self, tmp_path, options, message):
        np.savez(tmp_path / "a.npz", **arrays())
        with pytest.raises(ValueError, match=message):
            load(str(tmp_path / "a.npz"), **options)


@pytest.mark.once
class TestSubset:
    def test_drawn_at_random_the_same_each_time(self):
        one, two, other = (
            load("digits", train_samples=100, test_samples=9, subset_seed=seed)
            for seed in (0, 0, 1)
        )
        assert one.x_train.shape == (100, 64)
        assert one.x_test.shape == (9, 64)
        np.testing.assert_array_equal(one.x_train, two.x_train)
        assert not np.array_equal(one.x_train, other.x_train)
        whole = {row.tobytes() for row in load("digits").x_train}
        assert {row.tobytes() for row in one.x_train} <= whole

    def test_classes_are_those_of_the_whole(self):
        assert load("digits", train_samples=2, test_samples=2).classes == 10

    def test_validation_samples_are_training_samples_held_out(self):
        whole = load("digits")
        data = load("digits", validation_samples=300, train_samples=1000)
        assert data.x_train.shape == (1000, 64)
        assert data.x_test.shape == data.x_train[:300].shape
        # Each with its label; no sample is in both parts, or from the test.
        labels = {
            row.tobytes(): label
            for row, label in zip(whole.x_train, whole.y_train, strict=True)
        }
        train, held = (
            {row.tobytes() for row in x} for x in (data.x_train, data.x_test)
        )
        assert train | held <= set(labels)
        assert not train & held
        for x, y in ((data.x_train, data.y_train), (data.x_test, data.y_test)):
            assert [labels[row.tobytes()] for row in x] == y.tolist()

    @pytest.mark.parametrize("count", [0, 1438])
    def test_validation_leaves_something_to_train_on(self, count):
        message = f"from 1 to 1437.*validation_samples={count}"
        with pytest.raises(ValueError, match=message):
            load("digits", validation_samples=count)

    @pytest.mark.parametrize("count", [0, 1439])
    def test_more_than_there_are(self, count):
        with pytest.raises(ValueError, match=f"from 1 to 1438.*={count}"):
            load("digits", train_samples=count)


@pytest.mark.once
class TestTeacher:
    def test_shapes_and_classes(self):
        data = load("teacher_student", train_samples=2000, inputs=20, classes=4)
        assert data.x_train.shape == (2000, 20)
        assert data.x_test.shape == (1000, 20)
        counts = np.bincount(data.y_train)
        assert len(counts) == 4
        assert counts.min() > 250  # no class is rare

    def test_it_is_the_same_each_time_and_of_each_size(self):
        one, two = (
            load("teacher_student", seed=3, train_samples=n) for n in (200, 300)
        )
        np.testing.assert_array_equal(one.y_train, two.y_train[:200])
        np.testing.assert_array_equal(one.x_test, two.x_test)
        np.testing.assert_array_equal(one.y_test, two.y_test)

    def test_a_teacher_of_rank_one_sees_one_direction(self):
        data = load("teacher_student", teacher_rank=1, classes=2, inputs=5)
        # Labels depend on the sign and size of one projection, so a quadratic
        # model of the best direction explains them; of full rank it does not.
        with pytest.raises(ValueError, match="from 1 to 5"):
            load("teacher_student", teacher_rank=6, inputs=5)
        means = [data.x_train[data.y_train == k].mean(0) for k in (0, 1)]
        direction = means[1] - means[0]
        direction /= np.linalg.norm(direction)
        along = data.x_train @ direction
        # Within narrow bins along it, labels are nearly constant.
        order = np.argsort(along)
        bins = data.y_train[order].reshape(100, -1).mean(1)
        assert np.mean(np.minimum(bins, 1 - bins)) < 0.03


def make_batches(samples=10, batch_size=4, seed=0):
    x = np.arange(samples, dtype="float32")[:, None]
    return Batches(x, x, batch_size, seed)


class Seen(keras.layers.Layer):
    """Keeps the samples of every batch that is trained on."""

    def __init__(self):
        super().__init__()
        frozen = {"initializer": "zeros", "trainable": False}
        self.total = self.add_weight(shape=(40,), **frozen)
        self.count = self.add_weight(shape=(), dtype="int32", **frozen)
        self.scale = self.add_weight(shape=(), initializer="ones")

    def call(self, x):
        sums = keras.ops.sum(x * x + x)
        place = keras.ops.one_hot(self.count, 40)
        self.total.assign(self.total + place * sums)
        self.count.assign(self.count + 1)
        return x * self.scale


class TestBatches:
    def fit(self, epochs, initial_epoch=0, batch_size=4):
        batches = make_batches(batch_size=batch_size)
        layer = Seen()
        model = keras.Sequential([keras.Input((1,)), layer])
        model.compile(keras.optimizers.SGD(0.0), "mse")
        layer.total.assign(np.zeros(40))
        layer.count.assign(0)
        batches.fit(
            model, epochs=epochs, initial_epoch=initial_epoch, verbose=0
        )
        count = int(keras.ops.convert_to_numpy(layer.count))
        return keras.ops.convert_to_numpy(layer.total)[:count].tolist()

    def expected(self, epochs, initial_epoch=0, batch_size=4):
        sums = []
        for epoch in range(initial_epoch, epochs):
            order = epoch_order(10, 0, epoch)
            for start in range(0, 10, batch_size):
                x = order[start : start + batch_size]
                sums.append(float(np.sum(x * x + x)))
        return sums

    @pytest.mark.parametrize("batch_size", [4, 5, 10])
    def test_fit_sees_the_same_on_every_backend(self, batch_size):
        seen = self.fit(3, batch_size=batch_size)
        assert seen == self.expected(3, batch_size=batch_size)

    @pytest.mark.parametrize("batch_size", [4, 10])
    def test_after_a_restart(self, batch_size):
        seen = self.fit(4, initial_epoch=2, batch_size=batch_size)
        assert seen == self.expected(4, 2, batch_size)


@pytest.mark.once
def test_data_counts_classes_of_both_halves():
    x = np.zeros((2, 3), "float32")
    data = Data("x", x, np.array([0, 1]), x, np.array([4, 1]))
    assert data.classes == 5
