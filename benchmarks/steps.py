"""Ours against the plain structure, pair by pair, in one run: images/s, ratio, share of the floor.

    python benchmarks/steps.py            # on the device at hand, to benchmarks/results/steps.*

Needs neither Snakemake nor data, and regbench need not be installed. Blocks of steps are timed in
turn, each structure in a process of its own; a ratio is the median of the pairs' ratios, whether to
the plain structure or, per operation, to natural training. fp32 is fp32 in both structures (see
worker.py). What is measured is written at once; a case that cannot be built is told as left out.
"""

import argparse
import statistics
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import plain
import torch
from cases import HYPERPARAMETERS, Case
from floor import arithmetic, ceiling
from launches import UNITS
from record import add_place, at_least_one, write
from structures import Window
from worker import NotMeasuredError, started

from regbench.core import device as devices
from regbench.errors import UserError, program

Answer = TypeVar("Answer")

PRECISIONS = {"cpu": ("fp32", "bf16"), "cuda": ("fp32", "tf32", "bf16")}
BLOCKS = {
    # network -> images per step, steps per block
    "cpu": {"lenet_plus": (64, 16), "resnet18": (8, 1), "wrn_28_10": (2, 1)},
    "cuda": {"lenet_plus": (64, 200), "resnet18": (128, 20), "wrn_28_10": (64, 10)},
}


class Contest(NamedTuple):
    """A method by ours in each precision, and what that is held against.

    Attributes:
        plain: the plain structure.
        ours: ours, in each precision.
        natural: natural training by ours, in each precision: what an operation costs at least.
    """

    plain: Case
    ours: list[Case]
    natural: list[Case]

    @property
    def cases(self) -> list[Case]:
        """All of them."""
        return [self.plain, *self.ours, *self.natural]


def groups(asked: argparse.Namespace, device: str) -> Iterator[list[Contest]]:
    """Return what is timed in turn: `--abreast` methods of a network; natural against itself."""
    for name in asked.networks:
        images, steps = BLOCKS[device][name]
        sizes = asked.batch or images, asked.steps or steps
        methods = [
            Contest(
                Case("plain", name, method, "fp32", *sizes),
                *(
                    [Case("ours", name, which, one, *sizes) for one in precisions(asked, device)]
                    for which in (method, "natural")
                ),
            )
            for method in asked.methods
        ]
        yield from batched(methods, asked.abreast)


def batched(methods: list[Contest], count: int) -> Iterator[list[Contest]]:
    """Return the methods, `count` at a time."""
    return (methods[first : first + count] for first in range(0, len(methods), count))


def precisions(asked: argparse.Namespace, device: str) -> list[str]:
    """Return those asked for of those that the device has.

    Raises:
        UserError: none.
    """
    there = PRECISIONS[device]
    chosen = [one for one in there if one in (asked.precisions or there)]
    if not chosen:
        raise UserError(f"--precisions: on {device} there are {', '.join(there)}")
    return chosen


class Timed(NamedTuple):
    """Of one case: the rounds, the most bytes that it held, and what a step launches."""

    rounds: list[Window]
    memory: int
    launches: int | None

    @property
    def seconds(self) -> list[float]:
        """Of each round."""
        return [ended - began for began, ended in self.rounds]

    def over(self, other: "Timed") -> float:
        """Return how many times as long as `other` it takes: the median of the rounds' ratios."""
        pairs = zip(self.seconds, other.seconds, strict=True)
        return statistics.median(one / another for one, another in pairs)


def in_turn(
    cases: list[Case], rounds: int, device: str, threads: int
) -> dict[Case, Timed | NotMeasuredError]:
    """Time the cases in turn, each in a process of its own; tell of those that fail, why.

    What is not timed is done side by side on a GPU, whose time is dear; a CPU has no cores for it.
    """
    side_by_side = len(cases) if device == "cuda" else 1
    with (
        started(len(cases), device, threads) as workers,
        ThreadPoolExecutor(side_by_side) as pool,
    ):
        memory = list(pool.map(lambda worker, case: tried(worker.prepare, case), workers, cases))
        turns = [[tried(worker.window) for worker in workers] for _ in range(rounds)]
        launches = list(pool.map(lambda worker: tried(worker.launches), workers))
    columns = zip(*turns, strict=True)
    found: dict[Case, Timed | NotMeasuredError] = {}
    for case, held, windows, count in zip(cases, memory, columns, launches, strict=True):
        failed = (one for one in (held, *windows) if isinstance(one, NotMeasuredError))
        found[case] = next(failed, None) or Timed(list(windows), held, counted(count))
    return found


def tried(ask: Callable[..., Answer], *arguments: Case) -> Answer | NotMeasuredError:
    """Return the answer, or why there is none."""
    try:
        return ask(*arguments)
    except NotMeasuredError as error:
        return error


def counted(launches: int | NotMeasuredError) -> int | None:
    """Return what a step launches; none, and a line, if that cannot be counted here."""
    if isinstance(launches, NotMeasuredError):
        print(f"what a step launches was not counted: {launches}", file=sys.stderr)
        return None
    return launches


def measured(
    group: list[Contest], rounds: int, device: torch.device, threads: int
) -> dict[Case, list[dict[str, Any]] | Exception]:
    """Return, by the plain case of each method, a row for it and each of ours, or what failed."""
    every = list(dict.fromkeys(case for contest in group for case in contest.cases))
    timed = in_turn(every, rounds, device.type, threads)
    found: dict[Case, list[dict[str, Any]] | Exception] = {}
    for contest in group:
        try:
            found[contest.plain] = rows_of(contest, timed, device)
        except (NotMeasuredError, UserError) as error:
            found[contest.plain] = error
    return found


