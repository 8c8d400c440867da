"""What training a method costs: passes counted, seconds and memory measured."""

import pandas as pd

from regbench.analysis.rows import CELL, Rows, passes

REFERENCE = "pgd_at"
"""The rule that others are measured by: multi-step training, whose cost the paper saves."""

PASSES = ["forward_passes", "backward_passes"]
COLUMNS = [
    *CELL, *PASSES, "passes", "relative", "seconds_per_epoch", "peak_memory", "peak_gpu_memory"
]  # fmt: skip


def costs(rows: Rows) -> pd.DataFrame:
    """Return one row per method, network and data set, `COLUMNS`.

    Passes are per image and training step, `passes` as `regbench.analysis.rows.passes` has them;
    `relative` is that over PGD-AT's on the same data and network, missing without one. Seconds are
    the median over epochs and seeds, of training steps alone; bytes are the most of any seed.
    Networks that were trained elsewhere are left out.

    Args:
        rows: the experiment's.
    """
    runs = rows.runs.assign(passes=passes(rows.runs)).dropna(subset="passes")
    grouped = runs.groupby(CELL, observed=True)
    table = grouped.agg(
        rule=("rule", "first"),
        **{name: (name, "mean") for name in PASSES},
        passes=("passes", "mean"),
        **{name: (name, "max") for name in ("peak_memory", "peak_gpu_memory")},
    )
    curves = rows.curves.groupby(CELL, observed=True)
    table["seconds_per_epoch"] = curves["seconds"].median()
    table = table.reset_index()
    return table.assign(relative=_relative(table))[COLUMNS]


def _relative(table: pd.DataFrame) -> pd.Series:
    """Passes over those of PGD-AT; where it is there with several settings, of the dearest."""
    of_reference = table["passes"].where(table["rule"] == REFERENCE)
    keys = [table["dataset"].astype(str), table["model"].astype(str)]
    return table["passes"] / of_reference.groupby(keys).transform("max")
