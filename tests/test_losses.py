"""Each training loss against a transcription from the papers: loops over images, pixels, logits."""

import math
from collections import Counter
from collections.abc import Callable
from copy import deepcopy

import pytest
import torch
from torch import Tensor, nn

from regbench.errors import UserError
from regbench.experiment import members
from regbench.regularizers.fgsm_at import FGSMAT
from regbench.regularizers.fgsm_rs import FGSMRS
from regbench.regularizers.grad_align import GradAlign
from regbench.regularizers.n_fgsm import NFGSM
from regbench.regularizers.natural import Natural
from regbench.regularizers.pgd_at import PGDAT
from regbench.regularizers.sat_r1 import SATR1
from regbench.regularizers.sat_r2 import SATR2
from regbench.regularizers.sat_r3 import SATR3
from regbench.regularizers.trades import TRADES
from regbench.step import Step
from regbench.training.passes import passes

EPSILON, ALPHA = 0.3, 0.07


def stream(seed: int = 3) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# --- the transcriptions ---------------------------------------------------------------------------


def pixelwise(function: Callable[..., float], *images: Tensor) -> Tensor:
    values = [function(*p) for p in zip(*(i.flatten().tolist() for i in images), strict=True)]
    return torch.tensor(values, dtype=torch.float64).view_as(images[0])


def climb(x: Tensor, size: float, slope: Tensor) -> Tensor:
    """clip₀₁(x + size · sign g)."""
    return pixelwise(lambda p, g: min(max(p + size * ((g > 0) - (g < 0)), 0.0), 1.0), x, slope)


def inside(x_adv: Tensor, x: Tensor) -> Tensor:
    """The nearest point of the ε-ball around x, and of [0, 1]."""
    low, high = -EPSILON, EPSILON
    return pixelwise(lambda a, p: min(max(a, p + low, 0.0), p + high, 1.0), x_adv, x)


def mean(values: list[Tensor]) -> Tensor:
    return sum(values) / len(values)


def log_softmax(row: Tensor) -> list[Tensor]:
    return [z - sum(other.exp() for other in row).log() for z in row]


def cross_entropy(logits: Tensor, y: Tensor) -> Tensor:
    return mean([-log_softmax(row)[label] for row, label in zip(logits, y, strict=True)])


def kullback_leibler(p: Tensor, q: Tensor) -> Tensor:
    """Mean over the images of Σ p (log p − log q), from logits."""
    rows = [(log_softmax(a), log_softmax(b)) for a, b in zip(p, q, strict=True)]
    return mean([sum(u.exp() * (u - v) for u, v in zip(a, b, strict=True)) for a, b in rows])


def squared_distance(a: Tensor, b: Tensor) -> Tensor:
    return sum((u - v) ** 2 for u, v in zip(a, b, strict=True))


def slopes(model: nn.Module, x: Tensor, target: Tensor, loss: Callable = cross_entropy) -> Tensor:
    """The input gradient of each image's own loss, the model in eval mode."""
    model.eval()
    found = []
    for image, its_target in zip(x, target, strict=True):
        leaf = image[None].clone().requires_grad_()
        loss(model(leaf), its_target[None]).backward()
        found.append(leaf.grad)
    model.zero_grad()
    return torch.cat(found)


def natural(_: Natural, model: nn.Module, x: Tensor, y: Tensor, noise: torch.Generator):
    return cross_entropy(model.train()(x), y), torch.tensor(0.0, dtype=torch.float64)


def fgsm_at(_: FGSMAT, model: nn.Module, x: Tensor, y: Tensor, noise: torch.Generator):
    x_fgsm = climb(x, EPSILON, slopes(model, x, y))
    return cross_entropy(model.train()(x_fgsm), y), torch.tensor(0.0, dtype=torch.float64)


def uniform(x: Tensor, radius: float, noise: torch.Generator) -> Tensor:
    return torch.rand(x.shape, dtype=x.dtype, generator=noise) * 2 * radius - radius


def fgsm_rs(loss: FGSMRS, model: nn.Module, x: Tensor, y: Tensor, noise: torch.Generator):
    start = x + uniform(x, EPSILON, noise)  # not clipped
    slope, size = slopes(model, start, y), loss.relative_step * EPSILON
    x_adv = inside(start + size * ((slope > 0).double() - (slope < 0).double()), x)
    return cross_entropy(model.train()(x_adv), y), torch.tensor(0.0, dtype=torch.float64)