def rows_of(
    contest: Contest, found: dict[Case, Timed | NotMeasuredError], device: torch.device
) -> list[dict[str, Any]]:
    """Return a row for the plain case and for each of ours.

    Raises:
        NotMeasuredError: one of them could not be built or run here.
        UserError: the network cannot be built here.
    """
    timed = {case: sound(found[case]) for case in contest.cases}
    flop, natural_flop = (arithmetic(one[0]) for one in (contest.ours, contest.natural))
    plainly, unit = timed[contest.plain], UNITS[device.type]
    return [
        row(contest.plain, plainly, flop, unit),
        *(
            row(case, timed[case], flop, unit)
            | {
                "speedup": plainly.over(timed[case]),
                "over_natural": timed[case].over(timed[least]) * natural_flop / flop,
            }
            for case, least in zip(contest.ours, contest.natural, strict=True)
        ),
    ]


def sound(timed: Timed | NotMeasuredError) -> Timed:
    """Return it, or raise it."""
    if isinstance(timed, NotMeasuredError):
        raise timed
    return timed


def row(case: Case, timed: Timed, flop: float, unit: str) -> dict[str, Any]:
    """Return what is told of a case by itself; the arithmetic is our step's, in both structures."""
    typical = statistics.median(timed.seconds)
    return {
        **asdict(case),
        "images_per_second": case.batch * case.steps / typical,
        "flop_per_second": flop * case.steps / typical,
        "peak_memory": timed.memory,
        f"{unit}_per_step": timed.launches,
        "rounds": len(timed.rounds),
    }


def arguments() -> argparse.Namespace:
    """Return what the command line says."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument(
        "--networks", nargs="+", default=["lenet_plus", "resnet18"], choices=plain.NETWORKS
    )
    parser.add_argument(
        "--methods", nargs="+", default=list(HYPERPARAMETERS), choices=HYPERPARAMETERS
    )
    parser.add_argument(
        "--precisions", nargs="+", choices=PRECISIONS["cuda"], help="default: all that there are"
    )
    parser.add_argument(
        "--abreast",
        type=int,
        default=1,
        choices=range(1, len(HYPERPARAMETERS) + 1),
        metavar="N",
        help="methods whose processes live side by side, timed in turn: sooner done, more memory",
    )
    parser.add_argument("--batch", type=at_least_one, help="images per step, of every network")
    parser.add_argument("--steps", type=at_least_one, help="per block, of every network")
    parser.add_argument("--rounds", type=at_least_one, default=7)
    parser.add_argument(
        "--threads", type=at_least_one, default=torch.get_num_threads(), help="of the CPU"
    )
    add_place(parser)
    return parser.parse_args()


def main() -> None:
    """Time every case; print and write JSON as it goes; draw the figure."""
    asked = arguments()
    device = devices.pick(asked.device)
    torch.set_num_threads(asked.threads)
    # the plain structure is in fp32
    peak = {one: ceiling(one, device) for one in ("fp32", *precisions(asked, device.type))}
    for name, value in peak.items():
        print(f"ceiling, {name}: {value / 1e9:,.0f} GFLOP/s")
    rows: list[dict[str, Any]] = []
    left_out: list[str] = []
    told = {"threads": asked.threads, "ceiling": peak, "rows": rows, "left_out": left_out}
    for group in groups(asked, device.type):
        for case, found in measured(group, asked.rounds, device, asked.threads).items():
            if isinstance(found, Exception):
                left_out.append(f"{case.network}, {case.method}: {found}")
                print(f"left out: {left_out[-1]}", flush=True)
                continue
            for one in found:
                one["floor_share"] = one["flop_per_second"] / peak[one["precision"]]
                print(line(one, UNITS[device.type]), flush=True)
            rows += found
        # after each group: a run that is cut off keeps what it has measured
        write(asked.out / "steps.json", device, told)
    if rows:
        draw(rows, asked.out / "steps.png")


def line(row: dict[str, Any], unit: str) -> str:
    """Return a case as a line of the table that is printed."""
    counted = row[f"{unit}_per_step"]
    launches = "?" if counted is None else f"{counted:,}"
    told = (
        f"{row['network']:<11}{row['method']:<11}{row['structure']:<6}{row['precision']:<5}"
        f"m = {row['batch']:<4}{row['images_per_second']:>10,.0f} images/s"
        f"  {row['floor_share']:4.0%} of the ceiling"
        f"  {row['peak_memory'] / 2**20:6,.0f} MiB  {launches:>6} {unit}"
    )
    if "speedup" in row:
        told += f"  x{row['speedup']:<5.2f}  {row['over_natural']:4.2f} of natural's s/FLOP"
    return told


def draw(rows: list[dict[str, Any]], path: Path) -> None:
    """Draw the ratios: a panel per network, a bar per method and precision."""
    import pandas as pd  # noqa: PLC0415 - the timing needs neither
    import seaborn as sns  # noqa: PLC0415

    sns.set_theme(context="paper", style="whitegrid", palette="colorblind", font_scale=1.1)
    table = pd.DataFrame([one for one in rows if one["structure"] == "ours"])
    grid = sns.catplot(
        table, kind="bar", x="method", y="speedup", hue="precision", col="network",
        height=3, aspect=1.5, errorbar=None,
    )  # fmt: skip
    for axes in grid.axes.flat:
        axes.axhline(1, color="black", linewidth=1)
    grid.set_axis_labels("", "speedup over plain")
    grid.set_titles("{col_name}")
    grid.savefig(path, dpi=150)


if __name__ == "__main__":
    program(main)
