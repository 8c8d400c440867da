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
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import plain
import torch
from floor import arithmetic, ceiling
from launches import UNITS
from record import RESULTS, write
from worker import HYPERPARAMETERS, Case, NotMeasuredError, Window, Worker, started

from regbench import device as devices
from regbench.errors import UserError, program

PRECISIONS = {"cpu": ("fp32", "bf16"), "cuda": ("fp32", "tf32", "bf16")}
BLOCKS = {
    # network -> images per step, steps per block
    "cpu": {"lenet_plus": (64, 16), "resnet18": (8, 1)},
    "cuda": {"lenet_plus": (64, 200), "resnet18": (128, 20)},
}


class Group(NamedTuple):
    """Cases that are timed in turn.

    Attributes:
        plain: the plain structure.
        ours: ours, in each precision.
        natural: natural training by ours, in each precision: what an operation costs at least.
    """

    plain: Case
    ours: list[Case]
    natural: list[Case]


def groups(
    device: str, networks: list[str], methods: list[str], batch: int | None, steps: int | None
) -> Iterator[Group]:
    """Return what is timed in turn for each network and method; natural training against itself."""
    for name in networks:
        sizes = batch or BLOCKS[device][name][0], steps or BLOCKS[device][name][1]
        for method in methods:
            ours, natural = (
                [Case("ours", name, which, one, *sizes) for one in PRECISIONS[device]]
                for which in (method, "natural")
            )
            yield Group(Case("plain", name, method, "fp32", *sizes), ours, natural)


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


def pair_by_pair(cases: list[Case], rounds: int, device: str, threads: int) -> list[Timed]:
    """Time the cases in turn, each in a process of its own.

    Raises:
        NotMeasuredError: one of them cannot be built or run here.
    """
    with started(len(cases), device, threads) as workers:
        memory = [worker.prepare(case) for worker, case in zip(workers, cases, strict=True)]
        turns = [[worker.window() for worker in workers] for _ in range(rounds)]
        launches = [launched(worker) for worker in workers]
    columns = (list(column) for column in zip(*turns, strict=True))
    return [Timed(*one) for one in zip(columns, memory, launches, strict=True)]


def launched(worker: Worker) -> int | None:
    """Return what a step launches; none, and a line, if that cannot be counted here."""
    try:
        return worker.launches()
    except NotMeasuredError as error:
        print(f"what a step launches was not counted: {error}", file=sys.stderr)
        return None


def measured(group: Group, rounds: int, device: torch.device, threads: int) -> list[dict[str, Any]]:
    """Return a row for the plain case and for each of ours.

    Raises:
        NotMeasuredError: one of them cannot be built or run here.
        UserError: the network cannot be built here.
    """
    flop, natural_flop = (arithmetic(one[0], device) for one in (group.ours, group.natural))
    every = [group.plain, *group.ours, *group.natural]
    plainly, *times = pair_by_pair(every, rounds, device.type, threads)
    ours, natural = times[: len(group.ours)], times[len(group.ours) :]
    unit = UNITS[device.type]
    return [
        row(group.plain, plainly, flop, unit),
        *(
            row(case, timed, flop, unit)
            | {
                "speedup": plainly.over(timed),
                "over_natural": timed.over(least) * natural_flop / flop,
            }
            for case, timed, least in zip(group.ours, ours, natural, strict=True)
        ),
    ]


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
        "--networks", nargs="+", default=list(plain.NETWORKS), choices=plain.NETWORKS
    )
    parser.add_argument(
        "--methods", nargs="+", default=list(HYPERPARAMETERS), choices=HYPERPARAMETERS
    )
    parser.add_argument("--batch", type=int, help="images per step, of every network")
    parser.add_argument("--steps", type=int, help="per block, of every network")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="of the CPU")
    parser.add_argument("--device", help="auto, cpu or cuda")
    parser.add_argument("--out", type=Path, default=RESULTS)
    return parser.parse_args()


def main() -> None:
    """Time every case; print and write JSON as it goes; draw the figure."""
    asked = arguments()
    device = devices.pick(asked.device)
    torch.set_num_threads(asked.threads)
    peak = {one: ceiling(one, device) for one in PRECISIONS[device.type]}
    for name, value in peak.items():
        print(f"ceiling, {name}: {value / 1e9:,.0f} GFLOP/s")
    rows: list[dict[str, Any]] = []
    left_out: list[str] = []
    told = {"threads": asked.threads, "ceiling": peak, "rows": rows, "left_out": left_out}
    for group in groups(device.type, asked.networks, asked.methods, asked.batch, asked.steps):
        try:
            found = measured(group, asked.rounds, device, asked.threads)
        except (NotMeasuredError, UserError) as error:
            left_out.append(f"{group.plain.network}, {group.plain.method}: {error}")
            print(f"left out: {left_out[-1]}", flush=True)
        else:
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
        f"{row['network']:<11}{row['method']:<9}{row['structure']:<6}{row['precision']:<5}"
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
