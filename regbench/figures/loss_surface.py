"""The loss around the images, over FGSM's direction and a random one."""

from math import ceil

import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

from regbench.analysis.rows import Rows
from regbench.figures import footnote, nothing_to_show, plain_decades, task
from regbench.figures.loss_along_fgsm import NOTHING

__all__ = ["loss_surface"]

COLOURS = "viridis"

COLUMNS = 4
"""Panels side by side, at most."""

LEAST = 1e-3
"""Nats: a lower loss has the same colour."""

FLAT = 1e-6
"""Relative height of a surface that has no contours."""

LEVELS = 8
"""Contour lines between the lowest and the highest loss of a panel."""


def loss_surface(rows: Rows) -> Figure:
    """Return one panel per network and method: the mean loss over the two directions, over ε.

    Of several seeds the first, over the images that were diagnosed. An honest surface rises
    steadily to the right, where FGSM goes; one with a valley there hides its loss from FGSM. One
    scale of colours for all panels; the contour lines are each panel's own.
    """
    table = rows.diagnostics[rows.diagnostics["quantity"] == "loss_surface"]
    table = table[np.isfinite(table["value"])]
    if table.empty:
        return nothing_to_show(NOTHING)
    table = table.assign(task=task(table), value=table["value"].clip(lower=LEAST))
    panels = list(table.groupby(["task", "method"], sort=False, observed=True))
    lines = ceil(len(panels) / COLUMNS)
    columns = ceil(len(panels) / lines)
    figure, grid = plt.subplots(
        lines, columns, figsize=(1.6 + 1.5 * columns, 0.5 + 2.1 * lines), squeeze=False,
        sharex=True, sharey=True, layout="constrained",
    )  # fmt: skip
    norm = LogNorm(table["value"].min(), table["value"].max())
    for axes, ((name, method), part) in zip(grid.flat, panels, strict=False):
        _draw(axes, part[part["seed"] == part["seed"].min()], norm)
        axes.set_title(f"{name}\n{method}", fontsize="small")
    for axes in grid.flat[len(panels) :]:
        axes.set_axis_off()
    for axes in grid.flat[max(0, len(panels) - columns) : len(panels)]:
        axes.tick_params(labelbottom=True)  # also above an empty place
    figure.supxlabel("along FGSM's direction (ε)", fontsize="medium")
    figure.supylabel("along a random direction (ε)", fontsize="medium")
    scale = ScalarMappable(norm, COLOURS)
    bar = figure.colorbar(scale, ax=grid, label="mean cross entropy (nats)", aspect=30)
    plain_decades(bar.ax.yaxis)
    if table["seed"].nunique() > 1:
        footnote(figure, ["Each method's first seed."])
    return figure


def _draw(axes: Axes, part: pd.DataFrame, norm: LogNorm) -> None:
    surface = part.pivot_table("value", "across", "along")
    along, across = surface.columns.to_numpy(float), surface.index.to_numpy(float)
    losses, epsilon = surface.to_numpy(float), along.max()
    axes.pcolormesh(
        along / epsilon, across / epsilon, losses,
        norm=norm, cmap=COLOURS, shading="gouraud",
    )  # fmt: skip
    lowest, highest = losses.min(), losses.max()
    if highest > (1 + FLAT) * lowest:
        levels = np.geomspace(lowest, highest, LEVELS + 2)[1:-1]
        where = along / epsilon, across / epsilon
        axes.contour(*where, losses, levels=levels, colors="white", linewidths=0.6)
    axes.set_xticks([0, 0.5, 1], ["0", "½", "1"])
    axes.set_yticks([-1, 0, 1])
