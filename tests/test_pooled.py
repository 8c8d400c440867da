"""A convolution of an image and the pooling behind it, by C: what PyTorch's operations give."""

import copy
import os
import pickle
import subprocess
import sys
import warnings
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.modules.module import register_module_forward_hook
from torch.utils.flop_counter import FlopCounterMode

from regbench.ascent import cross_entropy, input_gradient
from regbench.core import kernels
from regbench.core.kernels import native, plain, pooled
from regbench.core.layers import HalvingMaxPool2d, ImageConv2d, tune, untuned
from regbench.core.layers.joined import Joining
from regbench.core.network import laid_out
from regbench.models.lenet_plus import LeNetPlus

pytestmark = pytest.mark.skipif(native.target() is None, reason="no C compiler is found here")

LAST = torch.channels_last

LAYERS = [
    ((1, 1, 12, 10), (32, 1, 5, 5), (2, 2)),
    ((3, 3, 8, 10), (20, 3, 3, 3), (1, 1)),
    ((2, 1, 10, 7), (5, 1, 3, 4), (0, 2)),
    ((5, 2, 6, 6), (8, 2, 1, 1), (0, 0)),
    ((2, 4, 9, 5), (17, 4, 2, 8), (0, 2)),
    ((7, 1, 28, 28), (64, 1, 7, 7), (3, 3)),
]


def exact(x, weight, bias, padding):
    """The maxima in double precision, with a graph of their own."""
    own = [one.detach().double().requires_grad_() for one in (x, weight, bias)]
    return F.max_pool2d(F.conv2d(*own, padding=padding), 2), own


@pytest.mark.parametrize("layout", [torch.contiguous_format, LAST])
@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize(("shape", "weights", "padding"), LAYERS)
def test_maxima_and_their_ways_back_are_pytorchs(shape, weights, padding, threads, layout):
    torch.manual_seed(1)
    x, bias = torch.rand(shape).to(memory_format=layout), torch.randn(weights[0])
    weight = torch.randn(weights).to(memory_format=layout)
    y, own = exact(x, weight, bias, padding)
    gradient = torch.randn(y.shape) * (torch.rand(y.shape) > 0.5)
    expected = torch.autograd.grad(y, own, gradient.double())
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        got, where = pooled.maxima(x, weight, bias, padding, True)
        unnoted, nothing = pooled.maxima(x, weight, bias, padding, False)
        by_image = pooled.to_image(gradient, where, weight, x.shape[2:], padding)
        by_weight, by_bias = pooled.to_weight(gradient, where, x, weight, padding)
    finally:
        torch.set_num_threads(before)
    assert torch.equal(got, unnoted)
    assert nothing is None
    results = (got, by_image, by_weight, by_bias)
    for one, other in zip(results, (y.detach(), *expected), strict=True):
        torch.testing.assert_close(
            one.double(), other, rtol=1e-5, atol=1e-5 * float(other.abs().max())
        )


def test_a_layer_without_bias_has_none():
    x, weight = torch.rand(2, 1, 4, 4), torch.randn(3, 1, 3, 3)
    expected = F.max_pool2d(F.conv2d(x, weight, padding=1), 2)
    got, _ = pooled.maxima(x, weight, None, (1, 1), False)
    torch.testing.assert_close(got, expected)


def by_kernel(function):
    """A kernel itself, without what it is held against."""
    return function.__wrapped__


@pytest.mark.parametrize("fill", [0.0, 1.0, torch.nan])
def test_of_equals_the_first_is_the_largest_and_nan_is_larger_than_numbers(fill):
    torch.manual_seed(1)
    x = torch.randint(3, (4, 1, 8, 8)).float()  # few values: many windows hold theirs twice
    x[:, :, 2:5, 1::3] = fill
    x[0, 0, :2, :2] = fill  # all four
    weight = torch.ones(16, 1, 1, 1)
    expected, where = plain.halved(F.conv2d(x, weight), flattened=False, noted=True)
    got, told = by_kernel(pooled.maxima)(x, weight, None, (0, 0), True)
    assert torch.equal(got.nan_to_num(9), expected.nan_to_num(9))
    assert torch.equal(told, where)


