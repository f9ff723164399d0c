import keras
import numpy as np
import pytest
import torch
from torch import nn

from keras_lowrank import weight_matrices
from keras_lowrank.experiments import models

IMAGE = (32, 32, 3)


def paper_matrices(model):
    return weight_matrices(model, weights=models.PAPER_WEIGHTS)


def shapes(model):
    """Matrices as the paper writes them: outputs x inputs."""
    return [matrix.matrix_shape[::-1] for matrix in paper_matrices(model)]


def uses(model):
    """Positions at which each convolution is applied, the paper's m_l."""
    return [
        int(np.prod(matrix.layer.output.shape[1:-1]))
        for matrix in paper_matrices(model)
    ]


class TestTables:
    """Parameter counts and shapes, from PAPER's architectures."""

    @pytest.mark.parametrize(
        "name, options, count",
        [
            ("mlp", {}, 3072 * 100 + 9 * 100**2 + 10 * 300 + 1010),
            ("mlp", {"batch_norm": False}, 3072 * 100 + 91_000 + 1010),
            (
                "mlp",
                {"batch_norm": False, "weight_norm": True},
                3072 * 100 + 91_000 + 10 + 1010,
            ),
            ("resnet18", {}, 11_173_962),
            ("resnet34", {}, 21_282_122),
            ("resnet50", {}, 23_520_842),
            ("vgg16", {"dropout": 0.5}, 14_728_266),
            (
                "convnet",
                {"depth": 5, "width": 20},
                (12 + 1) * 20
                + (80 + 1) * 20
                + 5 * 181 * 20
                + 64 * 20 * 10
                + 10,
            ),
            (
                "conv_resnet",
                {"depth": 2, "width": 8},
                13 * 8 + 33 * 8 + 4 * 73 * 8 + 6 * 16 + 64 * 80 + 10,
            ),
            (
                "mixed_resnet",
                {"width": 4},
                27 * 4
                + 10 * 36 * 4
                + 11 * 8
                + (4096 + 1) * 4
                + 10 * 5 * 4
                + 11 * 8
                + 50,
            ),
            (
                "vit",
                {"depth": 2, "width": 16, "mlp_width": 24, "heads": 4},
                49 * 16
                + 64 * 16
                + 2 * (4 * 17 * 16 + 17 * 24 + 25 * 16 + 4 * 16)
                + 32
                + 170,
            ),
        ],
        ids=lambda value: value if isinstance(value, str) else "",
    )
    def test_parameters(self, name, options, count):
        model = models.build(name, IMAGE, 10, **options)
        trainable = sum(int(np.prod(v.shape)) for v in model.trainable_weights)
        assert trainable == count

    @pytest.mark.slow
    @pytest.mark.parametrize(
        "depth, count", [(101, 42_512_970), (152, 58_156_618)]
    )
    @pytest.mark.once
    def test_parameters_of_deep_resnets(self, depth, count):
        model = models.build(f"resnet{depth}", IMAGE, 10)
        trainable = sum(int(np.prod(v.shape)) for v in model.trainable_weights)
        assert trainable == count
        assert len(paper_matrices(model)) == depth - 1

    def test_resnet18(self):
        model = models.build("resnet18", IMAGE, 10)
        assert shapes(model) == [
            (64, 27),
            *[(64, 576)] * 4,
            (128, 576),
            *[(128, 1152)] * 3,
            (256, 1152),
            *[(256, 2304)] * 3,
            (512, 2304),
            *[(512, 4608)] * 3,
        ]
        assert uses(model) == [*[1024] * 5, *[256] * 4, *[64] * 4, *[16] * 4]
        names = weight_matrices(model, weights="shortcut|classifier").names
        assert names == [
            "shortcut_5/kernel",
            "shortcut_9/kernel",
            "shortcut_13/kernel",
            "classifier/kernel",
        ]

    def test_vgg16(self):
        model = models.build("vgg16", IMAGE, 10)
        assert shapes(model) == [
            *[(64, 27), (64, 576), (128, 576), (128, 1152), (256, 1152)],
            *[(256, 2304)] * 2,
            (512, 2304),
            *[(512, 4608)] * 5,
        ]
        assert uses(model) == [
            *[1024] * 2,
            *[256] * 2,
            *[64] * 3,
            *[16] * 3,
            *[4] * 3,
        ]

    def test_mlp(self):
        model = models.build("mlp", IMAGE, 10)
        assert shapes(model) == [(100, 3072), *[(100, 100)] * 9]
        assert paper_matrices(model).names[0] == "hidden_0/kernel"

    def test_vit(self):
        model = models.build("vit", IMAGE, 10, depth=1, width=16, mlp_width=24)
        assert paper_matrices(model).names == [
            f"{name}_0/kernel"
            for name in ("query", "key", "value", "attention", "dense_0")
        ] + ["dense_0_1/kernel"]
        skipped = weight_matrices(model, weights="patches|positions").names
        assert skipped == ["patches/kernel", "positions/position_embedding"]

    def test_mean_ranks_at_the_start_are_the_papers(self):
        """Random initialisation: 227.47, 322.08 and 99.3 at 1e-3."""
        for name, expected, within in (
            ("resnet18", 227.47, 0.05),
            ("mlp", 99.3, 0.3),
        ):
            matrices = paper_matrices(models.build(name, IMAGE, 10))
            ranks = [
                np.sum(s.values / np.linalg.norm(s.values) > 1e-3)
                for s in matrices.spectra()
            ]
            assert np.mean(ranks) == pytest.approx(expected, abs=within)


