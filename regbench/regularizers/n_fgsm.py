"""N-FGSM: one step from a start with more noise than the attack, which stays in the image."""

from dataclasses import dataclass

from regbench.ascent import climb, clip, cross_entropy
from regbench.lengths import Multiple
from regbench.step import Objective, Step

__all__ = ["NFGSM"]


@dataclass(frozen=True)
class NFGSM:
    """CE(f(x_adv), y), x_adv = clip₀₁(x′ + α · sign ∇ℓ(x′)), x′ = clip₀₁(x + η), η ~ U(±kε).

    de Jorge et al. 2022, arXiv:2202.01181, Alg. 1, clipped as in the authors' code. The image is
    not brought back into the ε-ball, which it leaves by up to kε + α − ε. They craft with the
    network in train mode, here it is in eval mode: see regbench.regularizers.fgsm_rs.

    Attributes:
        relative_noise: k; the authors take 2.
        relative_step: α / ε; the authors take 1.
    """

    relative_noise: Multiple
    relative_step: Multiple

    def __call__(self, step: Step) -> Objective:
        """Return the objective of one step."""
        noisy = clip(step.x + step.uniform(self.relative_noise * step.epsilon))
        gradient = step.gradient(noisy, step.y)
        x_adv = clip(climb(noisy, gradient, self.relative_step * step.epsilon))
        return Objective(cross_entropy(step.logits(x_adv), step.y), 0.0)
