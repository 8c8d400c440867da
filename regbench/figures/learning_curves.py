"""What training saw after each epoch."""

import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from regbench.analysis.overfitting import onsets
from regbench.analysis.rows import Rows
from regbench.figures import colours, nothing_to_show, shown, task, whole_epochs

__all__ = ["learning_curves"]

PANELS = {
    "validation_clean": "clean accuracy, validation (%)",
    "validation_ifgsm": "I-FGSM accuracy, validation (%)",
    "loss": "training loss",
    "penalty": "of that, the regularizer's term",
}


def learning_curves(rows: Rows) -> Figure:
    """Return validation accuracy and losses against the epoch: mean and range over seeds.

    A cross on the I-FGSM accuracy marks where a run begins to overfit catastrophically.
    """
    if rows.curves.empty:
        return nothing_to_show("No epoch of a training was finished here.")
    curves = rows.curves.assign(
        task=task(rows.curves),
        validation_clean=100 * rows.curves["validation_clean"],
        validation_ifgsm=100 * rows.curves["validation_ifgsm"],
    )
    long = curves.melt(["task", "method", "seed", "epoch"], list(PANELS), "quantity")
    long["quantity"] = long["quantity"].map(PANELS)
    methods = rows.curves["method"].cat.categories
    several = long["task"].nunique() > 1
    grid = sns.relplot(
        long, x="epoch", y="value", hue="method", col="quantity",
        **({"row": "task"} if several else {"col_wrap": 2}),
        kind="line", errorbar=("pi", 100), palette=colours(methods), hue_order=shown(curves),
        height=2.5, aspect=1.3, facet_kws={"sharey": False},
    )  # fmt: skip
    grid.set_titles("{row_name}\n{col_name}" if several else "{col_name}")
    grid.set_axis_labels("epoch", "")
    grid.legend.set_title(None)
    for axes in grid.axes.flat:
        whole_epochs(axes)
    _mark(grid, onsets(rows), curves, several)
    figure: Figure = grid.figure
    return figure


def _mark(grid: sns.FacetGrid, found: pd.DataFrame, curves: pd.DataFrame, several: bool) -> None:
    """Put a cross on the I-FGSM accuracy of each run that overfits, where it begins to."""
    keys = ["task", "method", "seed", "epoch"]
    found = found.dropna(subset="onset").rename(columns={"onset": "epoch"})
    at = found.assign(task=task(found)).merge(curves.astype({"method": str}), on=keys)
    told = PANELS["validation_ifgsm"]
    for name, runs in at.groupby("task"):
        axes = grid.axes_dict[(name, told) if several else told]
        axes.plot(
            runs["epoch"], runs["validation_ifgsm"], linestyle="", marker="X", markersize=8,
            color="black", markeredgecolor="white", label="catastrophic overfitting", zorder=4,
        )  # fmt: skip
        axes.legend(fontsize="small", loc="best")
