"""What the verdicts of a sound evaluation keep, looked for in one run: who does not, and why.

The rules that name these checks, with their sources, are in regbench.analysis.doubts.
"""

from collections.abc import Callable, Collection, Iterator
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from scipy.stats import binomtest, ttest_rel

from regbench.analysis.attacked import (
    AUTOATTACK,
    CLEAN,
    TOLERANCE,
    Attacked,
    Run,
    both,
    meet,
    of_one_radius,
    white_box,
)
from regbench.experiment.values import written

LEVEL = 0.01
"""Of each test, shared (Bonferroni) by the comparisons that one attack stands in under one rule.

Seven images against none are the fewest that reach it, so that one image of noise is no doubt.
"""

FALL = 0.01
"""Share of the mean loss that a fall must exceed: a converged attack wavers by less."""

HUGE = 0.5
"""Radius within which every image can be made the same grey."""


class Doubt(NamedTuple):
    """Which attack's number is in doubt, and why, in one line."""

    attack: str
    told: str


# --- one attack by itself -------------------------------------------------------------------------


def leaves_the_ball(run: Run) -> Iterator[Doubt]:
    """Doubt each attack with an image farther than its ε."""
    for one in run:
        distance = one.verdicts["distance"]
        outside = int((distance > one.epsilon + TOLERANCE).sum())
        if outside:
            yield Doubt(
                one.name,
                f"{outside} of {len(distance)} images farther than ε = {one.epsilon:.6g}, at most"
                f" {distance.max():.6g}",
            )


def not_finite(run: Run) -> Iterator[Doubt]:
    """Doubt each attack with a loss or a distance that is no number."""
    for one in run:
        for column in ("loss", "distance"):
            values = one.verdicts[column]
            lost = int((~np.isfinite(values)).sum())
            if lost:
                yield Doubt(
                    one.name, f"{column} is NaN or infinite on {lost} of {len(values)} images"
                )


def withstands_a_huge_radius(run: Run) -> Iterator[Doubt]:
    """Doubt each attack of a huge radius that leaves more than chance (exact binomial test)."""
    for one in huge(run):
        correct, count = int(one.verdicts["correct"].sum()), len(one.verdicts)
        p = binomtest(correct, count, one.chance, alternative="greater").pvalue
        if p < LEVEL:
            yield Doubt(
                one.name,
                f"{correct} of {count} images withstand ε = {written(one.epsilon)}; chance is"
                f" {one.chance:.1%}, the commonest label (exact binomial test, p = {p:.1g})",
            )


def huge(run: Run) -> list[Attacked]:
    """Return the white-box attacks of several steps at a huge radius."""
    # a single step of such a length overshoots, on an honest network too
    return [
        one
        for one in white_box(run)
        if one.epsilon >= HUGE - TOLERANCE
        and (one.member == AUTOATTACK or one.arguments.get("steps", 1) > 1)
    ]


def one_by_one(attacks: Callable[[Run], Collection[Attacked]]) -> Callable[[Run], int]:
    """Return how many attacks a check looks at."""
    return lambda run: len(attacks(run))


# --- two attacks on the same images ---------------------------------------------------------------

Weaker = Callable[[Run, Attacked], list[Attacked]]
"""(run, attack) -> the attacks that it must be no weaker than."""


def unattacked(run: Run, one: Attacked) -> list[Attacked]:
    """The images without an attack, for each attack."""
    return [other for other in run if other.member == CLEAN and other is not one]


def above_clean(run: Run) -> Iterator[Doubt]:
    """Doubt each attack that sets a wrong image right."""
    for one in run:
        for clean in unattacked(run, one):
            before, after = both(clean, one, "correct")
            healed = int((~before & after).sum())
            if healed:
                yield Doubt(
                    one.name,
                    f"{healed} of {len(after)} images are right under attack and wrong without;"
                    f" accuracy {after.mean():.1%}, clean {before.mean():.1%}",
                )


def fools_fewer(weaker: Weaker) -> Callable[[Run], Iterator[Doubt]]:
    """Return the check that an attack fools no fewer images than those that are weaker.

    By McNemar's exact test, one-sided, on the images that both saw; of several comparisons that
    fail, the one that fails most clearly is told.
    """

    def told(one: Attacked, other: Attacked) -> tuple[float, str]:
        mine, others = both(one, other, "correct")
        more, less = int((mine & ~others).sum()), int((~mine & others).sum())
        # no image is in dispute: no evidence
        p = binomtest(more, more + less, alternative="greater").pvalue if more + less else 1.0
        return p, (
            f"{mine.mean():.1%} of {len(mine)} images withstand it, {others.mean():.1%} withstand"
            f" {other.label}; {more} withstand it alone, {less} the other alone (McNemar's exact"
            f" test, p = {p:.1g})"
        )

    return _worst(weaker, told)


