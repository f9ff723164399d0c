import math

import keras
import numpy as np
import pytest

from keras_lowrank import Spectrum
from keras_lowrank import TorchSGD
from keras_lowrank import WeightDecay
from keras_lowrank import numerical_rank
from keras_lowrank.theory import MOMENTUM_KINDS
from keras_lowrank.theory import Window
from keras_lowrank.theory import closed_form_rank
from keras_lowrank.theory import decay_clock
from keras_lowrank.theory import decay_lost_in_rounding
from keras_lowrank.theory import distance_to_rank
from keras_lowrank.theory import epsilon_rank
from keras_lowrank.theory import memory
from keras_lowrank.theory import memory_steps
from keras_lowrank.theory import stationary_distance

once = pytest.mark.once


def spectrum_of(matrix):
    values = np.linalg.svd(matrix, compute_uv=False)
    return Spectrum(values, matrix.shape)


@once
class TestClock:
    def test_product_of_what_is_left(self):
        rates = np.array([0.5, 0.1, 0.1, 0.02])
        clock = decay_clock(rates, 0.3)
        left = np.cumprod(1 - rates * 0.3)
        np.testing.assert_allclose(np.exp(-clock[1:]), left, rtol=1e-14)
        assert clock[0] == 0 and len(clock) == 5

    def test_small_steps_are_not_lost(self):
        clock = decay_clock(np.full(1000, 1e-9), 1e-9)
        assert clock[-1] == pytest.approx(1e-15, rel=1e-12)

    @pytest.mark.parametrize("rate, decay", [(1.0, 1.0), (-0.1, 0.5), (2, 1)])
    def test_a_step_that_leaves_nothing(self, rate, decay):
        with pytest.raises(ValueError, match=r"below 1(.|\n)*weight_decay"):
            decay_clock([0.1, rate], decay)

    @pytest.mark.parametrize(
        "dtype, half_ulp",
        [("float32", 2.0**-25), ("float16", 2.0**-12), ("float64", 2.0**-54)],
    )
    def test_rounding(self, dtype, half_ulp):
        """NumPy says what is lost: no weight at all changes."""
        kind = np.dtype(dtype).type
        weights = np.linspace(1, 2, 1001, endpoint=False).astype(dtype)
        for share in (half_ulp * 0.9, half_ulp * 2.1):
            after = weights - weights * kind(share)
            lost = bool(np.all(after == weights))
            assert decay_lost_in_rounding(share, 1.0, dtype) == lost

    def test_no_decay_is_not_lost(self):
        assert not decay_lost_in_rounding(0.1, 0.0)
        with pytest.raises(ValueError, match="'int8'"):
            decay_lost_in_rounding(0.1, 0.1, "int8")


