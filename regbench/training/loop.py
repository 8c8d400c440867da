"""The training loop: one for every method, on whatever device the data lies."""

import errno
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor, nn

from regbench.core import validation
from regbench.core.compiled import Compiled, differentiable_once
from regbench.core.memory import exhausted
from regbench.core.precision import PRECISIONS
from regbench.experiment.cards import RunCard, TrainingCard
from regbench.prepare import Split
from regbench.step import Step
from regbench.training.course import Course, Epoch, Weights, copy
from regbench.training.descent import Descent, Recorded, TrainingLoss, cuda_graph
from regbench.training.keeper import Keeper
from regbench.training.properties import losses
from regbench.training.schedule import learning_rate


class Trained(NamedTuple):
    """What a training leaves.

    Attributes:
        best: weights of the epoch with the highest validation accuracy, under I-FGSM or clean as
            the card's `selection` says, the first of equals.
        last: weights of the last epoch.
        curve: one row per epoch.
        best_epoch: which epoch that was, from 1 on; 0, the untrained network, if none was sound.
        status: `ok`, or what went wrong, in a few words.
    """

    best: Weights
    last: Weights
    curve: list[Epoch]
    best_epoch: int
    status: str


def fit(
    card: RunCard,
    model: nn.Module,
    loss: TrainingLoss,
    train: Split,
    held_out: Split,
    progress: Callable[[Epoch], None],
    keeper: Keeper | None = None,
    limit: float = math.inf,
) -> Trained:
    """Train `model` in place as `card` says.

    A loss that is not finite, memory that does not suffice for the first epoch or time that is up
    ends it, and is its status.

    Args:
        card: epochs, rates, ε and the seed of every random stream.
        model: on the device of the data.
        loss: the training loss, what it carries on that device too.
        train: images to learn from.
        held_out: images that pick the best epoch.
        progress: called with each row of the learning curve.
        keeper: puts the state down and takes it up; without one, nothing is kept.
        limit: hours after which no further epoch is begun.

    Raises:
        UserError: the card asks for a compiled network, and the compiler does not work here, or
            not for this loss or network.
        OSError: memory that sufficed for an epoch no longer does; the state is kept.
    """
    device, settings = train.x.device, card.training
    model.train()  # all of it: whoever looks at the network alone is told of no part in eval mode
    course = Course.begin(card, model, device, loss)
    if keeper:
        keeper.resume(course)
    descent = Descent(model, loss, course.optimizer, PRECISIONS[settings.precision])
    take = _stepper(descent, device, settings)
    while course.epoch < settings.epochs and course.status == "ok":
        try:
            progress(_epoch(card, train, held_out, course, take, keeper))
        except (RuntimeError, MemoryError) as error:
            if not exhausted(error):
                raise
            course.status = _out_of_memory(course, settings, error)
        left = settings.epochs - course.epoch
        if course.status == "ok" and left and course.hours() > limit:
            course.status = f"out of time: {course.epoch} epochs took more than {limit:g} h"
    return Trained(course.best, copy(model), course.curve, course.best_epoch, course.status)


def _out_of_memory(course: Course, settings: TrainingCard, error: Exception) -> str:
    """The status of a training that does not fit; one that did is another process's victim."""
    told = f"out of memory in epoch {course.epoch + 1}, with batches of {settings.batch_size}"
    if course.epoch:
        raise OSError(
            errno.ENOMEM,
            f"{told}, which sufficed in the epochs before: has another process taken it? Started"
            " again, the training goes on from its state",
        ) from error
    return told


def _epoch(
    card: RunCard,
    train: Split,
    held_out: Split,
    course: Course,
    take: Callable[[Step], Tensor],
    keeper: Keeper | None,
) -> Epoch:
    """Train for what is left of an epoch and judge the network on the held-out images."""
    means = _descend(card, train, course, take, keeper)
    with PRECISIONS[card.training.precision](train.x.device):
        judged = judge(card, course.model, held_out)
    row = Epoch(
        epoch=course.epoch + 1,
        learning_rate=_rate(card, train, course.epoch, _count(card, train) - 1),
        **means,  # type: ignore[typeddict-item]
        **judged,
        seconds=course.seconds,
    )
    course.close(row, judged[f"validation_{card.training.selection}"])
    return course.curve[-1]


