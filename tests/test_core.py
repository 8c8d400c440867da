"""The fast path: the same numbers as plain PyTorch, and what a lower precision may change."""

import copy
from pathlib import Path
from typing import get_args

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from regbench.ascent import cross_entropy, input_gradient, logits
from regbench.core.kernels.plain import to_image
from regbench.core.layers import HalvingMaxPool2d, ImageConv2d, LargeLinear, tune
from regbench.core.layers.image import FEW_IMAGES, FloatConv2d
from regbench.core.precision import PRECISIONS
from regbench.experiment import members
from regbench.experiment.config import Training
from regbench.models.lenet_plus import LeNetPlus
from regbench.step import Step

SHAPES = [
    ((3, 1, 9, 7), 5, 2),
    ((2, 3, 8, 8), 3, (1, 2)),
    ((2, 1, 9, 9), 8, 0),
    ((2, 4, 5, 5), 1, 0),
    ((FEW_IMAGES + 1, 1, 9, 7), 5, 2),  # few images and many go back on ways of their own
    ((FEW_IMAGES + 1, 3, 8, 8), 3, (1, 2)),
]


def plain_and_tuned(
    channels: int, kernel: int, padding: int | tuple[int, int]
) -> tuple[nn.Module, nn.Module]:
    torch.manual_seed(0)
    plain = nn.Conv2d(channels, 6, kernel, padding=padding).double()
    tuned = nn.Conv2d(channels, 6, kernel, padding=padding).double()
    tuned.load_state_dict(plain.state_dict())
    return plain, tune(tuned)


@pytest.mark.parametrize(("shape", "kernel", "padding"), SHAPES)
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_the_first_layer_and_its_gradients_are_those_of_conv2d(shape, kernel, padding, layout):
    x = torch.rand(shape, dtype=torch.float64)
    plain, tuned = (
        one.to(memory_format=layout) for one in plain_and_tuned(shape[1], kernel, padding)
    )
    assert type(tuned) is ImageConv2d
    results = []
    for layer in (plain, tuned):
        given = x.clone().contiguous(memory_format=layout).requires_grad_()
        y = layer(given)
        weights = torch.autograd.grad((y**3).sum(), [given, layer.weight, layer.bias])
        results.append([y, *weights])
    for expected, got in zip(*results, strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("count", [1, 2])
def test_the_first_layer_keeps_the_layout_of_what_it_gives(count):
    """Else of a single image all that follows goes through slower, contiguous operations."""
    _, tuned = plain_and_tuned(1, 5, 2)
    tuned = tuned.to(memory_format=torch.channels_last)
    x = torch.rand(count, 1, 28, 28, dtype=torch.float64)
    strides = [tuned(one).stride() for one in (x, x.clone().requires_grad_())]
    assert strides[0] == strides[1] == (28 * 28 * 6, 1, 28 * 6, 6)


@pytest.mark.parametrize(("shape", "kernel", "padding"), SHAPES)
def test_a_gpus_way_back_to_the_image_is_that_of_conv2d(shape, kernel, padding):
    plain, _ = plain_and_tuned(shape[1], kernel, padding)
    x = torch.rand(shape, dtype=torch.float64, requires_grad=True)
    y = plain(x)
    gradient = torch.rand_like(y)
    (expected,) = torch.autograd.grad(y, x, gradient)
    got = to_image(gradient, plain.weight, x.shape[2:], plain.padding)
    torch.testing.assert_close(got, expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("count", [1, FEW_IMAGES + 1])
def test_the_first_layer_can_be_differentiated_twice(count):
    _, tuned = plain_and_tuned(1, 3, 1)
    x = torch.rand(count, 1, 4, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradgradcheck(tuned, x)


@pytest.mark.parametrize("layer", [nn.Conv2d(5, 2, 3), nn.Conv2d(2, 2, 3, groups=2)])
def test_convolutions_of_no_image_are_left_alone(layer):
    assert type(tune(layer)) is nn.Conv2d


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(1, 2, 3, stride=2),
        nn.Conv2d(1, 2, 3, dilation=2),
        nn.Conv2d(1, 2, 3, padding="same"),
        nn.Conv2d(1, 2, 3, padding=1, padding_mode="circular"),
    ],
)
def test_other_convolutions_of_an_image_only_stay_in_float32(layer):
    assert type(tune(layer)) is FloatConv2d


def large_linears() -> tuple[nn.Module, nn.Module]:
    torch.manual_seed(5)
    plain, tuned = nn.Linear(2048, 512), nn.Linear(2048, 512)
    tuned.load_state_dict(plain.state_dict())
    return plain, tune(tuned)


def test_the_large_layer_and_its_gradients_are_those_of_linear():
    plain, tuned = large_linears()
    assert type(tuned) is LargeLinear
    x, weight = torch.randn(7, 2048), torch.randn(7, 512)
    results = []
    for layer in (plain, tuned):
        given = x.clone().requires_grad_()
        y = layer(given)
        parts = [given, layer.weight, layer.bias]
        first = torch.autograd.grad((weight * y.sin()).sum(), parts, create_graph=True)
        second = torch.autograd.grad(first[0].square().sum(), [given, layer.weight])
        results.append([y, *first, *second])
    for expected, got in zip(*results, strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)


def test_the_large_layer_frozen_gives_the_same_and_follows_its_weights():
    plain, tuned = (one.requires_grad_(False) for one in large_linears())
    x, weight = torch.randn(7, 2048), torch.randn(7, 512)
    for _ in range(2):
        results = []
        for layer in (plain, tuned):
            given = x.clone().requires_grad_()
            y = layer(given)
            (first,) = torch.autograd.grad((weight * y.sin()).sum(), given, create_graph=True)
            (second,) = torch.autograd.grad(first.square().sum(), given)
            results.append([y, layer(x), first, second])
        for expected, got in zip(*results, strict=True):
            torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)
        other = {name: 2 * value for name, value in plain.state_dict().items()}
        for layer in (plain, tuned):  # what was packed is of no use any more
            layer.load_state_dict(other)


