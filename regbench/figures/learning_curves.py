"""What training saw after each epoch."""

import seaborn as sns
from matplotlib.figure import Figure

from regbench.figures import colours, task
from regbench.rows import Rows

__all__ = ["learning_curves"]

PANELS = {
    "validation_clean": "clean accuracy, validation (%)",
    "validation_ifgsm": "I-FGSM accuracy, validation (%)",
    "loss": "training loss",
    "penalty": "of that, the regularizer's term",
}


def learning_curves(rows: Rows) -> Figure:
    """Return validation accuracy and losses against the epoch: mean and range over seeds."""
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
        kind="line", errorbar=("pi", 100), palette=colours(methods), hue_order=methods,
        height=2.5, aspect=1.3, facet_kws={"sharey": False},
    )  # fmt: skip
    grid.set_titles("{row_name}\n{col_name}" if several else "{col_name}")
    grid.set_axis_labels("epoch", "")
    grid.legend.set_title(None)
    figure: Figure = grid.figure
    return figure
