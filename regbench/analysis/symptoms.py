"""Quantities that tell masked gradients from robustness, each of one run, from stored rows."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from itertools import takewhile
from math import inf, nan, sqrt

import numpy as np
import pandas as pd

from regbench.analysis.attacked import (
    AUTOATTACK,
    CLEAN,
    TOLERANCE,
    Attacked,
    Run,
    ahead,
    both,
    meet,
    white_box,
)
from regbench.analysis.soundness import HUGE

FGSM = "regbench.attacks.fgsm"
PGD = "regbench.attacks.pgd"


@dataclass(frozen=True, eq=False)
class Case:
    """One run, as the rows tell it.

    Attributes:
        epsilon: the radius that it was trained for and is judged at.
        attacks: what it was judged by, at any radius.
        measured: of regbench.diagnose, at its radius: quantity, along, value.
    """

    epsilon: float
    attacks: Run
    measured: pd.DataFrame

    @cached_property
    def white_box(self) -> list[Attacked]:
        """The attacks of the run's own radius that were crafted on it."""
        return [one for one in white_box(self.attacks) if self.of_radius(one)]

    @cached_property
    def clean(self) -> Attacked | None:
        """The images without an attack."""
        return next((one for one in self.attacks if one.member == CLEAN), None)

    @cached_property
    def fgsm(self) -> Attacked | None:
        """FGSM."""
        return next((one for one in self.white_box if one.member == FGSM), None)

    @cached_property
    def several_steps(self) -> list[Attacked]:
        """The white-box attacks of more than one step."""
        return [
            one
            for one in self.white_box
            if one.member == AUTOATTACK or one.arguments.get("steps", 1) > 1
        ]

    @cached_property
    def strongest(self) -> Attacked | None:
        """The white-box attack of several steps that fools most."""
        return strongest(self.several_steps)

    def of_radius(self, one: Attacked) -> bool:
        """Tell whether an attack has the run's radius."""
        return one.member != CLEAN and abs(one.epsilon - self.epsilon) < TOLERANCE

    def value(self, quantity: str) -> float:
        """Return what was measured, NaN if it was not."""
        found = self.measured[self.measured["quantity"] == quantity]["value"]
        return float(found.iloc[0]) if len(found) else nan

    def along(self, quantity: str) -> pd.Series:
        """Return what was measured along the FGSM direction, by radius, ascending."""
        found = self.measured[self.measured["quantity"] == quantity]
        return found.set_index("along")["value"].sort_index()

    def at_epsilon(self, quantity: str) -> float:
        """Return what was measured along the FGSM direction at ε, NaN if it was not."""
        curve = self.along(quantity)
        at = np.abs(curve.index.to_numpy(float) - self.epsilon) < TOLERANCE
        return float(curve[at].iloc[0]) if at.any() else nan


def accuracy(one: Attacked) -> float:
    """Return the share of images that withstand an attack."""
    return float(one.verdicts["correct"].mean())


def widest(attacks: list[Attacked]) -> Attacked | None:
    """Return, of the attacks that saw the most images, the one that fools most of them."""
    return min(attacks, key=lambda one: (-len(one.verdicts), accuracy(one)), default=None)


def strongest(attacks: list[Attacked]) -> Attacked | None:
    """Return the attack that fools most, each held against the widest on the images of both.

    Of few images the share that withstands says little; what an attack adds on them says more.
    """
    base = widest(attacks)
    if base is None:
        return None
    return max(attacks, key=lambda one: (_adds(one, base), len(one.verdicts)))


def _adds(one: Attacked, base: Attacked) -> float:
    return ahead(base, one) if meet(base, one) else -inf


def lead(one: Attacked | None, others: list[Attacked]) -> float:
    """Return by how much more withstand `one` than the strongest of `others`, on shared images."""
    if one is None:
        return nan
    return max((ahead(one, other) for other in others if meet(one, other)), default=nan)


def share(one: Attacked | None, whole: Attacked | None) -> float:
    """Return the accuracy under `one` as a share of that under `whole`, on shared images."""
    if one is None or whole is None or not meet(one, whole):
        return nan
    part, all_of_it = (int(column.sum()) for column in both(one, whole, "correct"))
    return part / all_of_it if all_of_it else nan


# --- quantities -----------------------------------------------------------------------------------


def _under(member: str) -> Callable[[Case], float]:
    """Lowest accuracy under the white-box attacks of a kind."""
    return lambda case: min(
        (accuracy(one) for one in case.several_steps if one.member == member), default=nan
    )


def _restarted(case: Case) -> float:
    """Lowest accuracy under PGD with restarts."""
    return min(map(accuracy, _pgd(case, often=True)), default=nan)


def _pgd(case: Case, *, often: bool) -> list[Attacked]:
    """PGD with restarts, or without."""
    pgd = [one for one in case.several_steps if one.member == PGD]
    return [one for one in pgd if (one.arguments.get("restarts", 1) > 1) is often]


def _clean(case: Case) -> float:
    return accuracy(case.clean) if case.clean else nan


def _fgsm(case: Case) -> float:
    return accuracy(case.fgsm) if case.fgsm else nan


def _above_chance(case: Case) -> float:
    if case.clean is None:
        return nan
    right = case.clean.verdicts["correct"]
    chance = case.clean.chance
    return float((right.mean() - chance) / sqrt(chance * (1 - chance) / len(right)))


