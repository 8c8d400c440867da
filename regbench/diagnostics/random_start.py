"""Does a random step first find a higher loss than FGSM does?"""

from collections.abc import Iterator

import torch

from regbench.ascent import project
from regbench.attacks.rfgsm import RFGSM
from regbench.diagnostics import Measured, Probe, distance, each_cross_entropy

__all__ = ["random_start"]


def random_start(probe: Probe, generator: torch.Generator) -> Iterator[Measured]:
    """FGSM against R-FGSM of the same radius, its random step α = ε/2.

    The property of SAT-R2 (Vivek & Babu 2020, arXiv:2002.00614): at a robust model the two images
    are alike to the network; at a pseudo-robust one the random step leaves the place where FGSM is
    blind. R-FGSM is Tramèr's (2018, arXiv:1705.07204), which stays in the ball; the authors' leaves
    it by α, so that its loss would not be of the same radius.

    * `fgsm_minus_rfgsm_loss`: ℓ(x_FGSM) − ℓ(x_R-FGSM), nats.
    * `fgsm_to_rfgsm_logits`: ‖f(x_FGSM) − f(x_R-FGSM)‖₂, the distance that SAT-R2 squares.
    """
    attack = RFGSM(epsilon=probe.epsilon, alpha=probe.epsilon / 2)
    proposal = attack(probe.model, probe.x, probe.y, generator)
    fgsm = probe.logits(probe.fgsm(probe.epsilon))
    rfgsm = probe.logits(project(proposal, probe.x, probe.epsilon))
    gap = each_cross_entropy(fgsm, probe.y) - each_cross_entropy(rfgsm, probe.y)
    yield Measured("fgsm_minus_rfgsm_loss", gap)
    yield Measured("fgsm_to_rfgsm_logits", distance(fgsm, rfgsm))
