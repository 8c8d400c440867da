"""The loss around the images, over FGSM's direction and a random one."""

import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

from regbench.figures import nothing_to_show, task
from regbench.figures.loss_along_fgsm import NOTHING
from regbench.rows import Rows

__all__ = ["loss_surface"]

COLUMNS = 3
"""Panels side by side."""


def loss_surface(rows: Rows) -> Figure:
    """Return one panel per network and method: the mean loss over the two directions.

    Of several seeds the mean. An honest surface rises steadily to the right; one that is highest
    inside, or where only the random direction leads, hides its loss from FGSM.
    """
    table = rows.diagnostics[rows.diagnostics["quantity"] == "loss_surface"]
    if table.empty:
        return nothing_to_show(NOTHING)
    table = table.assign(task=task(table))
    panels = list(table.groupby(["task", "method"], sort=False, observed=True))
    columns = min(COLUMNS, len(panels))
    lines = -(-len(panels) // columns)
    figure, grid = plt.subplots(
        lines, columns, figsize=(0.9 + 1.9 * columns, 2.1 * lines), squeeze=False,
        sharex=table["task"].nunique() == 1, sharey=table["task"].nunique() == 1,
        layout="constrained",
    )  # fmt: skip
    means = table.groupby(["task", "method", "along", "across"], observed=True)["value"].mean()
    norm = LogNorm(max(means.min(), 1e-3), max(means.max(), 2e-3))
    for axes in grid.flat[len(panels) :]:
        axes.set_axis_off()
    for axes, ((name, method), part) in zip(grid.flat, panels, strict=False):
        surface = _surface(part)
        along, across = surface.columns.to_numpy(), surface.index.to_numpy()
        image = axes.pcolormesh(
            along, across, surface, norm=norm, cmap="viridis", shading="gouraud"
        )
        axes.contour(along, across, surface, levels=6, colors="white", linewidths=0.6)
        axes.set_title(f"{name}\n{method}", fontsize="small")
    figure.supxlabel("along sign ∇ₓℓ, 0 to ε", fontsize="medium")
    figure.supylabel("along a random corner, −ε to ε", fontsize="medium")
    figure.colorbar(image, ax=grid, label="mean cross entropy (nats)", shrink=0.8)
    return figure


def _surface(part: pd.DataFrame) -> pd.DataFrame:
    """Mean over seeds: across by along."""
    return part.pivot_table("value", "across", "along", aggfunc=np.mean)
