"""What a part of our step gains: the step with it and without it, in turn, in one process.

    python benchmarks/gains.py normalisation --network resnet18 --method pgd_at --batch 128

Needs neither Snakemake nor data. `kernels` (regbench.core.kernels) are Triton's on a GPU, in C on a
CPU.
"""

import argparse
import statistics
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from unittest.mock import patch

import torch
from cases import Case, add_case, built, case_of
from record import add_place, at_least_one, write
from structures import Ours, at_once

from regbench.core import device as devices
from regbench.core import kernels
from regbench.core.kernels import native
from regbench.core.layers import Joining, ScalingBatchNorm2d
from regbench.errors import UserError, program
from regbench.experiment.cells import PAPER_TRAINING

Part = Callable[[bool], AbstractContextManager[object]]
"""Whether a part is in the step -> a context in which steps built and taken are so."""


@contextmanager
def compiler(there: bool) -> Iterator[None]:
    """Have the network compiled or not; nothing that was compiled before counts as known."""
    torch.compiler.reset()
    with patch.dict(PAPER_TRAINING, {"compiled": there}):
        yield


PARTS: dict[str, Part] = {
    "compiler": compiler,
    "kernels": lambda there: patch.object(kernels, "OWN", there),
    "normalisation": lambda there: patch.object(
        ScalingBatchNorm2d, "fits", ScalingBatchNorm2d.fits if there else lambda _: False
    ),
}


def compare(part: Part, case: Case, device: torch.device, rounds: int) -> dict[str, object]:
    """Return milliseconds per step of each round, without the part and with it, and the gain.

    Each is built and warmed up anew in every round; the gain is the median of the rounds' ratios.
    """
    ms: dict[str, list[float]] = {"without": [], "with": []}
    for turn in range(rounds):
        for there in (False, True) if turn % 2 == 0 else (True, False):
            with part(there):
                window = Ours(case, device).block(at_once)
            took = (window.ended - window.began) / case.steps * 1e3
            ms["with" if there else "without"].append(took)
    pairs = zip(ms["without"], ms["with"], strict=True)
    return {"ms_per_step": ms, "gain": statistics.median(one / other for one, other in pairs)}


def refuse_absent(part: str, case: Case, device: torch.device) -> None:
    """Refuse to time a part that is in no step of this case.

    Raises:
        UserError: so it is, and why.
    """
    on_cpu = part == "kernels" and device.type == "cpu"
    if part == "kernels" and not on_cpu and not kernels.has_triton():
        raise UserError("gains.py kernels needs Triton, which comes with PyTorch for CUDA")
    if on_cpu and native.target() is None:
        raise UserError("gains.py kernels needs a C compiler on a CPU: $CC or cc")
    if on_cpu and not _has(case, device, Joining):
        raise UserError(f"{case.network} has no layers for them; try --network lenet_plus")
    if part == "normalisation" and not _has(case, device, ScalingBatchNorm2d):
        raise UserError(f"{case.network} has no batch normalisation; try --network resnet18")


def _has(case: Case, device: torch.device, kind: type) -> bool:
    return any(isinstance(one, kind) for one in built(case, device).model.modules())


def arguments() -> argparse.Namespace:
    """Return what the command line says."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("part", choices=PARTS)
    add_case(parser, method="pgd_at", steps=100)
    parser.add_argument("--rounds", type=at_least_one, default=3)
    add_place(parser)
    return parser.parse_args()


def main() -> None:
    """Measure one part in one case; print it and write JSON."""
    asked = arguments()
    device = devices.pick(asked.device)
    case = case_of(asked)
    refuse_absent(asked.part, case, device)
    told = compare(PARTS[asked.part], case, device, asked.rounds)
    print(
        f"{asked.part}, {case.network}, {case.method}, {case.precision}, m = {case.batch}: {told}"
    )
    name = f"gains-{asked.part}-{case.network}-{case.method}-{case.precision}-{case.batch}.json"
    write(asked.out / name, device, {"part": asked.part, "case": vars(case), **told})


if __name__ == "__main__":
    program(main)
