"""What training saw after each epoch."""

import seaborn as sns
from matplotlib.figure import Figure

from regbench.figures import colours
from regbench.rows import Rows

__all__ = ["learning_curves"]

PANELS = {
    "validation_clean": "clean accuracy (validation)",
    "validation_ifgsm": "I-FGSM accuracy (validation)",
    "loss": "training loss",
    "penalty": "of that, the regularizer's term",
}


def learning_curves(rows: Rows) -> Figure:
    """Return validation accuracy and losses against the epoch: mean and range over seeds."""
    curves = rows.curves.assign(
        task=rows.curves["dataset"].astype(str) + ", " + rows.curves["model"].astype(str)
    )
    long = curves.melt(["task", "method", "seed", "epoch"], list(PANELS), "quantity")
    long["quantity"] = long["quantity"].map(PANELS)
    methods = rows.curves["method"].cat.categories
    grid = sns.relplot(
        long, x="epoch", y="value", hue="method", row="task", col="quantity",
        kind="line", errorbar=("pi", 100), palette=colours(methods), hue_order=methods,
        height=2.6, aspect=1.05, facet_kws={"sharey": False},
    )  # fmt: skip
    several = long["task"].nunique() > 1
    grid.set_titles("{row_name}\n{col_name}" if several else "{col_name}")
    grid.set_axis_labels("epoch", "")
    sns.move_legend(grid, "lower center", bbox_to_anchor=(0.45, 1.0), ncol=len(methods), title=None)
    figure: Figure = grid.figure
    return figure
