"""What robustness costs in training."""

import seaborn as sns
from matplotlib.figure import Figure
from matplotlib.ticker import ScalarFormatter

from regbench.figures import colours, markers, task
from regbench.rows import Rows, over_seeds, results

__all__ = ["robustness_against_cost"]


def robustness_against_cost(rows: Rows) -> Figure:
    """Return robust accuracy under the last attack of the config against passes per image.

    Points are means over seeds, bars one standard deviation.
    """
    means = over_seeds(results(rows))
    last = means["attack"].cat.categories[-1]
    means = means[means["attack"] == last]
    means = means.assign(task=task(means))
    methods = means["method"].cat.categories
    tint, shape = colours(methods), markers(methods)
    grid = sns.FacetGrid(means, col="task", height=3.4, aspect=1.4, sharey=False)
    for name, axes in grid.axes_dict.items():
        for row in means[means["task"] == name].itertuples():
            axes.errorbar(
                row.cost, 100 * row.mean, yerr=100 * row.sd, fmt=shape[row.method],
                color=tint[row.method], capsize=2, markersize=7, label=row.method,
            )  # fmt: skip
        axes.set(xscale="log")
        axes.xaxis.set_major_formatter(ScalarFormatter())
        axes.xaxis.set_minor_formatter("")
        axes.set_xticks([1, 2, 3, 5, 10, 20, 40])
        axes.set_xlim(0.8, 1.3 * means["cost"].max())
    grid.set_titles("{col_name}")
    label = means["label"].iloc[0]
    grid.set_axis_labels(
        "forward+backward passes per image and step", f"accuracy under {label} (%)"
    )
    handles, names = axes.get_legend_handles_labels()
    grid.add_legend(dict(zip(names, handles, strict=True)))
    figure: Figure = grid.figure
    return figure
