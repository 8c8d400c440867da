"""The device that a stage runs on: asked for, or found; never silently another."""

import os

import torch

from regbench.errors import UserError


def pick(name: str | None = None) -> torch.device:
    """Return the device `cpu`, `cuda` or, by `auto`, CUDA where there is one.

    Args:
        name: if none, $REGBENCH_DEVICE, else `auto`.

    Raises:
        UserError: an unknown name, or CUDA asked for and absent.
    """
    name = name or os.environ.get("REGBENCH_DEVICE") or "auto"
    if name not in {"auto", "cpu", "cuda"}:
        raise UserError(f"device must be auto, cpu or cuda, got '{name}'")
    present = torch.cuda.is_available()
    if name == "cuda" and not present:
        raise UserError("device: cuda asked for, but torch finds no GPU; set device: auto or cpu")
    return torch.device("cuda" if present and name != "cpu" else "cpu")
