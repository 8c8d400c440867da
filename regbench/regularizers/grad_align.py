"""GradAlign: a network that is linear within the ball has one gradient there."""

from dataclasses import dataclass

import torch
from pydantic import NonNegativeFloat
from torch import Tensor
from torch.nn import functional as F

from regbench.ascent import climb, clip, cross_entropy
from regbench.step import Objective, Step

__all__ = ["GradAlign"]

SHORTEST = 1e-30
"""Of a gradient's largest entry: what is shorter has no direction in float32, and on the way back
no finite one."""


@dataclass(frozen=True)
class GradAlign:
    """CE(f(x_FGSM), y) + λ (1 − mean cos(∇ₓℓ(x), ∇ₓℓ(x + η))), η ~ U(±ε) (arXiv:2007.02617, eq. 5).

    As in its authors' code the penalty moves the weights through the gradient at x + η alone, both
    gradients and the FGSM image are of the network in train mode, and an image with a gradient that
    is zero counts for nothing in the mean: zero is here what is shorter than `SHORTEST`, there what
    has a square of zero.

    Attributes:
        weight: λ; for CIFAR-10 the authors take 0.02 · 10^(255 ε / 8): 0.2 at 8/255, 2 at 16/255.
    """

    weight: NonNegativeFloat

    def __call__(self, step: Step) -> Objective:
        """Return the objective of one step."""
        here = _slopes(step, step.x, taught=False)
        there = _slopes(step, step.x + step.uniform(step.epsilon), taught=True)
        x_fgsm = clip(climb(step.x, here, step.epsilon))
        loss = cross_entropy(step.logits(x_fgsm), step.y)
        return Objective(loss, self.weight * _misalignment(here, there))


def _slopes(step: Step, x: Tensor, *, taught: bool) -> Tensor:
    """Return ∇ₓℓ in train mode, the shape of `x`, with a graph to the weights if it is `taught`."""
    x = x.detach().requires_grad_()
    loss = cross_entropy(step.logits(x), step.y)
    (slope,) = torch.autograd.grad(loss, x, create_graph=taught)
    return slope


def _misalignment(one: Tensor, other: Tensor) -> Tensor:
    """Return the mean of 1 − cosine over the images that have both gradients, 0 if none has."""
    one, other = (_directions(slopes.flatten(1)) for slopes in (one, other))
    both = one.any(1) & other.any(1)
    apart = torch.where(both, 1 - (one * other).sum(1), 0)
    return apart.sum() / both.sum().clamp(min=1)


def _directions(slopes: Tensor) -> Tensor:
    """Return each row at length 1, or zero if it has none."""
    # scaled first: of a confident image the squares are zero
    largest = slopes.detach().abs().amax(1, keepdim=True)
    long = largest > SHORTEST
    return F.normalize(torch.where(long, slopes, 0) / torch.where(long, largest, 1))
