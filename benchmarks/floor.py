"""What a step costs at least: its arithmetic, counted, over what the machine can do, measured."""

import time
from typing import NamedTuple

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry
from worker import SHAPES, Case, built

from regbench.precision import PRECISIONS
from regbench.step import Step

FORMULAS = {
    **flop_registry,
    # oneDNN's product is not in torch's list
    torch.ops.mkldnn._linear_pointwise: lambda x, w, *_, **__: 2 * x.shape[0] * w.numel(),
}


class Arithmetic(NamedTuple):
    """Of one step: floating point operations of products, and operations dispatched."""

    flop: float
    operations: int


class _Count(TorchDispatchMode):
    """Adds up torch's own FLOP formulas; its FlopCounterMode refuses a gradient within a step."""

    def __init__(self) -> None:
        super().__init__()
        self.flop = 0.0
        self.operations = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        result = function(*args, **(kwargs or {}))
        self.operations += 1
        formula = FORMULAS.get(function.overloadpacket)
        if formula is not None:
            self.flop += formula(*args, **(kwargs or {}), out_val=result)
        return result


def arithmetic(case: Case, device: torch.device) -> Arithmetic:
    """Return what one step of `case` does, its arithmetic counted in fp32."""
    run, model, loss = built(case, device)
    x = torch.rand(case.batch, *SHAPES[case.network], device=device)
    y = torch.zeros(case.batch, dtype=torch.int64, device=device)
    step = Step(model, x, y, run.epsilon, torch.Generator(device).manual_seed(0))
    with _Count() as count:
        loss(step).total.backward()
    return Arithmetic(count.flop, count.operations)


def ceiling(precision: str, device: torch.device) -> float:
    """Return the most FLOP per second that a matrix product or a convolution reaches here."""
    with PRECISIONS[precision](device):
        return max(_rate(*one(device)) for one in (_product, _convolution))


def _product(device: torch.device) -> tuple[object, float]:
    n = 1024 if device.type == "cpu" else 8192
    a, b = (torch.rand(n, n, device=device) for _ in range(2))
    return (lambda: a @ b), 2.0 * n**3


def _convolution(device: torch.device) -> tuple[object, float]:
    m = 32 if device.type == "cpu" else 512
    layer = torch.nn.Conv2d(128, 128, 3, padding=1).to(device, memory_format=torch.channels_last)
    x = torch.rand(m, 128, 16, 16, device=device).to(memory_format=torch.channels_last)
    return (lambda: layer(x)), 2.0 * m * 16 * 16 * 9 * 128 * 128


def _rate(run, flop: float) -> float:  # type: ignore[no-untyped-def]
    best = float("inf")
    with torch.no_grad():
        for _ in range(20):
            started = time.perf_counter()
            run()
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            best = min(best, time.perf_counter() - started)
    return flop / best