def n_fgsm(loss: NFGSM, model: nn.Module, x: Tensor, y: Tensor, noise: torch.Generator):
    eta = uniform(x, loss.relative_noise * EPSILON, noise)
    noisy = pixelwise(lambda p, n: min(max(p + n, 0.0), 1.0), x, eta)
    x_adv = climb(noisy, loss.relative_step * EPSILON, slopes(model, noisy, y))
    return cross_entropy(model.train()(x_adv), y), torch.tensor(0.0, dtype=torch.float64)


def grad_align(loss: GradAlign, model: nn.Module, x: Tensor, y: Tensor, noise: torch.Generator):
    def slope(images: Tensor) -> Tensor:
        leaf = images.clone().requires_grad_()
        return torch.autograd.grad(cross_entropy(model(leaf), y), leaf, create_graph=True)[0]

    model.train()
    here, there = slope(x).detach(), slope(x + uniform(x, EPSILON, noise))
    cosines = []
    for one, other in zip(here.flatten(1), there.flatten(1), strict=True):
        if one.abs().max() > 0 and other.abs().max() > 0:
            lengths = (one @ one).sqrt() * (other @ other).sqrt()
            cosines.append((one @ other) / lengths)
    penalty = loss.weight * (1 - mean(cosines))
    return cross_entropy(model(climb(x, EPSILON, here)), y), penalty


def pgd_at(loss: PGDAT, model: nn.Module, x: Tensor, y: Tensor, noise: torch.Generator):
    x_adv = inside(x + uniform(x, EPSILON, noise), x)
    for _ in range(loss.steps):
        slope = slopes(model, x_adv, y)
        x_adv = inside(x_adv + loss.step_size * ((slope > 0).double() - (slope < 0).double()), x)
    return cross_entropy(model.train()(x_adv), y), torch.tensor(0.0, dtype=torch.float64)


def trades(loss: TRADES, model: nn.Module, x: Tensor, y: Tensor, noise: torch.Generator):
    clean = model.eval()(x).detach()
    x_adv = x + 0.001 * torch.randn(x.shape, dtype=x.dtype, generator=noise)
    for _ in range(loss.steps):
        slope = slopes(model, x_adv, clean, lambda logits, p: kullback_leibler(p, logits))
        x_adv = inside(x_adv + loss.step_size * ((slope > 0).double() - (slope < 0).double()), x)
    logits = model.train()(x)
    return cross_entropy(logits, y), loss.weight * kullback_leibler(logits, model(x_adv))


def sat_r1(loss: SATR1, model: nn.Module, x: Tensor, y: Tensor, noise: torch.Generator):
    m = len(y)
    x_fgsm = climb(x, EPSILON, slopes(model, x, y))
    x_ifgsm = x[m - 1 :]
    for _ in range(loss.steps):
        x_ifgsm = climb(x_ifgsm, EPSILON / loss.steps, slopes(model, x_ifgsm, y[m - 1 :]))
    logits = model.train()(torch.cat((x_fgsm, x_ifgsm)))
    return cross_entropy(logits[:m], y), loss.weight * squared_distance(logits[m - 1], logits[m])


def sat_r2(loss: SATR2, model: nn.Module, x: Tensor, y: Tensor, noise: torch.Generator):
    m = len(y)
    normal = torch.randn(x.shape, dtype=x.dtype, generator=noise)
    noisy = pixelwise(lambda p, n: p + math.copysign(loss.alpha, n), x, normal)  # not clipped
    x_fgsm = climb(x, EPSILON, slopes(model, x, y))
    x_rfgsm = climb(noisy, EPSILON, slopes(model, noisy, y))
    if loss.projected:
        x_rfgsm = inside(x_rfgsm, x)
    logits = model.train()(torch.cat((x_fgsm, x_rfgsm)))
    distance = mean([squared_distance(logits[i], logits[m + i]) for i in range(m)])
    return cross_entropy(logits[:m], y), loss.weight * distance


