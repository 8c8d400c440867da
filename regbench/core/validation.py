"""Accuracy on a split, without keeping anything: what training looks at after each epoch."""

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from regbench.ascent import climb, clip, cross_entropy, input_gradient, logits
from regbench.prepare import Split

BATCH = 250


def accuracy(model: nn.Module, split: Split, batch_size: int = BATCH) -> float:
    """Return the share of images, 0 to 1, that `model`, in eval mode, labels rightly."""
    model.eval()
    hits = torch.zeros((), dtype=torch.int64, device=split.y.device)
    with torch.no_grad():
        for x, y in batches(split, batch_size):
            hits += right(logits(model, x), y).sum()
    return hits.item() / len(split.y)


def right(z: Tensor, y: Tensor) -> Tensor:
    """Return, (m,), whether the logits `z`, (m, K), name the label; a NaN among them is wrong."""
    # argmax takes NaN for the highest, so a broken network would be right about class 0
    return (z.argmax(1) == y) & ~z.isnan().any(1)


def ifgsm(
    model: nn.Module, split: Split, epsilon: float, steps: int, batch_size: int = BATCH
) -> Split:
    """Return the split under I-FGSM: `steps` steps of ε/steps, no random start (Kurakin 2017)."""
    model.eval()
    images = []
    for x, y in batches(split, batch_size):
        x_adv = x
        for _ in range(steps):
            gradient = input_gradient(model, x_adv, y, cross_entropy)
            x_adv = clip(climb(x_adv, gradient, epsilon / steps))
        images.append(x_adv)
    return Split(torch.cat(images), split.y)


def batches(split: Split, size: int = BATCH) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the split in mini-batches; the last may be smaller."""
    return zip(torch.split(split.x, size), torch.split(split.y, size), strict=True)
