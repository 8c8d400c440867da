"""Attacks against independent implementations, and the referee against attacks that cheat."""

import logging
import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from typing import ClassVar

import autoattack
import foolbox
import pytest
import torch
from torch import Tensor, nn

from regbench.ascent import cross_entropy, input_gradient, margin, project
from regbench.attacks import Attack
from regbench.attacks.autoattack import ATTACKS as STAGES
from regbench.attacks.autoattack import AutoAttack
from regbench.attacks.clean import Clean
from regbench.attacks.fgsm import FGSM
from regbench.attacks.mifgsm import MIFGSM
from regbench.attacks.pgd import PGD
from regbench.attacks.rfgsm import RFGSM
from regbench.core.memory import DoesNotFitError
from regbench.core.precision import PRECISIONS
from regbench.core.validation import right
from regbench.errors import UserError
from regbench.evaluation.verdicts import Verdicts, judge
from regbench.experiment.members import build
from regbench.prepare import Split

EPSILON = 0.1


def stream(seed: int = 3) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# --- FGSM, PGD, the margin loss -------------------------------------------------------------------


def foolbox_images(
    attack: foolbox.Attack, model: nn.Module, images: Split, epsilon: float
) -> Tensor:
    """Return what foolbox makes of the images, clipped to the ball and to [0, 1] by itself."""
    judged = foolbox.PyTorchModel(model.eval(), bounds=(0, 1), device="cpu")
    _, clipped, _ = attack(judged, images.x, images.y, epsilons=epsilon)
    return clipped


@pytest.mark.parametrize("epsilon", [0.0, 0.3, 2.0])
def test_a_projection_is_a_clip_to_the_ball_and_then_to_the_range_of_images(epsilon):
    generator = torch.Generator().manual_seed(0)
    x, x_adv = (3 * torch.rand(2, 1000, generator=generator) - 1).unbind()  # some are no images
    expected = torch.minimum(torch.maximum(x_adv, x - epsilon), x + epsilon).clamp(0, 1)
    assert torch.equal(project(x_adv, x, epsilon), expected)


