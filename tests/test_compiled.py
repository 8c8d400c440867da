"""A network compiled by PyTorch: the same steps, on the network's own weights."""

import shutil
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from regbench.ascent import cross_entropy, input_gradient
from regbench.core.compiled import Compiled, _sharing
from regbench.core.layers import ImageConv2d, tune
from regbench.core.layers.image import FloatConv2d
from regbench.core.precision import PRECISIONS
from regbench.errors import UserError
from regbench.experiment.cards import RunCard
from regbench.experiment.cells import PAPER_TRAINING
from regbench.prepare import Split
from regbench.regularizers.natural import Natural
from regbench.step import Objective, Step
from regbench.training.descent import Descent, Recorded, cuda_graph
from regbench.training.loop import _Compiling, fit

compiles = pytest.mark.skipif(
    not (shutil.which("c++") or shutil.which("g++")), reason="no C++ compiler here"
)


@pytest.fixture(autouse=True)
def _nothing_is_compiled_yet():
    """PyTorch takes a module eagerly after eight compilations of its code in a process."""
    torch.compiler.reset()


def network():
    torch.manual_seed(0)
    layers = [nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.MaxPool2d(2), nn.ReLU()]
    model = nn.Sequential(*layers, nn.Flatten(), nn.Linear(16, 10))
    return tune(model).to(memory_format=torch.channels_last)


def taken(loss, *, compiled):
    """Three steps, between which the network is judged: its terms, and where the weights end.

    In double precision, where no sign of a gradient near 0 turns.
    """
    model = network().double()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, fused=True)
    ways = Compiled(model) if compiled else None
    images, noise = torch.Generator().manual_seed(1), torch.Generator().manual_seed(2)
    terms = []
    for _ in range(3):
        x = torch.rand(8, 1, 4, 4, generator=images, dtype=torch.float64)
        y = torch.randint(10, (8,), generator=images)
        model.eval()
        objective = loss(Step(model, x, y, 0.1, noise, compiled=ways))
        optimizer.zero_grad()
        objective.total.backward()
        optimizer.step()
        terms.append(torch.stack(objective).detach())
    return torch.stack(terms), model.state_dict()


