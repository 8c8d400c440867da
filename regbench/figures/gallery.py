"""What each network takes the same images for, and how surely: clean, under FGSM, under PGD."""

from math import ceil
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from regbench.analysis.rows import Rows
from regbench.figures import nothing_to_show, task

__all__ = ["gallery"]

NOTHING = "No images were kept of this experiment (config: `diagnostics:`, its `gallery:`)."

ACROSS = 15
"""Images side by side, at most, unless one panel has more."""

BESIDE, BELOW, ABOVE = 0.14, 0.46, 0.5
"""What is left free around images, which are 1 wide; below stands what they are taken for."""

INCHES = 0.62
"""Of an image."""


class Outcome(NamedTuple):
    """How it is shown whether the network is right: by mark and line as well as by colour."""

    mark: str
    name: str
    colour: str
    line: str
    width: float = 2

    def frame(self, left: float, top: float) -> Rectangle:
        """Return the frame of an image."""
        return Rectangle(
            (left, top), 1, 1, fill=False, edgecolor=self.colour, linestyle=self.line,
            linewidth=self.width,
        )  # fmt: skip


RIGHT, WRONG = Outcome("✓", "right", "#0173b2", "-"), Outcome("✗", "wrong", "#d55e00", ":")
UNJUDGED = Outcome("", "", "0.5", "-", 0.5)

Picture = npt.NDArray[np.float64]
"""(C, H, W), in [0, 1]."""


def gallery(rows: Rows) -> Figure:
    """Return one panel per network and method, of its first seed: a few images under each attack.

    Below each image the class that the network takes it for, and with which confidence. The last
    line of a panel is what the last attack added to the image: grey where nothing, black −ε, white
    ε. The images are the same for every method, the first of so many classes.
    """
    shown = rows.gallery
    if shown.empty:
        return nothing_to_show(NOTHING)
    first = shown.groupby(["dataset", "model", "method"], observed=True)["seed"].transform("first")
    shown = shown[shown["seed"] == first]
    shown = shown.assign(task=task(shown))
    panels = list(shown.groupby(["task", "method"], sort=False, observed=True))
    count = max(part["image"].nunique() for _, part in panels)
    columns = min(len(panels), max(1, ACROSS // count))
    lines = ceil(len(panels) / columns)
    width = INCHES * (1 + BESIDE) * count
    height = INCHES * (ABOVE + (1 + BELOW) * shown["under"].nunique() + 1)
    figure, grid = plt.subplots(
        lines, columns, squeeze=False, layout="constrained",
        figsize=(1.3 + width * columns, 0.4 + (height + 0.5) * lines),
    )  # fmt: skip
    for place, (axes, ((name, method), part)) in enumerate(zip(grid.flat, panels, strict=False)):
        _draw(axes, part)
        axes.set_title(f"{name}\n{method}", fontsize="medium")
        axes.tick_params(length=0, labelleft=place % columns == 0)
    for axes in grid.flat[len(panels) :]:
        axes.set_axis_off()
    figure.legend(
        [outcome.frame(0, 0) for outcome in (RIGHT, WRONG)],
        [f"{outcome.mark} {outcome.name}" for outcome in (RIGHT, WRONG)],
        loc="outside lower center", ncols=2, frameon=False,
    )  # fmt: skip
    return figure


def picture(row: pd.Series) -> Picture:
    """Return the pixels of a row of gallery.parquet."""
    pixels = np.frombuffer(row["pixels"], np.uint8)
    shaped: Picture = pixels.reshape(row["channels"], row["height"], row["width"]) / 255
    return shaped


def _draw(axes: Axes, part: pd.DataFrame) -> None:
    attacks, images = list(part["under"].unique()), list(part["image"].unique())
    pictures: dict[tuple[int, int], Picture] = {}
    for _, row in part.iterrows():
        at = images.index(row["image"]), attacks.index(row["under"])
        pictures[at] = picture(row)
        _hang(axes, pictures[at], at)
        _tell(axes, row, at)
    clean, last, epsilon = 0, len(attacks) - 1, part["epsilon"].max()
    for column in range(len(images)):
        added = pictures[column, last] - pictures[column, clean]
        _hang(axes, 0.5 + added / (2 * epsilon), (column, len(attacks)))
        axes.add_patch(UNJUDGED.frame(*_corner((column, len(attacks)))))
    lines = [*attacks, f"{attacks[last]} − {attacks[clean]}"]
    _name(axes, lines, part.drop_duplicates("image")["label"])


def _name(axes: Axes, lines: list[str], classes: pd.Series) -> None:
    """Name the lines to the left, and above each column the class of its image."""
    lefts = [_corner((column, 0))[0] for column in range(len(classes))]
    for left, label in zip(lefts, classes, strict=True):
        axes.text(left + 0.5, ABOVE / 2, label, ha="center", va="center_baseline")
    middles = [_corner((0, line))[1] + 0.5 for line in range(len(lines))]
    axes.set_yticks([ABOVE / 2, *middles], ["true class", *lines])
    axes.set(xlim=(-0.1, lefts[-1] + 1.1), ylim=(middles[-1] + 0.6, 0), xticks=[])
    axes.set_frame_on(False)
    axes.grid(visible=False)


def _hang(axes: Axes, shown: Picture, at: tuple[int, int]) -> None:
    """Draw a picture at (column, line); of channels that are no colours the mean is drawn."""
    colours = shown if len(shown) == 3 else shown.mean(0, keepdims=True)
    left, top = _corner(at)
    height, width = (side / max(shown.shape[1:]) for side in shown.shape[1:])
    axes.imshow(
        colours.transpose(1, 2, 0).clip(0, 1), cmap="gray", vmin=0, vmax=1,
        extent=(left, left + width, top + height, top), interpolation="nearest",
    )  # fmt: skip


def _tell(axes: Axes, row: pd.Series, at: tuple[int, int]) -> None:
    """Frame the picture at (column, line), and say below what the network takes it for."""
    left, top = _corner(at)
    outcome = RIGHT if row["correct"] else WRONG
    axes.add_patch(outcome.frame(left, top))
    told = f"{row['prediction']} {outcome.mark} {100 * row['confidence']:.0f}%"
    axes.text(
        left + 0.5, top + 1.07, told,
        color=outcome.colour, fontsize="x-small", ha="center", va="top",
    )  # fmt: skip


def _corner(at: tuple[int, int]) -> tuple[float, float]:
    column, line = at
    return (1 + BESIDE) * column, ABOVE + (1 + BELOW) * line
