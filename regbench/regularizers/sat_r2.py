"""SAT-R2: a robust model answers FGSM and a noisy start of it alike."""

from dataclasses import dataclass

import torch
from pydantic import NonNegativeFloat

from regbench.ascent import climb, clip, cross_entropy
from regbench.lengths import Length
from regbench.step import Objective, Step

__all__ = ["SATR2"]


@dataclass(frozen=True)
class SATR2:
    """CE(f(x_FGSM), y) + λ · meanᵢ ‖f(x_FGSM) − f(x_RFGSM)‖₂² (arXiv:2002.00614, SAT-R2).

    x_RFGSM = clip₀₁(x + α·sign N + ε·sign g), N standard normal, g the gradient at x + α·sign N.
    The term's first name was R-MGM (Vivek 2019).

    Attributes:
        weight: λ.
        alpha: α, length of the random step, L∞.
        projected: bring x_RFGSM back into the ε-ball, which it leaves by up to α; the authors'
            code does not.
    """

    weight: NonNegativeFloat
    alpha: Length
    projected: bool

    def __call__(self, step: Step) -> Objective:
        """Return the objective of one step."""
        noisy = step.x + self.alpha * step.normal().sign()
        starts = torch.cat((step.x, noisy))
        gradient = step.gradient(starts, torch.cat((step.y, step.y)))
        x_fgsm, x_rfgsm = clip(climb(starts, gradient, step.epsilon)).chunk(2)
        if self.projected:
            x_rfgsm = step.project(x_rfgsm)
        fgsm, rfgsm = step.logits(torch.cat((x_fgsm, x_rfgsm))).chunk(2)
        distance = (fgsm - rfgsm).square().sum(1).mean()
        return Objective(cross_entropy(fgsm, step.y), self.weight * distance)
