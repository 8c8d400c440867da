"""A frozen batch normalisation: PyTorch's numbers there and back, by fewer operations back."""

import pytest
import torch
from torch import nn

from regbench.core.layers import ScalingBatchNorm2d, tune
from regbench.experiment import members


def pair(dtype=torch.float64):
    """One of PyTorch and one of ours, of the same numbers."""
    torch.manual_seed(3)
    plain = nn.BatchNorm2d(4).to(dtype)
    for one in (plain.weight, plain.bias, plain.running_mean, plain.running_var):
        one.data.uniform_(0.5, 2)
    tuned = nn.BatchNorm2d(4).to(dtype)
    tuned.load_state_dict(plain.state_dict())
    return plain, tune(tuned)


def noise(*shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(4), dtype=torch.float64)


@pytest.mark.parametrize("training", [True, False])
def test_it_is_pytorchs_there_and_back(training):
    results = []
    for layer in pair():
        layer.train(training)
        x = noise(3, 4, 5, 5).requires_grad_()
        y = layer(x)
        slopes = torch.autograd.grad(y.sin().sum(), (x, layer.weight, layer.bias))
        results.append((y, *slopes, layer.running_mean, layer.num_batches_tracked))
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(other, one, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_way_back_to_the_image_is_one_product(dtype, layout, heard):
    """In the type and layout of what came in, the product itself in that of the weights.

    Of two types it is a normalisation by mean 0 and variance 1, which copies nothing.
    """
    _, tuned = pair(torch.float32)
    tuned.eval()
    x = noise(3, 4, 5, 5).to(dtype).to(memory_format=layout).requires_grad_()
    y = tuned(x)
    gradient = noise(3, 4, 5, 5).to(dtype).to(memory_format=layout)
    with heard:
        (slope,) = torch.autograd.grad(y, x, gradient)
    mixed = dtype is not torch.float32
    kernels = {name: count for name, count in heard.count.items() if "batch_norm" in name}
    assert kernels == ({"native_batch_norm": 1} if mixed else {})
    assert heard.count["mul"] == 2 - mixed  # one of them of four numbers, the scale
    assert y.dtype is slope.dtype is dtype
    assert slope.stride() == x.stride()
    scale = tuned.weight / (tuned.running_var + tuned.eps).sqrt()
    expected = (gradient.float() * scale[:, None, None]).to(dtype)
    torch.testing.assert_close(slope, expected, rtol=1e-6, atol=0)


def test_in_bf16_the_weights_learn_as_well():
    slopes = []
    for layer, dtype in zip(pair(torch.float32), (torch.float32, torch.bfloat16), strict=True):
        x = noise(3, 4, 5, 5).to(dtype).requires_grad_()
        y = layer.eval()(x)
        slopes.append(torch.autograd.grad(y.float().square().sum(), (layer.weight, layer.bias)))
    for one, other in zip(*slopes, strict=True):
        assert other.dtype is torch.float32
        torch.testing.assert_close(other, one, rtol=0.02, atol=0.5)


def test_it_can_be_differentiated_twice_by_everything():
    _, tuned = pair()
    tuned.eval()

    def normalised(x, weight, bias):
        return torch.func.functional_call(tuned, {"weight": weight, "bias": bias}, (x,))

    given = [one.detach().requires_grad_() for one in (noise(2, 4, 2, 3), *tuned.parameters())]
    assert torch.autograd.gradcheck(normalised, given)
    assert torch.autograd.gradgradcheck(normalised, given)


@pytest.mark.parametrize("settings", [{"affine": False}, {"track_running_stats": False}])
def test_others_are_left_alone(settings):
    assert type(tune(nn.BatchNorm2d(4, **settings))) is nn.BatchNorm2d


def test_without_kept_statistics_it_is_pytorchs():
    """Code that adapts a network to its test images takes them away."""
    plain, tuned = pair()
    x = noise(3, 4, 5, 5).requires_grad_()
    for layer in (plain, tuned):
        layer.eval()
        layer.running_mean = layer.running_var = None
    torch.testing.assert_close(tuned(x), plain(x))


def test_networks_have_it():
    model = members.build("regbench.models.small_cnn", {"shape": (1, 8, 8), "classes": 10})
    kinds = {type(layer) for layer in tune(model).modules()}
    assert ScalingBatchNorm2d in kinds
    assert nn.BatchNorm2d not in kinds
