"""Memory: that there is none left, how to do with less, and how much was needed."""

import re
import resource
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import torch

Done = TypeVar("Done")

EXHAUSTED = (
    "allocate memory", "not enough memory", "CUDA error: out of memory",
    "driver error: out of memory", "ALLOC_FAILED", "ALLOCATION_FAILED",
)  # fmt: skip
"""Words of errors that are no `torch.OutOfMemoryError`: of the CPU's allocator, cuBLAS, cuDNN."""

AMBIGUOUS = (
    "CUBLAS_STATUS_NOT_INITIALIZED", "CUDNN_STATUS_NOT_INITIALIZED",
    "unable to find an engine to execute",
)  # fmt: skip
"""What these libraries say on a full GPU, and of other faults too."""

FULL = 2**28
"""Bytes free on a GPU below which it counts as full."""


class DoesNotFitError(Exception):
    """Not even one image at a time fits in memory."""


def fitting(work: Callable[[int], Done], size: int) -> tuple[Done, int]:
    """Do `work` in batches half as large until they fit.

    Return what `work` returns of the first of size, size/2, …, 1 that fits, and that number.

    Args:
        work: takes the largest number of images per batch; called again, it begins afresh.
        size: the number to begin with, at least 1.

    Raises:
        DoesNotFitError: even 1 is too much; the allocator's own error is its cause.
    """
    while True:
        try:
            return work(size), size
        except (RuntimeError, MemoryError) as error:
            if not exhausted(error):
                raise
            if size == 1:
                raise DoesNotFitError("one image at a time is too much") from error
            print(f"out of memory with {size} images at a time: {error}", file=sys.stderr)
        # not in the except block: its traceback holds the tensors
        size //= 2
        print(f"beginning afresh with {size}", file=sys.stderr, flush=True)
        torch.cuda.empty_cache()


def exhausted(error: BaseException) -> bool:
    """Tell whether `error` says that memory does not suffice, the GPU's or the machine's."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    if not isinstance(error, RuntimeError):
        return False
    told = str(error)
    return any(word in told for word in EXHAUSTED) or (
        any(word in told for word in AMBIGUOUS) and _gpu_is_full()
    )


def _gpu_is_full() -> bool:
    return torch.cuda.is_available() and torch.cuda.mem_get_info()[0] < FULL


def peak(device: torch.device) -> dict[str, int]:
    """Return the most bytes that this process has held: on the machine, and on a GPU.

    On the GPU those that no other process could have: what PyTorch keeps for itself counts.
    """
    held = {"peak_memory": _high_water()}
    if device.type == "cuda":
        held["peak_gpu_memory"] = torch.cuda.max_memory_reserved(device)
    return held


def _high_water() -> int:
    """The most bytes resident so far, where it is told apart from the program that started this."""
    try:
        status = Path("/proc/self/status").read_text(encoding="utf-8", errors="replace")
    except OSError:
        status = ""
    found = re.search(r"VmHWM:\s*(\d+) kB", status)
    if found:
        return 1024 * int(found[1])
    unit = 1024 if sys.platform == "linux" else 1
    return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