class TestInitialization:
    def test_the_same_on_every_backend(self):
        model = models.build("mlp", (4,), 3, depth=1, width=2, seed=7)
        first = model.get_layer("hidden_0").get_weights()
        rng = np.random.default_rng((7, 0))
        expected = rng.uniform(-0.5, 0.5, (4, 2)).astype("float32")
        np.testing.assert_array_equal(first[0], expected)
        np.testing.assert_array_equal(
            first[1].view("int32"), [1049251818, -1094274695]
        )

    def test_torch(self):
        model = models.build("mlp", (400,), 3, depth=2, width=300)
        for layer, fan_in in (("hidden_0", 400), ("hidden_1", 300)):
            for value in model.get_layer(layer).get_weights():
                bound = fan_in**-0.5
                assert np.abs(value).max() <= bound
                assert value.std() == pytest.approx(bound / 3**0.5, rel=0.1)

    def test_keras(self):
        model = models.build("mlp", (400,), 3, conventions="keras")
        kernel, bias = model.get_layer("hidden_0").get_weights()
        assert not bias.any()
        bound = (6 / 500) ** 0.5
        assert bound * 0.99 < np.abs(kernel).max() <= bound

    def test_seeds(self):
        def first(seed):
            return models.build("mlp", (4,), 3, seed=seed).get_weights()[0]

        assert np.array_equal(first(1), first(1))
        assert not np.array_equal(first(1), first(2))

    def test_channels_last_whatever_keras_json_says(self):
        keras.config.set_image_data_format("channels_first")
        try:
            for name, options in TestNetworks.SMALL.items():
                model = models.build(name, IMAGE, 4, **options)
                assert model.output_shape == (None, 4)
        finally:
            keras.config.set_image_data_format("channels_last")

    def test_no_two_kernels_are_alike(self):
        model = models.build("vit", IMAGE, 10, depth=1, width=16, mlp_width=16)
        kernels = [m.to_numpy().ravel()[:8] for m in paper_matrices(model)]
        assert len({tuple(kernel) for kernel in kernels}) == len(kernels)


