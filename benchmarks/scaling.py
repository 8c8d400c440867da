"""Where cost bends: seconds per epoch against batch size, width, and runs side by side.

    python benchmarks/scaling.py      # on the device at hand, to benchmarks/results/scaling.*

Needs neither Snakemake nor data, and regbench need not be installed. Runs side by side begin their
timed steps at once, after a first epoch; what counts is from there to the last one's end.
"""

import argparse
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from itertools import chain, groupby
from pathlib import Path
from typing import NamedTuple

import mps
import pandas as pd
import seaborn as sns
import torch
from cases import HYPERPARAMETERS, Case
from record import add_place, at_least_one, write
from structures import Window
from worker import NotMeasuredError, Worker, started

from regbench.core import device as devices
from regbench.core.precision import PRECISIONS
from regbench.errors import program

IMAGES = 50_000
BATCHES = {"cpu": (8, 16, 32, 64, 128, 256), "cuda": (32, 64, 128, 256, 512, 1024, 2048)}
WIDTHS = (4, 8, 16, 32, 64, 128)
RUNS = {"cpu": (1, 2, 3, 4), "cuda": (1, 2, 3, 5, 10)}
METHODS = ("fgsm_at", "sat_r1", "sat_r3")
FEWEST_STEPS = {"cpu": 4, "cuda": 200}
"""A few replayed steps take milliseconds: too short to be timed."""


class Point(NamedTuple):
    """A point of a panel.

    Attributes:
        what: the panel, which says what is varied.
        value: of what is varied.
        case: what each run does.
        threads: of each run.
        runs: how many are side by side.
        mps: whether these share the GPU by CUDA's Multi-Process Service.
    """

    what: str
    value: int
    case: Case
    threads: int
    runs: int = 1
    mps: bool = False


def over_batches(asked: argparse.Namespace, device: str) -> Iterator[Point]:
    """LeNet+, by batch size: launches bend the left end, memory the right."""
    for method in asked.methods:
        for batch in BATCHES[device] if asked.batches is None else asked.batches:
            case = _case(asked, "lenet_plus", method, batch, _steps(asked, device, batch))
            yield Point("batch size, LeNet+", batch, case, asked.threads)


def over_widths(asked: argparse.Namespace, device: str) -> Iterator[Point]:
    """The small CNN, by width: below some width a step is all launches."""
    for method in asked.methods:
        for width in asked.widths:
            case = _case(asked, "small_cnn", method, 64, _steps(asked, device, 64), width)
            yield Point("width, small CNN", width, case, asked.threads)


def over_runs(asked: argparse.Namespace, device: str) -> Iterator[Point]:
    """LeNet+, by runs side by side, each on one thread; with `--mps` also by that service."""
    for by_mps in (False, True) if asked.mps else (False,):
        what = f"runs side by side, LeNet+{', MPS' if by_mps else ''}"
        for runs in RUNS[device] if asked.runs is None else asked.runs:
            for method in asked.methods:
                case = _case(asked, "lenet_plus", method, 64, _steps(asked, device, 64))
                yield Point(what, runs, case, 1, runs, by_mps)


