"""Fast and nothing else: tuned networks and our steps compute what plain ones do, for every method.

A plain network is its class as it is written; a tuned one has the layers and the memory layout
that a training gives it. Plain steps are those of public code, in benchmarks/plain.py.
"""

import importlib
import sys
from collections import Counter
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import Tensor, nn
from torch.autograd import forward_ad

from regbench.ascent import Loss, cross_entropy
from regbench.core.kernels import native
from regbench.core.layers import (
    HalvingMaxPool2d,
    ImageConv2d,
    LargeLinear,
    ScalingBatchNorm2d,
    tune,
)
from regbench.core.layers.image import FEW_IMAGES
from regbench.core.network import laid_out, plain
from regbench.core.precision import PRECISIONS
from regbench.experiment import members
from regbench.experiment.cards import ModelCard
from regbench.models.lenet_plus import LeNetPlus
from regbench.step import Step
from regbench.training.descent import TrainingLoss

EPSILON = 0.3
MNIST = (1, 28, 28)
METHODS = members.names("regularizers")
COUNT = FEW_IMAGES + 2  # a batch goes back to its images on another way than SAT-R1's one image
EXACT = {"rtol": 1e-10, "atol": 1e-12}


@dataclass(frozen=True)
class Recording(Step):
    """Keeps the input gradients that it takes."""

    gradients: list[Tensor] = field(default_factory=list)

    def gradient(self, x: Tensor, target: Tensor, loss: Loss = cross_entropy) -> Tensor:
        self.gradients.append(super().gradient(x, target, loss))
        return self.gradients[-1]


@dataclass(frozen=True)
class Following(Recording):
    """Climbs along the gradients of another step, so that both craft the same images."""

    followed: list[Tensor] = field(default_factory=list)

    def gradient(self, x: Tensor, target: Tensor, loss: Loss = cross_entropy) -> Tensor:
        super().gradient(x, target, loss)
        return self.followed[len(self.gradients) - 1]


def pair(name: str, shape: tuple[int, int, int], dtype: torch.dtype) -> tuple[nn.Module, nn.Module]:
    """A network of regbench/models/ as its class makes it, and the same as a training has it."""
    torch.manual_seed(1)
    card = ModelCard(architecture=f"regbench.models.{name}", arguments={})
    network = plain(card, shape, 10).to(dtype)
    tuned = laid_out(deepcopy(network), torch.device("cpu"))
    assert sum(type(layer) is ImageConv2d for layer in tuned.modules()) == 1
    return network, tuned


def enlarged(network: nn.Module, by: float = 2) -> nn.Module:
    """The same with weights so large that no penalty is tiny."""
    for weight in network.parameters():
        weight.data.mul_(by)
    return network


def smooth(network: nn.Sequential, kept: int = 0) -> nn.Sequential:
    """LeNet+ without a kink: rounding across one changes a unit's gradient altogether.

    Args:
        network: LeNet+.
        kept: so many first layers stay as they are.
    """
    average = nn.AvgPool2d(2)
    smoother = {nn.ReLU: nn.SiLU(), nn.MaxPool2d: average, HalvingMaxPool2d: average}
    layers = [*network]
    others = (smoother.get(type(layer), layer) for layer in layers[kept:])
    return nn.Sequential(*layers[:kept], *others)