def sat_r3(loss: SATR3, model: nn.Module, x: Tensor, y: Tensor, noise: torch.Generator):
    m = len(y)
    start = climb(x, loss.alpha, torch.randn(x.shape, dtype=x.dtype, generator=noise))
    slope = slopes(model, start, y)
    x_low, x_high = climb(start, loss.epsilon_low, slope), climb(start, loss.epsilon_high, slope)
    if loss.projected:
        x_low, x_high = inside(x_low, x), inside(x_high, x)
    logits = model.train()(torch.cat((x_low, x_high)))  # in the authors' order, for dropout
    low, high = cross_entropy(logits[:m], y), cross_entropy(logits[m:], y)
    return high, loss.weight * max(low - loss.tau * high, 0 * low)


def r3(tau: float = 0.4, projected: bool = False, epsilon_low: float = 0.1) -> SATR3:
    return SATR3(
        weight=0.7,
        tau=tau,
        alpha=ALPHA,
        epsilon_low=epsilon_low,
        epsilon_high=EPSILON,
        projected=projected,
    )


CASES = {
    "natural": (natural, Natural()),
    "FGSM-AT": (fgsm_at, FGSMAT()),
    "FGSM-RS": (fgsm_rs, FGSMRS(relative_step=1.25)),
    "N-FGSM": (n_fgsm, NFGSM(relative_noise=1.5, relative_step=0.9)),
    "GradAlign": (grad_align, GradAlign(weight=0.7)),
    "PGD-AT": (pgd_at, PGDAT(steps=4, step_size=0.11)),
    "TRADES": (trades, TRADES(weight=6.0, steps=4, step_size=0.11)),
    "SAT-R1": (sat_r1, SATR1(weight=0.7, steps=3)),
    "SAT-R2": (sat_r2, SATR2(weight=0.7, alpha=ALPHA, projected=False)),
    "SAT-R2 projected": (sat_r2, SATR2(weight=0.7, alpha=ALPHA, projected=True)),
    "SAT-R3": (sat_r3, r3()),
    "SAT-R3 projected": (sat_r3, r3(projected=True)),
    "SAT-R3 projected, both out of the ball": (sat_r3, r3(projected=True, epsilon_low=0.28)),
    "SAT-R3 hinge at rest": (sat_r3, r3(tau=2.0)),
}
AGREE = {"rtol": 1e-11, "atol": 1e-13}


@pytest.mark.parametrize("count", [1, 5])
@pytest.mark.parametrize("case", CASES)
def test_loss_and_weight_gradients_equal_the_transcription(case, count, network, batch):
    transcription, loss = CASES[case]
    reference, theirs, ours = deepcopy(network), stream(), stream()
    network.eval()  # the first step of an epoch finds the model as validation left it
    for number in range(2):
        x, y = batch(count, seed=number)
        torch.manual_seed(number)  # dropout
        cross_entropy_, penalty = transcription(loss, reference, x, y, theirs)
        (cross_entropy_ + penalty).backward()
        torch.manual_seed(number)
        objective = loss(Step(network, x, y, EPSILON, ours))
        assert all(weight.grad is None for weight in network.parameters())
        objective.total.backward()
        torch.testing.assert_close(objective.cross_entropy, cross_entropy_, **AGREE)
        torch.testing.assert_close(torch.as_tensor(objective.penalty).to(penalty), penalty, **AGREE)
        torch.testing.assert_close(objective.total, cross_entropy_ + penalty, **AGREE)
        torch.testing.assert_close(gradients(network), gradients(reference), **AGREE)
        network.zero_grad()
        reference.zero_grad()
    # running statistics move in the train-mode forward passes, and only there
    torch.testing.assert_close(dict(network.named_buffers()), dict(reference.named_buffers()))


def gradients(model: nn.Module) -> dict[str, Tensor]:
    return {name: weight.grad for name, weight in model.named_parameters()}


@pytest.mark.parametrize(
    "case", ["GradAlign", *(name for name in CASES if "SAT" in name and "rest" not in name)]
)
def test_the_penalty_of_these_cases_is_not_zero(case, network, batch):
    # else the comparison above would say nothing of λ
    assert CASES[case][1](Step(network, *batch(5), EPSILON, stream())).penalty > 1e-6


