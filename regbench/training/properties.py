"""What the regularizers of arXiv:2002.00614 are about, on held-out images after each epoch."""

import torch
from torch import Tensor, nn

from regbench.ascent import clip, cross_entropy, logits, normal
from regbench.core.validation import batches, ifgsm
from regbench.prepare import Split

PROBED = 1000
"""Images, at most, whose losses are taken: enough for a curve."""


def losses(
    model: nn.Module, split: Split, attacked: Tensor, epsilon: float, generator: torch.Generator
) -> dict[str, float]:
    """Return the mean cross entropy of the first 1,000 images under four attacks, in nats.

    I-FGSM beside FGSM (SAT-R1), R-FGSM beside FGSM (SAT-R2), FGSM at ε/2 beside FGSM at ε (SAT-R3).
    R-FGSM steps α = ε/2 at random and ε/2 by the gradient (Tramèr 2018), so that all but
    `half_fgsm` have the radius ε.

    Args:
        model: the network; left in eval mode.
        split: images, (n, C, H, W), and labels.
        attacked: the same images under I-FGSM.
        epsilon: attack radius ε, L∞.
        generator: the stream of R-FGSM's random step.
    """
    few, half = Split(split.x[:PROBED], split.y[:PROBED]), epsilon / 2
    moved = Split(clip(few.x + half * normal(few.x, generator).sign()), few.y)
    images = {
        "half_fgsm": ifgsm(model, few, half, 1),
        "fgsm": ifgsm(model, few, epsilon, 1),
        "rfgsm": ifgsm(model, moved, half, 1),
        "ifgsm": Split(attacked[:PROBED], few.y),
    }
    return {name: _loss(model, one) for name, one in images.items()}


def _loss(model: nn.Module, split: Split) -> float:
    total = torch.zeros((), device=split.x.device)
    with torch.no_grad():
        for x, y in batches(split):
            total += len(y) * cross_entropy(logits(model, x), y)
    return total.item() / len(split.y)
