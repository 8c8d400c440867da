"""No attack: the images as they are."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from regbench.attacks import Attack

__all__ = ["Clean"]


@dataclass(frozen=True, kw_only=True)
class Clean(Attack):
    """x."""

    epsilon: float = 0.0

    @property
    def passes(self) -> float:
        """See `Attack.passes`."""
        return 1

    def __call__(
        self,
        model: nn.Module,
        x: Tensor,
        y: Tensor,
        generator: torch.Generator,
    ) -> Tensor:
        """Return the images as they are."""
        return x
