"""Input gradients and the sign ascent: the core of every attack, in training and in testing."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Loss = Callable[[Tensor, Tensor], Tensor]
"""(logits (m, K), target) -> a scalar to climb."""


def logits(model: nn.Module, x: Tensor) -> Tensor:
    """Return f(x), (m, K), in float32 even where the network computes in bfloat16."""
    z: Tensor = model(x)
    return z.float() if z.dtype is torch.bfloat16 else z


def input_gradient(model: nn.Module, x: Tensor, target: Tensor, loss: Loss) -> Tensor:
    """Return ∇ₓ loss(f(x), target), the shape of `x`; no weight gradient is computed or kept."""
    x = x.detach().requires_grad_()
    with torch.enable_grad():
        (gradient,) = torch.autograd.grad(loss(logits(model, x), target), x)
    return gradient


def clip(x: Tensor) -> Tensor:
    """Return `x` clipped to the range of images, [0, 1]."""
    return x.clamp(0, 1)


def climb(x: Tensor, gradient: Tensor, step_size: float) -> Tensor:
    """Return x + step_size · sign g, `step_size` a number of Python's."""
    return torch.add(x, gradient.sign(), alpha=step_size)


def project(x_adv: Tensor, x: Tensor, epsilon: float) -> Tensor:
    """Return `x_adv` moved to the nearest point of the L∞ ball of radius ε around `x` in [0, 1]."""
    return torch.clamp(x_adv, *_ball(x, epsilon))


def _ball(x: Tensor, epsilon: float) -> tuple[Tensor, Tensor]:
    """The least and the greatest image of the L∞ ball of radius ε around `x`, both in [0, 1]."""
    return clip(x - epsilon), clip(x + epsilon)


def sign_ascent(
    gradient: Callable[[Tensor], Tensor],
    start: Tensor,
    x: Tensor,
    epsilon: float,
    step_size: float,
    steps: int,
) -> Tensor:
    """Climb from `start` by `steps` projected steps of `step_size` · sign g (PGD, Madry 2018)."""
    x_adv, ball = start, _ball(x, epsilon)
    for _ in range(steps):
        x_adv = torch.clamp(climb(x_adv, gradient(x_adv), step_size), *ball)
    return x_adv


def uniform(x: Tensor, radius: float, generator: torch.Generator) -> Tensor:
    """Return noise of the shape of `x`, uniform in ±`radius`."""
    return torch.empty_like(x).uniform_(-radius, radius, generator=generator)


def normal(x: Tensor, generator: torch.Generator) -> Tensor:
    """Return standard normal noise of the shape of `x`."""
    return torch.empty_like(x).normal_(generator=generator)


def cross_entropy(z: Tensor, y: Tensor) -> Tensor:
    """Return the mean cross entropy of the logits `z`, (m, K), against the labels `y`, (m,)."""
    return F.cross_entropy(z, y)


def margin(z: Tensor, y: Tensor, kappa: float = 50.0) -> Tensor:
    """Return −Σ max(0, z_y − max_{j≠y} z_j + κ): the CW margin, as coded for arXiv:2002.00614.

    Args:
        z: logits, (m, K).
        y: labels, (m,).
        kappa: confidence κ up to which a wrong class is still pushed.
    """
    right = z.gather(1, y[:, None]).squeeze(1)
    wrong = z.scatter(1, y[:, None], -torch.inf).amax(1)
    return -F.relu(right - wrong + kappa).sum()
