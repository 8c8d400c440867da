"""How numbers and tables are written."""

import pandas as pd

LACKING = "–"
"""Stands where there is no number."""


def percent(mean: float, sd: float) -> str:
    """Return `51.8 ± 0.9`, both in percent; without a spread, the mean alone."""
    return f"{100 * mean:.1f}" if pd.isna(sd) else f"{100 * mean:.1f} ± {100 * sd:.1f}"


def points(share: float) -> str:
    """Return a difference of shares in percentage points, `+10.2`."""
    return LACKING if pd.isna(share) else f"{100 * share:+.1f}".replace("-", "−")


def chance(p: float) -> str:
    """Return a p, `0.042`."""
    if pd.isna(p):
        return LACKING
    return f"{p:.3f}" if p >= 0.001 else "< 0.001"


def short(value: float) -> str:
    """Return a number in three digits, `0.0213`."""
    return LACKING if pd.isna(value) else f"{value:.3g}"


def epoch(number: int | None) -> str:
    """Return an epoch, or that there is none."""
    return LACKING if pd.isna(number) else str(number)


def counted(values: pd.Series) -> str:
    """Return the values of runs, each with its number of runs where they are not all the same."""
    counts = values.astype(object).fillna("not recorded").astype(str).value_counts()
    if len(counts) == 1:
        return str(counts.index[0])
    return ", ".join(f"{value} ({count} runs)" for value, count in counts.items())


def markdown(tables: list[pd.DataFrame]) -> str:
    """Return the tables as Markdown, one below the other."""
    return "\n\n".join(table.to_markdown(index=False, disable_numparse=True) for table in tables)


def items(lines: list[str]) -> str:
    """Return `lines` as a Markdown list."""
    return "\n".join(f"* {line}" for line in lines)
