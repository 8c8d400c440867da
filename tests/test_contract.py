"""What a training loss keeps to, and what becomes of one that does not."""

import re
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from regbench.ascent import cross_entropy
from regbench.cards import RunCard
from regbench.contract import checked
from regbench.descent import Descent, Recorded
from regbench.errors import UserError
from regbench.grid import PAPER_TRAINING
from regbench.keeper import Keeper
from regbench.precision import PRECISIONS
from regbench.prepare import Split
from regbench.step import Objective, Step
from regbench.training import Trained, fit

BATCHES = 4


def card(epochs: int = 3) -> RunCard:
    training = {**PAPER_TRAINING, "epochs": epochs, "batch_size": 8, "learning_rate": 0.1}
    return RunCard.model_validate(
        {
            "data": {"source": "x", "arguments": {}, "validation": 1, "split_seed": 0},
            "model": {"architecture": "x", "arguments": {}},
            "regularizer": {"loss": "x", "hyperparameters": {}},
            "epsilon": 0.1,
            "training": training,
            "seed": 3,
        }
    )


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(16, 3))


def images(count: int) -> Split:
    generator = torch.Generator().manual_seed(count)
    x = torch.rand(count, 1, 4, 4, generator=generator)
    return Split(x, (3 * x.mean((1, 2, 3))).long())


def train(loss: object, keeper: Keeper | None = None) -> Trained:
    return fit(card(), network(), loss, images(30), images(20), lambda row: None, keeper)


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
        (lambda ce: Objective(ce.detach(), 0.0), "without a way back to the weights"),
    ],
)
def test_what_is_no_objective_is_one_line_that_names_the_loss(made, words):
    with pytest.raises(UserError, match=re.escape(words)) as told:
        train(Returning(made))
    assert str(told.value).startswith("the loss 'Returning' returned")


def test_a_penalty_may_be_a_number():
    trained = train(Returning(lambda ce: Objective(ce, 0.0)))
    plain = train(Returning(lambda ce: Objective(ce, ce.new_zeros(()))))
    assert all(trained.last[name].equal(plain.last[name]) for name in plain.last)
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


@pytest.mark.parametrize(("loss", "name"), [(Counting, "calls"), (Moving, "mean")])
def test_a_state_that_would_be_lost_is_refused(loss, name):
    with pytest.raises(UserError, match=f"'{loss.__name__}' keeps '{name}' from step to step"):
        train(loss())


def test_what_the_first_step_sets_up_may_stay():
    assert train(Lazy()).status == "ok"


class Cut(Keeper):
    """Keeps the state after a step and dies."""

    def __init__(self, path: Path, at: int) -> None:
        super().__init__(path, "k")
        self._left = at

    def after_step(self, course: object) -> None:
        self._left -= 1
        if self._left == 0:
            self._write(course)
            raise KeyboardInterrupt


@pytest.mark.parametrize("at", [1, 2, BATCHES, BATCHES + 1, 3 * BATCHES - 1])
def test_a_buffer_of_the_loss_outlives_a_kill(at, tmp_path):
    whole = train(Average())
    with pytest.raises(KeyboardInterrupt):
        train(Average(), Cut(tmp_path / "state", at))
    resumed = train(Average(), Keeper(tmp_path / "state", "k"))
    assert all(resumed.last[name].equal(whole.last[name]) for name in whole.last)
    # and it matters: from zeros another network comes of it
    other = train(Returning(lambda ce: Objective(ce, 0.0)))
    assert not all(other.last[name].equal(whole.last[name]) for name in whole.last)


def test_a_buffer_of_the_loss_moves_once_a_step_where_steps_are_recorded():
    means = []
    for recorded in (False, True):
        model, loss, noise = network(), Average(), torch.Generator()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        plain = Descent(model, loss, optimizer, PRECISIONS["fp32"])
        take = Recorded(plain, lambda take, _: take, 8) if recorded else plain
        x, y = images(8)
        for _ in range(3):
            take(Step(model, x, y, 0.1, noise))
        means.append(loss.mean)
    assert means[0].equal(means[1])


# --- progress -------------------------------------------------------------------------------------


def heard(told: list[float], keeper: Keeper | None = None) -> Trained:
    def loss(step: Step) -> Objective:
        told.append(step.progress.item())
        return Objective(natural(step) * (1 + step.progress), 0.0)

    return train(loss, keeper)


def test_progress_goes_from_0_to_the_last_step(tmp_path):
    told: list[float] = []
    heard(told)
    every = 3 * BATCHES
    assert told == pytest.approx([step / every for step in range(every)])
    cut: list[float] = []
    with pytest.raises(KeyboardInterrupt):
        heard(cut, Cut(tmp_path / "state", 6))
    heard(cut, Keeper(tmp_path / "state", "k"))
    assert cut == told


def test_a_recorded_step_follows_the_progress():
    ends = []
    for recorded in (False, True):
        model, noise = network(), torch.Generator()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

        def loss(step: Step) -> Objective:
            return Objective(natural(step) * step.progress, 0.0)

        plain = Descent(model, loss, optimizer, PRECISIONS["fp32"])
        take = Recorded(plain, lambda take, _: take, 8) if recorded else plain
        x, y = images(8)
        for share in (0.5, 0.1, 0.9):
            take(Step(model, x, y, 0.1, noise, torch.tensor(share)))
        ends.append([one.detach().clone() for one in model.parameters()])
    assert all(one.equal(other) for one, other in zip(*ends, strict=True))
