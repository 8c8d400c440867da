"""Accuracy and losses on a split, keeping nothing: what training looks at after each epoch."""

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from regbench.ascent import clip, cross_entropy, input_gradient, logits, normal
from regbench.prepare import Split

PROBED = 1000
"""Held-out images, at most, whose losses are taken: enough for a curve, next to no time."""


def accuracy(model: nn.Module, split: Split, batch_size: int = 250) -> float:
    """Return the share of images, 0 to 1, that `model`, in eval mode, labels rightly."""
    model.eval()
    hits = torch.zeros((), dtype=torch.int64, device=split.y.device)
    with torch.no_grad():
        for x, y in _batches(split, batch_size):
            hits += right(logits(model, x), y).sum()
    return hits.item() / len(split.y)


def right(z: Tensor, y: Tensor) -> Tensor:
    """Return, (m,), whether the logits `z`, (m, K), name the label; a NaN among them is wrong."""
    # argmax takes NaN for the highest, so a broken network would be right about class 0
    return (z.argmax(1) == y) & ~z.isnan().any(1)


def ifgsm(
    model: nn.Module, split: Split, epsilon: float, steps: int, batch_size: int = 250
) -> Split:
    """Return the split under I-FGSM: `steps` steps of ε/steps, no random start (Kurakin 2017)."""
    model.eval()
    images = []
    for x, y in _batches(split, batch_size):
        x_adv = x
        for _ in range(steps):
            gradient = input_gradient(model, x_adv, y, cross_entropy)
            x_adv = clip(x_adv + epsilon / steps * gradient.sign())
        images.append(x_adv)
    return Split(torch.cat(images), split.y)


def losses(
    model: nn.Module, split: Split, epsilon: float, steps: int, generator: torch.Generator
) -> dict[str, float]:
    """Return the mean cross entropy of the first 1,000 images under four attacks, in nats.

    What the three regularizers of arXiv:2002.00614 are about: I-FGSM beside FGSM (R1), R-FGSM
    beside FGSM (R2), FGSM at ε/2 beside FGSM at ε (R3). R-FGSM steps α = ε/2 at random and ε/2 by
    the gradient (Tramèr 2018), so that all but `half_fgsm` have the radius ε.

    Args:
        model: the network; left in eval mode.
        split: images and labels.
        epsilon: attack radius ε, L∞.
        steps: of I-FGSM, ε/steps each.
        generator: the stream of R-FGSM's random step.
    """
    few, half = Split(split.x[:PROBED], split.y[:PROBED]), epsilon / 2
    moved = Split(clip(few.x + half * normal(few.x, generator).sign()), few.y)
    attacked = {
        "half_fgsm": ifgsm(model, few, half, 1),
        "fgsm": ifgsm(model, few, epsilon, 1),
        "rfgsm": ifgsm(model, moved, half, 1),
        "ifgsm": ifgsm(model, few, epsilon, steps),
    }
    return {name: _loss(model, images) for name, images in attacked.items()}


def _loss(model: nn.Module, split: Split, batch_size: int = 250) -> float:
    total = torch.zeros((), device=split.x.device)
    with torch.no_grad():
        for x, y in _batches(split, batch_size):
            total += len(y) * cross_entropy(logits(model, x), y)
    return total.item() / len(split.y)


def _batches(split: Split, size: int) -> Iterator[tuple[Tensor, Tensor]]:
    return zip(torch.split(split.x, size), torch.split(split.y, size), strict=True)
