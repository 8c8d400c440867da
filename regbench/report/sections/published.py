"""Beside published numbers."""

import pandas as pd

from regbench.analysis.beside import WHOLE, compare, places
from regbench.analysis.published import Published
from regbench.report.sheets import Sheet
from regbench.report.wording import markdown

TITLE = "Beside published numbers"

BESIDE = """\
Ours: mean over seeds, in percent, with its 95 % interval over seeds and images, of one seed over
images alone, as theirs. `verdict`, of the
95 % interval of the difference: `differ`: it leaves out 0; `agree`: it includes 0 and lies within
± {margin:g} points; `open`: too wide to say. `cannot be compared`: no attack here,
sweeps aside, has the published one's kind, radius and steps. Ours are the first n
test images, taken for a sample of all, though those may be harder or easier than the rest; where
`images` is –, the source does not say how many and is taken to have judged all {whole:,}. Networks
and training differ between sources."""

PLACED = """\
Ranked together is what shares data set, radius, attack and its parameters; the method and the
network may be any. Where several attacks of ours are the published one, the strongest counts.
Networks, training and the number of images differ between sources."""


def section(beside: pd.DataFrame) -> str:
    """Return the published numbers beside ours, or that there are none.

    Args:
        beside: of `regbench.analysis.beside.compare`.
    """
    if beside.empty:
        return "None are known for these data sets and methods."
    shown = markdown([beside.drop(columns="margin")])
    return f"{_read(beside['margin'].iloc[0])}\n\n{shown}"


def sheet(known: Published, means: pd.DataFrame, margin: float) -> Sheet:
    """Return the same as a table of the page.

    Args:
        known: the published numbers.
        means: of `regbench.analysis.rows.over_seeds`, `regbench.analysis.comparisons.bounded`.
        margin: a share, within which numbers agree.
    """
    beside = compare(known, means, margin)
    return Sheet.of(TITLE, [_read(margin), *_when(known)], beside.drop(columns="margin"))


def ranking(known: Published, means: pd.DataFrame) -> Sheet:
    """Return our place among the published numbers."""
    return Sheet.of("Place among published numbers", [PLACED, *_when(known)], places(known, means))


def _read(margin: float) -> str:
    return BESIDE.format(margin=100 * margin, whole=WHOLE)


def _when(known: Published) -> list[str]:
    return [f"Collected: {known.collected}."] if known.collected else []