def test_the_large_layer_packs_frozen_weights_once_and_copies_without_them():
    _, tuned = large_linears()
    tuned.requires_grad_(False)
    x = torch.randn(3, 2048)
    tuned(x)
    kept = tuned._kept
    tuned(x)
    assert tuned._kept is kept
    again = copy.deepcopy(tuned)
    assert again._kept is None
    assert torch.equal(again(x), tuned(x))


@pytest.mark.parametrize("size", [(6, 8), (7, 8), (6, 9)])
def test_pooling_gives_the_same_with_and_without_a_gradient(size):
    plain, tuned = nn.MaxPool2d(2), tune(nn.MaxPool2d(2))
    assert type(tuned) is HalvingMaxPool2d
    # few values: many windows hold their maximum twice
    x = torch.randint(4, (3, 5, *size)).double().to(memory_format=torch.channels_last)
    asking = x.clone().requires_grad_()
    with torch.no_grad():
        assert torch.equal(tuned(asking), plain(x))
    assert torch.equal(tuned(x), plain(x))
    assert tuned(x).is_contiguous(memory_format=torch.channels_last)
    gradients = [torch.autograd.grad(one(asking).sin().sum(), asking)[0] for one in (plain, tuned)]
    assert torch.equal(*gradients)


@pytest.mark.parametrize(
    "layer",
    [
        nn.MaxPool2d(3),
        nn.MaxPool2d(2, stride=1),
        nn.MaxPool2d(2, padding=1),
        nn.MaxPool2d(2, dilation=2),
        nn.MaxPool2d(2, return_indices=True),
    ],
)
def test_other_poolings_are_left_alone(layer):
    assert type(tune(layer)) is nn.MaxPool2d


def test_small_layers_are_left_alone():
    assert type(tune(nn.Linear(100, 100))) is nn.Linear


@pytest.mark.parametrize("name", ["lenet_plus", "resnet18"])
def test_an_attack_computes_no_weight_gradient(name):
    """Its cost: the operations of a network without trainable weights, and no more."""
    shape = (3, 32, 32) if name == "resnet18" else (1, 28, 28)
    model = tune(members.build(f"regbench.models.{name}", {"shape": shape, "classes": 10})).eval()
    x, y = torch.rand(2, *shape), torch.tensor([1, 2])
    counted = []
    for trainable in (True, False):
        model.requires_grad_(trainable)
        with Products() as products:
            input_gradient(model, x, y, cross_entropy)
        counted.append(products.masks)
    assert counted[0] == counted[1]


