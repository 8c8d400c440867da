"""How much of the accuracy each attack leaves."""

import seaborn as sns
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from regbench.analysis.rows import Rows, labels, results, trained, unswept
from regbench.figures import colours, legend, nothing_to_show, shown, task

__all__ = ["accuracy_per_attack"]

NOTHING = "No network was trained."

SEED = Line2D([], [], color="black", marker="o", markersize=2.5, linestyle="")

ROOM = 80
"""Letters that stand side by side below a panel, if every label is as long as the longest."""


def accuracy_per_attack(rows: Rows) -> Figure:
    """Return accuracy by attack and method.

    Bars are means over seeds, dots the seeds.
    """
    table = unswept(results(rows)).sort_values("attack")
    table = table[trained(table)]
    if table.empty:
        return nothing_to_show(NOTHING)
    table["accuracy (%)"] = 100 * table["accuracy"]
    table["task"] = task(table)
    methods, palette = shown(table), colours(table["method"].cat.categories)
    tasks = table["task"].unique()
    attacks = table.groupby("task")["label"].nunique().max()
    size = (max(7, 2.5 + 0.8 * attacks), 3 * len(tasks))
    figure, panels = plt.subplots(len(tasks), figsize=size, squeeze=False, layout="constrained")
    for name, axes in zip(tasks, panels.flat, strict=True):
        part = table[table["task"] == name]
        part = part.assign(label=labels(part).astype(str))
        common = {
            "data": part.astype({"method": str}),
            "x": "label", "y": "accuracy (%)", "hue": "method", "hue_order": methods, "ax": axes,
        }  # fmt: skip
        sns.barplot(**common, errorbar=None, saturation=1, palette=palette)
        handles, names = axes.get_legend_handles_labels()
        black = dict.fromkeys(methods, "black")
        sns.stripplot(**common, dodge=True, palette=black, size=2.5, jitter=False, legend=False)
        axes.set(title=name, xlabel="", ylim=(0, 100))
        if attacks * max(map(len, part["label"])) > ROOM:
            plt.setp(axes.get_xticklabels(), rotation=25, ha="right", rotation_mode="anchor")
        axes.get_legend().remove()
    legend(figure, [*handles, SEED], [*names, "each seed"])
    return figure
