"""How much of the accuracy each attack leaves."""

import seaborn as sns
from matplotlib.figure import Figure

from regbench.figures import colours, task
from regbench.rows import Rows, results

__all__ = ["accuracy_per_attack"]


def accuracy_per_attack(rows: Rows) -> Figure:
    """Return accuracy by attack and method: bars are means over seeds, dots the seeds."""
    table = results(rows)
    table["accuracy (%)"] = 100 * table["accuracy"]
    table["task"] = task(table)
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
        table, **common, col="task", col_wrap=1, kind="bar", errorbar=None, saturation=1,
        palette=colours(methods), height=3.2, aspect=2.2,
    )  # fmt: skip
    grid.map_dataframe(
        sns.stripplot, **common, dodge=True, palette=dict.fromkeys(methods, "black"),
        size=2.5, jitter=False, legend=False,
    )  # fmt: skip
    grid.set_titles("{col_name}")
    grid.set_axis_labels("", "accuracy (%)")
    grid.set(ylim=(0, 100))
    grid.legend.set_title(None)
    figure: Figure = grid.figure
    return figure
