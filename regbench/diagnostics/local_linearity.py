"""How far the loss departs from its tangent within the ball."""

from collections.abc import Iterator

import torch
from torch import Tensor

from regbench.ascent import project, sign_ascent, uniform
from regbench.diagnostics import Measured, Probe

__all__ = ["local_linearity"]

STEPS = 5
"""Of ε/2 each: enough to reach any corner of the ball from any start."""


def local_linearity(probe: Probe, generator: torch.Generator) -> Iterator[Measured]:
    """The local linearity error γ = |ℓ(x+δ) − ℓ(x) − δᵀ∇ₓℓ(x)|, nats, δ sought where it is largest.

    Qin et al. 2019 (arXiv:1907.02610), equation 5: γ bounds how far an attack can raise the loss
    beyond what the gradient tells; it is large where gradients are masked. δ: from a uniform start
    in the ball, five steps of ε/2 along the sign of γ's own gradient, projected to the ball and to
    [0, 1]; a lower bound of the maximum.

    * `linearity_error`: mean over the images. `linearity_error_worst`: of the worst image.
    """

    def error(x: Tensor) -> Tensor:
        tangent = probe.loss + ((x - probe.x) * probe.slope).flatten(1).sum(1)
        return (probe.losses(x) - tangent).abs()

    def climb(x: Tensor) -> Tensor:
        x = x.detach().requires_grad_()
        with torch.enable_grad():
            (gradient,) = torch.autograd.grad(error(x).sum(), x)
        return gradient

    noise = uniform(probe.x, probe.epsilon, generator)
    start = project(probe.x + noise, probe.x, probe.epsilon)
    worst = sign_ascent(climb, start, probe.x, probe.epsilon, probe.epsilon / 2, STEPS)
    gamma = error(worst)
    yield Measured("linearity_error", gamma)
    yield Measured("linearity_error_worst", gamma, worst=True)