def images(shape: tuple[int, ...], dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Noise with some pixels exactly 0 or 1, and labels below 10."""
    generator = torch.Generator().manual_seed(2)
    x = (1.4 * torch.rand(shape, dtype=dtype, generator=generator) - 0.2).clamp(0, 1)
    return x, torch.randint(10, shape[:1], generator=generator)


def stream() -> torch.Generator:
    return torch.Generator().manual_seed(3)


def outcome(loss: TrainingLoss, step: Step) -> dict[str, Tensor]:
    """The objective, its penalty, and the gradient by each weight."""
    objective = loss(step)
    gradients = by_weight(objective.total, step.model)
    penalty = torch.as_tensor(objective.penalty)
    return {"total": objective.total, "penalty": penalty, **gradients}


def by_weight(value: Tensor, network: nn.Module) -> dict[str, Tensor]:
    names, weights = zip(*network.named_parameters(), strict=True)
    return dict(zip(names, torch.autograd.grad(value, weights), strict=True))


@pytest.fixture
def of(declared) -> Callable[[str], TrainingLoss]:
    """`of(name)`: the loss as its rule declares it, but of ten steps at the most."""

    def made(name: str) -> TrainingLoss:
        told = dict(declared[name].hyperparameters)
        if "steps" in told:
            told["steps"] = min(told["steps"], 10)
        if name == "grad_align":  # else its penalty is hardly seen
            told["weight"] = 1.0
        return members.build(declared[name].loss, told)

    return made


# --- the network ----------------------------------------------------------------------------------


def test_what_is_compared_here_is_tuned():
    network, tuned = pair("lenet_plus", MNIST, torch.float32)
    own = Counter(map(type, tuned)) - Counter(map(type, network))
    assert own == {ImageConv2d: 1, LargeLinear: 1, HalvingMaxPool2d: 2}
    layout = torch.channels_last
    assert tuned[3].weight.is_contiguous(memory_format=layout)
    assert not network[3].weight.is_contiguous(memory_format=layout)


@pytest.mark.parametrize("name", METHODS)
def test_in_float64_a_tuned_lenet_trains_as_the_plain_one(name, of):
    x, y = images((COUNT, *MNIST), torch.float64)
    loss, networks = of(name), map(enlarged, pair("lenet_plus", MNIST, torch.float64))
    steps = [Recording(network, x, y, EPSILON, stream()) for network in networks]
    expected, got = (outcome(loss, step) for step in steps)
    torch.testing.assert_close(got, expected, **EXACT)
    torch.testing.assert_close(steps[1].gradients, steps[0].gradients, **EXACT)
    assert expected["penalty"] > 0.1 or not hasattr(loss, "weight"), "the penalty is not seen"


@pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="no oneDNN here")
@pytest.mark.parametrize("name", METHODS)
def test_in_float32_a_tuned_lenet_trains_as_the_plain_one_by_onednn(name, of, heard):
    x, y = images((COUNT, *MNIST), torch.float32)
    loss, networks = of(name), pair("lenet_plus", MNIST, torch.float32)
    network, tuned = (smooth(enlarged(one, 3)) for one in networks)
    leader = Recording(network, x, y, EPSILON, stream())
    # a gradient near 0 rounds to either sign, and its pixel would differ by up to 2ε: craft once
    follower = Following(tuned, x, y, EPSILON, stream(), followed=leader.gradients)
    expected = outcome(loss, leader)
    with heard:
        got = outcome(loss, follower)
    del expected["penalty"]  # SAT-R2's is a small difference of large logits; the total has it
    apart = {part: (got[part] - value).norm() / value.norm() for part, value in expected.items()}
    assert all(distance <= 1e-5 for distance in apart.values()), apart
    assert all(value.dtype is torch.float32 for value in got.values())
    crafted = len(leader.gradients)
    assert len(follower.gradients) == crafted
    several = sum(len(gradient) > 1 for gradient in leader.gradients)
    # forward, and back to the input if not of one row; and once all three, the weights too
    assert heard.count["_linear_pointwise"] >= crafted + several + 3


@pytest.mark.skipif(native.target() is None, reason="no C compiler is found here")
@pytest.mark.parametrize("name", METHODS)
def test_in_float32_a_tuned_lenet_trains_as_the_plain_one_by_the_kernel(name, of, kernel_calls):
    """The image layer and its pooling as one, which is not heard: it is no operation of PyTorch."""
    x, y = images((COUNT, *MNIST), torch.float32)
    loss, networks = of(name), pair("lenet_plus", MNIST, torch.float32)
    network, tuned = (smooth(enlarged(one, 3), kept=2) for one in networks)
    leader = Recording(network, x, y, EPSILON, stream())
    follower = Following(tune(tuned), x, y, EPSILON, stream(), followed=leader.gradients)
    expected = outcome(loss, leader)
    got = outcome(loss, follower)
    assert kernel_calls["maxima"] > kernel_calls["to_image"] >= len(leader.gradients)
    assert kernel_calls["to_weight"] > 0
    del expected["penalty"]
    apart = {part: (got[part] - value).norm() / value.norm() for part, value in expected.items()}
    assert all(distance <= 1e-5 for distance in apart.values()), apart


@pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="no oneDNN here")
@pytest.mark.parametrize(("rows", "by_onednn"), [(1, 0), (2, 1)])
def test_a_single_row_goes_back_by_the_weights_as_they_lie(rows, by_onednn, heard):
    layer, x = LargeLinear(2048, 512), torch.rand(rows, 2048, requires_grad=True)
    y = layer(x)
    with heard:
        (gradient,) = torch.autograd.grad(y.sum(), x)
    assert heard.count["_linear_pointwise"] == by_onednn
    torch.testing.assert_close(gradient, layer.weight.detach().sum(0).expand(rows, -1))


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("active", [0, 1, 100, 179, 400])
def test_of_one_image_the_weights_of_idle_units_are_not_read(active, threads, monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    layer, x = LargeLinear(2048, 512), torch.rand(1, 2048, requires_grad=True)
    gradient = torch.zeros(1, 512)
    gradient[0, torch.randperm(512)[:active]] = torch.rand(active) + 0.1
    expected = gradient.double() @ layer.weight.detach().double()
    y = layer(x)
    if active < 180:  # more are read in one go
        idle = (gradient[0] == 0).nonzero().squeeze(1)
        # behind the back of autograd, which would refuse weights that were changed since
        layer.weight.data[idle] = torch.nan
    (got,) = torch.autograd.grad(y, x, gradient)
    torch.testing.assert_close(got.double(), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("architecture", "shape", "name"),
    [
        *(("small_cnn", (1, 8, 8), name) for name in METHODS),
        ("preact_resnet18", (3, 32, 32), "fgsm_at"),
    ],
)
def test_in_float64_a_tuned_network_normalises_as_the_plain_one(architecture, shape, name, of):
    x, y = images((2 if shape[0] == 3 else COUNT, *shape), torch.float64)
    loss, networks = of(name), pair(architecture, shape, torch.float64)
    before = statistics(networks[0])
    steps = [Recording(network, x, y, 0.1, stream()) for network in networks]
    expected, got = (outcome(loss, step) for step in steps)
    torch.testing.assert_close(got, expected, **EXACT)
    torch.testing.assert_close(steps[1].gradients, steps[0].gradients, **EXACT)
    after = statistics(networks[0])
    torch.testing.assert_close(statistics(networks[1]), after, **EXACT)
    assert not any(after[part].equal(value) for part, value in before.items())


def statistics(network: nn.Module) -> dict[str, Tensor]:
    """The running means, variances and counts of its batch norms."""
    found = {part: value.clone() for part, value in network.named_buffers()}
    assert any("running_var" in part for part in found)
    return found


# --- the step -------------------------------------------------------------------------------------


def benchmark(name: str) -> ModuleType:
    """A program of benchmarks/, which finds its neighbours beside it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "path", [str(Path(__file__).parents[1] / "benchmarks"), *sys.path])
        return importlib.import_module(name)


