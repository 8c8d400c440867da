"""The device that a stage runs on: asked for, or found; never silently another."""

import os

import torch

from regbench.errors import UserError


def pick(name: str | None = None) -> torch.device:
    """Return the device `cpu`, `cuda` or, by `auto`, CUDA where there is one; turn TF32 off.

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
    present = torch.cuda.is_available()
    if name == "cuda" and not present:
        raise UserError("device: cuda asked for, but torch finds no GPU; set device: auto or cpu")
    return torch.device("cuda" if present and name != "cpu" else "cpu")
