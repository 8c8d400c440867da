"""Only what a change reaches is computed anew, and the logits are the network's own."""

import itertools
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from regbench.attacks.autoattack import AutoAttack
from regbench.core import incremental
from regbench.core.incremental import Incremental
from regbench.core.incremental.linear import Convolution, Product
from regbench.core.incremental.windows import Piece, Reach, Span, Window
from regbench.core.layers import tune
from regbench.core.network import laid_out, plain
from regbench.experiment import members
from regbench.experiment.cards import ModelCard
from regbench.models.small_cnn import SmallCNN

EXACT = {"rtol": 1e-10, "atol": 1e-12}
SHAPES = {"lenet_plus": (1, 28, 28), "small_cnn": (1, 8, 8)} | {
    f"model_{letter}": (1, 28, 28) for letter in "abcd"
}
COLOURED = (3, 32, 32)


def network(name: str) -> tuple[nn.Module, tuple[int, int, int]]:
    """A network of regbench/models/ as it is attacked, in double precision, and its images."""
    torch.manual_seed(1)
    shape = SHAPES.get(name, COLOURED)
    arguments = {"width": 4} if name == "small_cnn" else {}
    card = ModelCard(architecture=f"regbench.models.{name}", arguments=arguments)
    model = laid_out(plain(card, shape, 10), torch.device("cpu")).double().eval()
    return model.requires_grad_(False), shape


class Uncompared(Incremental):
    """Its logits at each call, which every so often would be the network's."""

    def _compared(self, logits: Tensor, x: Tensor) -> Tensor:
        return logits


def search(x: Tensor, sizes: list[int], drops: bool = True) -> Iterator[Tensor]:
    """Images as Square tries them: the same square of each; it stays in some; some images leave."""
    generator = torch.Generator().manual_seed(3)
    best = x
    for step, size in enumerate(sizes):
        top, left = (
            int(torch.randint(length - size + 1, (), generator=generator))
            for length in x.shape[-2:]
        )
        tried = best.clone()
        tried[..., top : top + size, left : left + size] += torch.randn((), generator=generator)
        tried = tried.clamp(0, 1)
        yield tried
        stays = torch.rand(len(best), generator=generator) < 0.4
        best = torch.where(stays[:, None, None, None], tried, best)
        if drops and step % 4 == 2 and len(best) > 2:
            best = torch.cat([best[:1], best[2:]])


def images(shape: tuple[int, int, int], count: int = 5) -> Tensor:
    return torch.rand(
        (count, *shape), dtype=torch.float64, generator=torch.Generator().manual_seed(2)
    )


def follow(model: nn.Module, batches: Iterator[Tensor]) -> Incremental:
    """Compare the logits of each batch with the network's own."""
    ours = Uncompared(model)
    with torch.no_grad():
        for x in batches:
            got = ours(x)
            torch.testing.assert_close(got, model(x), **EXACT)
            got.fill_(-torch.inf)  # as Square writes into the logits
    return ours


@pytest.mark.parametrize(
    ("kernel", "stride", "padding", "dilation"),
    [(1, 1, 0, 1), (3, 1, 1, 1), (5, 1, 2, 1), (2, 2, 0, 1), (3, 2, 1, 1), (1, 2, 0, 1),
     (3, 1, 2, 2), (3, 3, 0, 1), (2, 3, 1, 1)],
)  # fmt: skip
def test_a_reach_is_what_a_convolution_reads(kernel, stride, padding, dilation):
    reach, length = Reach(kernel, stride, padding, dilation), 11
    ones = torch.ones(1, 1, kernel)
    for first, past in itertools.combinations(range(length + 1), 2):
        x = torch.zeros(1, 1, length)
        x[..., first:past] = 1
        y = F.conv1d(x, ones, stride=stride, padding=padding, dilation=dilation)
        reached = y[0, 0].nonzero().flatten().tolist()
        span = reach.reached_by(Span(first, past), y.shape[-1])
        alike = reach.reached_evenly(Span(first, past), y.shape[-1])
        assert span.length > 0
        assert set(reached) <= set(range(*span)) <= set(range(*alike)) <= set(range(y.shape[-1]))
        if reached and dilation == 1:
            assert span == Span.over(reached)
        padded = F.pad(x, (padding, padding + length))[0, 0]
        read = reach.read_by(span)
        cut = padded[read.first + padding : read.past + padding]
        again = F.conv1d(cut[None, None], ones, stride=stride, dilation=dilation)
        torch.testing.assert_close(again, y[..., slice(*span)])


