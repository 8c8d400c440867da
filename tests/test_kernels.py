"""Kernels of our own give what PyTorch's operations do: on a GPU, or else by Triton's interpreter.

The interpreter runs a kernel's Python as it stands, on a CPU; whether it compiles for a GPU can be
seen without one too, what the compiler makes of it only there.
"""

import os
import subprocess
import sys
from contextlib import nullcontext
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from regbench.ascent import cross_entropy, input_gradient
from regbench.core import device as devices
from regbench.core import kernels
from regbench.core.layers import HalvingMaxPool2d, ImageConv2d, tune
from regbench.models.lenet_plus import LeNetPlus

pytest.importorskip("triton")
from regbench.core.kernels import image as image_kernels
from regbench.core.kernels import plain as plainly
from regbench.core.kernels.pooling import halved, spread
from regbench.core.kernels.proof import agree, proved_by

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
LAYOUTS = [torch.contiguous_format, torch.channels_last]
CLOSE = {"rtol": 1e-4, "atol": 1e-4}


@pytest.fixture(autouse=True)
def taken(monkeypatch):
    """Have the kernels taken, by the interpreter where there is no GPU (conftest.py)."""
    devices.pick(DEVICE)  # turns TF32 off for what is compared with
    monkeypatch.setattr(kernels, "OWN", True)
    if DEVICE == "cpu":
        monkeypatch.setattr(kernels, "take", lambda *_: True)