def test_many_gradients_of_one_sign_add_up_to_the_last_digits():
    torch.manual_seed(1)
    x, weight = torch.rand(64, 1, 28, 28), torch.randn(8, 1, 5, 5)
    _, where = pooled.maxima(x, weight, None, (2, 2), True)
    gradient = torch.full((64, 8, 14, 14), 1 / (64 * 14 * 14))
    for got, expected in zip(
        pooled.to_weight(gradient, where, x, weight, (2, 2)),
        plain.pooled_to_weight(gradient.double(), where, x.double(), weight.double(), (2, 2)),
        strict=True,
    ):
        torch.testing.assert_close(got.double(), expected, rtol=1e-5, atol=1e-6)


def pair():
    torch.manual_seed(1)
    own = LeNetPlus((1, 28, 28), 10)
    return own, tune(copy.deepcopy(own)).to(memory_format=LAST)


def test_a_network_of_joined_layers_is_the_plain_one(kernel_calls):
    own, tuned = pair()
    x, y = torch.rand(6, 1, 28, 28), torch.arange(6)
    torch.testing.assert_close(tuned(x), own(x), rtol=1e-5, atol=1e-5)
    weights = [
        torch.autograd.grad(cross_entropy(one(x), y), tuple(one.parameters()))
        for one in (own, tuned)
    ]
    for one, other in zip(*weights, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)
    assert kernel_calls == {"maxima": 2, "to_image": 0, "to_weight": 1}
    slopes = [input_gradient(one, x, y, cross_entropy) for one in (own, tuned)]
    torch.testing.assert_close(*slopes, rtol=1e-5, atol=1e-6)
    # an attack asks for the images' gradient alone
    assert kernel_calls == {"maxima": 3, "to_image": 1, "to_weight": 1}


def losses():
    """Each network of `pair`, images that a gradient may be asked for, and their loss."""
    for model in pair():
        x = torch.rand(3, 1, 28, 28, generator=torch.Generator().manual_seed(2)).requires_grad_()
        yield model, x, cross_entropy(model(x), torch.arange(3))


def test_both_gradients_in_one_way_back():
    found = [torch.autograd.grad(loss, (x, *model.parameters())) for model, x, loss in losses()]
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


def test_a_gradient_can_be_differentiated_once_more():
    found = []
    for model, x, loss in losses():
        (slope,) = torch.autograd.grad(loss, x, create_graph=True)
        first = model[0].weight
        found.append(torch.autograd.grad(1e5 * slope.square().sum(), (first, x)))
    for one, other in zip(*found, strict=True):
        assert one.abs().max() > 1e-2
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4)


def test_gradients_of_the_weights_can_be_differentiated_by_the_images():
    found = []
    for model, x, loss in losses():
        by_weights = torch.autograd.grad(loss, tuple(model.parameters())[:2], create_graph=True)
        total = sum(one.square().sum() for one in by_weights)
        found.append(torch.autograd.grad(1e3 * total, x)[0])
    assert found[0].abs().max() > 1e-2
    torch.testing.assert_close(*found, rtol=1e-3, atol=1e-4)


def test_several_gradients_at_once():
    own, tuned = pair()
    found = []
    for model in (own, tuned):
        x = torch.rand(2, 1, 28, 28, generator=torch.Generator().manual_seed(2)).requires_grad_()
        z = model(x).sum(0)
        found.append(torch.autograd.grad(z, x, torch.eye(10), is_grads_batched=True)[0])
    torch.testing.assert_close(*found, rtol=1e-4, atol=1e-5)


def test_the_first_layer_stays_in_float32_where_the_rest_is_bf16():
    _, tuned = pair()
    x = torch.rand(2, 1, 28, 28)
    expected = tuned[1](tuned[0](x))
    seen = []
    tuned[2].register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    with torch.autocast("cpu", torch.bfloat16):
        assert tuned(x).dtype is torch.bfloat16
    assert seen[0].dtype is torch.float32
    torch.testing.assert_close(seen[0], expected)


def looked_on(kind, layer, seen):
    """Have `seen` told whenever `layer` is called, or gone back through, in one of these ways."""
    if kind == "forward":
        own = layer.forward
        layer.forward = lambda x: seen.append(0) or own(x)
        return SimpleNamespace(remove=lambda: None)
    register = {
        "before": layer.register_forward_pre_hook,
        "after": layer.register_forward_hook,
        "back": layer.register_full_backward_hook,
        "everywhere": register_module_forward_hook,
    }[kind]
    return register(lambda one, *_: seen.append(0) if one is layer else None)