# --- crafting -------------------------------------------------------------------------------------


CRAFTS = {
    "fgsm": Step.fgsm,
    "gradient": lambda step: step.gradient(step.x, step.y),
    "frozen_logits": lambda step: step.frozen_logits(step.x),
}


@pytest.mark.parametrize("craft", CRAFTS)
def test_crafting_leaves_statistics_and_weight_gradients_alone(craft, network, batch):
    before, computed = deepcopy(network.train()), []
    for weight in network.parameters():
        weight.grad = torch.full_like(weight, 3.0)
        weight.register_hook(computed.append)
    crafted = CRAFTS[craft](Step(network, *batch(5), EPSILON, stream()))
    assert not crafted.requires_grad
    assert not computed
    assert all((weight.grad == 3).all() for weight in network.parameters())
    torch.testing.assert_close(network.state_dict(), before.state_dict(), rtol=0, atol=0)


def test_noise_comes_from_the_generator_alone(network, batch):
    state = torch.get_rng_state()
    draws = [Step(network, *batch(5), EPSILON, stream(seed)) for seed in (0, 0, 1)]
    first, again, other = (torch.cat((step.normal(), step.uniform(0.1))) for step in draws)
    assert first.equal(again)
    assert not first.equal(other)
    assert torch.get_rng_state().equal(state)


def test_uniform_noise_fills_the_given_radius(network, batch):
    noise = Step(network, *batch(500), EPSILON, stream()).uniform(0.2)
    assert noise.abs().max() <= 0.2
    assert noise.min() < -0.199
    assert noise.max() > 0.199


# --- cost and reach -------------------------------------------------------------------------------


def rows_seen(model: nn.Module) -> Counter:
    """Counts the rows of every forward pass from now on, by whether the model is in train mode."""
    seen: Counter = Counter()
    model.register_forward_hook(
        lambda module, images, _: seen.update({module.training: len(images[0])})
    )
    return seen


COSTS = {  # rows crafted on, rows trained on, in units of m
    "natural": (0, 1),
    "FGSM-AT": (1, 1),
    "FGSM-RS": (1, 1),
    "N-FGSM": (1, 1),
    "PGD-AT": (4, 1),
    "TRADES": (1 + 4, 2),
    "SAT-R2": (2, 2),
    "SAT-R3": (1, 2),
}


@pytest.mark.parametrize("case", COSTS)
def test_rows_seen_are_what_the_method_costs(case, network, batch):
    seen = rows_seen(network)
    CASES[case][1](Step(network, *batch(5), EPSILON, stream()))
    crafted, trained = COSTS[case]
    assert (seen[False], seen[True]) == (5 * crafted, 5 * trained)


@pytest.mark.parametrize("steps", [1, 3, 10])
def test_sat_r1_costs_one_row_per_further_step_and_one_row_more_to_train(steps, network, batch):
    seen = rows_seen(network)
    SATR1(weight=0.2, steps=steps)(Step(network, *batch(5), EPSILON, stream()))
    assert (seen[False], seen[True]) == (5 + steps - 1, 5 + 1)


@pytest.mark.parametrize("case", COSTS)
def test_passes_are_counted(case, network, batch):
    crafted, trained = COSTS[case]
    found = passes(CASES[case][1], Step(network, *batch(5), EPSILON, stream()))
    frozen = case == "TRADES"  # its clean logits are a target, to which no gradient comes back
    assert found == (crafted + trained, crafted + trained - frozen)
    assert not network._forward_hooks


@pytest.mark.parametrize("rule", members.names("regularizers"))
def test_the_declared_cost_is_the_counted_one(rule, declared, network, batch):
    told = declared[rule]
    loss = members.build(told.loss, told.hyperparameters)
    found = passes(loss, Step(network, *batch(5), EPSILON, stream()))
    assert told.cost(told.hyperparameters, 5) == pytest.approx(sum(found) / 2)


def test_the_rules_of_later_methods_declare_their_authors_values(declared):
    told = {name: declared[name].hyperparameters for name in ("fgsm_rs", "n_fgsm", "grad_align")}
    assert told == {
        "fgsm_rs": {"relative_step": 1.25},  # MNIST's 0.375 at 0.3, CIFAR-10's 10/255 at 8/255
        "n_fgsm": {"relative_noise": 2, "relative_step": 1},
        "grad_align": {"weight": 0.2},
    }


