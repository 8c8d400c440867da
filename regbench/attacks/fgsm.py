"""FGSM: one step of the whole radius along the sign of the gradient."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from regbench.ascent import climb, cross_entropy, input_gradient
from regbench.attacks import Attack

__all__ = ["FGSM"]


@dataclass(frozen=True, kw_only=True)
class FGSM(Attack):
    """x + ε · sign ∇ₓCE (Goodfellow 2015, arXiv:1412.6572)."""

    @property
    def passes(self) -> float:
        """See `Attack.passes`."""
        return 3

    def __call__(
        self,
        model: nn.Module,
        x: Tensor,
        y: Tensor,
        generator: torch.Generator,
    ) -> Tensor:
        """Return the images after the step."""
        return climb(x, input_gradient(model, x, y, cross_entropy), self.epsilon)