class Products(TorchDispatchMode):
    """Hears which gradients each convolution and matrix product computes, and in which types."""

    def __init__(self):
        super().__init__()
        self.masks = []
        self.types = set()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function.overloadpacket.__name__
        if name == "convolution_backward":
            self.masks.append(tuple(args[-1]))
        if name in {"mm", "addmm", "_linear_pointwise"}:
            self.masks.append(name)
        if any(word in name for word in ("mm", "conv", "linear")):
            self.types |= {one.dtype for one in args if isinstance(one, torch.Tensor)}
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("name", ["lenet_plus", "model_b", "resnet18"])
def test_a_tuned_network_has_the_names_logits_and_gradients_of_a_plain_one(name):
    shape = (3, 32, 32) if name == "resnet18" else (1, 28, 28)
    torch.manual_seed(1)
    plain = members.build(f"regbench.models.{name}", {"shape": shape, "classes": 10}).double()
    tuned = members.build(f"regbench.models.{name}", {"shape": shape, "classes": 10}).double()
    tuned.load_state_dict(plain.state_dict())
    tuned = tune(tuned).to(memory_format=torch.channels_last)
    assert list(tuned.state_dict()) == list(plain.state_dict())
    assert sum(isinstance(module, ImageConv2d) for module in tuned.modules()) == 1
    x, y = torch.rand(2, *shape, dtype=torch.float64), torch.tensor([1, 2])
    for model in (plain, tuned):
        model.eval()
    torch.testing.assert_close(tuned(x), plain(x), rtol=1e-10, atol=1e-10)
    gradients = [input_gradient(model, x, y, cross_entropy) for model in (plain, tuned)]
    torch.testing.assert_close(*gradients, rtol=1e-9, atol=1e-10)


def test_pooling_before_the_relu_changes_not_a_bit():
    torch.manual_seed(2)
    ours = LeNetPlus((1, 28, 28), 10)
    conv1, _, _, conv2, _, _, *rest = ours

    def authors(x):
        x = F.max_pool2d(F.relu(conv1(x)), 2)
        return nn.Sequential(*rest)(F.max_pool2d(F.relu(conv2(x)), 2))

    x, y = torch.rand(4, 1, 28, 28), torch.arange(4)
    assert ours(x).equal(authors(x))
    gradients = [input_gradient(model, x, y, cross_entropy) for model in (ours, authors)]
    assert gradients[0].equal(gradients[1])


# --- precision ------------------------------------------------------------------------------------


def test_the_config_offers_every_precision():
    (offered,) = (
        get_args(one)
        for one in get_args(Training.model_fields["precision"].annotation)
        if get_args(one)
    )
    assert set(offered) == set(PRECISIONS)


@pytest.fixture
def lenet():
    torch.manual_seed(3)
    model = tune(LeNetPlus((1, 28, 28), 10)).to(memory_format=torch.channels_last)
    generator = torch.Generator().manual_seed(3)
    x = torch.rand(16, 1, 28, 28, generator=generator)
    return model, x, torch.randint(10, (16,), generator=generator)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_logits_are_float32_in_every_precision(precision, lenet):
    model, x, _ = lenet
    with PRECISIONS[precision](x.device):
        z = logits(model, x)
    assert z.dtype is torch.float32
    torch.testing.assert_close(z, model(x), rtol=0.05, atol=0.02)


def test_bf16_keeps_the_first_layer_exact(lenet):
    model, x, _ = lenet
    with PRECISIONS["bf16"](x.device):
        assert model[0](x).equal(model[0](x))
        got = model[0](x)
    assert got.dtype is torch.float32
    assert got.equal(model[0](x))


def test_bf16_agrees_on_most_signs(lenet):
    model, x, y = lenet
    exact = input_gradient(model, x, y, cross_entropy)
    with PRECISIONS["bf16"](x.device):
        rounded = input_gradient(model, x, y, cross_entropy)
    assert rounded.dtype is torch.float32
    assert (rounded.sign() == exact.sign()).float().mean() > 0.9