@pytest.mark.parametrize("value", [10 / 255, 16, -1])
def test_a_length_in_place_of_a_multiple_is_refused(value):
    with pytest.raises(UserError, match="'relative_step': "):
        members.build("regbench.regularizers.fgsm_rs", {"relative_step": value})


@pytest.fixture
def trained_on(network, batch):
    """`trained_on(loss)`: the batch, and the two halves that the model is trained on."""

    def halves(loss):
        rows, model = [], deepcopy(network)
        model.register_forward_hook(
            lambda module, images, _: rows.append(images[0]) if module.training else None
        )
        x, y = batch(5)
        loss(Step(model, x, y, EPSILON, stream()))
        return x, *rows[0].chunk(2)

    return halves


def reach(x_adv: Tensor, x: Tensor) -> float:
    assert x_adv.min() >= 0
    assert x_adv.max() <= 1
    return (x_adv - x).abs().max().item()


def test_sat_r2_leaves_the_ball_by_alpha_unless_projected(trained_on):
    x, x_fgsm, x_rfgsm = trained_on(SATR2(weight=1.0, alpha=ALPHA, projected=False))
    assert reach(x_fgsm, x) == pytest.approx(EPSILON)
    assert reach(x_rfgsm, x) == pytest.approx(EPSILON + ALPHA)
    x, same, x_rfgsm = trained_on(SATR2(weight=1.0, alpha=ALPHA, projected=True))
    assert reach(x_rfgsm, x) == pytest.approx(EPSILON)
    assert same.equal(x_fgsm)


def test_sat_r3_leaves_the_ball_by_alpha_unless_projected(trained_on):
    x, x_low, x_high = trained_on(r3())
    assert reach(x_low, x) == pytest.approx(0.1 + ALPHA)
    assert reach(x_high, x) == pytest.approx(EPSILON + ALPHA)
    x, same, x_high = trained_on(r3(projected=True))
    assert reach(x_high, x) == pytest.approx(EPSILON)
    assert same.equal(x_low)  # it was in the ball before


def test_fgsm_rs_stays_in_the_ball_and_n_fgsm_leaves_it(trained_on):
    x, *halves = trained_on(FGSMRS(relative_step=1.25))
    assert reach(torch.cat(halves), x) == pytest.approx(EPSILON)
    x, *halves = trained_on(NFGSM(relative_noise=2.0, relative_step=1.0))
    assert 2 * EPSILON < reach(torch.cat(halves), x) < 3 * EPSILON


# --- what sets each regularizer apart -------------------------------------------------------------


@pytest.mark.parametrize("network", ["plain"], indirect=True)
def test_sat_r1_with_one_step_has_no_penalty(network, batch):
    # I-FGSM in one step is FGSM
    objective = SATR1(weight=100.0, steps=1)(Step(network, *batch(5), EPSILON, stream()))
    assert objective.penalty.item() == pytest.approx(0, abs=1e-25)


@pytest.mark.parametrize("network", ["plain"], indirect=True)
def test_sat_r1_pairs_the_last_image_alone(network, batch):
    x, y = batch(5)
    whole, alone = (
        SATR1(weight=1.0, steps=3)(Step(network, x[rows], y[rows], EPSILON, stream())).penalty
        for rows in (slice(None), slice(-1, None))
    )
    torch.testing.assert_close(whole, alone)


class Blind(nn.Module):
    """Sees the first images alone: the logits of others do not follow them.

    Args:
        network: what it is otherwise.
        seen: how many it sees, of each call in turn.
    """

    def __init__(self, network: nn.Module, *seen: int) -> None:
        super().__init__()
        self.network, self.left = network, [*seen]

    def forward(self, x: Tensor) -> Tensor:
        seen = self.left.pop(0) if self.left else len(x)
        return self.network(torch.cat((x[:seen], x[seen:].detach())))