def judge(card: RunCard, model: nn.Module, held_out: Split) -> dict[str, float]:
    """Return what a row of the learning curve says of the held-out images."""
    epsilon, steps = card.epsilon, card.training.selection_steps
    # a stream of its own, begun anew: judging moves nothing that training draws from
    noise = torch.Generator(held_out.x.device).manual_seed(card.seed)
    attacked = validation.ifgsm(model, held_out, epsilon, steps)
    under = losses(model, held_out, attacked.x, epsilon, noise)
    return {
        "validation_clean": validation.accuracy(model, held_out),
        "validation_ifgsm": validation.accuracy(model, attacked),
        **{f"loss_under_{name}": loss for name, loss in under.items()},
    }


def _steps(card: RunCard, train: Split, course: Course) -> Iterator[Step]:
    """The rest of an epoch of mini-batches in a new order; the last may be smaller.

    As with the authors. An epoch that is taken up again has the order that it began with.
    """
    size, count = card.training.batch_size, _count(card, train)
    done, every = course.epoch * count + course.batch, card.training.epochs * count
    permutation = torch.randperm(len(train.y), generator=course.new_order()).to(train.y.device)
    left = permutation[course.batch * size :]
    batches = torch.split(left, size) if len(left) else ()
    # on the device all at once: to look one up launches nothing
    shares = torch.arange(done, done + len(batches), device=left.device) / every
    for rows, progress in zip(batches, shares, strict=True):
        x = augment(train.x[rows], card.training, course.noise)
        yield Step(course.model, x, train.y[rows], card.epsilon, course.noise, progress)


def _count(card: RunCard, train: Split) -> int:
    """Steps of an epoch."""
    return math.ceil(len(train.y) / card.training.batch_size)


def _rate(card: RunCard, train: Split, epoch: int, batch: int) -> float:
    """The learning rate in the middle of a step: neither the first nor the last is at rate 0."""
    return learning_rate(card.training, epoch, (batch + 0.5) / _count(card, train))


def augment(x: Tensor, settings: TrainingCard, generator: torch.Generator) -> Tensor:
    """Return the images, (m, C, H, W), each cropped from its zero-padded self and flipped."""
    count, _, height, width = x.shape
    if settings.crop_padding:
        pad = settings.crop_padding
        padded = nn.functional.pad(x, (pad, pad, pad, pad))
        corner = torch.randint(2 * pad + 1, (2, count, 1), device=x.device, generator=generator)
        rows = corner[0] + torch.arange(height, device=x.device)
        columns = corner[1] + torch.arange(width, device=x.device)
        image = torch.arange(count, device=x.device)[:, None, None]
        x = padded[image, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)
    if settings.flip:
        mirrored = torch.rand(count, device=x.device, generator=generator) < 0.5
        x = torch.where(mirrored[:, None, None, None], x.flip(3), x)
    return x


def _stepper(
    descent: Descent, device: torch.device, settings: TrainingCard
) -> Callable[[Step], Tensor]:
    size = settings.batch_size
    take = Recorded(descent, cuda_graph, size) if device.type == "cuda" else descent
    return _Compiling(take, Compiled(descent.model), size) if settings.compiled else take


class _Compiling:
    """Steps of `size` images through a compiled network; an epoch's last may have fewer."""

    def __init__(self, take: Callable[[Step], Tensor], ways: Compiled, size: int) -> None:
        self._take, self._ways, self._size = take, ways, size
        self._taken = 0

    def __call__(self, step: Step) -> Tensor:
        if len(step.y) != self._size:
            return self._take(step)
        with differentiable_once():
            terms = self._take(replace(step, compiled=self._ways))
        self._taken += 1
        if self._taken.bit_count() == 1:  # the 1st, 2nd, 4th, 8th…: it takes some time to look
            self._ways.refuse_replaced()
        return terms


def _descend(
    card: RunCard,
    train: Split,
    course: Course,
    take: Callable[[Step], Tensor],
    keeper: Keeper | None,
) -> dict[str, float]:
    """Take the steps of an epoch that are left; their sums stay on the device until it is over."""
    before, started = course.seconds, time.perf_counter()
    for step in _steps(card, train, course):
        course.pace(_rate(card, train, course.epoch, course.batch))
        course.add(take(step), len(step.y))
        if keeper:
            course.seconds = before + time.perf_counter() - started
            keeper.after_step(course)
    means = course.means()  # waits for the device
    course.seconds = before + time.perf_counter() - started
    return means
