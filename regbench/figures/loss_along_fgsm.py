"""Does the loss rise in the direction in which FGSM looks for it? A dip before ε is masking."""

from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from regbench.analysis.rows import Rows
from regbench.figures import (
    LOG,
    labelled,
    legend,
    nothing_to_show,
    over_radii,
    plain_decades,
    side_by_side,
    styles,
    task,
)

__all__ = ["loss_along_fgsm"]

NOTHING = "No diagnostics were taken of this experiment (config: `diagnostics:`)."


def loss_along_fgsm(rows: Rows) -> Figure:
    """Return one panel per data set and network: mean loss against the radius along FGSM's step.

    A curve for each seed; the line marks ε, within which a robust network's curve rises.
    """
    table = rows.diagnostics[rows.diagnostics["quantity"] == "loss_along_fgsm"]
    table = table.sort_values("along")
    if table.empty:
        return nothing_to_show(NOTHING)
    panels = list(table.assign(task=task(table)).groupby("task", sort=False))
    figure, row = side_by_side(len(panels))
    for axes, (name, part) in zip(row, panels, strict=True):
        _draw(axes, part, styles(table))
        axes.set_title(str(name))
        over_radii(axes, part["along"].unique(), "radius along FGSM's direction")
    row[0].set_ylabel(f"mean cross entropy (nats, {LOG})")
    legend(figure, *labelled(row))
    return figure


def _draw(axes: Axes, part: pd.DataFrame, drawn: dict[str, dict[str, Any]]) -> None:
    for method, style in drawn.items():
        # not their mean: it rises where a curve that falls meets one that rises more
        for _, curve in part[part["method"] == method].groupby("seed"):
            axes.plot(curve["along"], curve["value"], markersize=4.5, **style)
    epsilon = part["along"].max() / 2
    axes.axvline(epsilon, color="0.4", linestyle=":", zorder=0)
    axes.annotate(
        "ε", (epsilon, 1), xycoords=("data", "axes fraction"), xytext=(3, -10),
        textcoords="offset points", color="0.3",
    )  # fmt: skip
    axes.set_yscale("log")
    plain_decades(axes.yaxis)
