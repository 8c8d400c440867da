"""The first page of a report: the table, how to read it, and where its numbers come from."""

import pandas as pd

from regbench.analysis import masking
from regbench.analysis.comparisons import NONE as NOT_COMPARED
from regbench.analysis.costs import costs
from regbench.analysis.doubts import NONE
from regbench.analysis.rows import Rows
from regbench.report import sections


def summary(
    rows: Rows,
    tidy: pd.DataFrame,
    tables: list[pd.DataFrame],
    beside: pd.DataFrame,
    doubts: pd.DataFrame = NONE,
    compared: pd.DataFrame = NOT_COMPARED,
    panel: pd.DataFrame = masking.NONE,
    lacking: str = "",
) -> str:
    """Return the page as Markdown.

    Args:
        rows: the experiment's.
        tidy: of `regbench.analysis.rows.results`.
        tables: of `regbench.report.accuracy`.
        beside: of `regbench.analysis.beside.compare`.
        doubts: of `regbench.analysis.doubts.doubts`.
        compared: of `regbench.analysis.comparisons.comparisons`.
        panel: of `regbench.analysis.masking.panel`.
        lacking: of `regbench.analysis.unfinished.unfinished`.
    """
    parts = {
        sections.differences.TITLE: sections.differences.section(compared, rows),
        sections.verdicts.TITLE: sections.verdicts.section(panel),
        sections.costs.TITLE: sections.costs.section(costs(rows)),
        sections.doubts.TITLE: sections.doubts.section(doubts, tidy, rows),
        sections.published.TITLE: sections.published.section(beside),
        sections.machines.TITLE: sections.machines.section(rows),
        sections.failures.TITLE: sections.failures.section(tidy),
    }
    texts = [
        f"# Robust accuracy on {', '.join(tidy['dataset'].unique())}",
        sections.reading.section(tables, tidy, lacking),
        *(f"## {title}\n\n{text}" for title, text in parts.items()),
    ]
    return "\n\n".join(texts) + "\n"
