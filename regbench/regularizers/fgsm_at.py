"""Single-step adversarial training, the method that only looks robust."""

from dataclasses import dataclass

from regbench.ascent import cross_entropy
from regbench.step import Objective, Step

__all__ = ["FGSMAT"]


@dataclass(frozen=True)
class FGSMAT:
    """CE(f(x_FGSM), y) (Goodfellow 2015, arXiv:1412.6572)."""

    def __call__(self, step: Step) -> Objective:
        """Return the objective of one step."""
        loss = cross_entropy(step.logits(step.fgsm()), step.y)
        return Objective(loss, 0.0)