cases = benchmark("cases")


@pytest.mark.parametrize("frozen", [True, False])
def test_what_is_in_place_behind_a_tuned_layer_may_change_it(frozen):
    """As in networks that are written so, torchvision's VGG for one."""
    torch.manual_seed(0)
    written = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(inplace=True),
        nn.BatchNorm2d(8), nn.ReLU(inplace=True), nn.Flatten(),
        nn.Linear(2048, 1024), nn.ReLU(inplace=True), nn.Linear(1024, 10),
    ).requires_grad_(not frozen).eval()  # fmt: skip
    tuned = laid_out(deepcopy(written), torch.device("cpu"))
    assert [type(tuned[place]) for place in (0, 2, 5)] == TUNED
    x, gradients = torch.rand(COUNT, 3, 16, 16), []
    for model in (written, tuned):
        image = x.clone().requires_grad_()
        asked = [image, *(one for one in model.parameters() if one.requires_grad)]
        z = model(image)
        gradients.append(torch.autograd.grad(z.square().sum(), asked))
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


TUNED = [ImageConv2d, ScalingBatchNorm2d, LargeLinear]


def test_a_weights_gradient_can_be_differentiated_by_what_came_in():
    """As an unrolled step of the training or the matching of gradients needs it."""
    torch.manual_seed(0)
    written = nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.Tanh(), nn.Flatten(),
        nn.Linear(2048, 512), nn.Tanh(), nn.Linear(512, 10),
    ).eval()  # fmt: skip
    for one in (written[1].weight, written[1].running_mean, written[1].running_var):
        one.data.uniform_(0.5, 2)
    tuned = laid_out(deepcopy(written), torch.device("cpu"))
    assert [type(tuned[place]) for place in (0, 1, 4)] == TUNED
    x, found = torch.rand(COUNT, 1, 16, 16), []
    for model in (written, tuned):
        image = x.clone().requires_grad_()
        weights = list(model.parameters())
        slopes = torch.autograd.grad(model(image).square().sum(), weights, create_graph=True)
        steep = sum(slope.square().sum() for slope in slopes)
        found.append(torch.autograd.grad(steep, [image, *weights]))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(other / one.norm(), one / one.norm(), rtol=1e-3, atol=1e-5)