def few_values(shape, dtype=torch.float32):
    """Noise of which many windows hold their maximum twice."""
    return torch.randint(4, shape).to(DEVICE, dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("flattened", [False, True])
@pytest.mark.parametrize("shape", [(2, 20, 14, 2), (1, 1, 2, 2)])
def test_pooling_is_pytorchs_there_and_back(shape, flattened, layout, dtype):
    x = few_values(shape, dtype).to(memory_format=layout)
    x[0, 0, 0, 1] = torch.nan
    x.requires_grad_()
    expected = F.max_pool2d(x, 2)
    y, where = halved(x.detach(), flattened=flattened, noted=True)
    assert y.dtype is dtype
    torch.testing.assert_close(y, expected.detach(), rtol=0, atol=0, equal_nan=True)
    assert y.is_contiguous() if flattened else y.stride() == expected.stride()
    gradient = torch.randn(expected.shape, device=DEVICE).to(dtype)
    for laid in (gradient, gradient.to(memory_format=torch.channels_last)):
        (back,) = torch.autograd.grad(expected, x, laid, retain_graph=True)
        assert torch.equal(spread(laid, where), back)
        assert torch.equal(plainly.spread(laid, where), back)


def test_pooling_notes_nothing_where_no_gradient_asks():
    x = few_values((2, 3, 4, 4))
    y, where = halved(x, flattened=False, noted=False)
    assert where is None
    assert torch.equal(y, F.max_pool2d(x, 2))


def test_pooling_takes_a_part_of_an_image():
    x = few_values((2, 3, 8, 8))[:, :, 1:7, 2:6]
    y, _ = halved(x, flattened=False, noted=False)
    assert torch.equal(y, F.max_pool2d(x, 2))


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(
    ("shape", "weights", "padding"),
    [
        ((1, 1, 12, 10), (32, 1, 5, 5), (2, 2)),
        ((3, 3, 8, 9), (20, 3, 3, 3), (1, 1)),
        ((2, 1, 9, 7), (5, 1, 3, 4), (0, 2)),
        ((5, 2, 6, 6), (8, 2, 1, 1), (0, 0)),
        ((5, 1, 8, 8), (4, 1, 3, 3), (1, 1)),  # several programs sum the weights' gradient
    ],
)
def test_the_images_convolution_is_pytorchs_there_and_back(shape, weights, padding, layout):
    x = torch.rand(shape, device=DEVICE).to(memory_format=layout).requires_grad_()
    weight = torch.randn(weights, device=DEVICE).to(memory_format=layout).requires_grad_()
    bias = torch.randn(weights[0], device=DEVICE)
    for offset in (bias, None):
        y = F.conv2d(x, weight, offset, padding=padding)
        got = image_kernels.convolved(x.detach(), weight.detach(), offset, padding)
        torch.testing.assert_close(got, y.detach(), **CLOSE)
    gradient = torch.randn_like(y)
    image, by_weight = torch.autograd.grad(y, (x, weight), gradient)
    x, weight = x.detach(), weight.detach()
    torch.testing.assert_close(
        image_kernels.to_image(gradient, weight, x.shape[2:], padding), image, **CLOSE
    )
    torch.testing.assert_close(
        image_kernels.to_weight(gradient, x, weight, padding), by_weight, **CLOSE
    )


def pair(shape=(1, 8, 8)):
    torch.manual_seed(1)
    plain = LeNetPlus(shape, 10).to(DEVICE)
    tuned = LeNetPlus(shape, 10).to(DEVICE)
    tuned.load_state_dict(plain.state_dict())
    return plain, tune(tuned).to(memory_format=torch.channels_last)


def test_a_network_of_these_layers_is_the_plain_one():
    plain, tuned = pair()
    kinds = [type(layer) for layer in tuned]
    assert kinds.count(HalvingMaxPool2d) == 2
    assert kinds.count(ImageConv2d) == 1
    x, y = torch.rand(3, 1, 8, 8, device=DEVICE), torch.tensor([1, 2, 3], device=DEVICE)
    torch.testing.assert_close(tuned(x), plain(x), **CLOSE)
    slopes = [input_gradient(model, x, y, cross_entropy) for model in (plain, tuned)]
    torch.testing.assert_close(*slopes, **CLOSE)
    by_weights = [
        torch.autograd.grad(cross_entropy(model(x), y), list(model.parameters()))
        for model in (plain, tuned)
    ]
    for one, other in zip(*by_weights, strict=True):
        torch.testing.assert_close(one, other, **CLOSE)


def test_a_penalty_on_an_input_gradient_reaches_the_weights():
    """Differentiated twice, as local linearity and GradAlign need it."""
    slopes = []
    for model in pair():
        x = torch.rand(3, 1, 8, 8, generator=torch.Generator().manual_seed(2)).to(DEVICE)
        x.requires_grad_()
        loss = cross_entropy(model(x), torch.tensor([1, 2, 3], device=DEVICE))
        (slope,) = torch.autograd.grad(loss, x, create_graph=True)
        first = model[0].weight
        slopes.append(torch.autograd.grad(1e5 * slope.square().sum(), (first, x)))
    for one, other in zip(*slopes, strict=True):
        assert one.abs().max() > 1e-2
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("layer", [nn.Conv2d(1, 129, 3), nn.Conv2d(2, 3, (13, 5), padding=6)])
def test_more_kernels_or_larger_ones_are_left_to_pytorch(layer, monkeypatch):
    monkeypatch.setattr(image_kernels, "convolved", None)
    layer = layer.to(DEVICE)
    x = torch.rand(1, layer.in_channels, 4, 4, device=DEVICE)
    expected = layer(x)
    torch.testing.assert_close(tune(layer)(x), expected)


def seen(*shape, step=1):
    """A tensor of one column of numbers, `step` apart, on a GPU, as far as it is looked at."""
    count = torch.Size(shape).numel()
    return SimpleNamespace(
        device=torch.device("cuda"), shape=(count,), stride=lambda: (step,), numel=lambda: count
    )


def test_a_tensor_too_large_for_a_kernel_is_left_to_pytorch(monkeypatch):
    monkeypatch.undo()
    monkeypatch.setattr(kernels, "OWN", True)
    monkeypatch.setattr(kernels, "has_triton", lambda: True)
    assert kernels.take(seen(2**30 - 1))
    assert not kernels.take(seen(2**30))
    assert not kernels.take(seen(2**20, step=2**11))
    assert not kernels.take(seen(2**20), times=2**10)
    assert not kernels.take(seen(0))
    monkeypatch.setattr(kernels, "has_triton", lambda: False)
    assert not kernels.take(seen(1))


def test_kernels_can_be_left_out(monkeypatch):
    monkeypatch.undo()
    monkeypatch.setattr(kernels, "has_triton", lambda: True)
    assert kernels.take(seen(1))
    monkeypatch.setattr(kernels, "OWN", False)
    assert not kernels.take(seen(1))


class Counting:
    """`change` of a tensor, and how often it was asked for."""

    def __init__(self, change):
        self.change = change
        self.calls = 0
        self.__name__ = "counting"

    def __call__(self, x, *, noted):
        self.calls += 1
        return self.change(x), noted


def test_a_kernel_is_held_against_pytorch_once_for_each_kind_of_input():
    kernel, plain = Counting(lambda x: 2 * x), Counting(lambda x: x + x)
    taken = proved_by(plain)(kernel)
    for shape in [(2, 3), (2, 3), (3, 2)]:
        x = torch.rand(shape)
        result, noted = taken(x, noted=True)
        assert torch.equal(result, 2 * x)
        assert noted is True
    for count in (5, 6, 7):
        taken(torch.rand(count, 2, 2), noted=True)
    taken(x.t(), noted=True)
    taken(x.double(), noted=True)
    taken(x, noted=False)
    assert plain.calls == 6
    assert kernel.calls == 9 + 6


def test_of_several_things_for_each_image_the_number_counts_once():
    held = []
    taken = proved_by(lambda x, y: held.append(len(x)) or x, images=2)(lambda x, y: x)
    for count in (5, 6, 7, 8):
        taken(torch.rand(count, 2), torch.rand(count, 3))
    assert held == [5, 8]


@pytest.mark.parametrize("value", [0.0, torch.nan, torch.inf])
def test_what_tells_nothing_proves_nothing(value):
    kernel, plain = Counting(lambda x: 0 * x), Counting(lambda x: 2 * x)
    taken = proved_by(plain)(kernel)
    x = torch.full((2,), value)
    result, _ = taken(x, noted=True)
    assert torch.equal(result.nan_to_num(9), (2 * x).nan_to_num(9))
    assert kernel.calls == 0
    with pytest.warns(RuntimeWarning, match="gives other numbers"):
        taken(torch.ones(2), noted=True)


def test_a_kernel_that_does_not_say_where_maxima_stood_is_not_taken():
    where = torch.randint(4, (100,), dtype=torch.int8)
    for told, right in ((where, True), (torch.full_like(where, 3), False)):
        kernel = proved_by(lambda x: (x, where))(lambda x, told=told: (x, told))
        with nullcontext() if right else pytest.warns(RuntimeWarning, match="other numbers"):
            assert torch.equal(kernel(torch.ones(3))[1], where)


def test_weights_of_another_number_are_of_another_kind():
    held = []
    taken = proved_by(lambda x, w: held.append(len(w)) or x)(lambda x, w: x)
    for count in (20, 30, 30):
        taken(torch.rand(4, 2), torch.rand(count, 2))
    assert held == [20, 30]


def test_a_kernel_that_gives_other_numbers_is_not_taken():
    kernel, plain = Counting(lambda x: 1.03 * x), Counting(lambda x: x)
    taken = proved_by(plain)(kernel)
    with pytest.warns(RuntimeWarning, match="the kernel counting gives other numbers"):
        taken(torch.ones(2), noted=True)
    assert torch.equal(taken(torch.full((2,), 5.0), noted=True)[0], torch.full((2,), 5.0))
    assert kernel.calls == 1


def test_a_kernel_that_fails_is_not_taken_unless_memory_is_all_it_lacks():
    def failing(error):
        def kernel(x):
            raise error

        return proved_by(lambda x: x)(kernel)

    taken, x = failing(RuntimeError("Failed to find C compiler")), torch.ones(2)
    with pytest.warns(
        RuntimeWarning, match=r"fails \(RuntimeError: Failed to find C compiler\) here"
    ):
        assert taken(x) is x
    assert taken(x) is x
    with pytest.raises(torch.OutOfMemoryError):
        failing(torch.OutOfMemoryError("CUDA out of memory"))(x)


NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (torch.tensor([100.0, 0.5]), torch.tensor([100.0, 0.0]), True),  # within 1 % of the largest
        (torch.tensor([100.0, 1.5]), torch.tensor([100.0, 0.0]), False),
        (torch.tensor([NAN, INF]), torch.tensor([NAN, INF]), True),
        (torch.tensor([NAN, 1.0]), torch.tensor([1.0, 1.0]), False),
        (torch.tensor([INF, 1.0]), torch.tensor([-INF, 1.0]), False),
        (torch.tensor([2], dtype=torch.int8), torch.tensor([3], dtype=torch.int8), False),
        (torch.zeros(2), torch.zeros(2, dtype=torch.float64), False),
        (torch.zeros(2), torch.zeros(1, 2), False),
        (torch.zeros(0), torch.zeros(0), True),
        ((torch.ones(1), None), (torch.ones(1), None), True),
        ((torch.ones(1), torch.ones(1)), (torch.ones(1), torch.zeros(1)), False),
    ],
)
def test_results_agree_within_a_share_of_the_largest_number(one, other, same):
    assert agree(one, other) is same


