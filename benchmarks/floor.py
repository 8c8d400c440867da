"""What a step costs at least: its arithmetic, counted, over what the machine can do, measured."""

import time
from collections.abc import Callable
from functools import cache

import torch
from cases import SHAPES, Case, built
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from regbench.core.precision import PRECISIONS, products_in
from regbench.step import Step

FORMULAS = {
    **flop_registry,
    # oneDNN's product is not in torch's list
    torch.ops.mkldnn._linear_pointwise: lambda x, w, *_, **__: 2 * x.shape[0] * w.numel(),
}
DTYPES = {"fp32": torch.float32, "tf32": torch.float32, "bf16": torch.bfloat16}
"""Of a ceiling's operands: autocast would cast them anew in each product, which takes as long."""

Product = tuple[Callable[[], object], float]
"""What is timed, and its FLOP."""


class _Count(TorchDispatchMode):
    """Adds up torch's own FLOP formulas; its FlopCounterMode refuses a gradient within a step."""

    def __init__(self) -> None:
        super().__init__()
        self.flop = 0.0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        result = function(*args, **(kwargs or {}))
        formula = FORMULAS.get(function.overloadpacket)
        if formula is not None:
            self.flop += formula(*args, **(kwargs or {}), out_val=result)
        return result


@cache  # natural training is what every method is held against
def arithmetic(case: Case) -> float:
    """Return the floating point operations of one step's products.

    Counted in fp32 on a CPU, where every product is one of PyTorch's, for two small batches: it
    grows with the batch in equal steps, from what does not (SAT-R1's single image).

    Raises:
        UserError: the network cannot be built here.
    """
    few, more = (_counted(case, images) for images in (2, 3))
    return few + (case.batch - 2) * (more - few)


def _counted(case: Case, images: int) -> float:
    cpu = torch.device("cpu")
    run, model, loss = built(case, cpu)
    x, y = torch.rand(images, *SHAPES[case.network]), torch.zeros(images, dtype=torch.int64)
    step = Step(model, x, y, run.epsilon, torch.Generator(cpu).manual_seed(0))
    with _Count() as count:
        loss(step).total.backward()
    return count.flop


def ceiling(precision: str, device: torch.device) -> float:
    """Return the most FLOP per second that a matrix product or a convolution reaches here.

    TF32 has been turned off by regbench.core.device; for `tf32`, regbench.core.precision turns it
    on. A CPU that rounds to bf16 computes in fp32, and that is its ceiling.
    """
    precision = products_in(precision, device)
    with PRECISIONS[precision](device):
        products = (one(device, DTYPES[precision]) for one in (_product, _convolution))
        return max(_rate(*one) for one in products)


def _product(device: torch.device, dtype: torch.dtype) -> Product:
    n = 1024 if device.type == "cpu" else 8192
    a, b = (torch.rand(n, n, device=device, dtype=dtype) for _ in range(2))
    return (lambda: a @ b), 2.0 * n**3


def _convolution(device: torch.device, dtype: torch.dtype) -> Product:
    m = 32 if device.type == "cpu" else 512
    how = {"device": device, "dtype": dtype, "memory_format": torch.channels_last}
    layer = torch.nn.Conv2d(128, 128, 3, padding=1).to(**how)
    x = torch.rand(m, 128, 16, 16).to(**how)
    return (lambda: layer(x)), 2.0 * m * 16 * 16 * 9 * 128 * 128


def _rate(run: Callable[[], object], flop: float) -> float:
    best = float("inf")
    with torch.no_grad():
        for _ in range(20):
            started = time.perf_counter()
            run()
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            best = min(best, time.perf_counter() - started)
    return flop / best