def test_what_is_flattened_is_pooled_for_that():
    assert [layer.flattened for layer in tune(LeNetPlus(MNIST, 10)) if is_pooling(layer)] == [
        False, True,
    ]  # fmt: skip


def is_pooling(layer: nn.Module) -> bool:
    return isinstance(layer, HalvingMaxPool2d)


@pytest.mark.parametrize("name", cases.plain.LOSSES)
def test_the_step_that_ours_is_timed_against_computes_the_same(name):
    x, y = images((COUNT, *MNIST), torch.float64)
    _, ours = pair("lenet_plus", MNIST, torch.float64)
    theirs = cases.plain.lenet_plus().double()
    theirs.load_state_dict(enlarged(ours).state_dict())
    torch.manual_seed(4)  # theirs draws from the global stream
    value = cases.plain.LOSSES[name](theirs.train(), x, y)
    noise = torch.Generator().manual_seed(4)
    loss = members.build(f"regbench.regularizers.{name}", cases.HYPERPARAMETERS[name])
    objective = loss(Step(ours, x, y, cases.plain.EPSILON, noise))
    torch.testing.assert_close(objective.total, value, **EXACT)
    torch.testing.assert_close(by_weight(objective.total, ours), by_weight(value, theirs), **EXACT)


def test_every_method_has_a_step_that_it_is_timed_against():
    assert list(cases.HYPERPARAMETERS) == list(cases.plain.LOSSES)


def small(shape: tuple[int, int, int] = (1, 8, 8)) -> nn.Module:
    """A network with every kind of layer that is exchanged."""
    torch.manual_seed(0)
    convolution = nn.Conv2d(shape[0], 8, 3, padding=1)
    body = [convolution, nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten()]
    return nn.Sequential(*body, nn.Linear(128, 8192), nn.ReLU(), nn.Linear(8192, 4)).eval()


def batched(model: nn.Module, x: Tensor, *, twice: bool) -> Tensor:
    x = x.clone().requires_grad_()
    y, each = model(x), torch.eye(4)[:, None].expand(4, len(x), 4)
    (rows,) = torch.autograd.grad(y, x, each, is_grads_batched=True, create_graph=twice)
    return torch.autograd.grad(rows.square().sum(), model[0].weight)[0] if twice else rows


