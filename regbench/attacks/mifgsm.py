"""MI-FGSM: I-FGSM along a momentum of normalised gradients."""

from dataclasses import dataclass

import torch
from pydantic import NonNegativeFloat, PositiveInt
from torch import Tensor, nn

from regbench.ascent import climb, clip, cross_entropy, input_gradient
from regbench.attacks import Attack

__all__ = ["MIFGSM"]


@dataclass(frozen=True, kw_only=True)
class MIFGSM(Attack):
    """`steps` steps of ε/steps along sign(m), m ← μ·m + g / ‖g‖₁ (Dong 2018, arXiv:1710.06081).

    Attributes:
        steps: gradient steps.
        decay: μ.
    """

    steps: PositiveInt
    decay: NonNegativeFloat = 1.0

    @property
    def passes(self) -> float:
        """See `Attack.passes`."""
        return 2 * self.steps + 1

    def __call__(
        self, model: nn.Module, x: Tensor, y: Tensor, generator: torch.Generator
    ) -> Tensor:
        """Return the images after the last step."""
        x_adv, momentum = x, torch.zeros_like(x)
        for _ in range(self.steps):
            gradient = input_gradient(model, x_adv, y, cross_entropy)
            norm = gradient.abs().sum((1, 2, 3), keepdim=True)
            # an image whose gradient is zero keeps the direction it has
            momentum = self.decay * momentum + gradient / norm.clamp_min(torch.finfo(x.dtype).tiny)
            x_adv = clip(climb(x_adv, momentum, self.epsilon / self.steps))
        return x_adv
