"""Is the difference real? Each method beside a reference."""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from regbench.analysis.comparisons import strongest
from regbench.analysis.rows import Rows
from regbench.report.origins import lines
from regbench.report.sheets import Sheet
from regbench.report.wording import LACKING, chance, items, markdown, points

TITLE = "Is the difference real?"

NOTHING = "There is no reference method to compare with."

COMPARED = """\
Each method minus a reference, in percentage points, on the same images and seeds, under the
strongest of the white-box attacks that the most methods were judged by; `comparisons.csv` has
every attack, also a stronger one that fewer were judged by, `intervals.csv` each accuracy."""

COMPARED_ALL = """\
Each method minus a reference, in percentage points, on the same images and seeds: first under the
strongest of the white-box attacks that the most methods were judged by, then under each other."""

DIFFERENCE = """\
`difference` with its 95 % interval over seeds and images together: where it may lie with other
  trainings and other images. An interval that includes 0 does not tell the methods apart."""

P = """\
`p`: the exact paired test (McNemar's, for several seeds at once) of whether *these* networks
  differ on images of this kind, Holm-corrected over {count} comparisons. It is silent about
  retraining: a small p beside an interval around 0 says that the networks differ, not the methods.\
"""

VERDICT = """\
`verdict`, within a margin of ± {margin:g} points: `on par`: the 90 % interval lies within it (two
  one-sided tests at 5 %); `not below`: it rules out only being worse by more than the margin;
  `below`, `above`: beyond it; `open`: too wide to say; `one seed`: none, since one training of each
  says nothing of others. Two networks that withstand nothing are on par as well. Intervals and
  verdicts are each by itself, not corrected for their number, as `p` is."""

ALONE = """\
One seed: the interval is over images alone; another training may differ by more."""


def section(compared: pd.DataFrame, rows: Rows) -> str:
    """Return what `comparisons.csv` says of the strongest attack, or that there is nothing.

    Args:
        compared: of `regbench.analysis.comparisons.comparisons`.
        rows: the experiment's.
    """
    attacks = strongest(rows) if len(compared) else {}
    shown = compared[compared["attack"] == compared["dataset"].map(attacks)]
    if shown.empty:
        return NOTHING
    table = _named(shown).assign(
        difference=[_difference(row) for row in shown.to_dict("records")],
        p=shown["p_holm"].map(chance),
        verdict=shown["verdict"],
    )
    meanings = items(_meanings(compared))
    return "\n\n".join([COMPARED, meanings, *_alone(shown), markdown([table])])


def _difference(row: Mapping[Any, Any]) -> str:
    if row["seeds"] == 0:
        return "no seed in common"
    middle, low, high = (points(row[name]) for name in ("difference", "low", "high"))
    return f"{middle} [{low}, {high}]{' (one seed)' if row['seeds'] == 1 else ''}"


def sheet(compared: pd.DataFrame, rows: Rows) -> Sheet:
    """Return every paired comparison, those under the strongest attack first.

    Args:
        compared: of `regbench.analysis.comparisons.comparisons`.
        rows: the experiment's.
    """
    if compared.empty:
        return Sheet.of(TITLE, [NOTHING], compared)
    last = compared["attack"] != compared["dataset"].map(strongest(rows))
    compared = compared.loc[last.sort_values(kind="stable").index]
    told = compared.to_dict("records")
    columns: dict[str, Any] = {
        "difference": compared["difference"].map(points),
        "95 % interval": [_between(row["low"], row["high"]) for row in told],
        "p (Holm)": compared["p_holm"].map(chance),
        "verdict": compared["verdict"],
        "margin": (100 * compared["margin"]).map("{:g}".format),
        "n": compared["n"],
        "seeds": compared["seeds"],
    }
    frame = _named(compared).assign(**columns)
    about = {(place, "difference"): lines(_told(row)) for place, row in enumerate(told)}
    notes = [COMPARED_ALL, *_meanings(compared), *_alone(compared)]
    return Sheet.of(TITLE, notes, frame, about)


def _told(row: Mapping[Any, Any]) -> dict[str, object]:
    if row["seeds"] == 0:
        return {"difference": "no seed in common"}
    return {
        f"{row['method']} − {row['against']}": f"{points(row['difference'])} points",
        "95 % interval": f"{_between(row['low'], row['high'])}, over {row['over']}",
        "90 % interval": f"{_between(row['low_90'], row['high_90'])}, for the verdict",
        "images": f"{row['n']}: more often right on {row['more']}, less often on {row['fewer']}",
        "seeds": row["seeds"],
        "p": f"{chance(row['p_holm'])} by Holm, {chance(row['p'])} by itself",
        "margin": f"± {100 * row['margin']:g} points",
    }


def _named(compared: pd.DataFrame) -> pd.DataFrame:
    """What is compared: the first columns of both tables."""
    names = compared[["dataset", "model", "method", "against"]]
    return names.assign(attack=compared["label"])


def _between(low: float, high: float) -> str:
    return LACKING if pd.isna(low) else f"{points(low)} to {points(high)}"


def _meanings(compared: pd.DataFrame) -> list[str]:
    """What the columns mean: difference, p, verdict."""
    count, margin = compared["p"].notna().sum(), 100 * compared["margin"].iloc[0]
    return [DIFFERENCE, P.format(count=count), VERDICT.format(margin=margin)]


def _alone(shown: pd.DataFrame) -> list[str]:
    return [ALONE] if shown["seeds"].eq(1).any() else []