COMPILE = """
from triton import compile
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from regbench.core.kernels import OPTIONS, image, pooling

SIZES = dict(C=1, H=8, W=8, K=32, ROWS=8, COLUMNS=8, KH=3, KW=3, TOP=1, LEFT=1, LANES=32, BLOCK=64)
KERNELS = {
    pooling._halve: dict(C=4, H=2, W=2, NOTED=True, BLOCK=512),
    pooling._spread: dict(C=4, H=2, W=2, BLOCK=512),
    image._convolve: dict(SIZES, BIASED=True),
    image._to_image: SIZES,
    image._to_weight: dict(SIZES, TAPS=16, LONG=256),
}
FLOATS = {"x", "y", "gradient", "weight", "bias", "parts"}
for kernel, sizes in KERNELS.items():
    for last in (False, True):
        constants = dict(sizes, LAST=last)
        types = {name: "*fp32" if name in FLOATS else "i32" for name in kernel.arg_names}
        types |= {"where": "*i8"} if "where" in types else {}
        types |= dict.fromkeys(constants, "constexpr")
        places = {(kernel.arg_names.index(name),): value for name, value in constants.items()}
        source = ASTSource(kernel, types, places)
        made = compile(source, target=GPUTarget("cuda", 90, 32), options=dict(OPTIONS))
        print(kernel.__name__, len(made.asm["cubin"]) > 0)
"""


def test_every_kernel_compiles_for_a_gpu(tmp_path):
    environment = {**os.environ, "TRITON_INTERPRET": "0", "TRITON_CACHE_DIR": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", COMPILE],
        capture_output=True, text=True, check=False, env=environment,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [
        word for name in ("_halve", "_spread", "_convolve", "_to_image", "_to_weight")
        for word in (name, "True") * 2
    ]  # fmt: skip