def test_windows_of_the_same_square_are_of_one_size_wherever_it_lies():
    reach = Reach(5, 1, 2, 1)
    spans = [reach.reached_evenly(Span(first, first + 3), 28) for first in range(26)]
    assert {span.length for span in spans} == {7}


def test_a_window_is_the_smallest_that_holds_what_is_true():
    there = torch.zeros(5, 6, dtype=torch.bool)
    there[1, 4] = there[3, 2] = True
    assert Window.around(there) == Window(Span(1, 4), Span(2, 5))
    assert Window.around(torch.zeros(5, 6, dtype=torch.bool)).area == 1


@pytest.mark.parametrize("name", members.names("models"))
def test_every_network_here_gives_its_own_logits(name):
    model, shape = network(name)
    large = name.startswith("wrn")
    sizes = [3, 2, 1] if large else [7, 5, 5, 3, 3, 3, 2, 2, 2, 1, 1, 1, 1]
    ours = follow(model, search(images(shape, 2 if large else 5), sizes))
    assert ours._graph is not None


@pytest.mark.parametrize("count", [2, 9])
def test_images_that_have_nothing_to_do_with_the_last_ones_are_right_too(count):
    model, shape = network("small_cnn")
    follow(model, iter([images(shape), 1 - images(shape, count), images(shape), images(shape)[:1]]))


def reached(model: nn.Module, shape: tuple[int, int, int], place: tuple[int, int]) -> list[int]:
    """How many pixels of each map are computed anew when one of the images changes."""
    ours, x = Uncompared(model), images(shape)
    with torch.no_grad():
        ours(x)
        x[..., place[0], place[1]] = 0.5
        ours(x)
    return [
        ours._maps.tried[n].window.area for n in ours._graph.graph.nodes if n in ours._maps.kept
    ]


def test_a_small_change_costs_what_it_reaches():
    model, shape = network("lenet_plus")
    # images, conv 5×5, pooled (and ReLU), conv 5×5, pooled (and ReLU), fully connected
    assert reached(model, shape, (14, 14)) == [1, 25, 9, 49, 16, 1]
    # a convolution of an image is of one size wherever the change lies
    assert reached(model, shape, (0, 0)) == [1, 25, 9, 25, 9, 1]
    assert reached(model, shape, (27, 27)) == [1, 25, 9, 25, 9, 1]


def test_a_wide_convolution_takes_the_change_alone(monkeypatch):
    model, shape = network("lenet_plus")
    made_of, taken = Convolution.made_of, []

    def seen(self, change, size):
        taken.append(change.values.shape)
        return made_of(self, change, size)

    monkeypatch.setattr(Convolution, "made_of", seen)
    reached(model, shape, (14, 14))
    assert taken == [(5, 32, 3, 3)]


@pytest.mark.parametrize("calls", [3, 9])
def test_a_network_that_takes_another_way_now_and_then_is_found_out(calls):
    """Its graph is that of one way; it is compared at the 1st, 2nd, 4th, 8th… call."""
    way = [1.0]
    model = Made(lambda net, y: y * way[0]).double().eval()
    ours = Incremental(model)
    with torch.no_grad():
        for x in itertools.islice(search(images((1, 12, 12)), [1] * 20, drops=False), calls):
            ours(x)
        way[0] = 2.0
        x = images((1, 12, 12))
        while ours._graph is not None:
            ours(x)
        assert ours._calls in (4, 16)
        assert torch.equal(ours(x), model(x))