class TestNetworks:
    SMALL = {
        "mlp": {"depth": 2, "width": 6},
        "vgg16": {},
        "resnet18": {},
        "convnet": {"depth": 2, "width": 6},
        "conv_resnet": {"depth": 2, "width": 6, "alpha": 0.5},
        "vit": {"depth": 1, "width": 16, "mlp_width": 8},
        "mixed_resnet": {"width": 2},
    }

    @pytest.mark.parametrize("name", SMALL)
    def test_saved_and_loaded(self, name, tmp_path):
        model = models.build(name, IMAGE, 4, **self.SMALL[name])
        model.save(tmp_path / "model.keras")
        loaded = keras.saving.load_model(tmp_path / "model.keras")
        x = np.random.default_rng(0).normal(size=(2, *IMAGE)).astype("float32")
        np.testing.assert_allclose(
            model.predict(x, verbose=0),
            loaded.predict(x, verbose=0),
            rtol=1e-4,
            atol=1e-5,
        )
        assert paper_matrices(loaded).names == paper_matrices(model).names

    @pytest.mark.parametrize("name", SMALL)
    @pytest.mark.parametrize("conventions", ["torch", "keras"])
    def test_logits_of_every_network(self, name, conventions):
        options = self.SMALL[name] | {"conventions": conventions}
        model = models.build(name, IMAGE, 4, **options)
        x = np.zeros((2, *IMAGE), "float32")
        assert model.predict(x, verbose=0).shape == (2, 4)

    def test_weight_norm_starts_as_the_plain_layer(self):
        x = np.random.default_rng(0).normal(size=(3, 5)).astype("float32")
        plain, normed = (
            models.build(
                "mlp",
                (5,),
                2,
                depth=2,
                width=4,
                batch_norm=False,
                weight_norm=n,
            ).predict(x, verbose=0)
            for n in (False, True)
        )
        np.testing.assert_allclose(plain, normed, rtol=1e-5, atol=1e-6)

    def test_weight_norm_does_not_see_the_scale_of_its_kernel(self):
        layer = models.WeightNormDense(4)
        x = np.random.default_rng(0).normal(size=(3, 5)).astype("float32")
        before = keras.ops.convert_to_numpy(layer(x))
        layer.kernel.assign(3 * layer.kernel.numpy())
        after = keras.ops.convert_to_numpy(layer(x))
        np.testing.assert_allclose(before, after, rtol=1e-5, atol=1e-6)

    def test_errors(self):
        with pytest.raises(ValueError, match=r"one of mlp, resnet18.*'mpl'"):
            models.build("mpl", IMAGE, 10)
        with pytest.raises(
            ValueError, match=r"'mlp' has no option widht.*depth, width"
        ):
            models.build("mlp", IMAGE, 10, widht=3)
        with pytest.raises(ValueError, match="no option depth"):
            models.build("resnet18", IMAGE, 10, depth=34)
        with pytest.raises(ValueError, match="one of \\(18, 34"):
            models.resnet(IMAGE, 10, depth=20)
        with pytest.raises(ValueError, match="`conventions` must be one of"):
            models.build("mlp", IMAGE, 10, conventions="jax")
        with pytest.raises(ValueError, match="`activation` must be one of"):
            models.build("mlp", IMAGE, 10, activation="tanh")
        with pytest.raises(ValueError, match="`patch` must divide"):
            models.build("vit", (30, 30, 3), 10)
        with pytest.raises(ValueError, match="`heads` must divide"):
            models.build("vit", IMAGE, 10, heads=7)


# The paper's networks in torch, written from its description.


class Residual(nn.Module):
    def __init__(self, inputs, plan, stride):
        super().__init__()
        layers = []
        outputs = inputs
        for filters, size, step in plan:
            layers += [
                nn.Conv2d(outputs, filters, size, step, size // 2, bias=False),
                nn.BatchNorm2d(filters),
                nn.ReLU(),
            ]
            outputs = filters
        self.body = nn.Sequential(*layers[:-1])
        self.shortcut = nn.Sequential()
        if stride > 1 or inputs != outputs:
            self.shortcut = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride, bias=False),
                nn.BatchNorm2d(outputs),
            )

    def forward(self, x):
        return torch.relu(self.body(x) + self.shortcut(x))


def torch_resnet(blocks, bottleneck):
    layers = [nn.Conv2d(3, 64, 3, 1, 1, bias=False), nn.BatchNorm2d(64)]
    layers.append(nn.ReLU())
    inputs = 64
    for stage, count in enumerate(blocks):
        width = 64 * 2**stage
        for block in range(count):
            stride = 2 if stage and not block else 1
            plan = [(width, 3, stride), (width, 3, 1)]
            if bottleneck:
                plan = [(width, 1, 1), (width, 3, stride), (4 * width, 1, 1)]
            layers.append(Residual(inputs, plan, stride))
            inputs = plan[-1][0]
    layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inputs, 10)]
    return nn.Sequential(*layers)