@once
class TestMemory:
    def test_without_momentum_it_is_the_clock(self):
        rates = np.array([0.5, 0.1, 0.1, 0.02])
        p, q = memory(rates, 0.3)
        clock = decay_clock(rates, 0.3)
        np.testing.assert_allclose(p, np.exp(-(clock[-1] - clock))[::-1])
        assert not q.any()

    def test_torch_at_a_constant_rate(self):
        """D4 of the theory: roots of z^2 - (1 + b - lr w) z + b."""
        rate, w, b = 0.1, 0.02, 0.9
        p, q = memory([rate] * 60, w, b, "torch")
        root = math.sqrt((1 + b - rate * w) ** 2 - 4 * b)
        up, down = ((1 + b - rate * w + s * root) / 2 for s in (1, -1))
        n = np.arange(61)
        expected = up**n * (up - b) - down**n * (down - b)
        np.testing.assert_allclose(p, expected / (up - down), rtol=1e-12)
        expected = -rate * b * (up**n - down**n) / (up - down)
        np.testing.assert_allclose(q, expected, rtol=1e-12, atol=1e-15)

    def test_decoupled_at_a_constant_rate(self):
        """D5 of the theory: momentum does not shorten the memory."""
        rate, w, b = 0.1, 0.05, 0.9
        p, q = memory([rate] * 60, w, b, "keras_decoupled")
        a, n = 1 - rate * w, np.arange(61)
        np.testing.assert_allclose(p, a**n, rtol=1e-12)
        expected = b * (a**n - b**n) / (a - b)
        np.testing.assert_allclose(q, expected, rtol=1e-12, atol=1e-15)

    @pytest.mark.parametrize("nesterov", [False, True])
    @pytest.mark.parametrize("kind", MOMENTUM_KINDS)
    def test_what_is_not_memory_is_a_sum_of_the_gradients(self, kind, nesterov):
        rng = np.random.default_rng(0)
        rates = rng.uniform(0.05, 0.2, 12)
        w, b = 0.3, 0.8
        weights, velocity = rng.normal(size=(20, 15)), rng.normal(size=(20, 15))
        states = [(weights, velocity)]
        for rate in rates:
            gradient = np.outer(rng.normal(size=20), rng.normal(size=15))
            if "decoupled" not in kind:
                gradient = gradient + w * weights
            else:
                weights = weights * (1 - rate * w)
            if "torch" in kind:
                velocity = b * velocity + gradient
                step = gradient + b * velocity if nesterov else velocity
                weights = weights - rate * step
            else:
                velocity = b * velocity - rate * gradient
                step = b * velocity - rate * gradient if nesterov else velocity
                weights = weights + step
            states.append((weights, velocity))
        p, q = memory(rates, w, b, kind, nesterov)
        for n in range(10):
            past, moving = states[len(rates) - n]
            rest = weights - p[n] * past - q[n] * moving
            scale = np.linalg.norm(weights, 2) * 1e-12
            assert np.linalg.matrix_rank(rest, tol=scale) == n

    def test_part_of_the_steps(self):
        rates = [0.5, 0.1, 0.3]
        whole = memory(rates, 0.3, 0.9)
        part = memory(rates, 0.3, 0.9, steps=2)
        for one, two in zip(whole, part, strict=True):
            np.testing.assert_array_equal(one[:3], two)

    def test_errors(self):
        with pytest.raises(ValueError, match=r"one of \('torch'.*'nesterov'"):
            memory([0.1], 0.1, 0.9, "nesterov")
        with pytest.raises(ValueError, match="below 1"):
            memory([0.1], 0.1, 1.0)
        with pytest.raises(ValueError, match="from 0 to 1"):
            memory([0.1], 0.1, steps=2)


@once
class TestClosedForm:
    def test_the_papers_figure_6(self):
        """MLP-2-10000, B = 6, mu = .1, torch's decay 8e-3: lambda = 4e-3.

        The paper draws the bound of twice the lambda, without its factor 2.
        """
        drawn, true = {}, {}
        for tolerance in (0.3, 0.5, 0.7):
            drawn[tolerance] = 6 * math.log(1 / tolerance) / (2 * 0.1 * 0.008)
            # Without the ceiling, as it is stated.
            true[tolerance] = 6 * math.log(2 / tolerance) / (2 * 0.1 * 0.004)
            bound = closed_form_rank(1, 6, 0.1, 0.004, tolerance)
            assert true[tolerance] <= bound * (1 + 1e-3)
            assert bound <= true[tolerance] + 12
        assert [round(value) for value in drawn.values()] == [4515, 2599, 1338]
        assert [round(value) for value in true.values()] == [
            14_228,
            10_397,
            7_874,
        ]

    def test_small_tolerances_are_as_stated(self):
        bound = closed_form_rank(16, 4, 0.5, 2.5e-4, 1e-3)
        assert bound == pytest.approx(64 * math.log(2000) / (2.5e-4))

    def test_the_cap_and_no_decay(self):
        assert closed_form_rank(16, 4, 0.5, 1e-4, 1e-3, (64, 576)) == 64
        assert closed_form_rank(1, 1, 0.1, 0.0, 0.1) == math.inf
        assert closed_form_rank(1, 1, 0.1, 0.0, 0.1, (3, 4)) == 3

    @pytest.mark.parametrize("tolerance", [1e-3, 0.05, 0.3, 0.9])
    def test_it_holds_where_its_hypothesis_does(self, tolerance):
        """Norms at rest: after as many steps, the remainder is below it."""
        rate, lam = 0.1, 0.02
        steps = closed_form_rank(1, 1, rate, lam, tolerance)
        assert 2 * (1 - 2 * rate * lam) ** steps <= tolerance * (1 + 1e-9)

    def test_errors(self):
        with pytest.raises(ValueError, match="`tolerance` must be above 0"):
            closed_form_rank(1, 1, 0.1, 0.1, 0.0)
        with pytest.raises(ValueError, match=r"below 0\.5"):
            closed_form_rank(1, 1, 1.0, 0.5, 0.1)

    def test_memory(self):
        assert memory_steps(0.1, 0.0) == math.inf
        p, _ = memory([0.1] * 20_000, 5e-4)
        assert p[round(memory_steps(0.1, 5e-4))] == pytest.approx(
            1 / math.e, rel=1e-4
        )
        steps = round(memory_steps(0.1, 5e-3, momentum=0.9))
        p, _ = memory([0.1] * steps, 5e-3, 0.9, "torch")
        assert p[-1] == pytest.approx(1 / math.e, rel=0.02)

    def test_near_a_stationary_point(self):
        """D9: one plain step bounds the distance to the gradient's rank."""
        rng = np.random.default_rng(0)
        gradient = rng.normal(size=(12, 2)) @ rng.normal(size=(2, 9))
        rate, w = 0.1, 0.5
        weights = -gradient / w + 0.01 * rng.normal(size=(12, 9))
        after = (1 - rate * w) * weights - rate * gradient
        norm = np.linalg.norm(weights)
        bound = stationary_distance(
            np.linalg.norm(after - weights), norm, rate, w
        )
        measured = distance_to_rank(spectrum_of(weights), 2)
        assert 0 < measured <= bound < 1