@pytest.mark.parametrize("masked", [-1e9, 1e9])
def test_a_masked_class_lets_no_other_logit_be_anything(masked):
    """Its logit is a million times the others; compared with it they would all be close."""
    way = [1.0]
    model = Made(lambda net, y: y * way[0]).double().eval()
    ours = Incremental(model)
    with torch.no_grad():
        model.head[1].bias[3] += masked
        ours(images((1, 12, 12)))
        assert ours._graph is not None
        way[0] = 1.01
        ours(images((1, 12, 12)))
    assert (ours._graph is None) is (masked < 0)  # above all others it is the class of each image


def test_a_layer_with_a_hook_is_called_as_it_is():
    model, shape = network("small_cnn")
    hooked = next(one for one in model.modules() if isinstance(one, nn.Conv2d))
    hooked.register_forward_hook(lambda module, given, y: y.roll(1, -1))
    ours, x = Incremental(model), images(shape)
    with torch.no_grad():
        assert torch.equal(ours(x), model(x))
    assert ours._graph is None


def test_what_is_read_later_is_not_what_was_changed_since():
    """The images are copied: whoever gave them may write into them."""
    model, shape = network("small_cnn")
    ours, x = Incremental(model), images(shape)
    with torch.no_grad():
        for place in range(6):
            torch.testing.assert_close(ours(x), model(x), **EXACT)
            x[..., place, place] += 0.25


class Made(nn.Module):
    """A convolution, and what a function makes of its output, (m, 2, 12, 12)."""

    def __init__(self, after) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 2, 3, padding=1)
        self.second = nn.Conv2d(2, 2, 3, padding=1)
        self.norm = nn.BatchNorm2d(2)
        self.register_buffer("mean", torch.full((1, 2, 1, 1), 0.3))
        self.register_buffer("mask", torch.linspace(0, 1, 144).view(12, 12))
        self.after, self.head = after, nn.Sequential(nn.Flatten(), nn.Linear(2 * 12 * 12, 4))

    def forward(self, x):
        return self.head(self.after(self, self.conv(x)))


def spread_in_place(net, y):
    y += net.second(y)
    return y.relu()


def read_after_a_change_in_place(net, y):
    z = y
    y += 1
    return z + y


def overwritten(net, y):
    y[..., 0, 0] = 1
    return y


AFTER = {
    "mean of all pixels": lambda net, y: y - y.mean(),
    "per channel": lambda net, y: (y - net.mean) / 0.7,
    "per pixel": lambda net, y: y * net.mask,
    "shortcut": lambda net, y: F.relu(net.second(F.relu(y)) + y),
    "batch statistics": lambda net, y: net.norm.train()(y),
    "in place": spread_in_place,
    "in place by name": lambda net, y: F.relu_(y),
    "in place by argument": lambda net, y: F.relu(net.second(y), inplace=True),
    "in place, read later": read_after_a_change_in_place,
    "overwritten": overwritten,
    "a branch": lambda net, y: y if y.sum() > 1e9 else 2 * y,
    "functional pooling": lambda net, y: F.interpolate(F.max_pool2d(y, 2), (12, 12)),
    "strides": lambda net, y: F.interpolate(
        nn.Conv2d.forward(net.second, y)[..., ::2, ::2], (12, 12)
    ),
    "crossed": lambda net, y: y + y.transpose(-1, -2),
}


NO_GRAPH = {"in place by name", "overwritten", "a branch"}
"""Told by the trace."""


@pytest.mark.parametrize("name", sorted(AFTER.keys() - {"in place, read later"}))
def test_whatever_a_network_does_its_logits_are_its_own(name):
    torch.manual_seed(0)
    model = Made(AFTER[name]).double().eval()
    ours = follow(model, search(images((1, 12, 12)), [4, 3, 2, 2, 1, 1, 1]))
    assert (ours._graph is None) == (name in NO_GRAPH)


