"""Bounds on a run's quantities: what a verdict speaks of, and signs of masked gradients."""

from dataclasses import dataclass
from math import inf, isnan


@dataclass(frozen=True)
class Criterion:
    """A bound on a quantity.

    Attributes:
        name: how reasons call it.
        quantity: a column of the panel.
        definition: what is measured, in one line.
        source: who says so.
        above, below: the criterion is met by what lies between them.
    """

    name: str
    quantity: str
    definition: str
    source: str
    above: float = -inf
    below: float = inf

    def met(self, values: dict[str, float]) -> bool | None:
        """Tell whether it is met; none: the quantity is missing."""
        value = values[self.quantity]
        return None if isnan(value) else bool(self.above < value < self.below)

    @property
    def bound(self) -> str:
        """`> 0.2`."""
        return f"> {self.above:.3g}" if self.below == inf else f"< {self.below:.3g}"

    def told(self, values: dict[str, float]) -> str:
        """Return the criterion with the number that meets it, or does not."""
        fails = "" if self.met(values) else "not "
        return f"{self.name}: {values[self.quantity]:.3g} ({fails}{self.bound})"


VIVEK = "Vivek & Babu 2020, arXiv:2002.00614"
OBFUSCATED = "Athalye et al. 2018, arXiv:1802.00420"
CROCE = "Croce & Hein 2020, arXiv:2003.01690"
OURS = "A convention of this panel"

AT_CHANCE = Criterion(
    "clean accuracy at chance",
    "clean_above_chance",
    "clean accuracy minus chance, in standard errors of guessing",
    "As regbench.train tells a collapse",
    below=3,
)
PROMISES = Criterion(
    "looks robust",
    "promised",
    "accuracy under FGSM, as a share of clean accuracy",
    OURS,
    above=1 / 3,
)
KEEPS = Criterion(
    "withstands",
    "kept",
    "accuracy under the strongest white-box attack of several steps, as a share of clean accuracy",
    OURS,
    above=1 / 3,
)

BASE = (AT_CHANCE, PROMISES, KEEPS)
"""What the verdicts speak of besides signs."""

SIGNS = (
    Criterion(
        "FGSM above PGD",
        "fgsm_minus_pgd",
        "accuracy under FGSM minus that under PGD, on the same images",
        f"{OBFUSCATED}; published multi-step models lose at most 17 points under PGD without"
        " restarts, FGSM-AT 96 and more",
        above=0.2,
    ),
    Criterion(
        "FGSM above AutoAttack",
        "fgsm_minus_autoattack",
        "accuracy under FGSM minus that under AutoAttack, on the same images",
        f"{CROCE}; published multi-step models lose at most 28 points, but for one of TRADES on"
        " Fashion-MNIST at ε = 0.3 that loses 38",
        above=0.3,
    ),
    Criterion(
        "FGSM above clean",
        "fgsm_above_clean",
        "accuracy on FGSM images minus that on the images: label leaking",
        "Kurakin et al. 2017, arXiv:1611.01236",
        above=0.0,
    ),
    Criterion(
        "loss falls again",
        "loss_dip",
        "share by which the mean loss at ε along FGSM is below its highest up to ε (R3)",
        VIVEK,
        above=0.05,
    ),
    Criterion(
        "losses fall",
        "falling",
        "share of images whose loss along FGSM falls by more than 0.01 nats up to ε (R3)",
        VIVEK,
        above=0.1,
    ),
    Criterion(
        "R-FGSM finds more loss",
        "fgsm_to_rfgsm_loss_ratio",
        "mean loss on FGSM images over that on R-FGSM images, α = ε/2 (R2)",
        VIVEK,
        below=0.9,
    ),
    Criterion(
        "I-FGSM finds more loss",
        "fgsm_to_ifgsm_loss_ratio",
        "mean loss on FGSM images over that on I-FGSM images, 10 steps (R1)",
        VIVEK,
        below=0.5,
    ),
    Criterion(
        "loss is not linear",
        "linearity_error",
        "how far the loss departs from its tangent within the ball, mean, nats",
        "Qin et al. 2019, arXiv:1907.02610",
        above=2,
    ),
    Criterion(
        "gradients disagree",
        "gradient_alignment",
        "mean cosine of the gradients at the image and at a random point of the ball",
        "Andriushchenko & Flammarion 2020, arXiv:2007.02617",
        below=0.2,
    ),
    Criterion(
        "zero gradients",
        "zero_gradient",
        "share of images whose gradient is exactly zero",
        f"{OBFUSCATED}; {CROCE}",
        above=0.1,
    ),
    Criterion(
        "restarts gain",
        "restart_gain",
        "accuracy under PGD that more restarts take away",
        "Mosbach et al. 2018, arXiv:1810.12042",
        above=0.1,
    ),
    Criterion(
        "transfer beats white box",
        "transfer_gain",
        "accuracy under the strongest white-box attack minus that under a transferred one",
        OBFUSCATED,
        above=0.02,
    ),
    Criterion(
        "Square beats white box",
        "square_gain",
        "accuracy that Square takes away after AutoAttack's gradient attacks",
        CROCE,
        above=0.02,
    ),
    Criterion(
        "withstands a huge radius",
        "huge_above_chance",
        "accuracy under a white-box attack of several steps at ε ≥ 0.5, minus chance",
        OBFUSCATED,
        above=0.05,
    ),
)
"""Of masked gradients. The bounds on accuracies lie beyond what published multi-step models reach
and what PGD-AT on digits does here; those on losses and gradients beyond the latter, but for the
one on falling losses: beyond PGD-AT on MNIST's validation images (docs/mnist.md)."""
