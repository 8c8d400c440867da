"""Memory: that there is none left, and how much was needed."""

import resource

import torch


def exhausted(error: BaseException) -> bool:
    """Tell whether `error` says that memory does not suffice, the GPU's or the machine's."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    # the CPU's allocator has no error of its own
    return isinstance(error, RuntimeError) and "can't allocate memory" in str(error)


def peak(device: torch.device) -> dict[str, int]:
    """Return the most bytes that this process has held: on the machine, and on a GPU."""
    held = {"peak_memory": 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss}
    if device.type == "cuda":
        held["peak_gpu_memory"] = torch.cuda.max_memory_allocated(device)
    return held
