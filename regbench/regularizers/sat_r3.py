"""SAT-R3: a robust model's loss rises with the perturbation."""

from dataclasses import dataclass

import torch
from pydantic import NonNegativeFloat
from torch.nn import functional as F

from regbench.ascent import clip, cross_entropy
from regbench.lengths import Length
from regbench.step import Objective, Step

__all__ = ["SATR3"]


@dataclass(frozen=True)
class SATR3:
    """CE(x_high) + λ · max(0, CE(x_low) − τ · CE(x_high)), on batch means.

    This is SAT-R3 of arXiv:2002.00614. x′ = clip₀₁(x + α·sign N), N standard normal; x_low and
    x_high go ε_low and ε_high from x′ along the sign of one gradient, taken at x′.

    Attributes:
        weight: λ.
        tau: τ, the share of the loss at ε_high that the loss at ε_low may reach.
        alpha: α, length of the random step, L∞.
        epsilon_low: ε_low.
        epsilon_high: ε_high.
        projected: bring both back into the ε-ball, which they may leave by α; the authors' code
            does not.
    """

    weight: NonNegativeFloat
    tau: NonNegativeFloat
    alpha: Length
    epsilon_low: Length
    epsilon_high: Length
    projected: bool

    def __post_init__(self) -> None:
        """Refuse radii the wrong way round."""
        if self.epsilon_low > self.epsilon_high:
            raise ValueError(
                f"epsilon_low must be at most epsilon_high = {self.epsilon_high:g}, got"
                f" {self.epsilon_low:g}"
            )

    def __call__(self, step: Step) -> Objective:
        """Return the objective of one step."""
        start = clip(step.x + self.alpha * step.normal().sign())
        direction = step.gradient(start, step.y).sign()
        x_low = clip(start + self.epsilon_low * direction)
        x_high = clip(start + self.epsilon_high * direction)
        if self.projected:
            x_low, x_high = step.project(x_low), step.project(x_high)
        low, high = step.logits(torch.cat((x_low, x_high))).chunk(2)
        loss_low, loss_high = cross_entropy(low, step.y), cross_entropy(high, step.y)
        return Objective(loss_high, self.weight * F.relu(loss_low - self.tau * loss_high))
