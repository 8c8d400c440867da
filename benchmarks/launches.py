"""What a step launches: kernels and graphs on CUDA, as operations of PyTorch on a CPU."""

from collections.abc import Callable

import torch
from torch.profiler import ProfilerActivity, profile
from torch.utils._python_dispatch import TorchDispatchMode

Work = Callable[[], object]
Count = Callable[[Work], int]

NAMES = ("cudaLaunchKernel", "cuLaunchKernel", "cudaGraphLaunch")
"""How the calls of CUDA's runtime and driver begin that launch a kernel or a graph."""


class _Operations(TorchDispatchMode):
    """Counts what is dispatched, forward and backward."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        self.count += 1
        return function(*args, **(kwargs or {}))


def operations(work: Work) -> int:
    """Return how many operations PyTorch dispatches for `work`."""
    with _Operations() as counted:
        work()
    return counted.count


def launches(work: Work) -> int:
    """Return how often `work` launches a kernel or a graph; memory copies do not count.

    Raises:
        RuntimeError: the profiler saw none.
    """
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as profiled:
        work()
        torch.cuda.synchronize()
    count = sum(one.count for one in profiled.key_averages() if one.key.startswith(NAMES))
    if not count:
        raise RuntimeError("the profiler saw no launch: CUPTI, which tells it, may be missing")
    return count


COUNTS: dict[str, Count] = {"cpu": operations, "cuda": launches}
UNITS = {device: count.__name__ for device, count in COUNTS.items()}