def _promised(case: Case) -> float:
    """By the attacks; without FGSM among them, by the diagnostics."""
    curve = case.along("accuracy_along_fgsm")
    if case.fgsm or not (len(curve) and curve.iloc[0]):
        return share(case.fgsm or case.strongest, case.clean)
    return case.at_epsilon("accuracy_along_fgsm") / float(curve.iloc[0])


def _kept(case: Case) -> float:
    return share(case.strongest, case.clean)


def _fgsm_minus(member: str) -> Callable[[Case], float]:
    """What the widest attack of a kind takes from FGSM's accuracy, and the strongest besides."""

    def lost(case: Case) -> float:
        fgsm = case.fgsm
        others = [one for one in case.several_steps if one.member == member]
        others = [one for one in others if fgsm and meet(fgsm, one)]
        base, most = widest(others), strongest(others)
        if fgsm is None or base is None or most is None:
            return nan
        # two counts' shares: 0.19 and 0.01 are 0.2
        return round(ahead(fgsm, base) + ahead(base, most), 12)

    return lost


def _fgsm_above_clean(case: Case) -> float:
    # measured without the referee, which never gives an image back
    curve = case.along("accuracy_along_fgsm")
    return case.at_epsilon("accuracy_along_fgsm") - float(curve.iloc[0]) if len(curve) else nan


def _loss_dip(case: Case) -> float:
    curve = case.along("loss_along_fgsm")
    highest = curve[curve.index.to_numpy(float) <= case.epsilon + TOLERANCE].max()
    return 1 - case.at_epsilon("loss_along_fgsm") / highest if highest > 0 else nan


def _loss_ratio(gap: str) -> Callable[[Case], float]:
    """Mean loss of FGSM over that of another attack, of which the difference was measured."""

    def ratio(case: Case) -> float:
        fgsm = case.at_epsilon("loss_along_fgsm")
        other = fgsm - case.value(gap)
        return fgsm / other if other > 0 else nan

    return ratio


def _restart_gain(case: Case) -> float:
    often = _pgd(case, often=True)
    return min((lead(one, often) for one in _pgd(case, often=False)), default=nan)


def _transfer_gain(case: Case) -> float:
    transferred = [one for one in case.attacks if one.source is not None and case.of_radius(one)]
    return lead(case.strongest, transferred)


SQUARE = re.compile(r"Square Attack has decreased the robust accuracy of ([\d.]+)%")


def _square_gain(case: Case) -> float:
    """The most that Square takes away from what the attacks before it leave.

    Of reports that do not tell what each attack leaves: what AutoAttack's own flag says, a share of
    the images that are right without an attack, and 0 if it is not raised.
    """
    gains = [_by_square(one) for one in case.white_box if one.member == AUTOATTACK]
    return max(gains, default=nan)


def _by_square(one: Attacked) -> float:
    left = one.accuracy_after
    before = [left[name] for name in takewhile(lambda name: name != "square", left)]
    if "square" in left and before:
        count = len(one.verdicts)  # whole images, since the bound is a whole number of hundreds
        return round((min(before) - left["square"]) * count) / count
    found = SQUARE.search(one.warnings)
    return float(found[1]) / 100 if found else 0.0


def _huge_above_chance(case: Case) -> float:
    """Lowest accuracy under an attack of several steps at ε ≥ 0.5, minus chance."""
    huge = [
        accuracy(one) - one.chance
        for one in white_box(case.attacks)
        if one.epsilon >= HUGE - TOLERANCE and one.arguments.get("steps", 1) > 1
    ]
    return min(huge, default=nan)


def _measured(quantity: str) -> Callable[[Case], float]:
    return lambda case: case.value(quantity)


QUANTITIES: dict[str, Callable[[Case], float]] = {
    "clean": _clean,
    "fgsm": _fgsm,
    "pgd": _under(PGD),
    "pgd_restarted": _restarted,
    "autoattack": _under(AUTOATTACK),
    "clean_above_chance": _above_chance,
    "promised": _promised,
    "kept": _kept,
    "fgsm_minus_pgd": _fgsm_minus(PGD),
    "fgsm_minus_autoattack": _fgsm_minus(AUTOATTACK),
    "fgsm_above_clean": _fgsm_above_clean,
    "loss_dip": _loss_dip,
    "not_rising": _measured("not_rising"),
    "falling": _measured("falling"),
    "fgsm_minus_rfgsm_loss": _measured("fgsm_minus_rfgsm_loss"),
    "fgsm_to_rfgsm_logits": _measured("fgsm_to_rfgsm_logits"),
    "fgsm_to_rfgsm_loss_ratio": _loss_ratio("fgsm_minus_rfgsm_loss"),
    "fgsm_minus_ifgsm_loss": _measured("fgsm_minus_ifgsm_loss"),
    "fgsm_to_ifgsm_logits": _measured("fgsm_to_ifgsm_logits"),
    "fgsm_to_ifgsm_loss_ratio": _loss_ratio("fgsm_minus_ifgsm_loss"),
    "linearity_error": _measured("linearity_error"),
    "linearity_error_worst": _measured("linearity_error_worst"),
    "gradient_alignment": _measured("gradient_alignment"),
    "zero_gradient": _measured("zero_gradient"),
    "zero_entries": _measured("zero_entries"),
    "restart_gain": _restart_gain,
    "transfer_gain": _transfer_gain,
    "square_gain": _square_gain,
    "huge_above_chance": _huge_above_chance,
}
"""Columns of the panel; accuracies, shares and cosines from 0 or −1 to 1, losses in nats."""