def test_a_tensor_that_is_read_after_a_change_in_place_is_found_out_by_its_logits():
    torch.manual_seed(0)
    ours = Incremental(Made(AFTER["in place, read later"]).double().eval())
    with torch.no_grad():
        ours(images((1, 12, 12)))
    assert ours._graph is None


class Padding(nn.Conv2d):
    """A convolution by its class, of another geometry."""

    def forward(self, x):
        return super().forward(F.pad(x, (1, 1, 1, 1)))


class Refusing(nn.ReLU):
    """Takes whole images alone."""

    def forward(self, x):
        if x.shape[-1] < 12:
            raise RuntimeError("a window")
        return super().forward(x)


@pytest.mark.parametrize("layer", [Padding(1, 2, 1), nn.Sequential(nn.Conv2d(1, 2, 3), Refusing())])
def test_a_layer_is_taken_for_no_more_than_its_class(layer):
    features = layer(torch.zeros(1, 1, 14, 14)).numel()
    model = nn.Sequential(layer, nn.Flatten(), nn.Linear(features, 4)).double().eval()
    follow(model, search(images((1, 14, 14)), [3, 2, 2, 1, 1, 1]))


def test_logits_may_be_a_map():
    torch.manual_seed(0)
    layers = [nn.Conv2d(1, 2, 3, padding=1), nn.ReLU(), nn.Conv2d(2, 1, 3), nn.Flatten()]
    model = nn.Sequential(*layers).double().eval()
    follow(model, itertools.chain(*(search(images((1, 6, 6), m), [2, 1, 1, 1]) for m in (2, 4))))


class Twice(nn.Module):
    """Reads a map flattened, by a large layer and besides."""

    def __init__(self, flatten) -> None:
        super().__init__()
        self.flatten, self.large = flatten, nn.Linear(4 * 16 * 16, 1024)

    def forward(self, x):
        features = self.flatten(x)
        return self.large(features) + features.sum(1, keepdim=True)


FLATTENED = {
    "module": nn.Flatten(),
    "function": lambda x: torch.flatten(x, 1),
    "method": lambda x: x.flatten(1),
    "view": lambda x: x.view(x.size(0), -1),
    "reshape": lambda x: torch.reshape(x, (-1, 1024)),
    "twice": None,
}


@pytest.mark.parametrize("name", FLATTENED)
def test_a_large_layer_reads_the_weights_of_what_changes(name):
    torch.manual_seed(0)
    flatten = FLATTENED[name] or FLATTENED["method"]
    large = Twice(flatten)
    if name != "twice":
        large.forward = lambda x: large.large(large.flatten(x))
    model = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), large, nn.Linear(1024, 5))
    model = tune(model).double().eval().requires_grad_(False)
    ours = follow(model, search(images((1, 16, 16)), [12, 5, 3, 2, 2, 1, 1]))
    assert len(ours._plan.linear) == 1
    assert len(ours._plan.flattened) == (name != "twice")


def test_a_network_may_begin_with_a_large_layer():
    torch.manual_seed(0)
    layers = [nn.Flatten(), nn.Linear(1024, 1024), nn.ReLU(), nn.Linear(1024, 4)]
    model = tune(nn.Sequential(*layers)).double().eval().requires_grad_(False)
    ours = follow(model, search(images((1, 32, 32)), [9, 3, 2, 2, 1, 1]))
    assert len(ours._plan.linear) == 1


def test_what_rounding_adds_up_to_is_compared_and_then_dropped(monkeypatch):
    """In place of rounding: each change is passed on a hundredth too large."""
    model, shape = network("lenet_plus")
    made_of = Product.made_of

    def wrong(self, change, size):
        window, values = made_of(self, change, size)
        return Piece(window, values * 1.01)

    monkeypatch.setattr(Product, "made_of", wrong)
    monkeypatch.setattr(incremental, "OFTEN", 32)
    ours = Uncompared(model)
    with torch.no_grad():
        off = [
            float((ours(x) - model(x)).abs().max())
            for x in search(images(shape), [2] * 33, drops=False)
        ]
    assert off[31] > 2 * off[2]  # the 32nd call, which is compared
    assert off[32] < off[31] / 2


