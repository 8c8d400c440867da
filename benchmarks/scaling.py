"""Where cost bends: seconds per epoch against batch size, width, and runs side by side.

python benchmarks/scaling.py      # on the device at hand, to benchmarks/results/scaling.*
"""

import argparse
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pandas as pd
import seaborn as sns
import torch
from record import RESULTS, write
from worker import Case, Worker

from regbench import device as devices

IMAGES = 50_000
BATCHES = {"cpu": (8, 16, 32, 64, 128, 256), "cuda": (32, 64, 128, 256, 512, 1024, 2048)}
WIDTHS = (4, 8, 16, 32, 64, 128)
RUNS = {"cpu": (1, 2, 3, 4), "cuda": (1, 2, 3, 5, 10)}
METHODS = ("fgsm_at", "sat_r1", "sat_r3")


def epoch(case: Case, device: str, threads: int, rounds: int, runs: int = 1) -> float:
    """Return the seconds of an epoch of 50,000 images: the best of `rounds` blocks.

    With several runs side by side, each in a process of its own, the seconds per run.
    """
    workers = [Worker(device, threads) for _ in range(runs)]
    with ThreadPoolExecutor(runs) as pool:
        list(pool.map(lambda worker: worker.prepare(case), workers))
        blocks = [max(pool.map(Worker.seconds, workers)) for _ in range(rounds)]
    for worker in workers:
        worker.stop()
    return min(blocks) / (case.batch * case.steps) * IMAGES / runs


def over_batches(device: str, threads: int, rounds: int) -> list[dict[str, object]]:
    """LeNet+, by batch size: launches bend the left end, memory the right."""
    return [
        {"what": "batch size, LeNet+", "value": batch, "method": method,
         "seconds": epoch(_case("lenet_plus", method, batch), device, threads, rounds)}
        for method in METHODS for batch in BATCHES[device]
    ]  # fmt: skip


def over_widths(device: str, threads: int, rounds: int) -> list[dict[str, object]]:
    """The small CNN, by width: below some width a step is all launches."""
    return [
        {"what": "width, small CNN", "value": width, "method": method,
         "seconds": epoch(_case("small_cnn", method, 64, width), device, threads, rounds)}
        for method in METHODS for width in WIDTHS
    ]  # fmt: skip


def over_runs(device: str, rounds: int) -> list[dict[str, object]]:
    """LeNet+, by runs side by side, each on one thread: seconds per run."""
    return [
        {"what": "runs side by side, LeNet+", "value": runs, "method": method,
         "seconds": epoch(_case("lenet_plus", method, 64), device, 1, rounds, runs)}
        for method in METHODS for runs in RUNS[device]
    ]  # fmt: skip


def _case(network: str, method: str, batch: int, width: int | None = None) -> Case:
    steps = max(4, 256 // batch)
    return Case("ours", network, method, "fp32", batch, steps, width)


def draw(table: pd.DataFrame, path: Path) -> None:
    """Draw a panel for each thing that is varied, both axes logarithmic."""
    sns.set_theme(context="paper", style="whitegrid", palette="colorblind", font_scale=1.1)
    grid = sns.relplot(
        table, kind="line", x="value", y="seconds", hue="method", style="method", markers=True,
        dashes=False, col="what", height=3, facet_kws={"sharex": False, "sharey": False},
    )  # fmt: skip
    for axes in grid.axes.flat:
        axes.set_xscale("log", base=2)
        axes.set_yscale("log", base=2)
        axes.xaxis.set_major_formatter("{x:.0f}")
        axes.yaxis.set_major_formatter("{x:g}")
    grid.set_axis_labels("", "seconds per epoch")
    grid.set_titles("{col_name}")
    grid.savefig(path, dpi=150)


def main() -> None:
    """Measure, print, write JSON and figure."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--device", help="auto, cpu or cuda")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="of the CPU")
    parser.add_argument("--out", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    device, threads, rounds = devices.pick(arguments.device), arguments.threads, arguments.rounds
    rows = [
        *over_batches(device.type, threads, rounds),
        *over_widths(device.type, threads, rounds),
        *over_runs(device.type, rounds),
    ]
    table = pd.DataFrame(rows)
    print(table.to_string(index=False))
    write(arguments.out / "scaling.json", device, {"threads": threads, "rows": rows})
    draw(table, arguments.out / "scaling.png")


if __name__ == "__main__":
    main()
