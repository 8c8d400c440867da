"""The accuracy table: one row per method, one column per attack."""

import pandas as pd

from regbench.analysis.doubts import NONE, flags
from regbench.analysis.gaps import NONE as NO_GAPS
from regbench.analysis.gaps import Gaps
from regbench.analysis.masking import NEEDED
from regbench.analysis.masking import NONE as NOT_JUDGED
from regbench.analysis.rows import CELL, UNTRAINED, labels, unswept
from regbench.report.wording import LACKING, counted, percent

MARK = "†"
"""Stands behind a number that is in doubt."""


def accuracy(
    means: pd.DataFrame,
    gaps: Gaps = NO_GAPS,
    doubts: pd.DataFrame = NONE,
    panel: pd.DataFrame = NOT_JUDGED,
) -> dict[str, pd.DataFrame]:
    """Return, for each data set, one row per method and one column per attack: `mean ± sd`, in %.

    A number that is in doubt with any seed is marked by a dagger; one of fewer seeds than others of
    its row says so. The points of a sweep are left to
    the figures. Where any run was examined, the methods' verdicts are a column.

    Args:
        means: of `over_seeds`.
        gaps: of `regbench.analysis.gaps.gaps`; a column of each data set that has one.
        doubts: of `regbench.analysis.doubts.doubts`.
        panel: of `regbench.analysis.masking.panel`.
    """
    told = verdicts(panel)
    return {
        dataset: _of_one_data_set(part, gaps.get(dataset), told)
        for dataset, part in cells(means, doubts).items()
    }


def verdicts(panel: pd.DataFrame) -> dict[tuple[object, ...], str]:
    """Return the verdicts on each cell's runs, by `CELL`; nothing if no run was examined.

    Without diagnostics the best that a run can be called is unknown.
    """
    if panel[[*NEEDED]].isna().any(axis=1).all():
        return {}
    runs = panel.groupby(CELL, sort=False, observed=True)["verdict"]
    return {key: counted(found) for key, found in runs}


def cells(means: pd.DataFrame, doubts: pd.DataFrame = NONE) -> dict[str, pd.DataFrame]:
    """Return, for each data set, what stands where in its table: `cell` as text, by `column`."""
    return {
        str(dataset): part.assign(column=labels(part), cell=_texts(part, doubts))
        for dataset, part in unswept(means).groupby("dataset", observed=True)
    }


def _texts(means: pd.DataFrame, doubts: pd.DataFrame) -> list[str]:
    judged = (means["seeds"] + means["failed"]).rename("judged")
    trained = judged.groupby([means[name] for name in CELL], observed=True).transform("max")
    told = zip(means.iterrows(), judged, trained, flags(means, doubts), strict=True)
    return [
        cell(row) + _fewer(some, every) + MARK * bool(flag) for (_, row), some, every, flag in told
    ]


def _fewer(judged: int, trained: int) -> str:
    return "" if judged == trained else f" ({judged} of {trained} seeds)"


def _of_one_data_set(
    means: pd.DataFrame, gap: pd.Series | None, told: dict[tuple[object, ...], str]
) -> pd.DataFrame:
    attacks = means.sort_values("attack")["column"].unique()
    table = means.pivot(index=CELL, columns="column", values="cell")[attacks].fillna(LACKING)
    if gap is not None:
        table = table.join(gap).fillna({gap.name: LACKING})
    if told:
        table["verdict"] = [told[key] for key in table.index]
    # of the attack that the most seeds were judged by
    most = means.sort_values("seeds", ascending=False, kind="stable")
    whole = most.groupby(CELL, observed=True)
    table["passes"] = _written(whole["cost"].first(), "{:.2f}")
    table["train (s)"] = _written(whole["train_seconds"].first(), "{:.0f}")
    counts = ["seeds", "broken", "untrained"]
    table["seeds"] = whole[counts].max().apply(_seeds, axis=1)
    return table.reset_index().drop(columns="regularizer").rename_axis(columns=None)


def _written(numbers: pd.Series, form: str) -> pd.Series:
    return numbers.map(form.format, na_action="ignore").astype(object).fillna(LACKING)


def _seeds(row: pd.Series) -> str:
    failed = {"failed": row["broken"] - row["untrained"], UNTRAINED: row["untrained"]}
    told = ", ".join(f"{count} {how}" for how, count in failed.items() if count)
    return f"{row['seeds']} ({told})" if told else str(row["seeds"])


def cell(row: pd.Series) -> str:
    """Return `51.8 ± 0.9`, and of how many seeds there is none and why."""
    if row["failed"] == 0:
        return percent(row["mean"], row["sd"])
    if row["seeds"] == 0:
        return str(row["failure"])
    return f"{percent(row['mean'], row['sd'])} ({row['failed']} {row['failure']})"
