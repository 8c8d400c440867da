"""What robustness costs in training, beside multi-step training."""

from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter, ScalarFormatter

from regbench.analysis.comparisons import strongest
from regbench.analysis.costs import REFERENCE
from regbench.analysis.rows import Rows, over_seeds, results, unswept
from regbench.figures import (
    LOG,
    colours,
    labelled,
    legend,
    markers,
    nothing_to_show,
    reach,
    side_by_side,
    task,
)

__all__ = ["robustness_against_cost"]

TICKS = [1, 2, 3, 4, 6, 8, 12, 16, 24, 40]
LINE: dict[str, Any] = {"linestyle": "--", "linewidth": 1, "zorder": 1}


def robustness_against_cost(rows: Rows) -> Figure:
    """Return robust accuracy under each data set's strongest attack against passes per image.

    That is AutoAttack, or without it the last white-box attack of the data set's ε; in a report
    that is not finished, of those that the most methods were judged by. Points are means over
    seeds, bars their range. Dashed lines go through PGD-AT: what lies to the left is cheaper, what
    lies on the line or above is on par. What networks cost that were trained elsewhere is not
    known.
    """
    means = unswept(over_seeds(results(rows)))
    under = means["dataset"].astype(object).map(strongest(rows))
    means = means[(means["attack"].astype(object) == under) & means["cost"].notna()]
    if means.empty:
        return nothing_to_show("No white-box attack judged a network whose cost is known.")
    panels = list(means.assign(task=task(means)).groupby("task", sort=False))
    figure, row = side_by_side(len(panels))
    for axes, (name, part) in zip(row, panels, strict=True):
        _draw(axes, part)
        told = f"{part['label'].iloc[0]}, n = {part['n'].max()}"
        axes.set_title(f"{name}\n{told}", fontsize="medium")
        axes.set(xlim=(0.8, 1.3 * means["cost"].max()), ylim=(-3, 103))
    row[0].set_ylabel("accuracy under attack (%)")
    figure.supxlabel(
        f"passes per image and step (forward and backward: 1; {LOG})", fontsize="medium"
    )
    legend(figure, *labelled(row))
    return figure


def _draw(axes: Axes, part: pd.DataFrame) -> None:
    methods = part["method"].cat.categories
    tint, shape = colours(methods), markers(methods)
    part = part.assign(**100 * part[["mean", "lowest", "highest"]])
    for name, one in part.groupby("method", observed=True):
        method, cost, robust = str(name), one["cost"], one["mean"]
        if one["rule"].iloc[0] == REFERENCE:
            axes.axhline(robust.iloc[0], color=tint[method], **LINE)
            axes.axvline(cost.iloc[0], color=tint[method], **LINE)
        axes.errorbar(
            cost, robust, yerr=reach(one), fmt=shape[method], color=tint[method],
            capsize=2, markersize=7, label=method,
        )  # fmt: skip
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(ScalarFormatter())
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xticks(TICKS)
