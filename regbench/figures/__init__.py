"""Figures: one file each, a function from stored rows to a matplotlib figure.

`python -m regbench.figures FOLDER` draws them all. A method has the same colour and marker in
every figure of an experiment.
"""

from collections.abc import Iterable
from typing import Any

import matplotlib as mpl
import pandas as pd
import seaborn as sns
from matplotlib import pyplot as plt
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.container import ErrorbarContainer
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from regbench.experiment.values import written

MARKERS = ("o", "s", "D", "^", "v", "P", "X", "<", ">", "*", "h", "d")

NOTES = 4
"""Lines below a figure."""


def look() -> None:
    """Set the style that all figures share: print size, colour-blind safe colours, white ground."""
    sns.set_theme(context="paper", style="whitegrid", palette="colorblind", font_scale=1.1)
    mpl.rcParams["savefig.bbox"] = "tight"
    mpl.rcParams["svg.hashsalt"] = "regbench"  # the same rows give the same file
    mpl.rcParams["pdf.fonttype"] = 42
    mpl.rcParams["text.parse_math"] = False  # a label may hold a $


def colours(methods: Iterable[str]) -> dict[str, tuple[float, float, float]]:
    """Return a colour for each method, by its place among them."""
    names = list(methods)
    few = len(names) <= 10
    palette = sns.color_palette("colorblind" if few else "husl", len(names))
    return dict(zip(names, palette, strict=True))


def markers(methods: Iterable[str]) -> dict[str, str]:
    """Return a marker for each method, by its place among them."""
    return {name: MARKERS[place % len(MARKERS)] for place, name in enumerate(methods)}


def shown(table: pd.DataFrame) -> list[str]:
    """Return the methods that have rows, in their order: all that a legend names."""
    there = set(table["method"])
    return [name for name in table["method"].cat.categories if name in there]


def styles(table: pd.DataFrame) -> dict[str, dict[str, Any]]:
    """Return how each method that has rows is drawn, by its place among all: colour and marker."""
    every = table["method"].cat.categories
    tint, shape = colours(every), markers(every)
    return {
        name: {"color": tint[name], "marker": shape[name], "label": name} for name in shown(table)
    }


def reach(means: pd.DataFrame) -> list[pd.Series]:
    """Return how far the seeds reach below and above their mean: the two sides of error bars.

    Args:
        means: with the columns mean, lowest and highest.
    """
    both = [means["mean"] - means["lowest"], means["highest"] - means["mean"]]
    return [side.clip(lower=0) for side in both]  # a mean of equals may lie beside them by rounding


def task(table: pd.DataFrame) -> pd.Series:
    """Return `data set, network` for each row: what a panel is of."""
    return table["dataset"].astype(str) + ", " + table["model"].astype(str)


def footnote(figure: Figure, lines: list[str]) -> None:
    """Write lines below the figure, not all if they are many."""
    few = lines[:NOTES] + [f"and {len(lines) - NOTES} more: see summary.md"] * (len(lines) > NOTES)
    figure.text(0.01, -0.02, "\n".join(few), va="top", fontsize="small")


def labelled(row: Iterable[Axes]) -> tuple[list[Artist], list[str]]:
    """Return what the panels show, and its names, each once: one may lack what another has.

    Of points with error bars the points, since a method of one seed has no bars.
    """
    shown = {
        name: artist.lines[0] if isinstance(artist, ErrorbarContainer) else artist
        for axes in row
        for artist, name in zip(*axes.get_legend_handles_labels(), strict=True)
    }
    return list(shown.values()), list(shown)


def legend(figure: Figure, handles: list[Artist], labels: list[str]) -> None:
    """Put the legend of all panels to the right of the figure."""
    figure.legend(handles, labels, loc="outside right center", frameon=False)


PLAIN = FuncFormatter(lambda value, _: f"{value:g}".replace("-", "−"))
"""Numbers of a logarithmic axis: matplotlib's own are formulas, which `look` turns off."""

LOG = "log scale"
"""What the label of such an axis says."""


def plain_decades(axis: Axis) -> None:
    """Label a logarithmic axis: its decades, or 1, 2, 5, or even steps, the less is in view."""
    low, high = sorted(axis.get_view_interval())
    if high / low < 6:
        axis.set_major_locator(MaxNLocator(4))
    elif high / low < 60:
        axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter(PLAIN)
    axis.set_minor_formatter(NullFormatter())


def over_radii(axes: Axes, radii: Iterable[float], name: str) -> None:
    """Label an axis of radii, called `name`, as a config writes them: in 255ths, or as decimals."""
    ticks = list(radii)
    if any("/" in written(radius) for radius in ticks):
        axes.set_xticks(ticks, [f"{255 * radius:g}" for radius in ticks])
        name = f"{name} (·/255)"
    axes.set_xlabel(name)


def whole_epochs(axes: Axes) -> None:
    """Label epochs by whole numbers, however few they are."""
    axes.xaxis.set_major_locator(MaxNLocator("auto", integer=True, min_n_ticks=1))


def side_by_side(count: int) -> tuple[Figure, list[Axes]]:
    """Return a figure of `count` panels in a row, with room for a legend, and the panels."""
    figure, grid = plt.subplots(
        1, count, figsize=(1.5 + 3.5 * count, 3.2), squeeze=False, layout="constrained"
    )
    return figure, list(grid.flat)


def nothing_to_show(why: str) -> Figure:
    """Return a figure that says in one line why it is empty."""
    figure, axes = plt.subplots(figsize=(5, 1), layout="constrained")
    axes.set_axis_off()
    axes.text(0.5, 0.5, why, ha="center")
    return figure