@once
class TestDistance:
    values = np.array([4.0, 2.0, 1.0, 0.5, 0.0])

    @pytest.mark.parametrize(
        "order, norm",
        [("fro", "frobenius"), (2, "spectral"), ("nuc", "nuclear")],
    )
    def test_it_is_the_distance_to_the_cut(self, order, norm):
        rng = np.random.default_rng(0)
        matrix = rng.normal(size=(6, 4))
        u, s, vt = np.linalg.svd(matrix, full_matrices=False)
        spectrum = spectrum_of(matrix)
        for rank in range(5):
            cut = (u[:, :rank] * s[:rank]) @ vt[:rank]
            expected = np.linalg.norm(matrix - cut, order)
            expected /= np.linalg.norm(matrix, order)
            assert distance_to_rank(spectrum, rank, norm) == pytest.approx(
                expected, abs=1e-14
            )

    def test_spectral_rank_is_the_numerical_rank(self):
        spectrum = Spectrum(self.values, (5, 7))
        for tolerance in (0.0, 0.1, 0.125, 0.3, 0.9):
            assert epsilon_rank(spectrum, tolerance, "spectral") == sum(
                self.values / 4 > tolerance
            )

    @pytest.mark.parametrize("norm", ["frobenius", "spectral", "nuclear"])
    @pytest.mark.parametrize("tolerance", [0.01, 0.2, 0.6])
    def test_rank_and_distance_agree(self, norm, tolerance):
        spectrum = Spectrum(self.values, (5, 7))
        rank = epsilon_rank(spectrum, tolerance, norm)
        assert distance_to_rank(spectrum, rank, norm) <= tolerance
        assert distance_to_rank(spectrum, rank - 1, norm) > tolerance

    def test_what_exceeds_the_frobenius_norm_is_covered(self):
        """sigma[r + 1] is at most the tail, so the count is at most r."""
        spectrum = Spectrum(self.values, (5, 7))
        for tolerance in (0.05, 0.2, 0.5):
            assert numerical_rank(spectrum, tolerance) <= epsilon_rank(
                spectrum, tolerance
            )

    def test_zero_and_not_finite(self):
        zero = Spectrum(np.zeros(3), (3, 4))
        assert epsilon_rank(zero, 0.1) == 0 == distance_to_rank(zero, 2)
        broken = Spectrum(np.full(3, np.nan), (3, 4), reason="NaN")
        assert np.isnan(epsilon_rank(broken, 0.1))
        assert np.isnan(distance_to_rank(broken, 1))

    def test_errors(self):
        spectrum = Spectrum(self.values, (5, 7))
        with pytest.raises(ValueError, match="'frobenius', 'spectral'"):
            distance_to_rank(spectrum, 1, "max")
        with pytest.raises(ValueError, match="0 or more"):
            distance_to_rank(spectrum, -1)
        with pytest.raises(ValueError, match="below 1"):
            epsilon_rank(spectrum, 1.0)


