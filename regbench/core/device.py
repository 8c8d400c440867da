"""The device that a stage runs on: asked for, or found; never silently another."""

import ctypes
import os
from contextlib import suppress

import torch

from regbench.errors import UserError

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
"""Of malloc.h."""


def pick(name: str | None = None) -> torch.device:
    """Return the device `cpu`, `cuda` or, by `auto`, CUDA where there is one; turn TF32 off.

    $REGBENCH_DETERMINISTIC = 1 asks for PyTorch's deterministic algorithms.

    Args:
        name: if none, $REGBENCH_DEVICE, else `auto`.

    Raises:
        UserError: an unknown name, or CUDA asked for and absent.
    """
    name = name or os.environ.get("REGBENCH_DEVICE") or "auto"
    if name not in {"auto", "cpu", "cuda"}:
        raise UserError(f"device must be auto, cpu or cuda, got '{name}'")
    # fp32 means fp32: cuDNN would round its inputs to TF32 by default
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_tf32 = False
    if os.environ.get("REGBENCH_DETERMINISTIC") == "1":
        torch.use_deterministic_algorithms(True)
    _keep_memory()
    present = torch.cuda.is_available()
    if name == "cuda" and not present:
        raise UserError("device: cuda asked for, but torch finds no GPU; set device: auto or cpu")
    return torch.device("cuda" if present and name != "cpu" else "cpu")


def _keep_memory() -> None:
    """Let glibc keep what is freed: each step would give pages back and fault them in anew."""
    for parameter, value in ((M_MMAP_THRESHOLD, 32 << 20), (M_TRIM_THRESHOLD, 2**31 - 1)):
        with suppress(AttributeError, OSError):  # another C library has no mallopt
            ctypes.CDLL(None).mallopt(parameter, value)