def test_a_pixel_that_is_no_number_is_forgotten_when_it_is_one_again():
    model, shape = network("lenet_plus")
    ours, x = Uncompared(model), images(shape)
    with torch.no_grad():
        for pixel in (0.5, torch.inf, torch.inf, torch.nan, torch.nan, 0.5, 0.6):
            x = x.clone()
            x[0, 0, 5, 5] = pixel
            torch.testing.assert_close(ours(x), model(x), **EXACT, equal_nan=True)


@pytest.mark.parametrize("size", [1, 2])
def test_squares_that_share_a_place_leave_nothing_behind(size):
    """The second covers the first, which one image kept: that image is like neither try."""
    model, shape = network("lenet_plus")
    ours, best = Uncompared(model), images(shape, 12)
    places = [(4, 4), (4, 4), (20, 20), (12, 12)]
    areas = []
    with torch.no_grad():
        ours(best)
        for step, (top, left) in enumerate(places):
            x = best.clone()
            x[..., top : top + size, left : left + size] = 0.1 * (step + 1)
            torch.testing.assert_close(ours(x), model(x), **EXACT)
            areas.append(ours._maps.tried[ours._plan.image].window.area)
            if step == 0:
                best[0] = x[0]
    assert areas == [size**2] * 4


def test_images_of_another_size_have_a_plan_of_their_own():
    torch.manual_seed(0)
    layers = [nn.Conv2d(1, 2, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2, 4)]
    model = nn.Sequential(*layers).double().eval()
    batches = (search(images((1, size, size)), [2, 1, 1, 1]) for size in (12, 24, 9))
    follow(model, itertools.chain(*batches))


def test_the_random_stream_is_drawn_from_as_by_the_network_alone():
    model = Made(lambda net, y: y + torch.rand_like(y)).double().eval()
    drawn = []
    for one in (model, Incremental(model)):
        torch.manual_seed(7)
        with torch.no_grad():
            drawn.append(torch.cat([one(images((1, 12, 12))), torch.rand(1, 4)]))
    assert torch.equal(*drawn)


class Darker(nn.Module):
    """Pixels below 0, than which a padding of 0 would be more."""

    def forward(self, x):
        return x - 1


@pytest.mark.parametrize(
    "layers",
    [
        [nn.MaxPool2d(3, stride=2, padding=1)],
        [nn.MaxPool2d(2, ceil_mode=True)],
        [nn.AvgPool2d(3, stride=1, padding=1)],
        [nn.AvgPool2d(3, stride=1, padding=1, count_include_pad=False)],
        [nn.Conv2d(1, 3, 3, padding="same")],
        [nn.Conv2d(1, 3, 3, padding=1, padding_mode="circular")],
        [nn.Conv2d(1, 3, (3, 1), stride=(2, 1), padding=(1, 0)), nn.ReLU(inplace=True)],
        [nn.Conv2d(1, 2, 3, dilation=2), nn.InstanceNorm2d(2), nn.ELU()],
        [nn.Conv2d(1, 4, 1), nn.PixelShuffle(2), nn.Conv2d(1, 1, 3)],
        [nn.Conv2d(1, 4, 5, padding=2), nn.Conv2d(4, 2, (5, 7), padding=(1, 4), groups=2)],
        [nn.Conv2d(1, 4, 5, padding=4, dilation=2, bias=False), nn.Sigmoid()],
        [nn.Conv2d(1, 4, 7, padding=7)],
        [nn.Conv2d(1, 4, 3), nn.Conv2d(4, 4, 3, groups=2), nn.Dropout2d(), nn.GELU()],
        [nn.ConvTranspose2d(1, 2, 3)],
    ],
    ids=lambda layers: "-".join(type(layer).__name__ for layer in layers),
)
def test_layers_of_every_kind(layers):
    torch.manual_seed(0)
    body = nn.Sequential(Darker(), *layers)
    features = body(torch.zeros(1, 1, 13, 13)).numel()
    model = nn.Sequential(body, nn.Flatten(), nn.Linear(features, 4)).double().eval()
    follow(model, search(images((1, 13, 13)), [4, 3, 2, 2, 1, 1, 1]))