@pytest.mark.parametrize("network", ["plain"], indirect=True)
def test_grad_align_leaves_out_images_without_a_gradient(network, batch):
    x, y = batch(6)

    def penalty(*seen: int) -> Tensor:
        step = Step(Blind(network, *seen), x, y, EPSILON, stream())
        return GradAlign(weight=1.0)(step).penalty

    alone = GradAlign(weight=1.0)(Step(network, x[:4], y[:4], EPSILON, stream())).penalty
    for seen in ((4, 4), (4, 6), (6, 4)):
        assert penalty(*seen).item() == pytest.approx(alone.item())
    assert penalty(6, 6).item() != pytest.approx(alone.item())
    assert penalty(0, 0).item() == 0
    penalty(0, 0).backward()
    assert all(weight.grad.eq(0).all() for weight in network.parameters())


def confident(dtype: torch.dtype, by: float = 60.0) -> nn.Module:
    """Three classes, label 0 certain; which of the others comes second follows the pixels."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(32, 3)).to(dtype)
    torch.manual_seed(4)
    model[1].weight.data.copy_(torch.randn(3, 32, dtype=torch.float64))
    model[1].weight.data[0] = 0  # float32 knows no difference of its probability from 1
    model[1].bias.data.copy_(torch.tensor([by, 0.0, 0.0]))
    return model


class Shifted(Step):
    """Its noise is the same in each precision."""

    def uniform(self, radius: float) -> Tensor:
        return radius * (2 * self.x.roll(1, dims=0) - 1)


def test_grad_align_sees_gradients_whose_squares_are_zero(batch):
    x, y = batch(5)[0], torch.zeros(5, dtype=torch.int64)

    def penalty(dtype: torch.dtype) -> float:
        step = Shifted(confident(dtype), x.to(dtype), y, EPSILON, stream())
        slope = step.gradient(step.x, y)
        assert slope.abs().amax((1, 2, 3)).min() > 0
        assert (slope.square().sum() == 0) == (dtype is torch.float32)
        return GradAlign(weight=1.0)(step).penalty.item()

    exact, rounded = penalty(torch.float64), penalty(torch.float32)
    assert 1e-3 < exact < 0.5
    assert rounded == pytest.approx(exact, rel=0.01)


@pytest.mark.parametrize("by", range(60, 120, 2))
def test_grad_align_of_a_certain_image_moves_no_weight_to_infinity(by, batch):
    """Beyond some margin its gradient is so short that one over it is more than float32 holds."""
    x = batch(5)[0].float()
    y = torch.tensor([0, 1, 2, 1, 2])
    model = confident(torch.float32, by)
    GradAlign(weight=1.0)(Step(model, x, y, EPSILON, stream())).total.backward()
    assert all(weight.grad.isfinite().all() for weight in model.parameters())


def test_grad_align_has_no_penalty_where_gradients_point_one_way(batch):
    x, _ = batch(5)
    model = confident(torch.float64)
    model[1].weight.data[2] = model[1].weight.data[1]  # two classes, as good as
    step = Step(model, x, torch.zeros(5, dtype=torch.int64), EPSILON, stream())
    assert GradAlign(weight=100.0)(step).penalty.item() == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("tau", [0.5, 0.6])
def test_sat_r3_hinges_the_batch_means_not_each_image(tau):
    # one pixel, margin 10 (x - 1/2) for label 1: an image that is right and one that is wrong
    model = nn.Sequential(nn.Flatten(), nn.Linear(1, 2)).double()
    model.load_state_dict(
        {"1.weight": torch.tensor([[0.0], [10]]), "1.bias": torch.tensor([0, -5])}
    )
    x = torch.tensor([0.7, 0.3], dtype=torch.float64).view(2, 1, 1, 1)
    loss = SATR3(
        weight=1.0, tau=tau, alpha=0.0, epsilon_low=0.05, epsilon_high=0.2, projected=False
    )
    penalty = loss(Step(model, x, torch.tensor([1, 1]), 0.2, stream())).penalty.item()
    low, high = ([math.log1p(math.exp(-m)) for m in margins] for margins in ((1.5, -2.5), (0, -4)))
    of_means = max(0, (sum(low) - tau * sum(high)) / 2)
    mean_of = sum(max(0, a - tau * b) for a, b in zip(low, high, strict=True)) / 2
    assert penalty == pytest.approx(of_means)
    assert of_means < mean_of - 0.05
