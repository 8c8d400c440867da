"""FGSM-RS, "fast" adversarial training: one step from a random start within the ball."""

from dataclasses import dataclass

from regbench.ascent import climb, cross_entropy
from regbench.lengths import Multiple
from regbench.step import Objective, Step

__all__ = ["FGSMRS"]


@dataclass(frozen=True)
class FGSMRS:
    """CE(f(x_adv), y), x_adv = Π(x + η + α · sign ∇ₓℓ(x + η)), η ~ U(±ε).

    Wong et al. 2020, arXiv:2001.03994, Alg. 3; Π goes to the nearest point of the ε-ball in [0, 1].
    The start may leave [0, 1], as in the paper and in its authors' code for MNIST; their code for
    CIFAR-10 clips it. They craft with the network in train mode, which is another gradient where it
    normalises by the batch; here it is in eval mode, as for every other method but GradAlign.

    Attributes:
        relative_step: α / ε; the authors take 1.25.
    """

    relative_step: Multiple

    def __call__(self, step: Step) -> Objective:
        """Return the objective of one step."""
        start = step.x + step.uniform(step.epsilon)
        gradient = step.gradient(start, step.y)
        x_adv = step.project(climb(start, gradient, self.relative_step * step.epsilon))
        return Objective(cross_entropy(step.logits(x_adv), step.y), 0.0)