def torch_vgg16():
    layers, inputs = [], 3
    for widths in ((64,) * 2, (128,) * 2, (256,) * 3, (512,) * 3, (512,) * 3):
        for width in widths:
            layers += [
                nn.Conv2d(inputs, width, 3, padding=1),
                nn.BatchNorm2d(width),
                nn.ReLU(),
            ]
            inputs = width
        layers.append(nn.MaxPool2d(2))
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(512, 10))


def torch_mlp(depth=3, width=20):
    layers, inputs = [nn.Flatten()], 3 * 32 * 32
    for _ in range(depth):
        layers += [nn.Linear(inputs, width), nn.BatchNorm1d(width), nn.ReLU()]
        inputs = width
    return nn.Sequential(*layers, nn.Linear(inputs, 10))


def torch_convnet(depth=2, width=8):
    layers = [
        nn.Conv2d(3, width, 2, 2),
        nn.BatchNorm2d(width),
        nn.Conv2d(width, width, 2, 2),
        nn.BatchNorm2d(width),
        nn.LeakyReLU(),
    ]
    for _ in range(depth):
        layers += [
            nn.Conv2d(width, width, 3, padding=1),
            nn.BatchNorm2d(width),
            nn.LeakyReLU(),
        ]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(64 * width, 10))


class TorchBlock(nn.Module):
    """A residual branch, and the activation after or inside of it."""

    def __init__(self, body, alpha=1.0, after=True):
        super().__init__()
        self.body, self.alpha, self.after = body, alpha, after

    def forward(self, x):
        y = x + self.alpha * self.body(x)
        return torch.relu(y) if self.after else y


def torch_conv_resnet(depth=2, width=8, alpha=0.5):
    layers = [
        nn.Conv2d(3, width, 2, 2),
        nn.BatchNorm2d(width),
        nn.Conv2d(width, width, 2, 2),
        nn.BatchNorm2d(width),
        nn.ReLU(),
    ]
    for _ in range(depth):
        body = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1),
            nn.BatchNorm2d(width),
        )
        layers.append(TorchBlock(body, alpha))
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(64 * width, 10))


def torch_mixed(width=4):
    def conv(inputs):
        return [
            nn.Conv2d(inputs, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
        ]

    def dense(inputs):
        return [nn.Linear(inputs, width), nn.LayerNorm(width), nn.ReLU()]

    layers = conv(3)
    for _ in range(5):
        body = nn.Sequential(*conv(width), *conv(width))
        layers.append(TorchBlock(body, after=False))
    layers += [nn.Flatten(), *dense(width * 32 * 32)]
    for _ in range(5):
        body = nn.Sequential(*dense(width), *dense(width))
        layers.append(TorchBlock(body, after=False))
    return nn.Sequential(*layers, nn.Linear(width, 10))


class TorchAttention(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.attention = nn.MultiheadAttention(width, heads, batch_first=True)

    def forward(self, x):
        y = self.norm(x)
        return x + self.attention(y, y, y, need_weights=False)[0]


class TorchVit(nn.Module):
    def __init__(self, depth=2, width=16, mlp_width=24, heads=4):
        super().__init__()
        self.patches = nn.Conv2d(3, width, 4, 4)
        self.positions = nn.Parameter(torch.zeros(64, width))
        blocks = []
        for _ in range(depth):
            blocks.append(TorchAttention(width, heads))
            body = nn.Sequential(
                nn.LayerNorm(width),
                nn.Linear(width, mlp_width),
                nn.GELU(),
                nn.Linear(mlp_width, width),
            )
            blocks.append(TorchBlock(body, after=False))
        self.blocks = nn.Sequential(*blocks)
        self.norm = nn.LayerNorm(width)
        self.classifier = nn.Linear(width, 10)

    def forward(self, x):
        x = self.patches(x).flatten(2).transpose(1, 2) + self.positions
        return self.classifier(self.norm(self.blocks(x)).mean(1))


@torch.no_grad()
def copy_weights(model, net):
    """Give a torch network the weights of a Keras one, in their order.

    Both define their layers in one order, but for shortcuts.
    """
    layers = [layer for layer in model.layers if layer.weights]
    branches = [layer for layer in layers if "shortcut" in layer.name]
    trunk = [layer for layer in layers if "shortcut" not in layer.name]
    queues = {True: iter(branches), False: iter(trunk)}
    for name, module in net.named_modules():
        if isinstance(module, TorchVit):
            continue
        if isinstance(module, nn.MultiheadAttention):
            parts = [next(queues[False]).get_weights() for _ in range(3)]
            module.in_proj_weight.copy_(
                torch.tensor(np.concatenate([p[0].T for p in parts]))
            )
            module.in_proj_bias.copy_(
                torch.tensor(np.concatenate([p[1] for p in parts]))
            )
            continue
        if isinstance(module, nn.Conv2d):
            layer = next(queues["shortcut" in name])
            kernel, *bias = layer.get_weights()
            module.weight.copy_(torch.tensor(kernel.transpose(3, 2, 0, 1)))
        elif isinstance(module, nn.Linear):
            layer = next(queues[False])
            kernel, *bias = layer.get_weights()
            if kernel.shape[0] != module.in_features:
                raise AssertionError(f"{name} is not {layer.name}")
            before = _flattened(model, layer)
            if before is not None:
                # Torch flattens channels first, Keras last.
                kernel = kernel.reshape(*before, -1).transpose(2, 0, 1, 3)
                kernel = kernel.reshape(module.in_features, -1)
            module.weight.copy_(torch.tensor(kernel.T.copy()))
        elif isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)):
            layer = next(queues["shortcut" in name])
            scale, shift, mean, variance = layer.get_weights()
            module.weight.copy_(torch.tensor(scale))
            module.running_mean.copy_(torch.tensor(mean))
            module.running_var.copy_(torch.tensor(variance))
            bias = [shift]
        elif isinstance(module, nn.LayerNorm):
            scale, shift = next(queues[False]).get_weights()
            module.weight.copy_(torch.tensor(scale))
            bias = [shift]
        else:
            continue
        if bias:
            module.bias.copy_(torch.tensor(bias[0]))
        if name == "patches":
            positions = next(queues[False]).get_weights()[0]
            net.positions.copy_(torch.tensor(positions))
    for queue in queues.values():
        assert next(queue, None) is None, "a layer was left over"


