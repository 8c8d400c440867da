"""What a training loss keeps to, and what becomes of one that does not."""

import re

import pytest
import torch
from torch import Tensor, nn

from regbench.ascent import cross_entropy
from regbench.core.precision import PRECISIONS
from regbench.errors import UserError
from regbench.step import Objective, Step
from regbench.training.contract import checked
from regbench.training.descent import Descent, Recorded


def descended(loss: object, shares: tuple[float, ...] = (0, 0, 0), *, recorded: bool = False):
    """Take a step at each share of a training; return the weights."""
    torch.manual_seed(0)
    model, noise = nn.Sequential(nn.Flatten(), nn.Linear(16, 3)), torch.Generator()
    optimizer = torch.optim.SGD(model.parameters(), lr=torch.tensor(0.1), momentum=0.9)
    plain = Descent(model, loss, optimizer, PRECISIONS["fp32"])
    take = Recorded(plain, lambda take, _: take, 8) if recorded else plain
    x, y = torch.rand(8, 1, 4, 4), torch.arange(8) % 3
    for share in shares:
        take(Step(model, x, y, 0.1, noise, torch.tensor(share)))
    return nn.utils.parameters_to_vector(model.parameters()).detach()


def natural(step: Step) -> Tensor:
    return cross_entropy(step.logits(step.x), step.y)


# --- objectives -----------------------------------------------------------------------------------


class Returning:
    """A loss that returns what a function makes of the cross entropy."""

    def __init__(self, made: object) -> None:
        self._made = made

    def __call__(self, step: Step) -> object:
        return self._made(natural(step))


@pytest.mark.parametrize(
    ("made", "words"),
    [
        (lambda ce: ce, "returned a Tensor of shape (); return two scalars, regbench.step.Obj"),
        (lambda ce: (ce, ce), "returned a tuple; return two scalars"),
        (lambda ce: None, "returned a NoneType; return two scalars"),
        (
            lambda ce: Objective(ce, ce.expand(8)),
            "an Objective of a Tensor of shape (), a Tensor of",
        ),
        (lambda ce: Objective(0.0, 0.0), "an Objective of a float, a float; expected two scalars"),
        (lambda ce: Objective(ce.detach(), 0.0), "back to the weights from its cross_entropy,"),
        (lambda ce: Objective(ce, ce.detach()), "back to the weights from its penalty,"),
    ],
)
def test_what_is_no_objective_is_one_line_that_names_the_loss(made, words):
    with pytest.raises(UserError, match=re.escape(words)) as told:
        descended(Returning(made))
    assert str(told.value).startswith("the loss 'Returning' returned")


def test_a_penalty_may_be_a_number():
    number = descended(Returning(lambda ce: Objective(ce, 0.0)))
    assert number.equal(descended(Returning(lambda ce: Objective(ce, 0 * ce))))
    made = checked(Objective(torch.ones((), dtype=torch.float64, requires_grad=True), 2), print)
    assert made.penalty.dtype is torch.float64


# --- state ----------------------------------------------------------------------------------------


class Counting:
    """Keeps a number that its author forgets is lost."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, step: Step) -> Objective:
        self.calls += 1
        return Objective(natural(step), 0.0)


class Moving:
    """Keeps a tensor, changed in place, but as no buffer."""

    def __init__(self) -> None:
        self.mean = torch.zeros(())

    def __call__(self, step: Step) -> Objective:
        loss = natural(step)
        self.mean.lerp_(loss.detach(), 0.1)
        return Objective(loss, 0.0)


class Listing:
    """Keeps a list."""

    def __init__(self) -> None:
        self.losses = [0.0]

    def __call__(self, step: Step) -> Objective:
        loss = natural(step)
        self.losses.append(loss.item())
        return Objective(loss, self.losses[0])


class Late:
    """Keeps something from the third step on."""

    def __init__(self) -> None:
        self._calls = iter(range(9))
        self.held = None

    def __call__(self, step: Step) -> Objective:
        if next(self._calls) == 2:
            self.held = step.y
        return Objective(natural(step), 0.0)


class Nested(nn.Module):
    """Keeps a number in a module within."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Identity()

    def forward(self, step: Step) -> Objective:
        self.inner.calls = getattr(self.inner, "calls", 0) + 1
        return Objective(natural(step), 0.0)


class Reassigned(nn.Module):
    """A buffer that is not changed in place."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(()))

    def forward(self, step: Step) -> Objective:
        self.mean = self.mean + 1
        return Objective(natural(step), 0.0)


class Unannounced(nn.Module):
    """A buffer that is there from the first step on, but not before."""

    def forward(self, step: Step) -> Objective:
        if not hasattr(self, "mean"):
            self.register_buffer("mean", torch.zeros(()))
        return Objective(natural(step), 0.0)


class Same:
    """Sets what is the same at each step, as an author may who does not mind."""

    def __call__(self, step: Step) -> Objective:
        self.alpha, self.shape, self.device = 1.25 * step.epsilon, step.x.shape, step.x.device
        return Objective(natural(step), 0.0)


class Lazy:
    """Sets something up at the first step, which a resumed training does again."""

    def __call__(self, step: Step) -> Objective:
        if not hasattr(self, "one"):
            self.one = torch.ones(())
        return Objective(natural(step) * self.one, 0.0)


class Average(nn.Module):
    """A penalty that depends on a moving average, kept as a buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(()))

    def forward(self, step: Step) -> Objective:
        loss = natural(step)
        self.mean.lerp_(loss.detach(), 0.1)
        return Objective(loss, self.mean * loss)


@pytest.mark.parametrize(
    ("loss", "name"),
    [
        (Counting, "calls"), (Moving, "mean"), (Listing, "losses"), (Late, "held"),
        (Nested, "inner.calls"),
    ],
)  # fmt: skip
def test_a_state_that_would_be_lost_is_refused(loss, name):
    with pytest.raises(UserError, match=f"'{loss.__name__}' keeps '{name}' from step to step"):
        descended(loss())


@pytest.mark.parametrize("loss", [Reassigned, Unannounced])
def test_a_buffer_is_there_from_the_beginning_and_changed_in_place(loss):
    with pytest.raises(UserError, match=f"'{loss.__name__}' has other buffers than it began with"):
        descended(loss())


@pytest.mark.parametrize("loss", [Lazy, Same])
def test_what_every_step_finds_alike_may_stay(loss):
    assert descended(loss()).equal(descended(Returning(lambda ce: Objective(ce, 0.0))))


def test_a_buffer_of_the_loss_moves_once_a_step_where_steps_are_recorded():
    losses = Average(), Average()
    assert descended(losses[0]).equal(descended(losses[1], recorded=True))
    assert losses[0].mean.equal(losses[1].mean)
    assert losses[0].mean > 0


def test_a_recorded_step_follows_the_progress():
    def loss(step: Step) -> Objective:
        return Objective(natural(step) * step.progress, 0.0)

    shares = 0.5, 0.1, 0.9
    eager = descended(loss, shares)
    assert eager.equal(descended(loss, shares, recorded=True))
    assert not eager.equal(descended(loss))