def _steps(asked: argparse.Namespace, device: str, batch: int) -> int:
    return asked.steps or max(FEWEST_STEPS[device], 256 // batch)


def _case(
    asked: argparse.Namespace,
    network: str,
    method: str,
    batch: int,
    steps: int,
    width: int | None = None,
) -> Case:
    return Case("ours", network, method, asked.precision, batch, steps, width)


def measured(
    points: Iterable[Point], device: str, rounds: int
) -> Iterator[tuple[Point, float | NotMeasuredError]]:
    """Return the seconds per epoch of each point, or why it could not be measured.

    Points that share the device alike are measured by the same processes, since to begin some takes
    longer than what they are to time; after a failure others go on.
    """
    for _, alike in groupby(points, lambda one: (one.runs, one.threads, one.mps)):
        left = deque(alike)
        while left:
            try:
                with side_by_side(left[0], device) as workers:
                    while left:
                        yield left[0], epoch(left[0].case, workers, rounds)
                        left.popleft()
            except NotMeasuredError as error:
                yield left.popleft(), error


@contextmanager
def side_by_side(point: Point, device: str) -> Iterator[list[Worker]]:
    """Give the processes of a point's runs; end them.

    Raises:
        NotMeasuredError: CUDA's Multi-Process Service does not start.
    """
    with (
        mps.service() if point.mps else nullcontext(),
        started(point.runs, device, point.threads, together=True) as workers,
    ):
        yield workers


def epoch(case: Case, workers: list[Worker], rounds: int) -> float:
    """Return the seconds of an epoch of 50,000 images: the best of `rounds` blocks.

    With several workers, the time in which all have one, over their number.

    Raises:
        NotMeasuredError: a run cannot be built, or fails.
    """
    with ThreadPoolExecutor(len(workers)) as pool:
        list(pool.map(lambda worker: worker.prepare(case), workers))
        blocks = [span(list(pool.map(Worker.window, workers))) for _ in range(rounds)]
    return min(blocks) / (len(workers) * case.batch * case.steps) * IMAGES


def span(windows: list[Window]) -> float:
    """Return the seconds from the first beginning to the last end."""
    return max(one.ended for one in windows) - min(one.began for one in windows)


def draw(table: pd.DataFrame, path: Path) -> None:
    """Draw a panel for each thing that is varied, both axes logarithmic."""
    sns.set_theme(context="paper", style="whitegrid", palette="colorblind", font_scale=1.1)
    grid = sns.relplot(
        table, kind="line", x="value", y="seconds", hue="method", style="method", markers=True,
        dashes=False, col="what", height=3, facet_kws={"sharex": False, "sharey": False},
    )  # fmt: skip
    for what, axes in grid.axes_dict.items():
        axes.set_xscale("log", base=2)
        axes.set_yscale("log", base=2)
        values = sorted(table.loc[table["what"] == what, "value"].unique())
        axes.set_xticks(values, labels=values)
        axes.yaxis.set_major_formatter("{x:g}")
    grid.set_axis_labels("", "seconds per epoch")
    grid.set_titles("{col_name}")
    grid.savefig(path, dpi=150)


def arguments() -> argparse.Namespace:
    """Return what the command line says."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=HYPERPARAMETERS)
    for name in ("batches", "widths", "runs"):
        default = list(WIDTHS) if name == "widths" else None
        told = "sizes to measure; none after it: that panel is left out"
        parser.add_argument(f"--{name}", nargs="*", type=at_least_one, default=default, help=told)
    parser.add_argument("--precision", default="fp32", choices=PRECISIONS)
    parser.add_argument("--steps", type=at_least_one, help="per block")
    parser.add_argument("--mps", action="store_true", help="runs also by CUDA's MPS")
    add_place(parser)
    parser.add_argument("--rounds", type=at_least_one, default=3)
    parser.add_argument(
        "--threads", type=at_least_one, default=torch.get_num_threads(), help="of the CPU"
    )
    return parser.parse_args()


def main() -> None:
    """Measure; print and write JSON as it goes; draw the figure."""
    asked = arguments()
    device = devices.pick(asked.device)
    if asked.mps:
        mps.check(device)
    rows: list[dict[str, object]] = []
    left_out: list[str] = []
    told = {
        "threads": asked.threads, "precision": asked.precision, "rows": rows, "left_out": left_out
    }  # fmt: skip
    panels = (panel(asked, device.type) for panel in (over_batches, over_widths, over_runs))
    for point, seconds in measured(chain.from_iterable(panels), device.type, asked.rounds):
        name = f"{point.what:<32}{point.value:>6}  {point.case.method:<11}"
        if isinstance(seconds, NotMeasuredError):
            left_out.append(f"{' '.join(name.split())}: {seconds}")
            print(f"left out: {left_out[-1]}", flush=True)
        else:
            row = {"what": point.what, "value": point.value, "method": point.case.method}
            rows.append({**row, "seconds": seconds})
            print(f"{name}{seconds:10.3f} s per epoch", flush=True)
        # after each point: a run that is cut off keeps what it has measured
        write(asked.out / "scaling.json", device, told)
    if rows:
        draw(pd.DataFrame(rows), asked.out / "scaling.png")


if __name__ == "__main__":
    program(main)
