"""Doubts: which rules of a sound evaluation are broken, and by which numbers."""

from typing import Any

import pandas as pd

from regbench.analysis.doubts import RULES, silent
from regbench.analysis.rows import Rows
from regbench.analysis.soundness import LEVEL
from regbench.report.sheets import RUN_AND_ATTACK, Sheet

TITLE = "Doubts"

DOUBTED = f"""\
Each run's verdicts were held against {len(RULES)} rules that a sound evaluation keeps
(`regbench/analysis/doubts.py`); comparisons are tested on one side at the level {LEVEL:g}, shared
by those of one attack. Where there is nothing to compare, a rule is silent. A broken rule proves no
mistake; it is a reason to look before the number is quoted."""


def section(doubts: pd.DataFrame, tidy: pd.DataFrame, rows: Rows) -> str:
    """Return each broken rule with the numbers that break it, or that there are none.

    Args:
        doubts: of `regbench.analysis.doubts.doubts`.
        tidy: of `regbench.analysis.rows.results`.
        rows: the experiment's.
    """
    labels = _labels(tidy)
    parts = []
    for rule in RULES:
        lines = [
            f"* {row.dataset}, {row.model}, {row.method}, seed {row.seed},"
            f" {labels[row.dataset, row.attack]}: {row.told}"
            for row in doubts[doubts["rule"] == rule.name].itertuples()
        ]
        if lines:
            told = f"**{rule.name}.** What should hold: {rule.definition} ({rule.source})."
            parts.append("\n".join([told, "", *lines]))
    return "\n\n".join([DOUBTED, *_unheard(rows), *(parts or ["None."])])


def sheet(doubts: pd.DataFrame, tidy: pd.DataFrame, rows: Rows) -> Sheet:
    """Return the same as a table of the page."""
    labels = _labels(tidy)
    holds = {rule.name: f"{rule.definition} ({rule.source})" for rule in RULES}
    keys = zip(doubts["dataset"], doubts["attack"], strict=True)
    frame = doubts.assign(
        attack=[labels[key] for key in keys], **{"what should hold": doubts["rule"].map(holds)}
    )
    columns = [*RUN_AND_ATTACK, "rule", "what should hold", "told"]
    return Sheet.of(TITLE, [DOUBTED, *_unheard(rows)], frame[columns])


def _labels(tidy: pd.DataFrame) -> dict[Any, str]:
    """What an attack on a data set is called."""
    labels: dict[Any, str] = tidy.set_index(["dataset", "attack"])["label"].to_dict()
    return labels


def _unheard(rows: Rows) -> list[str]:
    """Return which rules had nothing to compare, if there are such."""
    names = "; ".join(rule.name for rule in silent(rows))
    return [f"Nothing to compare for: {names}."] if names else []
