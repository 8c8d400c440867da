"""SAT-R1: the FGSM image and the I-FGSM image of a robust model have the same logits."""

from dataclasses import dataclass

import torch
from pydantic import NonNegativeFloat, PositiveInt

from regbench.ascent import climb, clip, cross_entropy
from regbench.step import Objective, Step

__all__ = ["SATR1"]


@dataclass(frozen=True)
class SATR1:
    """CE(f(x_FGSM), y) + λ ‖f(x_FGSM) − f(x_IFGSM)‖₂² for one image (arXiv:2002.00614, SAT-R1).

    The pair is the batch's last image. Its I-FGSM version, k steps of ε/k from x without a random
    start, rides in the same forward pass as row m + 1 and has no cross entropy of its own.

    Attributes:
        weight: λ.
        steps: k.
    """

    weight: NonNegativeFloat
    steps: PositiveInt

    def __call__(self, step: Step) -> Objective:
        """Return the objective of one step."""
        gradient = step.gradient(step.x, step.y)
        x_fgsm = clip(climb(step.x, gradient, step.epsilon))
        x_ifgsm = self._ifgsm(step, gradient[-1:])
        logits = step.logits(torch.cat((x_fgsm, x_ifgsm)))
        distance = (logits[-2] - logits[-1]).square().sum()
        return Objective(cross_entropy(logits[:-1], step.y), self.weight * distance)

    def _ifgsm(self, step: Step, first: torch.Tensor) -> torch.Tensor:
        # the batch's FGSM gradient is I-FGSM's first: it differs by the factor 1/m, not in sign
        size = step.epsilon / self.steps
        x = clip(climb(step.x[-1:], first, size))
        for _ in range(self.steps - 1):
            x = clip(climb(x, step.gradient(x, step.y[-1:]), size))
        return x