@pytest.mark.parametrize("name", members.names("regularizers"))
def test_every_loss_trains_in_bf16_and_reaches_every_weight(name, lenet, small_loss):
    """A network frozen by a cast that was cached without a graph would train only its biases."""
    model, x, y = lenet
    loss = small_loss(name)
    gradients = []
    for precision in ("fp32", "bf16"):
        step = Step(model, x, y, 0.05, torch.Generator().manual_seed(4))
        with PRECISIONS[precision](x.device):
            objective = loss(step)
        gradients.append(torch.autograd.grad(objective.total, list(model.parameters())))
    for exact, rounded in zip(*gradients, strict=True):
        assert rounded.dtype is torch.float32
        cosine = F.cosine_similarity(exact.flatten(), rounded.flatten(), dim=0)
        assert cosine > 0.9


def test_a_cpu_without_bf16_trains_the_same_by_rounding(lenet, monkeypatch):
    """oneDNN's bf16 is the reference: slow where instructions for it are missing, but there."""
    model, x, y = lenet
    found = {}
    for name, has in (("fp32", True), ("bf16", True), ("bf16", False)):
        monkeypatch.setattr("regbench.core.precision._has_bf16", lambda has=has: has)
        image = x.clone().requires_grad_()
        with PRECISIONS[name](x.device):
            loss = cross_entropy(logits(model, image), y)
        found[name, has] = torch.autograd.grad(loss, [image, *model.parameters()])
    exact, native, rounded = found.values()
    for one, other, third in zip(exact, native, rounded, strict=True):
        assert third.dtype is torch.float32
        assert (third - other).norm() < 0.25 * (one - other).norm()


@pytest.mark.parametrize(
    "product",
    [
        lambda a, b: a @ b,
        lambda a, b: a.matmul(b),
        lambda a, b: a.mm(b),
        torch.matmul,
        torch.mm,
        lambda a, b: F.linear(a, b.t()),
        lambda a, b: torch.addmm(torch.ones(3), a, b),
        lambda a, b: torch.bmm(a[None], b[None]),
        lambda a, b: a[None].bmm(b[None]),
        lambda a, b: torch.baddbmm(torch.ones(1, 3), a[None], b[None]),
        lambda a, b: F.conv1d(a[:, :, None], b.t()[:, :, None]),
        lambda a, b: F.conv3d(a[..., None, None, None], b.t()[..., None, None, None]),
        lambda a, b: F.conv2d(a[:, :, None, None], b.t()[:, :, None, None]),
        lambda a, b: F.conv_transpose2d(a[:, :, None, None], b[:, :, None, None]),
    ],
)
def test_rounding_takes_the_products_that_autocast_takes(product, monkeypatch):
    generator = torch.Generator().manual_seed(5)
    a, b = torch.randn(4, 8, generator=generator), torch.randn(8, 3, generator=generator)
    found = []
    for has in (True, False):
        monkeypatch.setattr("regbench.core.precision._has_bf16", lambda has=has: has)
        with PRECISIONS["bf16"](a.device):
            found.append(product(a, b))
    native, rounded = found
    assert native.dtype is rounded.dtype is torch.bfloat16
    assert not operands_of_products(lambda: PRECISIONS["bf16"](a.device), product, a, b) & {
        torch.bfloat16
    }
    torch.testing.assert_close(rounded, native)


def operands_of_products(precision, work, *arguments):
    with Products() as seen, precision():
        work(*arguments)
    assert seen.types
    return seen.types


@pytest.mark.parametrize("second", [False, True])
def test_rounding_computes_no_gradient_in_bf16_either(lenet, monkeypatch, second):
    monkeypatch.setattr("regbench.core.precision._has_bf16", lambda: False)
    model, x, y = lenet

    def work():
        image = x.clone().requires_grad_()
        loss = cross_entropy(logits(model, image), y)
        (gradient,) = torch.autograd.grad(loss, image, create_graph=second)
        if second:
            gradient.square().sum().backward()

    assert operands_of_products(lambda: PRECISIONS["bf16"](x.device), work) == {torch.float32}


@pytest.mark.parametrize("dtype", [torch.float64, torch.int64, torch.complex64])
def test_rounding_leaves_alone_what_autocast_leaves_alone(dtype, monkeypatch):
    monkeypatch.setattr("regbench.core.precision._has_bf16", lambda: False)
    a = torch.full((2, 2), 1001).to(dtype)
    with PRECISIONS["bf16"](a.device):
        assert (a @ a).equal(a.mm(a))
        assert (a @ a).dtype is dtype


