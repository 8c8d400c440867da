"""How accuracy falls as an attack grows: over its radius ε, over its steps, over any parameter."""

from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from regbench.analysis.rows import Rows, over_seeds, results
from regbench.experiment.values import written
from regbench.figures import (
    LOG,
    labelled,
    legend,
    nothing_to_show,
    over_radii,
    reach,
    side_by_side,
    styles,
    task,
)

__all__ = ["accuracy_over_sweeps"]

NOTHING = "No swept attack was run (config: `sweep:`)."


def accuracy_over_sweeps(rows: Rows) -> Figure:
    """Return one panel for each attack that is swept: accuracy against the parameter, per method.

    Points are means over seeds, bars their range; the dotted line is the ε that was trained for. An
    attack is honest if its curve falls to 0 as ε grows. Where more steps change nothing it has
    converged, which does not make it the strongest.
    """
    means = over_seeds(results(rows))
    swept = means[means["sweep"].notna()]
    if swept.empty:
        return nothing_to_show(NOTHING)
    panels = list(swept.assign(task=task(swept)).groupby(["task", "family"], sort=False))
    figure, row = side_by_side(len(panels))
    for axes, ((name, family), part) in zip(row, panels, strict=True):
        _draw(axes, part, styles(swept))
        told = f"n = {part['n'].max()}"
        if part["sweep"].iloc[0] == "epsilon":
            runs = rows.runs[rows.runs["dataset"] == part["dataset"].iloc[0]]
            axes.axvline(runs["epsilon"].iloc[0], color="0.4", linestyle=":", zorder=0)
        else:
            told += f", ε = {written(part['epsilon'].iloc[0])}"
        axes.set_title(f"{name}: {family}\n{told}", fontsize="medium")
    legend(figure, *labelled(row))
    return figure


def _draw(axes: Axes, part: pd.DataFrame, drawn: dict[str, dict[str, Any]]) -> None:
    for method, style in drawn.items():
        curve = part[part["method"] == method].sort_values("value")
        curve = curve.assign(**100 * curve[["mean", "lowest", "highest"]])
        axes.errorbar(
            curve["value"], curve["mean"], yerr=reach(curve), markersize=5, capsize=2, **style
        )
    axes.set(ylabel="accuracy (%)", ylim=(-3, 103))
    parameter, values = part["sweep"].iloc[0], sorted(part["value"].unique())
    if parameter == "epsilon":
        over_radii(axes, values, "ε")
    else:
        axes.set(xscale="log", xlabel=f"{parameter} ({LOG})")
        axes.set_xticks(values, [f"{value:g}" for value in values])
        axes.minorticks_off()
