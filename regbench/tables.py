"""Stage 5a: rows -> results, accuracy, published, doubts (.csv; .md, .tex) and summary.md."""

import argparse
from pathlib import Path

import pandas as pd

from regbench.doubts import NONE, doubts, flags
from regbench.errors import UserError, did_you_mean, program
from regbench.published import NOTHING, compare
from regbench.published import load as load_published
from regbench.rows import CELL, load, over_seeds, results, unswept
from regbench.summary import MARK, markdown, summary

Gap = tuple[str, str]

TEX = str.maketrans(
    {
        **{character: "\\" + character for character in "_%&#${}"},
        "\\": r"\textbackslash{}", "^": r"\^{}", "~": r"\~{}",
        "±": r"$\pm$", "−": "$-$", MARK: r"$^\dagger$",
    }
)  # fmt: skip


def accuracy(
    means: pd.DataFrame, gap: Gap | None = None, doubts: pd.DataFrame = NONE
) -> dict[str, pd.DataFrame]:
    """Return, for each data set, one row per method and one column per attack: `mean ± sd`, in %.

    A number that is in doubt with any seed is marked by a dagger. The points of a sweep are left to
    the figures.

    Args:
        means: of `over_seeds`.
        gap: two attacks; the mean accuracy under the first minus that under the second is a column.
        doubts: of `regbench.doubts.doubts`.

    Raises:
        UserError: `gap` names an attack that there is not.
    """
    return {
        str(dataset): _of_one_data_set(part, gap, doubts)
        for dataset, part in unswept(means).groupby("dataset", observed=True)
    }


def _of_one_data_set(means: pd.DataFrame, gap: Gap | None, doubts: pd.DataFrame) -> pd.DataFrame:
    means = means.assign(label=labels(means))
    told = zip(means.iterrows(), flags(means, doubts), strict=True)
    cells = means.assign(cell=[cell(row) + MARK * bool(flag) for (_, row), flag in told])
    attacks = means.sort_values("attack")["label"].unique()
    table = cells.pivot(index=CELL, columns="label", values="cell")[attacks].fillna("–")
    if gap is not None:
        table = table.join(_gap(means, gap))
    whole = means.groupby(CELL, observed=True)
    table["passes"] = whole["cost"].first().map("{:.2f}".format)
    table["train (s)"] = whole["train_seconds"].first().map("{:.0f}".format)
    table["seeds"] = whole[["seeds", "broken"]].max().apply(_seeds, axis=1)
    return table.reset_index().drop(columns="regularizer").rename_axis(columns=None)


def labels(means: pd.DataFrame) -> pd.Series:
    """Return the labels, those of attacks that saw fewer images than others with their number.

    Args:
        means: of `over_seeds`, of one data set and without the points of sweeps.
    """
    count = means.groupby("attack", observed=True)["n"].transform("max")
    fewer = (count > 0) & (count < count.max())
    counted = means["label"] + " (n = " + count.astype(str) + ")"
    return means["label"].where(~fewer, counted)


def _seeds(row: pd.Series) -> str:
    broken = f" ({row['broken']} failed)" if row["broken"] else ""
    return f"{row['seeds']}{broken}"


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


def latex(table: pd.DataFrame) -> str:
    """Return the accuracy table as a tabular for booktabs."""
    text = table.astype(str).map(_tex).rename(columns=_tex)
    return text.style.hide(axis="index").to_latex(hrules=True)


def _tex(text: str) -> str:
    return text.translate(TEX)


def _gap(means: pd.DataFrame, gap: Gap) -> pd.Series:
    labels = means.drop_duplicates("attack").set_index("attack")["label"]
    for name in gap:
        if name not in labels.index:
            raise UserError(f"--gap: no attack '{name}' here{did_you_mean(name, labels.index)}")
    wide = means.pivot(index=CELL, columns="attack", values="mean")
    difference = (100 * (wide[gap[0]] - wide[gap[1]])).map("{:.1f}".format, na_action="ignore")
    difference = difference.astype(object).fillna("–")
    return difference.rename(f"{labels[gap[0]]} − {labels[gap[1]]}")


def main() -> None:
    """Read the command line and write the tables beside the rows."""
    parser = argparse.ArgumentParser(prog="python -m regbench.tables", description=__doc__)
    parser.add_argument(
        "folder", type=Path, help="the report's folder, with regbench.collect's rows"
    )
    parser.add_argument(
        "--gap", nargs=2, metavar="ATTACK", help="add the accuracy under the first minus the second"
    )
    parser.add_argument(
        "--published", type=Path, help="published numbers to stand beside, a YAML file"
    )
    arguments = parser.parse_args()
    folder, rows = arguments.folder, load(arguments.folder)
    broken = doubts(rows)
    tidy = results(rows)
    tidy = tidy.assign(flags=flags(tidy, broken))
    means = over_seeds(tidy)
    white_box, transferred = means[means["source"].isna()], means[means["source"].notna()]
    tables = [
        *accuracy(white_box, arguments.gap, broken).values(),
        *accuracy(transferred, doubts=broken).values(),
    ]
    every = accuracy(means, arguments.gap, broken).values()
    known = load_published(arguments.published) if arguments.published else NOTHING
    beside = compare(known, means)
    tidy.to_csv(folder / "results.csv", index=False)
    pd.concat(every).to_csv(folder / "accuracy.csv", index=False)
    (folder / "accuracy.md").write_text(markdown(tables) + "\n", encoding="utf-8")
    (folder / "accuracy.tex").write_text("\n".join(map(latex, tables)), encoding="utf-8")
    beside.to_csv(folder / "published.csv", index=False)
    (folder / "published.md").write_text(markdown([beside]) + "\n", encoding="utf-8")
    broken.to_csv(folder / "doubts.csv", index=False)
    page = summary(rows, tidy, tables, beside, broken)
    (folder / "summary.md").write_text(page, encoding="utf-8")


if __name__ == "__main__":
    program(main)
