"""Published accuracies beside ours: do they agree, differ, or answer another question?"""

import json
import math
from typing import NamedTuple

import numpy as np
import pandas as pd
from statsmodels.stats.proportion import proportion_confint

from regbench.analysis.published import Entry, Meaning, Published
from regbench.analysis.rows import CELL, elsewhere
from regbench.experiment.values import written

COLUMNS = [
    "dataset", "model", "method", "attack", "published", "images", "ours", "n", "seeds",
    "margin", "verdict", "source",
]  # fmt: skip

PLACES = [
    "dataset", "epsilon", "attack", "place", "accuracy", "images", "method", "model", "source",
]  # fmt: skip

OURS = "this experiment"
"""The source of a number of ours."""

WHOLE = 10_000
"""Images of the test sets that numbers are published for: all, where a source does not say."""


class Interval(NamedTuple):
    """An accuracy, 0 to 1, with the ends of its 95 % interval."""

    value: float
    low: float
    high: float


def compare(published: Published, means: pd.DataFrame, margin: float) -> pd.DataFrame:
    """Return one row per published number that a method of ours stands beside, in percent.

    `verdict`, of the 95 % interval of the difference: `differ`, it leaves out 0; `agree`, it
    includes 0 and lies within ± `margin`; `open`, it is too wide to say. Or `cannot be compared`,
    where no attack of ours has the parameters of the published one. Where several have them, the
    strongest is compared. A source that does not say how many images it judged is taken to have
    judged `WHOLE`.

    Args:
        published: of `regbench.analysis.published.load`.
        means: of `regbench.analysis.rows.over_seeds`, `regbench.analysis.comparisons.bounded`.
        margin: a share.
    """
    rows = [
        _row(entry, name, published.attacks[name], cell, margin)
        for entry in published.entries
        for _, cell in means.groupby(CELL, observed=True)
        if _stands_beside(entry, cell)
        for name in entry.accuracy
    ]
    return pd.DataFrame(rows, columns=COLUMNS)


def verdict(ours: Interval, theirs: Interval, margin: float) -> str:
    """Return what the 95 % interval of a difference says; its ends are by MOVER.

    MOVER recovers them from the two intervals, which need not be symmetric (Zou & Donner 2008).
    """
    apart = ours.value - theirs.value
    low = apart - math.hypot(ours.value - ours.low, theirs.high - theirs.value)
    high = apart + math.hypot(ours.high - ours.value, theirs.value - theirs.low)
    if low > 0 or high < 0:
        return "differ"
    return "agree" if max(-low, high) <= margin else "open"


def places(published: Published, means: pd.DataFrame) -> pd.DataFrame:
    """Return our accuracies ranked among the published ones, under each attack, in percent.

    Ranked together is what shares data set, radius, attack and its parameters; the method and the
    network may be any. Where several attacks of ours are the published one, the strongest counts.
    Equal accuracies share the better place. Without one of ours there is no ranking; a network that
    was trained elsewhere is none of ours.

    Args:
        published: of `regbench.analysis.published.load`.
        means: of `regbench.analysis.rows.over_seeds`.
    """
    models = {(entry.dataset, entry.epsilon) for entry in published.entries}
    rankings = [
        _ranked(published, name, dataset, epsilon, means)
        for dataset, epsilon in sorted(models)
        for name in published.attacks
    ]
    return pd.concat([pd.DataFrame(columns=PLACES), *rankings], ignore_index=True)


def _ranked(
    published: Published, name: str, dataset: str, epsilon: float, means: pd.DataFrame
) -> pd.DataFrame:
    meaning = published.attacks[name]
    of_data = means[means["dataset"] == dataset]
    labels = dict(of_data[["rule", "method"]].astype(str).drop_duplicates("rule").to_numpy())
    strongest = _strongest(meaning, epsilon, of_data[~elsewhere(of_data)])
    ours = [
        (row["mean"], row["n"], row["method"], row["model"], OURS)
        for _, row in strongest.iterrows()
    ]
    theirs = [
        (
            entry.accuracy[name] / 100,
            entry.judged(name) or "–",
            entry.called(labels),
            entry.model,
            _source(entry),
        )
        for entry in published.entries
        if (entry.dataset, entry.epsilon) == (dataset, epsilon) and name in entry.accuracy
    ]
    if not (ours and theirs):
        return pd.DataFrame(columns=PLACES)
    columns = ["accuracy", "images", "method", "model", "source"]
    table = pd.DataFrame([*ours, *theirs], columns=columns)
    place = table["accuracy"].rank(ascending=False, method="min").astype(int)
    table = table.assign(
        dataset=dataset,
        epsilon=written(epsilon),
        attack=meaning.label,
        place=place.astype(str) + f" of {len(table)}",
        accuracy=(100 * table["accuracy"]).map("{:.2f}".format),
        model=table["model"].astype(object).fillna("–"),
    )
    return table.loc[place.sort_values(kind="stable").index, PLACES]


def _stands_beside(entry: Entry, cell: pd.DataFrame) -> bool:
    first = cell.iloc[0]
    same = (first["dataset"], first["rule"]) == (entry.dataset, entry.rule)
    return same and entry.model in {None, first["model"]}


def _row(
    entry: Entry, name: str, meaning: Meaning, cell: pd.DataFrame, margin: float
) -> dict[str, object]:
    first, percent, images = cell.iloc[0], entry.accuracy[name], entry.judged(name)
    told = {
        "dataset": entry.dataset, "model": first["model"], "method": first["method"],
        "attack": meaning.label, "published": f"{percent:g}", "images": images or "–",
        "margin": margin, "source": _source(entry),
    }  # fmt: skip
    ours = _strongest(meaning, entry.epsilon, cell)
    if ours.empty:
        return {**told, "ours": "–", "n": 0, "seeds": 0, "verdict": "cannot be compared"}
    row = ours.iloc[0]
    mine = Interval(row["mean"], row["low"], row["high"])
    return {
        **told,
        "ours": f"{100 * mine.value:.1f} [{100 * mine.low:.1f}, {100 * mine.high:.1f}]",
        "n": row["n"],
        "seeds": row["seeds"],
        "verdict": verdict(mine, _theirs(percent / 100, images or WHOLE), margin),
    }


def _strongest(meaning: Meaning, epsilon: float, rows: pd.DataFrame) -> pd.DataFrame:
    """Return each cell's strongest attack that is the published one."""
    same = np.array([_is(meaning, epsilon, row) for _, row in rows.iterrows()], dtype=bool)
    judged = rows[same & rows["mean"].notna()].sort_values("mean", kind="stable")
    return judged.drop_duplicates(CELL).sort_values(CELL)


def _source(entry: Entry) -> str:
    return entry.source + (f" ({entry.note})" if entry.note else "")


def _is(meaning: Meaning, epsilon: float, row: pd.Series) -> bool:
    """Tell whether an attack of ours is the published one; a swept or transferred one is not."""
    return (
        pd.isna(row["sweep"])
        and pd.isna(row["source"])
        and row["member"] == f"regbench.attacks.{meaning.attack}"
        and (meaning.attack == "clean" or bool(np.isclose(row["epsilon"], epsilon, atol=1e-4)))
        and meaning.told_by(json.loads(row["arguments"]))
    )


def _theirs(share: float, images: int) -> Interval:
    low, high = proportion_confint(share * images, images, method="wilson")
    # at 0 and 1 rounding puts an end beyond the share by 1e-17
    return Interval(share, min(low, share), max(high, share))