@pytest.mark.parametrize("kind", ["before", "after", "back", "everywhere", "forward"])
@pytest.mark.parametrize("place", [0, 1])
def test_a_layer_that_somebody_looks_at_is_called_itself(place, kind):
    _, tuned = pair()
    seen = []
    handle = looked_on(kind, tuned[place], seen)
    try:
        tuned(torch.rand(2, 1, 28, 28, requires_grad=True)).sum().backward()
    finally:
        handle.remove()
    assert seen == [0]


def test_who_counts_operations_sees_them_all():
    layers = nn.Sequential(nn.Conv2d(1, 4, 3), nn.MaxPool2d(2))
    counts = []
    for model in (layers, tune(copy.deepcopy(layers))):
        with FlopCounterMode(display=False) as counter:
            model(torch.rand(2, 1, 28, 28))
        counts.append(counter.get_total_flops())
    assert counts[0] == counts[1] > 0


def test_who_counts_the_way_back_sees_it_all():
    layers = nn.Sequential(nn.Conv2d(1, 4, 3), nn.MaxPool2d(2))
    counts = []
    for model in (layers, tune(copy.deepcopy(layers))):
        y = model(torch.rand(2, 1, 28, 28)).sum()
        with FlopCounterMode(display=False) as counter:
            y.backward()
        counts.append(counter.get_total_flops())
    assert counts[0] == counts[1] > 0


class Viewing(nn.Module):
    """Takes its maps as rows, which only PyTorch's own layout lets it do."""

    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.MaxPool2d(2), nn.ReLU())
        self.head = nn.Linear(4 * 14 * 14, 10)

    def forward(self, x):
        return self.head(self.features(x).view(len(x), -1))


def test_a_network_that_views_its_maxima_can():
    own = Viewing()
    tuned = laid_out(copy.deepcopy(own), torch.device("cpu"), shape=(1, 28, 28))
    assert isinstance(tuned.features, Joining)
    x = torch.rand(2, 1, 28, 28)
    torch.testing.assert_close(tuned(x), own(x))


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_pytorchs_default_type_and_device_do_not_matter(dtype):
    _, tuned = pair()
    x = torch.rand(2, 1, 28, 28, requires_grad=True)
    expected = torch.autograd.grad(tuned(x).sum(), (x, *tuned.parameters()))
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with torch.device("meta"):
            got = torch.autograd.grad(tuned(x).sum(), (x, *tuned.parameters()))
    finally:
        torch.set_default_dtype(before)
    torch.testing.assert_close(got, expected)


def test_a_compiler_and_a_tracer_of_pytorchs_see_the_layers():
    tuned = tune(nn.Sequential(nn.Conv2d(1, 4, 3), nn.MaxPool2d(2)))
    x = torch.rand(2, 1, 28, 28)
    graph = torch.compile(tuned, backend="eager", fullgraph=True)
    torch.testing.assert_close(graph(x), tuned(x))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that tracing is old
        traced = torch.jit.trace(tuned, x, check_trace=False)
    torch.testing.assert_close(traced(x), tuned(x))


@pytest.mark.parametrize("x", [
    torch.rand(2, 1, 28, 28).double(), torch.rand(0, 1, 28, 28), torch.rand(1, 28, 28),
])  # fmt: skip
def test_what_the_kernels_do_not_take_is_left_to_pytorch(x, kernel_calls):
    layers = nn.Sequential(nn.Conv2d(1, 4, 3), nn.MaxPool2d(2)).to(x.dtype)
    expected = layers(x)
    torch.testing.assert_close(tune(layers)(x), expected)
    assert not any(kernel_calls.values())


def test_a_map_of_odd_sides_is_left_to_pytorch(kernel_calls):
    layers = nn.Sequential(nn.Conv2d(1, 4, 2), nn.MaxPool2d(2))
    x = torch.rand(2, 1, 8, 8)
    expected = layers(x)
    torch.testing.assert_close(tune(layers)(x), expected)
    assert not any(kernel_calls.values())


def test_only_a_sequential_that_calls_its_layers_in_turn_is_joined():
    class Twice(nn.Sequential):
        def forward(self, x):
            return 2 * super().forward(x)

    layers = (nn.Conv2d(1, 4, 3), nn.MaxPool2d(2))
    assert isinstance(tune(nn.Sequential(*layers)), Joining)
    assert not isinstance(tune(Twice(nn.Conv2d(1, 4, 3), nn.MaxPool2d(2))), Joining)
    assert not isinstance(
        tune(nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.MaxPool2d(2))), Joining
    )


