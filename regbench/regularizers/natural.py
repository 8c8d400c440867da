"""Training on the images as they are."""

from dataclasses import dataclass

from regbench.ascent import cross_entropy
from regbench.step import Objective, Step

__all__ = ["Natural"]


@dataclass(frozen=True)
class Natural:
    """CE(f(x), y)."""

    def __call__(self, step: Step) -> Objective:
        """Return the objective of one step."""
        loss = cross_entropy(step.logits(step.x), step.y)
        return Objective(loss, 0.0)