def _flattened(model, layer):
    """Shape of the images that were flattened into a Dense layer's input."""
    source = layer.input._keras_history.operation
    if source.name != "flatten":
        return None
    return tuple(source.input.shape[1:])


TORCH = {
    "mlp": (lambda: torch_mlp(), {"depth": 3, "width": 20}),
    "resnet18": (lambda: torch_resnet((2, 2, 2, 2), False), {}),
    "resnet50": (lambda: torch_resnet((3, 4, 6, 3), True), {}),
    "vgg16": (torch_vgg16, {}),
    "convnet": (
        lambda: torch_convnet(),
        {
            "depth": 2,
            "width": 8,
            "batch_norm": True,
            "activation": "leaky_relu",
        },
    ),
    "conv_resnet": (
        lambda: torch_conv_resnet(),
        {"depth": 2, "width": 8, "alpha": 0.5},
    ),
    "mixed_resnet": (lambda: torch_mixed(), {"width": 4}),
    "vit": (
        lambda: TorchVit(),
        {"depth": 2, "width": 16, "mlp_width": 24, "heads": 4, "dropout": 0.0},
    ),
}


@pytest.mark.parametrize("training", [False, True], ids=["infer", "train"])
@pytest.mark.parametrize("name", TORCH)
def test_forward_is_that_of_torch(name, training):
    make, options = TORCH[name]
    net = make()
    model = models.build(name, IMAGE, 10, **options)
    rng = np.random.default_rng(0)
    for layer in model.layers:
        if "ormalization" in layer.name or "norm" in layer.name:
            # As after some training, so that each of them matters.
            layer.set_weights(
                [
                    rng.uniform(0.5, 1.5, w.shape).astype("float32")
                    for w in layer.get_weights()
                ]
            )
    copy_weights(model, net)
    net.train(training)
    x = rng.normal(size=(4, *IMAGE)).astype("float32")
    ours = keras.ops.convert_to_numpy(model(x, training=training))
    with torch.no_grad():
        theirs = net(torch.tensor(x.transpose(0, 3, 1, 2))).numpy()
    scale = np.abs(theirs).max()
    np.testing.assert_allclose(ours / scale, theirs / scale, atol=1e-5)