def per_image(model: nn.Module, x: Tensor) -> Tensor:
    def loss(weights: dict[str, Tensor], one: Tensor) -> Tensor:
        z = torch.func.functional_call(model, weights, one[None])
        return z.square().sum()

    weights = dict(model.named_parameters())
    return torch.func.vmap(torch.func.grad(loss), (None, 0))(weights, x)["0.weight"]


def forward_mode(model: nn.Module, x: Tensor) -> Tensor:
    with forward_ad.dual_level():
        return forward_ad.unpack_dual(model(forward_ad.make_dual(x, torch.ones_like(x)))).tangent


def without_images(model: nn.Module, x: Tensor) -> Tensor:
    x = x[:0].clone().requires_grad_()
    return torch.autograd.grad(model(x).sum(), x)[0]


def of_one_image(model: nn.Module, x: Tensor) -> Tensor:
    x = x[0].clone().requires_grad_()
    return torch.autograd.grad(model[0](x).square().sum(), model[0].weight)[0]


DERIVATIVES = {
    "a batch of gradients": partial(batched, twice=False),
    "a batch of gradients, differentiated": partial(batched, twice=True),
    "of each image by itself": per_image,
    "forward mode": forward_mode,
    "vmap": lambda model, x: torch.func.vmap(lambda one: model(one[None])[0])(x),
    "jvp": lambda model, x: torch.func.jvp(model, (x,), (torch.ones_like(x),))[1],
    "jacrev": lambda model, x: torch.func.jacrev(model)(x),
    "jacfwd": lambda model, x: torch.func.jacfwd(model)(x),
    "grad": lambda model, x: torch.func.grad(lambda one: model(one).square().sum())(x),
    "of no image": without_images,
    "of an image that is no batch": of_one_image,
}


@pytest.mark.parametrize("of", DERIVATIVES.values(), ids=list(DERIVATIVES))
def test_whatever_derivative_a_loss_asks_for_is_the_plain_networks(of):
    written = small()
    tuned = tune(deepcopy(written))
    assert {type(layer) for layer in tuned} >= {*TUNED, HalvingMaxPool2d}
    x = torch.rand(3, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(of(tuned, x), of(written, x), rtol=1e-4, atol=1e-5)


class Viewing(nn.Module):
    """A network that relies on how PyTorch lays its maps, as many are written."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution, self.head = nn.Conv2d(3, 6, 5), nn.Linear(96, 10)

    def forward(self, x: Tensor) -> Tensor:
        maps = nn.functional.max_pool2d(self.convolution(x), 2)
        return self.head(maps.view(-1, 96))


def test_a_network_that_views_its_maps_keeps_pytorchs_layout():
    torch.manual_seed(0)
    written, cpu, shape = Viewing().train(), torch.device("cpu"), (3, 12, 12)
    x = torch.rand(2, *shape).contiguous(memory_format=torch.channels_last)
    fastest = laid_out(deepcopy(written), cpu)
    with pytest.raises(RuntimeError, match="view size"):
        fastest(x)
    tuned = laid_out(deepcopy(written), cpu, shape=shape)
    assert tuned.training
    torch.testing.assert_close(tuned(x), written(x.contiguous()))
    weight = laid_out(small((3, 8, 8)), cpu, shape=(3, 8, 8))[0].weight
    assert weight.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("stride", [1, 2, 4])
def test_an_image_is_not_rounded_whatever_the_stride(stride):
    first, x = nn.Conv2d(3, 8, 4, stride=stride), torch.rand(2, 3, 16, 16)
    tuned = tune(deepcopy(first))
    with PRECISIONS["bf16"](torch.device("cpu")):
        assert first(x).dtype is torch.bfloat16
        got = tuned(x)
    torch.testing.assert_close(got, first(x))
