"""How much of the accuracy each attack leaves."""

import seaborn as sns
from matplotlib.figure import Figure

from regbench.figures import colours
from regbench.rows import Rows, results

__all__ = ["accuracy_per_attack"]


def accuracy_per_attack(rows: Rows) -> Figure:
    """Return accuracy by attack and method: bars are means over seeds, dots the seeds."""
    table = results(rows)
    table["accuracy (%)"] = 100 * table["accuracy"]
    table["task"] = table["dataset"].astype(str) + ", " + table["model"].astype(str)
    labels = table.sort_values("attack")["label"].unique()
    methods = table["method"].cat.categories
    common = {
        "x": "label",
        "y": "accuracy (%)",
        "hue": "method",
        "order": labels,
        "hue_order": methods,
    }
    grid = sns.catplot(
        table, **common, col="task", col_wrap=1, kind="bar", errorbar=None,
        palette=colours(methods), height=3.2, aspect=2.4, legend_out=False,
    )  # fmt: skip
    grid.map_dataframe(
        sns.stripplot, **common, dodge=True, palette=dict.fromkeys(methods, "black"),
        size=2.5, jitter=False, legend=False,
    )  # fmt: skip
    grid.set_titles("{col_name}")
    grid.set_axis_labels("", "accuracy (%)")
    grid.set(ylim=(0, 100))
    sns.move_legend(grid, "lower center", bbox_to_anchor=(0.5, 1.0), ncol=len(methods), title=None)
    figure: Figure = grid.figure
    return figure
