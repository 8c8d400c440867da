"""The training loop: one for every method, on whatever device the data lies."""

import math
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple, TypedDict

import torch
from torch import Tensor, nn

from regbench import validation
from regbench.cards import RunCard, TrainingCard
from regbench.descent import Descent, Recorded, TrainingLoss, cuda_graph
from regbench.precision import PRECISIONS
from regbench.prepare import Split
from regbench.step import Step

Weights = dict[str, Tensor]


class Epoch(TypedDict):
    """One row of a learning curve; losses are means over the epoch's images."""

    epoch: int
    learning_rate: float
    loss: float
    cross_entropy: float
    penalty: float
    validation_clean: float
    validation_ifgsm: float
    seconds: float


class Trained(NamedTuple):
    """What a training leaves.

    Attributes:
        best: weights of the epoch with the highest validation accuracy under I-FGSM, the first of
            equals.
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
) -> Trained:
    """Train `model` in place as `card` says; a loss that is not finite ends it, and is its status.

    Args:
        card: epochs, rates, ε and the seed of every random stream.
        model: on the device of the data.
        loss: the training loss.
        train: images to learn from.
        held_out: images that pick the best epoch.
        progress: called with each row of the learning curve.
    """
    settings = card.training
    noise = torch.Generator(train.x.device).manual_seed(card.seed)
    order = torch.Generator().manual_seed(card.seed)
    precision = PRECISIONS[settings.precision]
    optimizer = _optimizer(model, settings)
    take = _stepper(Descent(model, loss, optimizer, precision), train.x.device)
    curve: list[Epoch] = []
    best, best_epoch, best_score, status = _copy(model), 0, -1.0, "ok"
    for epoch in range(settings.epochs):
        rate = learning_rate(settings, epoch)
        for group in optimizer.param_groups:
            group["lr"].fill_(rate)
        started = time.perf_counter()
        steps = _steps(card, model, train, order, noise)
        means = _descend(steps, take)
        seconds = time.perf_counter() - started
        with precision(held_out.x.device):
            judged = judge(model, held_out, card.epsilon, settings.selection_steps)
        row = Epoch(epoch=epoch + 1, learning_rate=rate, **means, **judged, seconds=seconds)  # type: ignore[typeddict-item]
        curve.append(row)
        progress(row)
        if not math.isfinite(row["loss"]):
            status = f"diverged: the loss is {row['loss']} in epoch {epoch + 1}"
            break
        if row["validation_ifgsm"] > best_score:
            best, best_epoch, best_score = _copy(model), epoch + 1, row["validation_ifgsm"]
    return Trained(best, _copy(model), curve, best_epoch, status)


def learning_rate(settings: TrainingCard, epoch: int) -> float:
    """Return the rate of `epoch`, counted from 0: multiplied by `decay` from each milestone on."""
    passed = sum(epoch >= milestone * settings.epochs for milestone in settings.milestones)
    return settings.learning_rate * settings.decay**passed


def judge(model: nn.Module, held_out: Split, epsilon: float, steps: int) -> dict[str, float]:
    """Return the accuracy on the held-out images, clean and under I-FGSM."""
    attacked = validation.ifgsm(model, held_out, epsilon, steps)
    return {
        "validation_clean": validation.accuracy(model, held_out),
        "validation_ifgsm": validation.accuracy(model, attacked),
    }


def _steps(
    card: RunCard, model: nn.Module, train: Split, order: torch.Generator, noise: torch.Generator
) -> Iterator[Step]:
    """One epoch of mini-batches in a new order; the last may be smaller, as with the authors."""
    permutation = torch.randperm(len(train.y), generator=order).to(train.y.device)
    for rows in torch.split(permutation, card.training.batch_size):
        x = augment(train.x[rows], card.training, noise)
        yield Step(model, x, train.y[rows], card.epsilon, noise)


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


def _optimizer(model: nn.Module, settings: TrainingCard) -> torch.optim.Optimizer:
    """SGD whose rate is a tensor, so that a recorded step follows it."""
    device = next(model.parameters()).device
    return torch.optim.SGD(
        model.parameters(),
        lr=torch.tensor(settings.learning_rate, device=device),
        momentum=settings.momentum,
        weight_decay=settings.weight_decay,
        fused=True,
    )


def _stepper(descent: Descent, device: torch.device) -> Callable[[Step], Tensor]:
    return Recorded(descent, cuda_graph) if device.type == "cuda" else descent


def _descend(steps: Iterator[Step], take: Callable[[Step], Tensor]) -> dict[str, float]:
    """Take every step; the means stay on the device until the epoch is over."""
    sums, count = torch.zeros(()), 0
    for step in steps:
        terms = take(step)
        sums, count = sums.to(terms.device) + len(step.y) * terms, count + len(step.y)
    means: list[float] = (sums / count).tolist()
    return dict(zip(("loss", "cross_entropy", "penalty"), means, strict=True))


def _copy(model: nn.Module) -> Weights:
    dense = torch.contiguous_format  # the only one that safetensors takes
    state = model.state_dict().items()
    return {name: tensor.detach().clone(memory_format=dense) for name, tensor in state}
