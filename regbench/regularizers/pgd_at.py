"""Multi-step adversarial training, the expensive reference."""

from dataclasses import dataclass

from pydantic import PositiveInt

from regbench.ascent import cross_entropy, sign_ascent
from regbench.lengths import StepSize
from regbench.step import Objective, Step

__all__ = ["PGDAT"]


@dataclass(frozen=True)
class PGDAT:
    """CE(f(x_PGD), y), started uniformly in the ε-ball (Madry 2018, arXiv:1706.06083).

    Attributes:
        steps: gradient steps per image.
        step_size: length of one step, L∞, in the units of the image.
    """

    steps: PositiveInt
    step_size: StepSize

    def __call__(self, step: Step) -> Objective:
        """Return the objective of one step."""
        x_pgd = sign_ascent(
            lambda x: step.gradient(x, step.y),
            start=step.project(step.x + step.uniform(step.epsilon)),
            x=step.x,
            epsilon=step.epsilon,
            step_size=self.step_size,
            steps=self.steps,
        )
        loss = cross_entropy(step.logits(x_pgd), step.y)
        return Objective(loss, 0.0)
