"""R-FGSM: a random step first, the rest of the radius along the gradient's sign."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from regbench.ascent import climb, clip, cross_entropy, input_gradient, normal
from regbench.attacks import Attack
from regbench.lengths import StepSize

__all__ = ["RFGSM"]


@dataclass(frozen=True, kw_only=True)
class RFGSM(Attack):
    """x′ = clip₀₁(x + α·sign N), then x′ + (ε − α)·sign ∇CE(x′) (Tramèr 2018, arXiv:1705.07204).

    Attributes:
        alpha: α, length of the random step, L∞, below ε.
    """

    alpha: StepSize

    def __post_init__(self) -> None:
        """Refuse a random step that is longer than the radius."""
        if self.alpha > self.epsilon:
            raise ValueError(f"alpha must be at most ε = {self.epsilon:g}, got {self.alpha:g}")

    @property
    def passes(self) -> float:
        """See `Attack.passes`."""
        return 3

    def __call__(
        self, model: nn.Module, x: Tensor, y: Tensor, generator: torch.Generator
    ) -> Tensor:
        """Return the images after both steps."""
        start = clip(x + self.alpha * normal(x, generator).sign())
        gradient = input_gradient(model, start, y, cross_entropy)
        return climb(start, gradient, self.epsilon - self.alpha)
