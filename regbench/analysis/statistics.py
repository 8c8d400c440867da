"""Tests and intervals of accuracies, over images and over the seeds of training.

Scores are what they are computed from: whole numbers, (images, seeds), each image's being right (1)
or wrong (0), or the difference of two of these (-1, 0 or 1).
"""

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.signal import convolve
from scipy.stats import binom
from scipy.stats import t as student

Scores = NDArray[np.integer[Any]]

DRAWS = 20_000
SEED = 0

SMALLEST = 1e-12
"""A p below is told as this: rounding adds up to less."""


class Interval(NamedTuple):
    """A mean score with two of its intervals.

    Attributes:
        value: the mean.
        low: of the 95 % interval; likewise `high`.
        low_90: of the 90 % interval; likewise `high_90`.
        over: `seeds and images`, or `images` where there is but one seed.
    """

    value: float
    low: float
    high: float
    low_90: float
    high_90: float
    over: str


def paired_test(scores: Scores) -> float:
    """Return the p of the exact paired test of two methods' trainings, two-sided.

    With one seed it is McNemar's exact test. With several an image has as many verdicts, which are
    not independent: what is hard for one training is hard for the next. So the image is the unit,
    as in the test for clustered pairs (Durkalski et al. 2003): under the null the two methods'
    verdicts on an image, all its seeds together, may be swapped, and the total over images of the
    differences has the distribution of its random signs (Fisher 1935), computed here in full.

    The null is of the networks that were trained, not of all that might have been: that a test
    over images is silent about retraining is its known limit (Dietterich 1998); see `interval`.

    Args:
        scores: differences, (images, seeds).
    """
    sums = scores.sum(1)
    counts = np.bincount(np.abs(sums), minlength=2)
    # the total of the positive differences: Σ size · Binomial(count, 1/2)
    chances = np.ones(1)
    for size, count in enumerate(counts[1:], start=1):
        steps = np.zeros(size * count + 1)
        steps[::size] = binom.pmf(np.arange(count + 1), count, 0.5)
        chances = convolve(chances, steps)
    total = int(sums[sums > 0].sum())
    extreme = max(total, len(chances) - 1 - total)
    return float(np.clip(2 * chances[extreme:].sum(), SMALLEST, 1))


def interval(scores: Scores, lowest: int) -> Interval:
    """Return the mean score with its intervals over seeds and images together.

    A bootstrap of two levels. Every seed is judged on the same images, so that the two are crossed,
    not nested, and drawn independently of each other (the pigeonhole bootstrap, Owen 2007):

    * images: the Bayesian bootstrap (Rubin 1981), one pseudo-image shared evenly by the scores that
      are possible, so that 0 of n has an interval too. Of one seed's accuracy it is Jeffreys'
      interval (Brown, Cai & DasGupta 2001);
    * seeds: Student's t of the means per seed. Three values drawn with replacement have no mean
      outside of their range, and that covers the truth in 75 % of cases, not 95 %.

    What images and seeds share, each level counts: the interval errs on the wide side.

    Args:
        scores: (images, seeds), each from `lowest` to 1.
        lowest: 0 for an accuracy, -1 for a difference.
    """
    seeds = scores.shape[1]
    value = float(scores.mean())
    draws = _draws(scores, lowest)
    ends = np.quantile(draws, [0.025, 0.975, 0.05, 0.95])
    # the mean is a possible value: at 0 of n the quantile is just above it
    low, low_90 = np.minimum(ends[[0, 2]], value)
    high, high_90 = np.maximum(ends[[1, 3]], value)
    over = "seeds and images" if seeds > 1 else "images"
    return Interval(value, float(low), float(high), float(low_90), float(high_90), over)


def _draws(scores: Scores, lowest: int) -> NDArray[np.float64]:
    """`DRAWS` means, seeded afresh so that no row depends on which others there are."""
    seeds = scores.shape[1]
    generator = np.random.default_rng(SEED)
    sums = np.arange(lowest * seeds, seeds + 1)
    counts = np.bincount(scores.sum(1) - lowest * seeds, minlength=len(sums))
    # to weight images is to weight the few values that their sums have
    draws: NDArray[np.float64] = generator.dirichlet(counts + 1 / len(sums), DRAWS) @ sums / seeds
    if seeds > 1:
        error = scores.mean(0).std(ddof=1) / math.sqrt(seeds)
        # evenly, not at random: of few seeds it is the tails that make an interval's ends
        draws += error * student.ppf((np.arange(DRAWS) + 0.5) / DRAWS, seeds - 1)
    return draws.clip(lowest, 1)


def verdict(low: float, high: float, margin: float) -> str:
    """Return what a difference's 90 % interval says of equivalence within a margin.

    Each is claimed wrongly in 5 % of cases at most: two one-sided tests at that level (Schuirmann
    1987), and beyond either margin one more (Goeman, Solari & Stijnen 2010).

    `on par`: within the margin on both sides. `not below`: no worse than the margin allows
    (non-inferior), perhaps better. `below`, `above`: worse, better by more than the margin. `open`:
    the interval is too wide to say.
    """
    if low > margin:
        return "above"
    if high < -margin:
        return "below"
    if low > -margin:
        return "on par" if high < margin else "not below"
    return "open"