# one image by itself, and a batch in eval mode without a way back
@compiles
@pytest.mark.parametrize("name", ["sat_r1", "trades"])
def test_compiled_steps_are_those_of_the_network(name, small_loss):
    plain, ours = (taken(small_loss(name), compiled=one) for one in (False, True))
    torch.testing.assert_close(ours[0], plain[0], rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(ours[1], plain[1], rtol=1e-10, atol=1e-10)


@compiles
def test_compiled_bf16_rounds_where_the_network_does():
    """Not in the image layer, whose pixels bf16 would round."""
    model, x, y = network().eval(), torch.rand(8, 1, 4, 4), torch.arange(8)
    exact = input_gradient(model, x, y, cross_entropy)
    with PRECISIONS["bf16"](x.device):
        expected = input_gradient(model, x, y, cross_entropy)
        got = input_gradient(Compiled(model).frozen, x, y, cross_entropy)
    far = [float((got - one).norm() / one.norm()) for one in (expected, exact)]
    assert far[0] < 0.01  # 0.03 with pixels rounded
    assert far[1] > 1e-4


@pytest.mark.parametrize("frozen", [False, True])
def test_both_ways_are_on_the_weights_of_the_network_itself(frozen):
    model = network()
    other = _sharing(model, frozen=frozen)
    kinds = [FloatConv2d, nn.BatchNorm2d, nn.MaxPool2d, nn.ReLU, nn.Flatten, nn.Linear]
    assert [type(layer) for layer in other] == kinds
    assert type(model[0]) is ImageConv2d
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(1)
    model[1].running_mean.fill_(5)
    for (name, mine), (same, theirs) in zip(
        model.state_dict().items(), other.state_dict().items(), strict=True
    ):
        assert name == same
        assert torch.equal(mine, theirs)
        assert mine.data_ptr() == theirs.data_ptr()
    assert {one.requires_grad for one in other.parameters()} == {not frozen}
    assert all(one.requires_grad for one in model.parameters())


def test_an_untuned_image_layer_stays_in_float32():
    layer = _sharing(nn.Sequential(ImageConv2d(1, 2, 3)), frozen=True)[0]
    x = torch.rand(2, 1, 5, 5)
    expected = F.conv2d(x, layer.weight, layer.bias)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(layer(x), expected)


def trained(model, loss, *, compiled):
    """An epoch of 20 images in batches of 8."""
    training = {"epochs": 1, "batch_size": 8, "learning_rate": 0.1, "compiled": compiled}
    card = RunCard(
        data={"source": "x", "arguments": {}, "validation": 1, "split_seed": 0},
        model={"architecture": "x", "arguments": {}},
        regularizer={"loss": "x", "hyperparameters": {}},
        epsilon=0.1,
        training=PAPER_TRAINING | training,
        seed=0,
    )
    split = Split(torch.rand(20, 1, 4, 4), torch.randint(10, (20,)))
    fit(card, model, loss, split, split, lambda row: None)


@pytest.mark.parametrize("compiled", [False, True])
def test_batches_of_the_cards_size_are_compiled_and_no_other(compiled, monkeypatch):
    sizes = []
    monkeypatch.setattr(
        "regbench.training.loop.Compiled",
        lambda model: SimpleNamespace(trained=model, refuse_replaced=lambda: None),
    )

    def loss(step):
        sizes.append((len(step.y), step.compiled is not None))
        return Natural()(step)

    trained(network(), loss, compiled=compiled)
    assert sizes == [(8, compiled), (8, compiled), (4, False)]


def test_a_compiler_that_does_not_work_is_one_line(monkeypatch):
    def missing(*_, **__):
        raise RuntimeError("InvalidCxxCompiler: no working C++ compiler found\nset CXX")

    monkeypatch.setattr(torch, "compile", missing)
    with pytest.raises(UserError, match=r"which takes a C\+\+ compiler .*found\); install that"):
        Compiled(network())


class Counting(nn.Module):
    """Counts its batches of training, in a new tensor each time."""

    def __init__(self, seen: Tensor | None) -> None:
        super().__init__()
        self.inner = network()
        self.register_buffer("seen", seen)

    def forward(self, x):
        self.seen = torch.ones(()) if self.seen is None else self.seen + 1
        return self.inner(x)


@compiles
@pytest.mark.parametrize("seen", [torch.zeros(()), None])
def test_a_buffer_that_is_replaced_is_one_line(seen):
    with pytest.raises(UserError, match=r"'seen' in a forward pass, .* set compiled: false"):
        trained(Counting(seen), Natural(), compiled=True)


def test_buffers_are_looked_at_again_later():
    looked = []
    ways = SimpleNamespace(refuse_replaced=lambda: looked.append(len(taken)))
    taken = []
    step = Step(network(), torch.rand(2, 1, 4, 4), torch.arange(2), 0.1, torch.Generator())
    take = _Compiling(lambda one: taken.append(one) or one.x, ways, 2)
    for _ in range(10):
        take(step)
    assert looked == [1, 2, 4, 8]


def penalised(step):
    """Cross entropy and the size of the image's gradient, which the weights are to reduce."""
    x = step.x.clone().requires_grad_()
    cross_entropy = F.cross_entropy(step.logits(x), step.y)
    (gradient,) = torch.autograd.grad(cross_entropy, x, create_graph=True)
    return Objective(cross_entropy, gradient.abs().mean())


@compiles
def test_a_gradient_that_is_to_be_differentiated_is_one_line():
    trained(network(), penalised, compiled=False)
    with pytest.raises(UserError, match=r"differentiates a gradient, .* set compiled: false"):
        trained(network(), penalised, compiled=True)


@pytest.mark.parametrize("training", [False, True])
def test_the_network_itself_is_in_the_mode_that_was_asked_for_last(training):
    model = network()
    ways = SimpleNamespace(trained=model, frozen=model)
    noise = torch.Generator()
    step = Step(model, torch.rand(2, 1, 4, 4), torch.arange(2), 0.1, noise, compiled=ways)
    (step.logits if training else step.frozen_logits)(step.x)
    assert model.training is training


@compiles
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
def test_a_compiled_step_that_is_recorded_is_that_of_the_network(small_loss):
    images, noise = torch.Generator().manual_seed(1), torch.Generator("cuda")
    batches = [
        (torch.rand(8, 1, 4, 4, generator=images), torch.randint(10, (8,), generator=images))
        for _ in range(5)
    ]
    ends = []
    for compiled in (False, True):
        model = network().cuda().train()
        optimizer = torch.optim.SGD(
            model.parameters(), lr=torch.tensor(0.1, device="cuda"), momentum=0.9, fused=True
        )
        descent = Descent(model, small_loss("sat_r3"), optimizer, PRECISIONS["fp32"])
        take = Recorded(descent, cuda_graph, 8) if compiled else descent
        ways = Compiled(model) if compiled else None
        for x, y in batches:
            take(Step(model, x.cuda(), y.cuda(), 0.1, noise, torch.zeros((), device="cuda"), ways))
        ends.append(torch.cat([one.detach().flatten() for one in model.parameters()]))
    torch.testing.assert_close(*ends, rtol=1e-3, atol=1e-4)