def loses_loss(weaker: Weaker) -> Callable[[Run], Iterator[Doubt]]:
    """Return the check that the mean loss is no lower than under the attacks that are weaker.

    By the paired t-test, one-sided, on the images that both saw.
    """

    def told(one: Attacked, other: Attacked) -> tuple[float, str]:
        mine, others = both(one, other, "loss")
        there = np.isfinite(mine) & np.isfinite(others)
        mine, others = mine[there], others[there]
        fell = others.mean() - mine.mean() > FALL * others.mean()
        p = float(ttest_rel(mine, others, alternative="less").pvalue) if fell else 1.0
        return p, (
            f"mean cross entropy {mine.mean():.4g} on {len(mine)} images, {others.mean():.4g} under"
            f" {other.label} (paired t-test, p = {p:.1g})"
        )

    return _worst(weaker, told)


def climbing(weaker: Weaker) -> Weaker:
    """The weaker attacks, of one whose loss tells how far it climbed."""
    return lambda run, one: weaker(run, one) if _ends_at_its_highest_loss(one) else []


def _ends_at_its_highest_loss(one: Attacked) -> bool:
    """Tell whether an attack's stored cross entropy says how far it climbed.

    Not so where it climbs another loss, and not where it stops at the first success: an early stop
    stores the loss of the step that fooled, restarts that of the try that fooled.
    """
    told = one.arguments
    climbs = told.get("loss", "cross_entropy") == "cross_entropy"
    return climbs and not told.get("early_stop") and told.get("restarts", 1) == 1


def _worst(
    weaker: Weaker, told: Callable[[Attacked, Attacked], tuple[float, str]]
) -> Callable[[Run], Iterator[Doubt]]:
    """Return the check that compares each attack with the weaker ones and tells the clearest."""

    def check(run: Run) -> Iterator[Doubt]:
        for one in run:
            compared = [told(one, other) for other in _met(weaker, run, one)]
            p, line = min(compared, default=(1.0, ""))
            if p < LEVEL / max(len(compared), 1):
                yield Doubt(one.name, line)

    return check


def _met(weaker: Weaker, run: Run, one: Attacked) -> list[Attacked]:
    return [other for other in weaker(run, one) if meet(one, other)]


def pairs(weaker: Weaker) -> Callable[[Run], int]:
    """Return how many pairs of attacks a check compares."""
    return lambda run: sum(len(_met(weaker, run, one)) for one in run)


def with_less(argument: str) -> Weaker:
    """The same white-box attack with less of one argument, all others equal."""

    # white box only: with more steps an attack fits its source, and transfers worse (Dong 2018)
    def weaker(run: Run, one: Attacked) -> list[Attacked]:
        return [
            other
            for other in white_box(run)
            if one.source is None
            and (other.member, _but(other, argument)) == (one.member, _but(one, argument))
            and other.arguments.get(argument, 0) < one.arguments.get(argument, 0)
        ]

    return weaker


def every_other(run: Run, one: Attacked) -> list[Attacked]:
    """For AutoAttack, the other white-box attacks of its radius or less."""
    if one.member != AUTOATTACK or one.source is not None:
        return []
    return [
        other
        for other in white_box(run)
        if other.member not in {AUTOATTACK, CLEAN} and other.epsilon <= one.epsilon + TOLERANCE
    ]


def transferred(run: Run, one: Attacked) -> list[Attacked]:
    """For the strongest white-box attack, the transferred attacks of its radius."""
    if one.source is not None:
        return []
    transfers = [other for other in run if other.source is not None and of_one_radius(one, other)]
    return [other for other in transfers if one is _strongest(run, other)]


# asked again for each white-box attack
@lru_cache(maxsize=64)
def _strongest(run: Run, transfer: Attacked) -> Attacked | None:
    """The white-box attack of a transfer's radius that leaves the fewest right of its images."""
    same = [
        one
        for one in white_box(run)
        if one.member != CLEAN and of_one_radius(one, transfer) and meet(one, transfer)
    ]
    return min(same, key=lambda one: both(one, transfer, "correct")[0].mean(), default=None)


def _but(one: Attacked, argument: str) -> dict[str, Any]:
    return {key: value for key, value in one.arguments.items() if key != argument}