def test_a_random_network_is_called_as_it_is():
    noisy = Made(lambda net, y: y + torch.rand_like(y)).double().eval()
    ours, x = Incremental(noisy), images((1, 12, 12))
    with torch.no_grad():
        for _ in range(3):
            torch.manual_seed(5)
            ours(x)
        torch.manual_seed(6)
        got = ours(x)
        torch.manual_seed(6)
        assert torch.equal(got, noisy(x))
    assert ours._graph is None


def test_a_gradient_is_the_network_s_own():
    model, shape = network("small_cnn")
    ours = Incremental(model)
    x = images(shape)
    with torch.no_grad():
        ours(x)
    gradients = []
    for one in (ours, model):
        given = x.clone().requires_grad_()
        gradients += torch.autograd.grad(one(given).logsumexp(1).sum(), given)
    assert torch.equal(*gradients)


def test_maps_that_memory_does_not_hold_are_not_kept(monkeypatch):
    monkeypatch.setattr(incremental, "MOST_BYTES", 20_000)
    model, shape = network("small_cnn")
    ours = follow(model, search(images(shape, 50), [2, 1, 1], drops=False))
    assert not ours.renews
    ours = follow(model, search(images(shape, 1), [2, 1, 1]))
    assert ours.renews


def small() -> nn.Module:
    return SmallCNN((1, 8, 8), 5, width=4)


def with_large_linear_layers() -> nn.Module:
    """A convolution of 5×5 behind the first, and a layer of 2²⁰ weights."""
    convolutions = [nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 16, 5, padding=2)]
    head = [nn.ReLU(), nn.Flatten(), nn.Linear(1024, 1024), nn.ReLU(), nn.Linear(1024, 5)]
    return nn.Sequential(*convolutions, *head)


@pytest.mark.parametrize(("made", "linear"), [(small, 0), (with_large_linear_layers, 2)])
def test_autoattack_finds_the_same(made, linear, monkeypatch):
    """The same images, with Square computing anew what it changes and with the network as it is."""
    torch.manual_seed(0)
    model = laid_out(made(), torch.device("cpu")).eval()
    model.requires_grad_(False)
    x = torch.rand(12, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        y = model(x).argmax(1)
    called = []

    def counted(one):
        called.append(Incremental(one))
        return called[-1]

    proposals = []
    for kind in (counted, lambda one: one):
        monkeypatch.setattr("regbench.attacks.autoattack.Incremental", kind)
        attack = AutoAttack(epsilon=0.02, batch_size=12)
        proposals.append(attack(model, x, y, torch.Generator().manual_seed(4)))
    ours, own = proposals
    assert called[0]._graph is not None
    assert len(called[0]._plan.linear) == linear
    assert None in ours.fooled_by  # some withstand, on which Square tried all its squares
    assert ours.fooled_by == own.fooled_by
    torch.testing.assert_close(ours.x_adv, own.x_adv, rtol=0, atol=1e-6)


class Pooling(nn.Module):
    """Poolings written as functions, with and without what they need not be told."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)

    def forward(self, x):
        x = F.max_pool2d(F.relu(self.first(x)), 2)
        x = F.max_pool2d(x, 3, stride=1, padding=1)
        x = F.avg_pool2d(torch.max_pool2d(self.second(x), (2, 2)), 3, 2, padding=1)
        return torch.flatten(F.max_pool2d(x, 2, ceil_mode=True), 1)


def test_a_pooling_that_is_a_function_is_a_layer():
    torch.manual_seed(0)
    ours = follow(Pooling().double().eval(), search(images((1, 16, 16)), [4, 3, 2, 2, 1, 1, 1]))
    # two convolutions and four poolings; that of a rounded-up size is none
    assert len(ours._plan.local) == 6
