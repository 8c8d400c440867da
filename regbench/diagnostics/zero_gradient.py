"""Is there a gradient at all?"""

from collections.abc import Iterator

import torch

from regbench.diagnostics import Measured, Probe

__all__ = ["zero_gradient"]


def zero_gradient(probe: Probe, generator: torch.Generator) -> Iterator[Measured]:
    """Where ∇ₓℓ(x) is exactly 0 in float32: an attack that follows it stands still.

    Shattered and vanishing gradients of Athalye et al. 2018 (arXiv:1802.00420); AutoAttack warns of
    single images with one (Croce & Hein 2020, arXiv:2003.01690).

    * `zero_gradient`: share of images without a single entry that is not 0.
    * `zero_entries`: share of entries that are 0.
    """
    zero = probe.slope.flatten(1) == 0
    yield Measured("zero_gradient", zero.all(1))
    yield Measured("zero_entries", zero.double().mean(1))
