"""What is measured of a trained network besides its accuracy: one file each, found by its name.

A diagnostic is a function `(probe, generator) -> Measured, …` that says of each image of a batch,
at one radius or point, one number; the caller (regbench.evaluation.diagnosis) puts the batches
together and takes the mean over the images, or the worst.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from regbench import ascent


class Measured(NamedTuple):
    """One number per image of a batch.

    Attributes:
        quantity: what it is.
        values: (m,).
        along: where along the FGSM direction, L∞, if that is part of it.
        across: where along a random direction, L∞, likewise.
        worst: whether the highest of all images is told, not their mean.
    """

    quantity: str
    values: Tensor
    along: float | None = None
    across: float | None = None
    worst: bool = False


@dataclass(frozen=True)
class Probe:
    """A batch of images at a trained network, and what the diagnostics share of it.

    ℓ(x) is the cross entropy of one image, in nats.

    Attributes:
        model: frozen, in eval mode.
        x: images, (m, C, H, W), in [0, 1].
        y: labels, (m,), int64.
        epsilon: attack radius ε, L∞.
        radii: from 0 to 2ε, ascending, ε among them.
        first: the number of the batch's first image among all that are measured.
    """

    model: nn.Module
    x: Tensor
    y: Tensor
    epsilon: float
    radii: tuple[float, ...]
    first: int = 0

    def up_to(self, count: int) -> Self:
        """Return the probe of those images that are among the first `count` of all."""
        left = max(0, count - self.first)
        return replace(self, x=self.x[:left], y=self.y[:left])

    def logits(self, x: Tensor) -> Tensor:
        """Return f(x), (m, K)."""
        return ascent.logits(self.model, x)

    def losses(self, x: Tensor) -> Tensor:
        """Return ℓ of each image of `x`, (m,)."""
        return each_cross_entropy(self.logits(x), self.y)

    def gradient(self, x: Tensor) -> Tensor:
        """Return ∇ₓℓ of each image of `x`, the shape of `x`."""
        return ascent.input_gradient(self.model, x, self.y, summed_cross_entropy)

    @cached_property
    def loss(self) -> Tensor:
        """ℓ at the images themselves, (m,)."""
        return self.losses(self.x)

    @cached_property
    def slope(self) -> Tensor:
        """∇ₓℓ at the images themselves, their shape."""
        return self.gradient(self.x)

    def fgsm(self, radius: float) -> Tensor:
        """Return clip₀₁(x + radius · sign ∇ₓℓ(x)) (Goodfellow 2015, arXiv:1412.6572)."""
        return ascent.clip(ascent.climb(self.x, self.slope, radius))


Diagnostic = Callable[[Probe, torch.Generator], Iterator[Measured]]


def each_cross_entropy(z: Tensor, y: Tensor) -> Tensor:
    """Return the cross entropy of each image, (m,), of logits `z`, (m, K), and labels `y`, (m,)."""
    return F.cross_entropy(z, y, reduction="none")


def summed_cross_entropy(z: Tensor, y: Tensor) -> Tensor:
    """Return their sum, so that the gradient of each image is that of its own cross entropy."""
    return F.cross_entropy(z, y, reduction="sum")


def distance(z: Tensor, other: Tensor) -> Tensor:
    """Return the Euclidean distance of the logits of each image, (m,)."""
    between: Tensor = torch.linalg.vector_norm(z - other, dim=1)
    return between