def test_rounding_rounds_weights_once_and_anew_when_they_change(monkeypatch):
    monkeypatch.setattr("regbench.core.precision._has_bf16", lambda: False)
    layer, x = torch.nn.Linear(3, 2, bias=False), torch.rand(4, 3)
    expected = (4 * x.bfloat16().float().sum(0)).expand(2, 3)
    rounded = []
    monkeypatch.setattr(
        "regbench.core.precision._round", lambda x: rounded.append(x) or x.bfloat16().float()
    )
    with PRECISIONS["bf16"](x.device):
        with torch.no_grad():
            layer(x)  # must not cut the way back to the weights below
        rounded.clear()
        first = layer(x).float()
        (first + 3 * layer(x).float()).sum().backward()
        assert sum(one is layer.weight for one in rounded) == 1
        with torch.no_grad():
            layer.weight.mul_(2)
        second = layer(x).float()
    torch.testing.assert_close(layer.weight.grad, expected, rtol=2**-7, atol=0)
    torch.testing.assert_close(second, 2 * first)


def test_rounding_reaches_weights_that_were_frozen_meanwhile(monkeypatch):
    monkeypatch.setattr("regbench.core.precision._has_bf16", lambda: False)
    layer, x = torch.nn.Linear(3, 2), torch.rand(4, 3)
    with PRECISIONS["bf16"](x.device):
        layer.requires_grad_(False)
        input_gradient(layer, x, torch.zeros(4, dtype=torch.int64), cross_entropy)
        layer.requires_grad_(True)
        layer(x).float().sum().backward()
    assert all(weight.grad is not None for weight in layer.parameters())


def test_rounding_writes_where_it_is_told_to(monkeypatch):
    monkeypatch.setattr("regbench.core.precision._has_bf16", lambda: False)
    a, product = torch.rand(2, 2), torch.zeros(2, 2)
    with PRECISIONS["bf16"](a.device):
        torch.mm(a, a, out=product)
    torch.testing.assert_close(product, a @ a, rtol=2**-6, atol=0)


def test_rounding_heeds_where_autocast_is_off(monkeypatch):
    monkeypatch.setattr("regbench.core.precision._has_bf16", lambda: False)
    a = torch.rand(2, 2)
    with PRECISIONS["bf16"](a.device), torch.autocast("cpu", enabled=False):
        assert (a @ a).dtype is torch.float32
    assert (a @ a).dtype is torch.float32


def test_tf32_is_off_again_afterwards():
    with PRECISIONS["tf32"](torch.device("cpu")):
        assert torch.backends.cudnn.allow_tf32
        assert torch.backends.cuda.matmul.allow_tf32
    assert not torch.backends.cudnn.allow_tf32
    assert not torch.backends.cuda.matmul.allow_tf32


# --- real MNIST, where it lies --------------------------------------------------------------------

MNIST = {"source": "regbench.data.mnist", "arguments": {}, "validation": 10_000, "split_seed": 0}


def test_lenet_plus_learns_real_mnist(mnist_root, tmp_path):
    """A few hundred steps of FGSM-AT: far better than chance, clean and under its own attack."""
    from regbench.core.validation import accuracy, ifgsm  # noqa: PLC0415
    from regbench.experiment.cards import DataCard  # noqa: PLC0415
    from regbench.prepare import open_data, prepare  # noqa: PLC0415
    from regbench.regularizers.fgsm_at import FGSMAT  # noqa: PLC0415

    prepare(DataCard.model_validate(MNIST), Path(mnist_root), False, tmp_path / "mnist")
    data = open_data(tmp_path / "mnist")
    train, held_out = (data.split(name, torch.device("cpu")) for name in ("train", "validation"))
    assert (len(train.y), len(held_out.y)) == (50_000, 10_000)
    assert data.shape == (1, 28, 28)
    torch.manual_seed(0)
    model = tune(LeNetPlus(data.shape, data.classes)).to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    loss, noise = FGSMAT(), torch.Generator().manual_seed(0)
    for rows in torch.split(torch.arange(300 * 32), 32):
        objective = loss(Step(model, train.x[rows], train.y[rows], 0.1, noise))
        optimizer.zero_grad()
        objective.total.backward()
        optimizer.step()
    few = type(held_out)(held_out.x[:1000], held_out.y[:1000])
    assert accuracy(model, few) > 0.9
    assert accuracy(model, ifgsm(model, few, 0.1, 3)) > 0.7
