"""TRADES: clean accuracy traded against a smooth decision boundary."""

from dataclasses import dataclass

from pydantic import NonNegativeFloat, PositiveInt
from torch import Tensor
from torch.nn import functional as F

from regbench.ascent import cross_entropy, sign_ascent
from regbench.lengths import StepSize
from regbench.step import Objective, Step

__all__ = ["TRADES"]


@dataclass(frozen=True)
class TRADES:
    """CE(f(x), y) + β · KL(p(x) ‖ p(x′)), x′ climbing that KL (arXiv:1901.08573, eq. 5).

    Attributes:
        weight: β, 1/λ of the paper.
        steps: gradient steps per image.
        step_size: length of one step, L∞, in the units of the image.
    """

    weight: NonNegativeFloat
    steps: PositiveInt
    step_size: StepSize

    def __call__(self, step: Step) -> Objective:
        """Return the objective of one step."""
        clean = F.log_softmax(step.frozen_logits(step.x), dim=1)
        x_adv = sign_ascent(
            lambda x: step.gradient(x, clean, divergence),
            start=step.x + 0.001 * step.normal(),
            x=step.x,
            epsilon=step.epsilon,
            step_size=self.step_size,
            steps=self.steps,
        )
        logits = step.logits(step.x)
        penalty = divergence(step.logits(x_adv), F.log_softmax(logits, dim=1))
        return Objective(cross_entropy(logits, step.y), self.weight * penalty)


def divergence(logits: Tensor, clean: Tensor) -> Tensor:
    """Return the batch mean of KL(p ‖ q); `clean` is log p, (m, K), `logits` those of q, (m, K)."""
    return F.kl_div(F.log_softmax(logits, dim=1), clean, reduction="batchmean", log_target=True)