@once
class TestWindow:
    def window(self, **changes):
        arguments = {
            "norms": [1.0, 0.8, 0.6, 0.5],
            "clock": decay_clock([1.0] * 3, 0.5),
            "batch_sizes": [2, 3, 4],
            "uses": 1,
            "shape": (20, 10),
        } | changes
        return Window.of_norms(**arguments)

    def test_by_hand(self):
        window = self.window()
        assert window.back.tolist() == [0, 1, 2, 3]
        assert window.budgets.tolist() == [0, 4, 7, 9]
        np.testing.assert_allclose(
            window.remainders, [1, 0.6, 0.4, 0.25], rtol=1e-12
        )
        certificate = window.certificate(0.5)
        assert (certificate.rank, certificate.steps) == (7, 2)
        assert not certificate.vacuous

    def test_what_is_not_logged_is_left_out(self):
        window = self.window(norms=[1.0, np.nan, 0.6, 0.5])
        assert window.back.tolist() == [0, 1, 3]
        assert window.certificate(0.5).rank == 9

    def test_vacuous_where_nothing_is_close_or_the_budget_is_full(self):
        for window in (self.window(), self.window(uses=5)):
            certificate = window.certificate(0.2)
            assert certificate.vacuous and certificate.rank == 10
        assert self.window(uses=5).budgets.max() == 10

    def test_weights_that_only_decay_certify_nothing(self):
        """D3: without gradients the direction freezes."""
        clock = decay_clock([1.0] * 3, 0.5)
        window = self.window(norms=np.exp(-clock))
        np.testing.assert_allclose(window.remainders, 1.0, rtol=1e-12)
        assert window.certificate(0.9).vacuous

    def test_errors(self):
        with pytest.raises(ValueError, match="3 norms and 3 batch sizes"):
            Window.of_past([1.0, 1, 1], [1, 1, 1], 1, (2, 2))
        with pytest.raises(ValueError, match="`tolerance`"):
            self.window().certificate(0)
        for sizes in ([2, 0, 4], [2, 1.5, 4]):
            with pytest.raises(ValueError, match="whole numbers of samples"):
                self.window(batch_sizes=sizes)


# The invariant, on real runs.

SCHEDULE = np.repeat([0.05, 0.03], [40, 4])
DECAY = 0.5


def dense_net():
    return keras.Sequential(
        [
            keras.Input((12,)),
            keras.layers.Dense(24, activation="relu", name="first"),
            keras.layers.Dense(16, activation="tanh", name="second"),
            keras.layers.Dense(3, name="last"),
        ]
    )


def conv_net():
    return keras.Sequential(
        [
            keras.Input((6, 6, 2)),
            keras.layers.Conv2D(24, 3, strides=3, name="conv"),
            keras.layers.ReLU(),
            keras.layers.Flatten(),
            keras.layers.Dense(3, name="last"),
        ]
    )


OPTIMIZERS = {
    "plain": (
        lambda: WeightDecay(DECAY, convention="torch").wrap(
            keras.optimizers.SGD(0.1)
        ),
        {},
    ),
    "torch": (
        lambda: WeightDecay(DECAY, convention="torch").wrap(
            TorchSGD(0.1, momentum=0.5)
        ),
        {"momentum": 0.5, "kind": "torch"},
    ),
    "keras_coupled": (
        lambda: WeightDecay(DECAY / 2, convention="l2").wrap(
            keras.optimizers.SGD(0.1, momentum=0.5)
        ),
        {"momentum": 0.5, "kind": "keras_coupled"},
    ),
    "keras_decoupled": (
        lambda: keras.optimizers.SGD(0.1, momentum=0.5, weight_decay=DECAY),
        {"momentum": 0.5, "kind": "keras_decoupled"},
    ),
    "torch_decoupled": (
        lambda: WeightDecay(DECAY).wrap(TorchSGD(0.1, momentum=0.5)),
        {"momentum": 0.5, "kind": "torch_decoupled"},
    ),
    "nesterov": (
        lambda: WeightDecay(DECAY, convention="torch").wrap(
            TorchSGD(0.1, momentum=0.5, nesterov=True)
        ),
        {"momentum": 0.5, "kind": "torch", "nesterov": True},
    ),
}


