"""The loss around an image, over FGSM's direction and a random one."""

from collections.abc import Iterator

import torch

from regbench.ascent import clip, normal
from regbench.diagnostics import Measured, Probe

__all__ = ["loss_surface"]

IMAGES = 64
POINTS = 11


def loss_surface(probe: Probe, generator: torch.Generator) -> Iterator[Measured]:
    """ℓ(x + s · sign ∇ₓℓ(x) + t · r), clipped to [0, 1], r a random corner, on 11 × 11 points.

    s goes from 0 to ε, t from −ε to ε; the picture of Tramèr et al. 2018 (arXiv:1705.07204): a
    surface that rises along s is honest, one that is curved sharply near the image masks.

    * `loss_surface`: mean over the first 64 images, at `along` s and `across` t.
    """
    few, epsilon = probe.up_to(IMAGES), probe.epsilon
    if not len(few.y):
        return
    corner = normal(few.x, generator).sign()
    for along in torch.linspace(0, epsilon, POINTS, dtype=torch.float64).tolist():
        for across in torch.linspace(-epsilon, epsilon, POINTS, dtype=torch.float64).tolist():
            moved = clip(few.x + along * few.slope.sign() + across * corner)
            yield Measured("loss_surface", few.losses(moved), along, across)
