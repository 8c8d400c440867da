"""Does the loss rise along the direction in which FGSM looks for it?"""

from collections.abc import Iterator

import torch
from torch import Tensor

from regbench.core.validation import right
from regbench.diagnostics import Measured, Probe, each_cross_entropy

__all__ = ["loss_along_fgsm"]

ROUNDING = 1e-4
"""Part of 1 + ℓ that a fall must exceed not to be one of rounding."""

FALL = 0.01
"""Nats that a fall must exceed to count: 1 % of the probability of the right class."""


def loss_along_fgsm(probe: Probe, generator: torch.Generator) -> Iterator[Measured]:
    """ℓ(x + t · sign ∇ₓℓ(x)), clipped to [0, 1], against the radius t, and who falls on the way.

    The property of SAT-R3 (Vivek & Babu 2020, arXiv:2002.00614): a robust model's loss rises with
    the radius, a pseudo-robust one's falls again.

    * `loss_along_fgsm`, `accuracy_along_fgsm`: at each radius from 0 to 2ε; accuracy above that at
      0 is label leaking (Kurakin 2017, arXiv:1611.01236).
    * `not_rising`: share of images whose loss falls between two radii up to ε, or is no higher at ε
      than at the image, by whatever exceeds rounding.
    * `falling`: share of images whose loss, up to ε, is at some radius more than 0.01 nats below
      its highest before.
    """
    curve = []
    for radius in probe.radii:
        logits = probe.logits(probe.fgsm(radius))
        curve.append(each_cross_entropy(logits, probe.y))
        yield Measured("loss_along_fgsm", curve[-1], along=radius)
        yield Measured("accuracy_along_fgsm", right(logits, probe.y), along=radius)
    up_to_epsilon = torch.stack(curve[: len(curve) // 2 + 1])
    yield Measured("not_rising", ~_rises(up_to_epsilon))
    yield Measured("falling", (up_to_epsilon.cummax(0).values - up_to_epsilon > FALL).any(0))


def _rises(curve: Tensor) -> Tensor:
    """Tell, (m,), of losses at radii 0 to ε, (points, m), whether they rise without a fall."""
    noise = ROUNDING * (1 + curve)
    falls = (curve[1:] < curve[:-1] - noise[:-1]).any(0)
    return (curve[-1] > curve[0]) & ~falls