def velocity_of(optimizer, variable):
    inner = getattr(optimizer, "inner_optimizer", optimizer)
    slots = getattr(inner, "velocities", None) or getattr(
        inner, "momentums", []
    )
    if not slots:
        return np.zeros(variable.shape)
    index = inner._get_variable_index(variable)
    return keras.ops.convert_to_numpy(slots[index]).astype(np.float64)


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize(
    "make, layer, uses",
    [(dense_net, "first", 1), (dense_net, "second", 1), (conv_net, "conv", 4)],
    ids=["first", "second", "conv"],
)
def test_lemma_on_a_real_run(name, make, layer, uses):
    """Measured distance to rank m B n is at most R(n), for every n."""
    make_optimizer, settings = OPTIMIZERS[name]
    model = make()
    model.compile(make_optimizer(), "mse")
    rng = np.random.default_rng(0)
    features = int(np.prod(model.input_shape[1:]))
    teacher = 4 * rng.normal(size=(features, 3))
    for part in model.layers:
        # Keras' own draws are others on each backend.
        part.set_weights(
            [
                rng.uniform(-1, 1, w.shape) * (w.size / w.shape[-1]) ** -0.5
                for w in part.get_weights()
            ]
        )
    kernel = model.get_layer(layer).kernel
    batch = 1

    def state():
        weights = keras.ops.convert_to_numpy(kernel).astype(np.float64)
        velocity = velocity_of(model.optimizer, kernel)
        return [
            array.reshape(-1, array.shape[-1]) for array in (weights, velocity)
        ]

    model.optimizer.build(model.trainable_variables)
    states = [state()]
    for rate in SCHEDULE:
        model.optimizer.learning_rate = rate
        x = rng.normal(size=(batch, *model.input_shape[1:]))
        x *= (12 / features) ** 0.5
        y = 4 * np.tanh(x.reshape(batch, -1) @ teacher)
        model.train_on_batch(x, y)
        states.append(state())
    p, q = memory(SCHEDULE, DECAY, **settings)
    last = states[-1][0]
    left = [
        p[n] * states[-1 - n][0] + q[n] * states[-1 - n][1]
        for n in range(len(states))
    ]
    window = Window.of_past(
        [np.linalg.norm(item) for item in left],
        [batch] * len(SCHEDULE),
        uses,
        last.shape,
    )
    spectrum = spectrum_of(last)
    informative = 0
    for n, remainder, budget in zip(
        window.back, window.remainders, window.budgets, strict=True
    ):
        distance = distance_to_rank(spectrum, int(budget))
        assert distance <= remainder * (1 + 1e-5) + 1e-6
        certain = uses > 1 or remainder < 0.99
        informative += budget < window.full_rank and certain
        if budget < window.full_rank:
            # What is not memory has the rank of the gradients; each step
            # rounds to float32, an error of full rank.
            rest = np.linalg.svd(last - left[n], compute_uv=False)
            noise = (n + 1) * 1e-6 * np.linalg.norm(last, 2)
            assert np.sum(rest > noise) <= budget
    assert informative >= 2
    certificate = window.certificate(0.9)
    if not certificate.vacuous:
        assert epsilon_rank(spectrum, 0.9) <= certificate.rank


def test_a_wrong_memory_breaks_the_lemma():
    """The test above can fail: with half of the decay it does."""
    rng = np.random.default_rng(0)
    weights = rng.normal(size=(16, 16))
    start = weights
    for _ in range(5):
        gradient = np.outer(rng.normal(size=16), rng.normal(size=16))
        weights = (1 - 0.2) * weights - 0.1 * gradient
    p, _ = memory([1.0] * 5, 0.1)
    rest = np.linalg.svd(weights - p[5] * start, compute_uv=False)
    assert np.sum(rest > 1e-6) > 5
