"""Do several small steps find a higher loss than FGSM's one step does?"""

from collections.abc import Iterator

import torch

from regbench.ascent import sign_ascent
from regbench.diagnostics import Measured, Probe, distance, each_cross_entropy

__all__ = ["several_steps"]

STEPS = 10


def several_steps(probe: Probe, generator: torch.Generator) -> Iterator[Measured]:
    """FGSM against I-FGSM: ten steps of ε/10, no random start (Kurakin 2017, arXiv:1607.02533).

    The property of SAT-R1 (Vivek & Babu 2020, arXiv:2002.00614): at a robust model the two images
    are alike to the network, since the loss is close to linear; at a pseudo-robust one small steps
    find what one large step jumps over.

    * `fgsm_minus_ifgsm_loss`: ℓ(x_FGSM) − ℓ(x_I-FGSM), nats.
    * `fgsm_to_ifgsm_logits`: ‖f(x_FGSM) − f(x_I-FGSM)‖₂, the distance that SAT-R1 squares.
    """
    iterated = sign_ascent(
        probe.gradient, probe.x, probe.x, probe.epsilon, probe.epsilon / STEPS, STEPS
    )
    fgsm = probe.logits(probe.fgsm(probe.epsilon))
    ifgsm = probe.logits(iterated)
    gap = each_cross_entropy(fgsm, probe.y) - each_cross_entropy(ifgsm, probe.y)
    yield Measured("fgsm_minus_ifgsm_loss", gap)
    yield Measured("fgsm_to_ifgsm_logits", distance(fgsm, ifgsm))
