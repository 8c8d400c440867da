"""What robustness costs in training."""

from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter, ScalarFormatter

from regbench.figures import colours, legend, markers, task
from regbench.rows import Rows, over_seeds, results, unswept

__all__ = ["robustness_against_cost"]


def robustness_against_cost(rows: Rows) -> Figure:
    """Return robust accuracy under each data set's last white-box attack against passes per image.

    Points are means over seeds, bars one standard deviation.
    """
    means = unswept(over_seeds(results(rows)))
    means = means[means["source"].isna()]
    means = means.assign(task=task(means))
    methods = means["method"].cat.categories
    tint, shape = colours(methods), markers(methods)
    names = means["task"].unique()
    figure, panels = plt.subplots(
        1, len(names), figsize=(5 * len(names), 3.4), squeeze=False, layout="constrained"
    )
    for name, axes in zip(names, panels.flat, strict=True):
        part = means[means["task"] == name]
        part = part[part["attack"] == part["attack"].max()]
        for row in part.itertuples():
            axes.errorbar(
                row.cost, 100 * row.mean, yerr=100 * row.sd, fmt=shape[row.method],
                color=tint[row.method], capsize=2, markersize=7, label=row.method,
            )  # fmt: skip
        axes.set(xscale="log", title=name, xlabel="forward+backward passes per image and step")
        axes.set_ylabel(f"accuracy under {part['label'].iloc[0]} (%)")
        axes.xaxis.set_major_formatter(ScalarFormatter())
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.set_xticks([1, 2, 3, 5, 10, 20, 40])
        axes.set_xlim(0.8, 1.3 * means["cost"].max())
    legend(figure, *axes.get_legend_handles_labels())
    return figure
