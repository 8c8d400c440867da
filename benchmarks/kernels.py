"""Where a step's time goes on a GPU: its kernels, how long each takes, and what the host adds.

    python benchmarks/kernels.py --network lenet_plus --method sat_r3 --precision bf16

Needs CUDA. A block of steps is timed by itself first; the profiler makes steps slower.
"""

import argparse
from collections import Counter
from pathlib import Path
from typing import Any

import plain
import torch
from record import RESULTS, write
from torch.autograd import DeviceType
from torch.autograd.profiler_util import FunctionEvent
from torch.profiler import ProfilerActivity, profile
from worker import HYPERPARAMETERS, Case, Epoch, Ours

from regbench import device as devices
from regbench.errors import UserError, program

LONGEST = 12
"""Kernels that are told by name."""


def measured(case: Case, device: torch.device) -> dict[str, Any]:
    """Return milliseconds per step: of the step, of all its kernels, of the longest by name."""
    ours = Ours(case, device)
    ours.block(lambda: None)
    window = ours.block(lambda: None)
    step = 1e3 * (window.ended - window.began) / case.steps
    spent, counts = Counter[str](), Counter[str]()
    for event in profiled(ours):
        spent[event.name] += event.device_time / 1e3 / case.steps
        counts[event.name] += 1
    kernels = [
        {"kernel": name, "ms": ms, "per_step": counts[name] / case.steps}
        for name, ms in spent.most_common(LONGEST)
    ]
    return {
        "ms_per_step": step,
        "ms_of_kernels": sum(spent.values()),
        "kernels_per_step": sum(counts.values()) / case.steps,
        "longest": kernels,
    }


def profiled(ours: Ours) -> list[FunctionEvent]:
    """Return what ran on the GPU in the second epoch of a block; the first records the step."""
    profiler = profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA])

    def begin(row: Epoch) -> None:
        if row["epoch"] == 1:
            profiler.start()

    ours.run(begin)
    torch.cuda.synchronize()
    profiler.stop()
    return [one for one in profiler.events() if one.device_type == DeviceType.CUDA]


def arguments() -> argparse.Namespace:
    """Return what the command line says."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--network", default="lenet_plus", choices=plain.NETWORKS)
    parser.add_argument("--method", default="sat_r3", choices=HYPERPARAMETERS)
    parser.add_argument("--precision", default="bf16", choices=("fp32", "tf32", "bf16"))
    parser.add_argument("--batch", type=int, default=64, help="images per step")
    parser.add_argument("--steps", type=int, default=50, help="per block")
    parser.add_argument("--out", type=Path, default=RESULTS)
    return parser.parse_args()


def main() -> None:
    """Measure one case; print it and write JSON."""
    asked = arguments()
    device = devices.pick("auto")
    if device.type != "cuda":
        raise UserError("kernels.py needs a GPU, and torch finds none here")
    case = Case("ours", asked.network, asked.method, asked.precision, asked.batch, asked.steps)
    found = measured(case, device)
    tell(case, found)
    name = f"kernels-{case.network}-{case.method}-{case.precision}.json"
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