@pytest.mark.parametrize("epsilon", [0.05, 0.3])
def test_fgsm_gives_the_images_of_foolbox(epsilon, classifier):
    model, (x, y) = classifier
    proposal = FGSM(epsilon=epsilon)(model, x, y, stream())
    attack = foolbox.attacks.LinfFastGradientAttack(random_start=False)
    expected = foolbox_images(attack, model, Split(x, y), epsilon)
    torch.testing.assert_close(project(proposal, x, epsilon), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("start_radius", [0.0, 1.0])
def test_pgd_gives_the_images_of_foolbox(start_radius, classifier):
    model, (x, y) = classifier
    ours = PGD(epsilon=0.2, steps=7, step_size=0.06, start_radius=start_radius)
    images = ours(model, x, y, stream(5))
    torch.manual_seed(5)  # foolbox draws its start from the global stream
    theirs = foolbox.attacks.LinfProjectedGradientDescentAttack(
        abs_stepsize=0.06, steps=7, random_start=start_radius > 0
    )
    expected = foolbox_images(theirs, model, Split(x, y), 0.2)
    torch.testing.assert_close(images, expected, rtol=0, atol=1e-6)
    assert (images - x).abs().max() == pytest.approx(0.2)


def test_pgd_starts_within_the_share_of_epsilon_that_is_asked_for(classifier):
    model, (x, y) = classifier
    attack = PGD(epsilon=0.2, steps=1, step_size=1e-9, start_radius=0.25)
    moved = (attack(model, x, y, stream()) - x).abs()
    assert 0.045 < moved.max() <= 0.05 + 1e-6


def test_margin_loss_equals_its_formula():
    logits = 40 * torch.randn(20, 5, dtype=torch.float64, generator=stream())
    y = torch.arange(20) % 5
    expected = 0.0
    for row, label in zip(logits.tolist(), y.tolist(), strict=True):
        best_wrong = max(z for j, z in enumerate(row) if j != label)
        expected -= max(0.0, row[label] - best_wrong + 50)
    assert margin(logits, y).item() == pytest.approx(expected, rel=1e-12)


def test_pgd_climbs_the_margin_loss_when_asked_to(classifier):
    model, (x, y) = classifier
    attack = PGD(epsilon=0.2, steps=1, step_size=0.2, start_radius=0, loss="margin")
    expected = (x + 0.2 * input_gradient(model, x, y, margin).sign()).clamp(0, 1)
    images = attack(model, x, y, stream())
    torch.testing.assert_close(images, expected, rtol=0, atol=1e-6)
    assert not images.equal(FGSM(epsilon=0.2)(model, x, y, stream()).clamp(0, 1))


@pytest.fixture(scope="module")
def linear() -> tuple[nn.Module, Split, Tensor]:
    """f(x) = Wx + b with 2 classes, 200 images that the ball keeps in (0, 1), and their margins."""
    torch.manual_seed(4)
    model = nn.Sequential(nn.Flatten(), nn.Linear(9, 2)).requires_grad_(False)
    x = 0.2 + 0.6 * torch.rand(200, 1, 3, 3)
    model[1].bias.sub_(model(x).mean(0))
    z = model(x)
    y = z.argmax(1)
    y[:20] = 1 - y[:20]  # some are wrong from the start
    return model, Split(x, y), (z[:, 1] - z[:, 0]) * (2 * y - 1)


LINEAR_ATTACKS = [
    FGSM(epsilon=EPSILON),
    PGD(epsilon=EPSILON, steps=20, step_size=0.02),
    PGD(epsilon=EPSILON, steps=20, step_size=0.02, loss="margin"),
]


@pytest.mark.parametrize("attack", LINEAR_ATTACKS, ids=["FGSM", "PGD", "PGD-CW"])
def test_on_a_linear_model_exactly_the_images_in_reach_are_fooled(attack, linear):
    model, images, margins = linear
    correct = judge(model, attack, images, batch_size=64, seed=0).correct
    w0, w1 = model[1].weight
    robust = margins > EPSILON * (w1 - w0).abs().sum()
    assert correct.equal(robust)
    assert 20 < robust.sum() < 160


# --- R-FGSM, MI-FGSM ------------------------------------------------------------------------------


def test_rfgsm_goes_alpha_at_random_and_the_rest_along_the_gradient(classifier):
    model, (x, y) = classifier
    images = RFGSM(epsilon=0.2, alpha=0.05)(model, x, y, stream(6))
    noise = torch.empty_like(x).normal_(generator=stream(6))
    start = (x + 0.05 * noise.sign()).clamp(0, 1)
    expected = start + 0.15 * input_gradient(model, start, y, cross_entropy).sign()
    torch.testing.assert_close(images, expected, rtol=0, atol=1e-6)


def test_rfgsm_refuses_a_random_step_beyond_the_radius():
    with pytest.raises(UserError, match=r"alpha must be at most ε = 0\.1, got 0\.2"):
        build("regbench.attacks.rfgsm", {"epsilon": 0.1, "alpha": 0.2})


def test_mifgsm_follows_the_momentum_of_normalised_gradients(classifier):
    model, (x, y) = classifier
    images = MIFGSM(epsilon=0.2, steps=4, decay=0.9)(model, x, y, stream())
    for row in range(len(x)):  # image by image, as the paper writes it
        x_adv, velocity = x[row : row + 1], 0
        for _ in range(4):
            given = x_adv.clone().requires_grad_()
            nn.functional.cross_entropy(model(given), y[row : row + 1]).backward()
            velocity = 0.9 * velocity + given.grad / given.grad.norm(p=1)
            x_adv = (x_adv + 0.05 * velocity.sign()).clamp(0, 1)
        assert (images[row : row + 1] - x_adv).abs().max() < 1e-6


def test_a_zero_gradient_moves_nothing():
    x, y = torch.rand(3, 1, 2, 2), torch.zeros(3, dtype=torch.int64)

    def flat(x: Tensor) -> Tensor:
        return 0 * x.flatten(1)

    assert MIFGSM(epsilon=0.2, steps=3)(flat, x, y, stream()).equal(x)


def test_pgd_takes_madrys_step_unless_told_another(classifier):
    model, (x, y) = classifier
    images = [
        PGD(epsilon=0.2, steps=10, step_size=size)(model, x, y, stream()) for size in (None, 0.05)
    ]
    assert images[0].equal(images[1])


def test_early_stop_fools_whom_the_last_iterate_fools_and_leaves_the_rest_as_it_is(classifier):
    model, images = classifier
    told = {"epsilon": 0.12, "steps": 25, "start_radius": 0.0}
    last = judge(model, PGD(**told), images, batch_size=16, seed=0)
    early = judge(model, PGD(**told, early_stop=True), images, batch_size=16, seed=0)
    assert 0 < last.correct.sum() < len(images.y)
    assert (early.correct <= last.correct).all()
    stands = early.correct
    torch.testing.assert_close(early.loss[stands], last.loss[stands])


def test_early_stop_spends_no_gradient_on_fooled_images(classifier):
    model, (x, y) = classifier
    rows = []
    hook = model.register_forward_pre_hook(lambda _, given: rows.append(len(given[0])))
    PGD(epsilon=0.5, steps=40, early_stop=True)(model, x, y, stream())
    hook.remove()
    assert rows[0] == len(x)
    assert sum(rows) < 12 * len(x)


# --- transfer -------------------------------------------------------------------------------------


def test_an_attack_with_a_source_crafts_on_it_and_is_judged_on_the_target(classifier):
    target, images = classifier
    torch.manual_seed(7)
    source = nn.Sequential(nn.Flatten(), nn.Linear(16, 10)).eval().requires_grad_(False)
    transferred = judge(target, FGSM(epsilon=0.1), images, 16, 0, source)
    x_adv = images.x + 0.1 * input_gradient(source, images.x, images.y, cross_entropy).sign()
    stood = target(images.x).argmax(1) == images.y
    expected = stood & (target(x_adv.clamp(0, 1)).argmax(1) == images.y)
    assert transferred.correct.equal(expected)
    white_box = judge(target, FGSM(epsilon=0.1), images, 16, 0)
    assert white_box.correct.sum() < transferred.correct.sum()


def test_the_target_as_its_own_source_is_the_white_box_attack(classifier):
    model, images = classifier
    one, two = (judge(model, FGSM(epsilon=0.1), images, 16, 0, own) for own in (None, model))
    assert one.correct.equal(two.correct)
    assert one.loss.equal(two.loss)


# --- the referee ----------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Scripted(Attack):
    """Proposes what it is told to, and remembers which images it was given."""

    propose: Callable[[Tensor, Tensor], Tensor]
    given: list[Tensor] = field(default_factory=list)

    def __call__(
        self, model: nn.Module, x: Tensor, y: Tensor, generator: torch.Generator
    ) -> Tensor:
        self.given.append(x.flatten().clone())
        return self.propose(x, y)


class Greedy(Scripted):
    whole: ClassVar[bool] = True


class Threshold(nn.Module):
    """Images of one pixel p: label 1 if p > `at`, else label 0."""

    def __init__(self, at: float) -> None:
        super().__init__()
        self.at = at

    def forward(self, x: Tensor) -> Tensor:
        score = 10 * (x.flatten(1) - self.at)
        return torch.cat((-score, score), 1)


def pixels(*values: float, label: int = 1) -> Split:
    return Split(torch.tensor(values).view(-1, 1, 1, 1), torch.full((len(values),), label))


def test_an_attack_that_leaves_the_ball_is_clipped_and_its_success_recounted():
    images = pixels(0.55, 0.9, 0.65)
    told = judge(
        Threshold(0.5), Scripted(epsilon=EPSILON, propose=lambda x, y: x - 5), images, 10, 0
    )
    assert told.correct.tolist() == [False, True, True]
    torch.testing.assert_close(told.distance, torch.full((3,), EPSILON))
    # score 10 · (0.8 − 0.5) after the clip: the loss is the clipped image's, too
    assert told.loss[1].item() == pytest.approx(torch.tensor(-6.0).exp().log1p().item(), rel=1e-4)
    assert told.warnings == ("images further away than ε were brought back to it",)
    rounded = Scripted(epsilon=EPSILON, propose=lambda x, y: x - EPSILON - 5e-5)
    assert judge(Threshold(0.5), rounded, images, 10, 0).warnings == ()


@pytest.mark.parametrize(("at", "start", "label", "step"), [(-0.1, 0.1, 1, -5), (1.1, 0.9, 0, 5)])
def test_an_attack_that_leaves_the_range_of_images_is_clipped(at, start, label, step):
    # the threshold lies in the ball, but outside [0, 1]
    attack = Scripted(epsilon=0.5, propose=lambda x, y: x + step)
    told = judge(Threshold(at), attack, pixels(start, label=label), 10, 0)
    assert told.correct.item()
    assert told.distance.item() == pytest.approx(0.1)


def test_an_attack_that_returns_nan_fools_nobody():
    attack = Scripted(epsilon=EPSILON, propose=lambda x, y: torch.where(x > 0.85, torch.nan, x))
    told = judge(Threshold(0.5), attack, pixels(0.9, 0.8), 10, 0)
    assert told.correct.all()
    assert (told.distance <= EPSILON).all()
    assert told.loss.isfinite().all()
    assert told.warnings == ("pixels that are no number were taken for unchanged ones",)


@pytest.mark.parametrize(
    ("propose", "told"),
    [
        (lambda x, y: x.flatten(1), r"images of shape \(2, 1\), expected .*\(2, 1, 1, 1\)"),
        (lambda x, y: x * torch.nan, r"no number at all for 2 images"),
        (lambda x, y: None, "NoneType, expected a tensor of images"),
    ],
)
def test_an_attack_that_returns_no_images_is_one_line(propose, told):
    attack = Scripted(epsilon=EPSILON, propose=propose)
    with pytest.raises(UserError, match=f"^'.*:Scripted' returned {told}"):
        judge(Threshold(0.5), attack, pixels(0.9, 0.8), 10, 0)


class Watched(Threshold):
    """Notes whether TF32 is allowed whenever it is called."""

    def __init__(self) -> None:
        super().__init__(0.5)
        self.heard: list[bool] = []

    def forward(self, x: Tensor) -> Tensor:
        self.heard.append(torch.backends.cudnn.allow_tf32)
        return super().forward(x)


@pytest.mark.parametrize("precision", ["fp32", "tf32"])
def test_tf32_is_what_attacks_craft_in_and_nothing_is_classified_in(precision, monkeypatch):
    monkeypatch.setattr("torch.backends.cudnn.allow_tf32", False)
    crafted_on, judged = Watched(), Watched()
    attack = FGSM(epsilon=EPSILON)
    judge(judged, attack, pixels(0.9, 0.55), 10, 0, crafted_on, PRECISIONS[precision])
    assert {*crafted_on.heard} == {precision == "tf32"}
    assert {*judged.heard} == {False}


class Rounding(Threshold):
    """Where TF32 is allowed its threshold is 0.84, else 0.8."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x - 0.04 * torch.backends.cudnn.allow_tf32)


class Descending(Attack):
    """Darkens an image by 0.02 at a time until the model is fooled, then leaves off."""

    def __call__(self, model, x, y, generator):
        for _ in range(int(self.epsilon / 0.02)):
            x = torch.where(right(model(x), y)[:, None, None, None], x - 0.02, x)
        return x


@pytest.mark.parametrize(("source", "fooled"), [(None, True), (Rounding(0.8), False)])
def test_an_image_that_only_tf32_takes_for_fooled_is_attacked_once_more(
    source, fooled, monkeypatch
):
    """Not in a transfer, where the source says when the attack leaves off."""
    monkeypatch.setattr("torch.backends.cudnn.allow_tf32", False)
    attack = Descending(epsilon=0.2)
    told = judge(Rounding(0.8), attack, pixels(0.91, 0.75), 10, 0, source, PRECISIONS["tf32"])
    assert told.correct.tolist() == [not fooled, False]
    assert judge(Rounding(0.8), attack, pixels(0.91), 10, 0).correct.tolist() == [False]


def test_a_network_that_answers_nan_is_right_about_nothing():
    attack = Scripted(epsilon=EPSILON, propose=lambda x, y: x)
    told = judge(
        lambda x: x.flatten(1).repeat(1, 2) * torch.nan, attack, pixels(0.9, label=0), 10, 0
    )
    assert not told.correct.any()


def test_an_attack_that_returns_infinity_is_clipped():
    attack = Scripted(epsilon=EPSILON, propose=lambda x, y: x - torch.inf)
    told = judge(Threshold(0.5), attack, pixels(0.9, 0.55), 10, 0)
    assert told.correct.tolist() == [True, False]
    torch.testing.assert_close(told.distance, torch.full((2,), EPSILON))


def test_an_attack_that_overwrites_its_input_is_held_to_the_original():
    attack = Scripted(epsilon=EPSILON, propose=lambda x, y: x.zero_())
    assert judge(Threshold(0.5), attack, pixels(0.9, 0.8), 10, 0).correct.all()


def test_an_attack_that_overwrites_the_labels_is_held_to_the_original():
    def forge(x: Tensor, y: Tensor) -> Tensor:
        y.zero_()
        return x

    attack = Scripted(epsilon=EPSILON, propose=forge)
    assert judge(Threshold(0.5), attack, pixels(0.9, 0.8), 10, 0).correct.all()


def test_images_already_wrong_are_not_attacked_and_stay_as_they_are():
    attack = Scripted(epsilon=EPSILON, propose=lambda x, y: x + 5)  # would put the first right
    told = judge(Threshold(0.5), attack, pixels(0.45, 0.9, 0.2), 10, 0)
    assert torch.cat(attack.given).tolist() == pytest.approx([0.9])
    assert told.correct.tolist() == [False, True, False]
    assert told.prediction.tolist() == [0, 1, 0]
    assert told.distance[[0, 2]].tolist() == [0, 0]


def test_nothing_is_attacked_if_all_images_are_wrong():
    attack = Scripted(epsilon=EPSILON, propose=lambda x, y: x)
    assert not judge(Threshold(0.5), attack, pixels(0.1, 0.2), 10, 0).correct.any()
    assert not attack.given


def test_a_restart_tries_only_the_survivors():
    # each try fools the lowest pixel of those it is given
    attack = Scripted(epsilon=1, restarts=4, propose=lambda x, y: torch.where(x == x.min(), 0.0, x))
    told = judge(Threshold(0.5), attack, pixels(0.6, 0.8, 0.7), 10, 0)
    given = [sorted(images.tolist()) for images in attack.given]
    assert [len(images) for images in given] == [3, 2, 1]  # and no fourth: nobody is left
    assert given[1] == pytest.approx([0.7, 0.8])
    assert not told.correct.any()


def test_the_worst_restart_is_kept():
    steps = iter((-0.01, -0.03, -0.02))
    attack = Scripted(epsilon=EPSILON, restarts=3, propose=lambda x, y: x + next(steps))
    told = judge(Threshold(0.5), attack, pixels(0.6), 10, 0)
    assert told.distance.item() == pytest.approx(0.03, rel=1e-4)
    score = 10 * (0.6 - 0.03 - 0.5)
    assert told.loss.item() == pytest.approx(
        torch.tensor(-2 * score).exp().log1p().item(), rel=1e-4
    )


@pytest.mark.parametrize(("kind", "sizes"), [(Scripted, [2, 2, 1]), (Greedy, [5])])
def test_batches_are_the_callers_unless_the_attack_wants_the_whole(kind, sizes):
    attack = kind(epsilon=EPSILON, propose=lambda x, y: x)
    judge(Threshold(0.5), attack, pixels(0.6, 0.7, 0.8, 0.9, 1.0), 2, 0)
    assert [len(images) for images in attack.given] == sizes


def test_an_attacks_warnings_are_kept_each_once():
    def warn(x: Tensor, y: Tensor) -> Tensor:
        warnings.warn("something is odd", RuntimeWarning, stacklevel=1)
        return x

    attack = Scripted(epsilon=EPSILON, propose=warn)
    assert judge(Threshold(0.5), attack, pixels(0.6, 0.7), 1, 0).warnings == ("something is odd",)


ATTACKS = {
    "clean": Clean(),
    "FGSM": FGSM(epsilon=EPSILON),
    "I-FGSM": PGD(epsilon=EPSILON, steps=5, step_size=EPSILON / 5, start_radius=0),
    "PGD": PGD(epsilon=EPSILON, steps=5, step_size=0.04, restarts=2),
    "PGD-CW": PGD(epsilon=EPSILON, steps=5, step_size=0.04, loss="margin"),
}


@pytest.mark.parametrize("name", ATTACKS)
def test_verdicts_hold_together(name, linear):
    model, images, _ = linear
    attack = ATTACKS[name]
    clean = judge(model, Clean(), images, 64, 0)
    told = judge(model, attack, images, 64, 0)
    assert told.distance.max() <= attack.epsilon + 1e-6
    assert told.correct.equal(told.prediction == images.y)
    assert not (told.correct & ~clean.correct).any()  # robust accuracy is at most the clean one
    assert (told.loss >= clean.loss).all()
    assert told.warnings == ()
    again = judge(model, attack, images, 64, 0)
    assert all(a.equal(b) for a, b in zip(told[:4], again[:4], strict=True))


def test_another_seed_gives_another_start(classifier):
    model, images = classifier
    attack = PGD(epsilon=0.2, steps=1, step_size=1e-6)
    losses = [judge(model, attack, images, 16, seed).loss for seed in (0, 0, 1)]
    assert losses[0].equal(losses[1])
    assert not losses[0].equal(losses[2])


def test_every_restart_draws_anew():
    # one draw in twenty crosses the threshold
    attack = {n: PGD(epsilon=0.1, steps=1, step_size=1e-9, restarts=n) for n in (1, 99)}
    correct = {n: judge(Threshold(0.5), attack[n], pixels(0.59), 10, 0).correct for n in attack}
    assert correct[1].item()
    assert not correct[99].item()


def test_restarts_never_raise_the_accuracy(linear):
    model, images, _ = linear
    survivors = [
        judge(
            model, PGD(epsilon=0.3, steps=1, step_size=1e-6, restarts=tries), images, 64, 0
        ).correct
        for tries in (1, 2, 4, 8)
    ]
    for fewer, more in pairwise(survivors):
        assert not (more & ~fewer).any()
    assert survivors[-1].sum() < survivors[0].sum()


# --- AutoAttack -----------------------------------------------------------------------------------


WEAK, STRONG = EPSILON, 0.3  # a few images survive, and cost Square's 5,000 queries; none survives


@pytest.fixture(scope="module")
def autoattacked(classifier) -> dict[float, Verdicts]:
    model, images = classifier
    return {e: judge(model, AutoAttack(epsilon=e), images, 4, seed=6) for e in (WEAK, STRONG)}


@pytest.mark.parametrize("epsilon", [WEAK, STRONG])
def test_autoattack_agrees_with_the_class_that_robustbench_runs(epsilon, autoattacked, classifier):
    (model, (x, y)), told = classifier, autoattacked[epsilon]
    torch.manual_seed(99)  # the global stream has no say
    # as robustbench.eval.benchmark calls it, but for the seed
    direct = autoattack.AutoAttack(
        model, norm="Linf", eps=epsilon, version="standard", device="cpu", log_path=None, seed=6
    )
    x_adv = direct.run_standard_evaluation(x, y, bs=500)
    logits = model(x_adv)
    assert told.prediction.equal(logits.argmax(1))
    distance = (x_adv - x).abs().flatten(1).amax(1)
    torch.testing.assert_close(told.distance, distance, rtol=0, atol=1e-6)
    loss = nn.functional.cross_entropy(logits, y, reduction="none")
    torch.testing.assert_close(told.loss, loss, rtol=0, atol=1e-5)


def test_autoattack_is_stronger_than_pgd_and_stays_in_the_ball(autoattacked, classifier):
    (model, images), told = classifier, autoattacked[WEAK]
    pgd = judge(model, PGD(epsilon=WEAK, steps=20, step_size=0.02), images, 16, 0)
    assert not (told.correct & ~pgd.correct).any()
    assert 0 < told.correct.sum() < judge(model, Clean(), images, 16, 0).correct.sum()
    assert told.distance.max() <= WEAK + 1e-6


def test_autoattack_repeats_exactly_for_a_seed(classifier):
    model, images = classifier
    runs = []
    for number, seed in enumerate((6, 6, 7)):
        torch.manual_seed(number)  # the global stream has no say
        runs.append(judge(model, AutoAttack(epsilon=STRONG), images, 16, seed))
    assert all(a.equal(b) for a, b in zip(runs[0][:4], runs[1][:4], strict=True))
    assert not runs[0].loss.equal(runs[2].loss)


def test_autoattack_refuses_restarts_which_would_only_repeat_it():
    with pytest.raises(UserError, match="'restarts': Input should be 1, got 2"):
        build("regbench.attacks.autoattack", {"epsilon": 0.1, "restarts": 2})


@pytest.mark.filterwarnings("ignore:`torch.jit.interface` is deprecated:FutureWarning")
@pytest.mark.filterwarnings("ignore:Importing from timm.models:DeprecationWarning")
def test_robustbench_runs_the_very_class_that_is_run_here():
    import robustbench.eval  # noqa: PLC0415  (slow, and warns while it is imported)

    assert robustbench.eval.AutoAttack is autoattack.AutoAttack


class Wrapped(nn.Module):
    """The network behind something that is done to its input."""

    def __init__(self, model: nn.Module, before: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.model, self.before = model, before

    def forward(self, x: Tensor) -> Tensor:
        return self.model(self.before(x))


DEFENCES = {
    "quantised input": (
        lambda x: (4 * x).round() / 4,
        ("zero gradient", "Square Attack has decreased"),
    ),
    "random input": (lambda x: x + 0.01 * torch.randn_like(x), ("randomized defense",)),
    "none": (lambda x: x, ()),
}


@pytest.mark.parametrize("defence", DEFENCES)
def test_what_autoattack_warns_of_is_kept_with_the_verdicts(defence, classifier):
    model, images = classifier
    before, messages = DEFENCES[defence]
    told = judge(Wrapped(model, before), AutoAttack(epsilon=0.5), images, 16, 0)
    assert len(told.warnings) >= len(messages)
    assert bool(told.warnings) == bool(messages)
    assert all(any(message in heard for heard in told.warnings) for message in messages)
    assert not logging.getLogger("auto-attack").handlers  # it hears no other model's


def plainly(model: nn.Module, images: Split, attacks: list[str]) -> tuple[Tensor, Tensor]:
    """Return images and predictions of RobustBench's AutoAttack after the first few attacks."""
    torch.manual_seed(8)  # a random defence draws from the global stream
    direct = autoattack.AutoAttack(model, norm="Linf", eps=0.5, device="cpu", seed=6)
    direct.attacks_to_run = attacks
    return direct.run_standard_evaluation(*images, bs=5, return_labels=True)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # of the defences, elsewhere tested
@pytest.mark.parametrize("defence", ["quantised input", "random input"])
def test_each_image_is_told_the_first_attack_that_fooled_it(defence, classifier):
    (model, images), before = classifier, DEFENCES[defence][0]
    model = Wrapped(model, before)
    torch.manual_seed(8)
    ours = AutoAttack(epsilon=0.5, batch_size=5)(model, *images, stream(6))
    fooled_by, fooled = [None] * len(images.y), torch.zeros(len(images.y), dtype=torch.bool)
    _, clean = plainly(model, images, [])
    for count, name in enumerate(STAGES["standard"], start=1):
        x_adv, predicted = plainly(model, images, list(STAGES["standard"][:count]))
        for image in ((predicted != images.y) & ~fooled & (clean == images.y)).nonzero():
            fooled_by[image] = name
        fooled |= predicted != images.y
    assert ours.x_adv.equal(x_adv)
    assert ours.fooled_by == fooled_by
    assert len(set(fooled_by)) >= {"quantised input": 3, "random input": 1}[defence]


@pytest.mark.parametrize("version", STAGES)
def test_the_ensemble_is_the_one_that_robustbench_runs(version):
    attack = AutoAttack(epsilon=0.1, version=version)
    direct = autoattack.AutoAttack(nn.Flatten(), version=version, device="cpu")
    assert attack.ensemble == tuple(direct.attacks_to_run)


@pytest.mark.parametrize("classes", [4, 9])
def test_autoattack_tries_every_wrong_class_of_a_few(classes, classifier):
    model, images = classifier
    few = Split(*(part[images.y < classes] for part in images))
    head = nn.Linear(10, classes, bias=False).requires_grad_(False)
    head.weight.copy_(torch.eye(10)[:classes])
    model = nn.Sequential(model, head)
    robust = judge(model, AutoAttack(epsilon=0.03), few, 16, seed=6)
    assert robust.correct.any()  # so that each attack was tried
    assert not any("target" in heard for heard in robust.warnings)
    clean = judge(model, Clean(), few, 16, seed=6)
    strong = judge(model, AutoAttack(epsilon=STRONG), few, 16, seed=6)
    assert strong.correct.sum() < clean.correct.sum()


@pytest.mark.parametrize(
    ("version", "classes", "fewest"), [("standard", 3, 4), ("plus", 2, 4), ("rand", 2, 3)]
)
def test_autoattack_refuses_fewer_classes_than_its_loss_is_defined_for(version, classes, fewest):
    attack = AutoAttack(epsilon=0.1, version=version)
    model, x = nn.Sequential(nn.Flatten(), nn.Linear(4, classes)), torch.rand(5, 1, 2, 2)
    with pytest.raises(UserError, match=rf"at least {fewest} classes.*got {classes}; use PGD"):
        attack(model, x, torch.zeros(5, dtype=torch.int64), stream())


def test_the_verdicts_name_the_attack_of_the_fooled_only(autoattacked, classifier):
    told, (_, images) = autoattacked[WEAK], classifier
    known = [name is not None for name in told.fooled_by]
    clean = judge(classifier[0], Clean(), images, 16, 0)
    assert known == (clean.correct & ~told.correct).tolist()
    assert clean.fooled_by == (None,) * len(images.y)


# --- out of memory --------------------------------------------------------------------------------


def cuda_is_full() -> None:
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")


def machine_is_full() -> None:
    torch.empty(2**58, dtype=torch.uint8)


def numpy_is_full() -> None:
    raise MemoryError


FULL = {"GPU": cuda_is_full, "machine": machine_is_full, "numpy": numpy_is_full}


class Cramped(nn.Module):
    """A network for which memory does not suffice from `room` + 1 images on."""

    def __init__(self, model: nn.Module, room: int, full: Callable[[], None] = cuda_is_full):
        super().__init__()
        self.model, self.room, self.full = model, room, full

    def forward(self, x: Tensor) -> Tensor:
        if len(x) > self.room:
            self.full()
        return self.model(x)


def same(one: Verdicts, other: Verdicts) -> bool:
    return all(a.equal(b) for a, b in zip(one[:4], other[:4], strict=True))


@pytest.mark.parametrize("full", FULL)
def test_out_of_memory_gives_the_verdicts_of_a_batch_that_fits(full, classifier):
    model, images = classifier
    attack = PGD(epsilon=0.12, steps=5, restarts=2)
    told = judge(Cramped(model, 5, FULL[full]), attack, images, 16, seed=1)
    fitting = judge(model, attack, images, 4, seed=1)
    assert same(told, fitting)
    assert (told.batch_size, fitting.batch_size) == (4, 4)
    assert told.warnings == ("out of memory with 16 images at a time, judged with 4",)
    assert fitting.warnings == ()
    # a CPU draws image by image, so that not even the noise is another
    whole = judge(model, attack, images, 16, seed=1)
    assert told.correct.equal(whole.correct)
    torch.testing.assert_close(told.distance, whole.distance)


def test_autoattack_halves_its_own_batches(classifier):
    model, images = classifier
    told = judge(Cramped(model, 5), AutoAttack(epsilon=STRONG, batch_size=16), images, 8, seed=6)
    fitting = judge(model, AutoAttack(epsilon=STRONG, batch_size=4), images, 4, seed=6)
    assert same(told, fitting)
    assert told.fooled_by == fitting.fooled_by
    assert told.batch_size == 4


def test_a_gpu_that_fills_up_on_the_way_changes_nothing_but_the_batch(classifier):
    model, images = classifier
    calls = iter(range(1000))
    attack = PGD(epsilon=0.12, steps=5)
    once = Cramped(model, 0, lambda: cuda_is_full() if next(calls) == 9 else None)
    told = judge(once, attack, images, 8, seed=1)
    assert next(calls) > 10
    assert same(told, judge(model, attack, images, 4, seed=1))


def test_not_even_one_image_fits(classifier, capsys):
    model, images = classifier
    with pytest.raises(DoesNotFitError) as error:
        judge(Cramped(model, 0), FGSM(epsilon=0.1), images, 5, seed=0)
    assert isinstance(error.value.__cause__, torch.OutOfMemoryError)
    told = capsys.readouterr().err
    assert [int(size) for size in re.findall(r"beginning afresh with (\d+)", told)] == [2, 1]


def test_another_error_is_not_taken_for_lack_of_memory(classifier):
    _, images = classifier
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        judge(nn.Sequential(nn.Flatten(), nn.Linear(3, 2)), FGSM(epsilon=0.1), images, 8, 0)