def test_a_joined_network_can_be_copied_and_parted_again():
    own, tuned = pair()
    assert isinstance(tuned, LeNetPlus)
    assert isinstance(tuned, Joining)
    assert tuned.state_dict().keys() == own.state_dict().keys()
    other = copy.deepcopy(tuned)
    with torch.no_grad():
        other[0].weight.zero_()
    x = torch.rand(1, 1, 28, 28)
    torch.testing.assert_close(tuned(x), own(x))
    assert not torch.allclose(other(x), own(x))
    assert [type(one) for one in (tuned[0], tuned[1])] == [ImageConv2d, HalvingMaxPool2d]
    again = pickle.loads(pickle.dumps(tuned))
    assert type(again) is type(other) is type(tuned)
    assert torch.equal(again(x), tuned(x))
    assert type(tune(tuned)) is type(tuned)
    assert type(untuned(tuned)) is LeNetPlus


def test_without_a_compiler_the_layers_are_pytorchs(monkeypatch, kernel_calls):
    own, tuned = pair()
    monkeypatch.setattr(pooled, "target", lambda: None)
    x = torch.rand(2, 1, 28, 28)
    torch.testing.assert_close(tuned(x), own(x))
    assert not any(kernel_calls.values())


def test_they_can_be_left_out(monkeypatch, kernel_calls):
    _, tuned = pair()
    monkeypatch.setattr(kernels, "OWN", False)
    tuned(torch.rand(2, 1, 28, 28))
    assert not any(kernel_calls.values())


ALONE = """
import sys
import torch
from torch import nn
from regbench.core.layers import tune

torch.set_num_threads(1)
torch.manual_seed(1)
layers = nn.Sequential(nn.Conv2d(1, 4, 3), nn.MaxPool2d(2))
x = torch.rand(2, 1, 8, 8)
expected = layers(x)
torch.testing.assert_close(tune(layers)(x), expected)
"""


def alone(tmp_path, **environment):
    return subprocess.run(
        [sys.executable, "-c", ALONE],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "XDG_CACHE_HOME": str(tmp_path), **environment},
    ).stderr


def test_a_kernel_is_compiled_once_and_kept(tmp_path):
    assert alone(tmp_path) == ""
    (kept,) = (tmp_path / "regbench").iterdir()
    assert kept.suffix == ".so"
    made = kept.stat().st_mtime_ns
    assert alone(tmp_path) == ""
    assert kept.stat().st_mtime_ns == made


def test_the_compiler_says_its_version():
    (told,) = (line for line in native.target().splitlines() if "#define __VERSION__ " in line)
    assert native.version()
    assert f'"{native.version()}"' in told


def test_a_compiler_that_is_not_there_or_none_is_no_error(tmp_path):
    for name in ("no-such-compiler", "false", "cc 'x"):
        assert alone(tmp_path, CC=name) == ""
    assert not (tmp_path / "regbench").exists()


def test_a_compiler_that_fails_is_told_and_pytorchs_operations_are_taken(tmp_path):
    compiler = tmp_path / "cc"
    compiler.write_text(
        '#!/bin/sh\ncase "$*" in *-dM*) exit 0;; esac\necho out of order >&2; exit 1\n'
    )
    compiler.chmod(0o755)
    told = alone(tmp_path, CC=str(compiler))
    assert "the kernel maxima fails (OSError:" in told
    assert "out of order" in told
    assert "PyTorch's operations are taken instead, which are slower" in told


def test_a_damaged_kernel_is_compiled_anew(tmp_path):
    alone(tmp_path)
    (kept,) = (tmp_path / "regbench").iterdir()
    kept.write_bytes(b"")
    assert alone(tmp_path) == ""
    assert kept.stat().st_size > 0


def test_another_compiler_makes_another_kernel(tmp_path):
    alone(tmp_path)
    assert alone(tmp_path, CC="cc -ffp-contract=off") == ""
    assert len([*(tmp_path / "regbench").iterdir()]) == 2


def test_a_cache_that_cannot_be_written_is_told(tmp_path):
    (tmp_path / "regbench").write_text("in the way")
    assert "the kernel maxima fails (FileExistsError" in alone(tmp_path)
