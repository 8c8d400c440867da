"""Where a step's time goes on a GPU: its kernels and how long each takes.

    python benchmarks/kernels.py --network lenet_plus --method sat_r3 --precision bf16

Needs CUDA. A block of steps is timed by itself first, since the profiler makes steps slower; what
the kernels leave of that is the host's.
"""

import argparse
from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from cases import Case, add_case, case_of
from record import RESULTS, write
from structures import Ours
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from regbench.core import device as devices
from regbench.errors import UserError, program
from regbench.training.loop import Epoch

LONGEST = 12
"""Kernels that are told by name."""


def measured(case: Case, device: torch.device) -> dict[str, Any]:
    """Return milliseconds per step: of the step, of all its kernels, of the longest by name."""
    ours = Ours(case, device)
    ours.block(lambda: None)
    window = ours.block(lambda: None)
    few, more = kernels(ours), kernels(Ours(replace(case, steps=2 * case.steps), device))
    # what both have besides steps, judging the network after the epoch, goes
    spent = {name: (more[name].ms - few[name].ms) / case.steps for name in more}
    counts = {name: (more[name].count - few[name].count) / case.steps for name in more}
    longest = sorted(spent, key=lambda name: -spent[name])[:LONGEST]
    return {
        "ms_per_step": 1e3 * (window.ended - window.began) / case.steps,
        "ms_of_kernels": sum(spent.values()),
        "kernels_per_step": sum(counts.values()),
        "longest": [
            {"kernel": name, "ms": spent[name], "per_step": counts[name]} for name in longest
        ],
    }


class Ran(NamedTuple):
    """How long all runs of a kernel took, and how many there were."""

    ms: float = 0.0
    count: int = 0


def kernels(ours: Ours) -> defaultdict[str, Ran]:
    """Return what ran on the GPU in the second epoch of a block, by name; the first records."""
    profiler = profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA])

    def begin(row: Epoch) -> None:
        if row["epoch"] == 1:
            profiler.start()

    ours.run(begin)
    torch.cuda.synchronize()
    profiler.stop()
    found: defaultdict[str, Ran] = defaultdict(Ran)
    for event in profiler.events():
        if event.device_type == DeviceType.CUDA:
            ms, count = found[event.name]
            found[event.name] = Ran(ms + event.device_time / 1e3, count + 1)
    return found


def arguments() -> argparse.Namespace:
    """Return what the command line says."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    add_case(parser, method="sat_r3", steps=50)
    parser.add_argument("--out", type=Path, default=RESULTS)
    return parser.parse_args()


def main() -> None:
    """Measure one case; print it and write JSON."""
    asked = arguments()
    device = devices.pick("auto")
    if device.type != "cuda":
        raise UserError("kernels.py needs a GPU, and torch finds none here")
    case = case_of(asked)
    found = measured(case, device)
    tell(case, found)
    name = f"kernels-{case.network}-{case.method}-{case.precision}-{case.batch}.json"
    write(asked.out / name, device, {"case": vars(case), **found})


def tell(case: Case, found: dict[str, Any]) -> None:
    """Print what was measured."""
    print(
        f"{case.network}, {case.method}, {case.precision}, m = {case.batch}:"
        f" {found['ms_per_step']:.3f} ms per step, {found['ms_of_kernels']:.3f} ms in"
        f" {found['kernels_per_step']:.0f} kernels"
    )
    for one in found["longest"]:
        print(f"{one['ms']:9.4f} ms {one['per_step']:6.1f} × {one['kernel'][:120]}")


if __name__ == "__main__":
    program(main)
