"""Is the property that each regularizer asks for there, epoch by epoch?"""

import seaborn as sns
from matplotlib.figure import Figure

from regbench.analysis.rows import RUN, Rows
from regbench.figures import (
    LOG,
    PLAIN,
    colours,
    footnote,
    nothing_to_show,
    shown,
    task,
    whole_epochs,
)

__all__ = ["properties_during_training"]

NOTHING = "No losses under attack were kept of these trainings."

PROPERTIES = {
    "I-FGSM − FGSM (asked by SAT-R1)": ("ifgsm", "fgsm"),
    "R-FGSM − FGSM (asked by SAT-R2)": ("rfgsm", "fgsm"),
    "FGSM at ε − at ε/2 (asked by SAT-R3)": ("fgsm", "half_fgsm"),
}
"""Differences of two losses: the first two near 0 at a robust network, the third above it."""


LINEAR = 0.1
"""Nats: within it differences are drawn linearly."""


def properties_during_training(rows: Rows) -> Figure:
    """Return one panel per regularizer's property: a difference of losses against the epoch.

    Mean cross entropy of validation images (nats): the mean over seeds, and their range. At a
    pseudo-robust network one large step finds a lower loss than small or random ones do: the first
    two rise above 0, the third falls below.
    """
    curves = rows.curves.dropna(subset="loss_under_fgsm")
    if curves.empty:
        return nothing_to_show(NOTHING)
    gaps = {
        name: curves[f"loss_under_{one}"] - curves[f"loss_under_{other}"]
        for name, (one, other) in PROPERTIES.items()
    }
    long = curves.assign(task=task(curves), **gaps).melt(
        ["task", "method", "seed", "epoch"], list(gaps), "property"
    )
    methods = rows.curves["method"].cat.categories
    several = long["task"].nunique() > 1
    grid = sns.relplot(
        long, x="epoch", y="value", hue="method", col="property", kind="line",
        **({"row": "task"} if several else {}), errorbar=("pi", 100), palette=colours(methods),
        hue_order=shown(curves), height=2.8, aspect=1.1, facet_kws={"sharey": False},
    )  # fmt: skip
    grid.refline(y=0, color="0.4", linestyle=":", zorder=0)
    steep = [axes for axes in grid.axes.flat if max(map(abs, axes.get_ylim())) > LINEAR]
    for axes in steep:
        axes.set_yscale("symlog", linthresh=LINEAR)
        axes.yaxis.set_major_formatter(PLAIN)
    for axes in grid.axes.flat:
        whole_epochs(axes)
    grid.set_titles("{row_name}\n{col_name}" if several else "{col_name}")
    beyond = f"\n{LOG} beyond ±{LINEAR}" if steep else ""
    grid.set_axis_labels("epoch", f"loss difference (nats){beyond}")
    grid.legend.set_title(None)
    figure: Figure = grid.figure
    kept, every = (len(one.drop_duplicates(RUN)) for one in (curves, rows.curves))
    if kept < every:
        footnote(figure, [f"Of {kept} of {every} trainings; of the others it was not kept."])
    return figure
