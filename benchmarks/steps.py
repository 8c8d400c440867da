"""Ours against the plain structure, pair by pair, in one run: images/s, ratio, share of the floor.

    python benchmarks/steps.py            # on the device at hand, to benchmarks/results/steps.*

Needs torch, seaborn and this repository; no Snakemake, no data. Blocks of steps are timed in turn,
each structure in a process of its own; a ratio is the median of the pairs' ratios.
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
from floor import Arithmetic, arithmetic, ceiling
from record import RESULTS, write
from worker import HYPERPARAMETERS, Case, Worker

from regbench import device as devices

PRECISIONS = {"cpu": ("fp32", "bf16"), "cuda": ("fp32", "tf32", "bf16")}
BLOCKS = {
    # network -> images per step, steps per block
    "cpu": {"lenet_plus": (64, 16), "resnet18": (8, 1)},
    "cuda": {"lenet_plus": (64, 200), "resnet18": (128, 20)},
}


def cases(device: str, networks: list[str], methods: list[str]) -> Iterator[list[Case]]:
    """Return, for each network and method, the plain case and ours in each precision."""
    for name in networks:
        batch, steps = BLOCKS[device][name]
        for method in methods:
            yield [
                Case("plain", name, method, "fp32", batch, steps),
                *(Case("ours", name, method, one, batch, steps) for one in PRECISIONS[device]),
            ]


class Timed(NamedTuple):
    """Of one case: the seconds of each round, and the most bytes that it held."""

    seconds: list[float]
    memory: int


def pair_by_pair(group: list[Case], rounds: int, device: str, threads: int) -> list[Timed]:
    """Time the cases in turn, each in a process of its own."""
    workers = [Worker(device, threads) for _ in group]
    for worker, case in zip(workers, group, strict=True):
        worker.prepare(case)
    times = [[worker.seconds() for worker in workers] for _ in range(rounds)]
    memory = [worker.memory() for worker in workers]
    for worker in workers:
        worker.stop()
    columns = (list(column) for column in zip(*times, strict=True))
    return [Timed(*one) for one in zip(columns, memory, strict=True)]


def row(
    case: Case, timed: Timed, plainly: Timed, counted: Arithmetic, peak: float
) -> dict[str, Any]:
    """Return what is told of a case; the floor is that of our step, whatever the structure."""
    images = case.batch * case.steps
    typical = statistics.median(timed.seconds)
    ratios = (b / s for b, s in zip(plainly.seconds, timed.seconds, strict=True))
    return {
        **asdict(case),
        "images_per_second": images / typical,
        "speedup": statistics.median(ratios),
        "floor_share": counted.flop * case.steps / peak / typical,
        "seconds_per_tflop": typical / case.steps / counted.flop * 1e12,
        "peak_memory": timed.memory,
        "operations_per_step": counted.operations if case.structure == "ours" else None,
        "rounds": len(timed.seconds),
    }


def over_first(rows: list[dict[str, Any]]) -> float:
    """Return the last row's seconds per FLOP over those of the first method of its kind.

    That is natural training, unless `--methods` says otherwise. 1: the method costs its arithmetic
    and no more.
    """
    kind = ("network", "structure", "precision")
    last = rows[-1]
    first = next(one for one in rows if all(one[name] == last[name] for name in kind))
    share: float = last["seconds_per_tflop"] / first["seconds_per_tflop"]
    return share


def main() -> None:
    """Read the command line, time every case, print as it goes, write JSON and figure."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument(
        "--networks", nargs="+", default=list(plain.NETWORKS), choices=plain.NETWORKS
    )
    parser.add_argument(
        "--methods", nargs="+", default=list(HYPERPARAMETERS), choices=HYPERPARAMETERS
    )
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="of the CPU")
    parser.add_argument("--device", help="auto, cpu or cuda")
    parser.add_argument("--out", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    device = devices.pick(arguments.device)
    torch.set_num_threads(arguments.threads)
    peak = {one: ceiling(one, device) for one in PRECISIONS[device.type]}
    for name, value in peak.items():
        print(f"ceiling, {name}: {value / 1e9:,.0f} GFLOP/s")
    rows: list[dict[str, Any]] = []
    for group in cases(device.type, arguments.networks, arguments.methods):
        times = pair_by_pair(group, arguments.rounds, device.type, arguments.threads)
        counted = arithmetic(group[-1], device)
        for case, timed in zip(group, times, strict=True):
            rows.append(row(case, timed, times[0], counted, peak[case.precision]))
            rows[-1]["over_first"] = over_first(rows)
            print(line(rows[-1]), flush=True)
    told = {"threads": arguments.threads, "ceiling": peak, "rows": rows}
    write(arguments.out / "steps.json", device, told)
    draw(rows, arguments.out / "steps.png")


def line(row: dict[str, Any]) -> str:
    """Return a case as a line of the table that is printed."""
    operations = row["operations_per_step"] or "?"
    return (
        f"{row['network']:<11}{row['method']:<9}{row['structure']:<6}{row['precision']:<5}"
        f"m = {row['batch']:<4}{row['images_per_second']:>10,.0f} images/s"
        f"  x{row['speedup']:<5.2f}  {row['floor_share']:4.0%} of the ceiling"
        f"  {row['over_first']:4.2f} of the first's s/FLOP"
        f"  {row['peak_memory'] / 2**20:6,.0f} MiB  {operations:>4} operations"
    )


def draw(rows: list[dict[str, Any]], path: Path) -> None:
    """Draw the ratios: a panel per network, a bar per method and precision."""
    import pandas as pd  # noqa: PLC0415 - the timing needs neither
    import seaborn as sns  # noqa: PLC0415

    sns.set_theme(context="paper", style="whitegrid", palette="colorblind", font_scale=1.1)
    table = pd.DataFrame([one for one in rows if one["structure"] == "ours"])
    grid = sns.catplot(
        table, kind="bar", x="method", y="speedup", hue="precision", col="network",
        height=3, aspect=1.5, errorbar=None, sharey=False,
    )  # fmt: skip
    for axes in grid.axes.flat:
        axes.axhline(1, color="black", linewidth=1)
    grid.set_axis_labels("", "times as fast as the plain structure")
    grid.set_titles("{col_name}")
    grid.savefig(path, dpi=150)


if __name__ == "__main__":
    sys.exit(main())
