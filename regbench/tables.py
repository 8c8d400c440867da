"""Stage 5a: rows -> tables (.csv, .md, .tex) and the first page of the report, summary.md."""

import argparse
from pathlib import Path

import pandas as pd

from regbench.analysis.beside import compare
from regbench.analysis.comparisons import (
    MARGIN,
    REFERENCES,
    bounded,
    comparisons,
    intervals,
    judged,
    leaders,
    references_of,
)
from regbench.analysis.costs import costs
from regbench.analysis.doubts import NONE, doubts, flags
from regbench.analysis.gaps import NONE as NO_GAPS
from regbench.analysis.gaps import Gaps, gaps
from regbench.analysis.masking import NEEDED, panel
from regbench.analysis.masking import NONE as NOT_JUDGED
from regbench.analysis.published import load as load_published
from regbench.analysis.rows import CELL, UNTRAINED, labels, load, over_seeds, results, unswept
from regbench.analysis.unfinished import unfinished
from regbench.errors import program
from regbench.experiment.manifest import Manifest
from regbench.report.latex import latex
from regbench.report.summary import MARK, counted, markdown, summary

DIGITS = "%.10g"
"""Of numbers in .csv: as many as are the same on every machine."""


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
    table = means.pivot(index=CELL, columns="column", values="cell")[attacks].fillna("–")
    if gap is not None:
        table = table.join(gap).fillna({gap.name: "–"})
    if told:
        table["verdict"] = [told[key] for key in table.index]
    # of the attack that the most seeds were judged by
    most = means.sort_values("seeds", ascending=False, kind="stable")
    whole = most.groupby(CELL, observed=True)
    table["passes"] = whole["cost"].first().map("{:.2f}".format)
    seconds = whole["train_seconds"].first().map("{:.0f}".format, na_action="ignore")
    table["train (s)"] = seconds.astype(object).fillna("–")
    counts = ["seeds", "broken", "untrained"]
    table["seeds"] = whole[counts].max().apply(_seeds, axis=1)
    return table.reset_index().drop(columns="regularizer").rename_axis(columns=None)


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


def percent(mean: float, sd: float) -> str:
    """Return `51.8 ± 0.9`, both in percent; without a spread, the mean alone."""
    return f"{100 * mean:.1f}" if pd.isna(sd) else f"{100 * mean:.1f} ± {100 * sd:.1f}"


def main() -> None:
    """Read the command line and write the tables beside the rows."""
    arguments = _parser().parse_args()
    folder, rows = arguments.folder, load(arguments.folder)
    gap = gaps(rows, arguments.gap)
    references = references_of(rows, arguments.references)
    broken, masked = doubts(rows), panel(rows)
    tidy = results(rows)
    tidy = tidy.assign(flags=flags(tidy, broken))
    trained = judged(rows)
    known = intervals(trained)
    means = bounded(over_seeds(tidy), known)
    white_box, transferred = means[means["source"].isna()], means[means["source"].notna()]
    printed = [
        (table, cells(part, broken)[dataset])
        for part, pair in ((white_box, gap), (transferred, NO_GAPS))
        for dataset, table in accuracy(part, pair, broken, masked).items()
    ]
    tables = [table for table, _ in printed]
    margin = arguments.margin / 100
    compared = comparisons(trained, references, margin)
    beside = compare(load_published(arguments.published), means, margin)
    lacking = unfinished(rows, Manifest.read(arguments.manifest)) if arguments.manifest else ""
    stored = {
        "results": tidy,
        "accuracy": pd.concat(accuracy(means, gap, broken, masked).values()),
        "intervals": known,
        "comparisons": compared,
        "published": beside,
        "doubts": broken,
        "masking": masked,
        "costs": costs(rows),
    }
    bold = leaders(trained)
    texts = {
        "accuracy.md": markdown(tables) + "\n",
        "accuracy.tex": "\n".join(latex(table, part, bold) for table, part in printed),
        "published.md": markdown([beside.drop(columns="margin")]) + "\n",
        "summary.md": summary(rows, tidy, tables, beside, broken, compared, masked, lacking),
    }
    for name, table in stored.items():
        table.to_csv(folder / f"{name}.csv", index=False, float_format=DIGITS)
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m regbench.tables", description=__doc__)
    parser.add_argument(
        "folder", type=Path, help="the report's folder, with regbench.collect's rows"
    )
    options(parser)
    return parser


def options(parser: argparse.ArgumentParser) -> None:
    """Add what tables and page are told besides the rows."""
    parser.add_argument(
        "--gap", nargs=2, metavar="ATTACK", help="add the accuracy under the first minus the second"
    )
    parser.add_argument(
        "--published", type=Path, nargs="+", default=[], metavar="FILE",
        help="published numbers to stand beside, YAML files",
    )  # fmt: skip
    parser.add_argument(
        "--references", nargs="*", metavar="REGULARIZER",
        help=f"compare each method with these; else with {' and '.join(REFERENCES)}, if there",
    )  # fmt: skip
    parser.add_argument(
        "--margin", type=float, default=100 * MARGIN, metavar="POINTS",
        help="percentage points within which two methods are on par, or published numbers agree",
    )  # fmt: skip
    parser.add_argument(
        "--manifest", help="the experiment's manifest, to tell what is missing and how it is made"
    )


if __name__ == "__main__":
    program(main)
