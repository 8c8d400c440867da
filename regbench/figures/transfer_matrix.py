"""Do other networks' adversarial images fool a network that its own do not? Then it masks."""

from collections.abc import Iterator
from math import log, nan

import pandas as pd
import seaborn as sns
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from regbench.analysis.attacked import (
    AUTOATTACK,
    CLEAN,
    Attacked,
    Run,
    ahead,
    attacks_of,
    both,
    meet,
    of_one_radius,
    white_box,
)
from regbench.analysis.criteria import SIGNS
from regbench.analysis.rows import RUN, Rows, of_trained, unswept
from regbench.figures import nothing_to_show, task

__all__ = ["transfer_matrix"]

NOTHING = "No attack that was crafted on another network was run (config: `source:`)."

BOUND = next(sign.above for sign in SIGNS if sign.quantity == "transfer_gain")
"""Share of the images by which a transferred attack must beat the white-box one to be framed."""

SCALE, FRAME = "#2b87c9", "#d55e00"
"""Blue down to white, on which black can be read everywhere; vermilion, which stands out of it."""

OWN = "white box"
"""What stands for a source, where the network itself is it."""

APGD_STEPS = 100
"""Of AutoAttack's gradient attacks (Croce & Hein 2020, arXiv:2003.01690)."""

MEANING = "the attack like it on the network itself"

MANY = 6
"""Methods whose names still stand side by side."""


def transfer_matrix(rows: Rows) -> Figure:
    """Return one panel per data set and network: accuracy by the source of an attack and method.

    The rows above the line are white box: of the attacks on each network itself those that are most
    like the transferred ones, on the same images. A transferred attack that leaves less than the
    one like it, by more than the masking panel's bound, is framed, unless it has more steps. Means
    over seeds; what was not run is blank.
    """
    cells = pd.DataFrame(_cells(rows))
    if cells.empty:
        return nothing_to_show(NOTHING)
    order = rows.runs["method"].cat.categories
    panels = [
        (name, *_matrices(part, order)) for name, part in cells.groupby(task(cells), sort=False)
    ]
    heights = [len(accuracy) for _, accuracy, _ in panels]
    columns = max(accuracy.shape[1] for _, accuracy, _ in panels)
    figure, grid = plt.subplots(
        len(panels), figsize=(3.4 + 0.85 * columns, 0.5 + sum(0.9 + 0.34 * one for one in heights)),
        squeeze=False, height_ratios=heights, layout="constrained",
    )  # fmt: skip
    for axes, (name, accuracy, beaten) in zip(grid.flat, panels, strict=True):
        _draw(axes, accuracy, beaten)
        axes.set_title(name)
    figure.colorbar(grid[0, 0].collections[0], ax=grid, label="accuracy (%)", aspect=30)
    if any(beaten.any(axis=None) for _, _, beaten in panels):
        told = f"more than {100 * BOUND:g} points below {MEANING}"
        figure.legend([_frame(0, 0)], [told], loc="outside lower center", frameon=False)
    return figure


def nearest(one: Attacked, run: Run) -> Attacked | None:
    """Return the white-box attack of a transferred one's radius that is most like it."""
    same = [
        other
        for other in white_box(run)
        if other.member != CLEAN and of_one_radius(one, other) and meet(one, other)
    ]
    return min(same, key=lambda other: _unlikeness(one, other), default=None)


def _unlikeness(one: Attacked, other: Attacked) -> tuple[bool, bool, float, int]:
    """Whether of another kind, whether AutoAttack, how much the steps differ, then all else."""
    differing = [name for name in one.arguments if one.arguments[name] != other.arguments.get(name)]
    return (
        one.member != other.member,
        other.member == AUTOATTACK,
        abs(log(_steps(one) / _steps(other))),
        len(differing),
    )


def _steps(one: Attacked) -> int:
    steps: int = one.arguments.get("steps", APGD_STEPS if one.member == AUTOATTACK else 1)
    return steps


def _cells(rows: Rows) -> Iterator[dict[str, object]]:
    """Yield each run's accuracy under each transferred attack, and under that attack's like."""
    verdicts = dict(iter(of_trained(rows).groupby(RUN, observed=True)))
    for key, told in unswept(rows.evaluations).groupby(RUN, observed=True):
        if key not in verdicts or told["source"].isna().all():
            continue
        run, of = attacks_of(verdicts[key], told), dict(zip(RUN, key, strict=True))
        for one in run:
            if one.source is not None:
                yield from ({**of, **cell} for cell in _beside(one, nearest(one, run)))


def _beside(one: Attacked, own: Attacked | None) -> Iterator[dict[str, object]]:
    correct, gain = one.verdicts["correct"], nan
    if own is not None:
        ours, _ = both(own, one, "correct")
        gain = ahead(own, one) if _steps(own) >= _steps(one) else nan
        like = {"source": OWN, "attack": own.label, "n": len(ours), "accuracy": ours.mean()}
        yield {**like, "gain": nan}
    told = {"source": one.source, "attack": one.label, "n": len(correct), "gain": gain}
    yield {**told, "accuracy": correct.mean()}


def _matrices(part: pd.DataFrame, order: pd.Index) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return accuracies in %, and where they are below white box; a row each, sources together."""
    sources = [OWN, *dict.fromkeys(part["source"])]
    part = part.sort_values("source", key=lambda names: names.map(sources.index), kind="stable")
    part = part.assign(on=part["source"] + ": " + part["attack"] + _counted(part))
    methods = [name for name in order if name in set(part["method"])]
    seeds = part.groupby(["on", "method"])
    accuracy, gain = (
        seeds[value].mean().unstack().reindex(part["on"].unique(), columns=methods)
        for value in ("accuracy", "gain")
    )
    return 100 * accuracy, gain > BOUND


def _counted(part: pd.DataFrame) -> pd.Series:
    """` (n = 100)` where one attack was tried on different numbers of images, else nothing."""
    several = part.groupby(["source", "attack"])["n"].transform("nunique") > 1
    return (" (n = " + part["n"].astype(str) + ")").where(several, "")


def _draw(axes: Axes, accuracy: pd.DataFrame, beaten: pd.DataFrame) -> None:
    sns.heatmap(
        accuracy, annot=True, fmt=".1f", annot_kws={"color": "black"}, vmin=0, vmax=100,
        cmap=sns.light_palette(SCALE, as_cmap=True), cbar=False, linewidths=0.5, ax=axes,
    )  # fmt: skip
    for row, column in zip(*beaten.to_numpy().nonzero(), strict=True):
        axes.add_patch(_frame(column, row))
    own = sum(name.startswith(f"{OWN}: ") for name in accuracy.index)
    axes.axhline(own, color="black", linewidth=1.5)
    axes.set(xlabel="", ylabel="")
    axes.tick_params(length=0, rotation=0)
    if accuracy.shape[1] > MANY:
        plt.setp(axes.get_xticklabels(), rotation=25, ha="right", rotation_mode="anchor")


def _frame(column: int, row: int) -> Rectangle:
    corner = column + 0.04, row + 0.04
    return Rectangle(corner, 0.92, 0.92, fill=False, edgecolor=FRAME, linewidth=2)
