"""Does the gradient point the same way in the neighbourhood as at the image?"""

from collections.abc import Iterator

import torch
from torch import Tensor

from regbench.ascent import uniform
from regbench.diagnostics import Measured, Probe

__all__ = ["gradient_alignment"]


def gradient_alignment(probe: Probe, generator: torch.Generator) -> Iterator[Measured]:
    """cos(∇ₓℓ(x), ∇ₓℓ(x + η)), η uniform in the ε-ball, not clipped to [0, 1].

    Andriushchenko & Flammarion 2020 (arXiv:2007.02617), equation 6: near 1 where one step is as
    good as many; falls towards 0 when FGSM training overfits catastrophically. A gradient that is
    exactly zero points nowhere: 0.

    * `gradient_alignment`: mean over the images, −1 to 1.
    """
    noise = uniform(probe.x, probe.epsilon, generator)
    yield Measured("gradient_alignment", _cosine(probe.slope, probe.gradient(probe.x + noise)))


def _cosine(a: Tensor, b: Tensor) -> Tensor:
    """Return the cosine of each image's two gradients, (m,)."""
    # gradients of 1e-30 have no square in float32
    return (_direction(a) * _direction(b)).sum(1)


def _direction(gradient: Tensor) -> Tensor:
    flat = gradient.flatten(1).double()
    length = torch.linalg.vector_norm(flat, dim=1, keepdim=True)
    return torch.where(length > 0, flat / length, 0)
