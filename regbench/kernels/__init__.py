"""GPU kernels of our own, where PyTorch's take several times what their bytes need.

In Triton, which comes with PyTorch for CUDA. Not taken yet: no GPU has measured them.
"""

from functools import cache
from importlib.util import find_spec

import torch
from torch import Tensor

OWN = False
"""Whether they are taken; `benchmarks/gains.py kernels` shows what that gains."""

ADDRESSED = 2**31
"""Numbers of a tensor that a kernel can tell apart."""


def take(x: Tensor) -> bool:
    """Tell whether the kernels take `x`."""
    return OWN and x.device.type == "cuda" and 0 < x.numel() < ADDRESSED and _has_triton()


@cache
def _has_triton() -> bool:
    return find_spec("triton") is not None


def channels_last(x: Tensor) -> bool:
    """Tell whether the channels of `x`, (m, C, H, W), or of weights, (K, C, h, w), lie last."""
    return x.stride(1) == 1 and x.shape[2:].numel() > 1


def empty(
    shape: tuple[int, ...], like: Tensor, *, last: bool, dtype: torch.dtype | None = None
) -> Tensor:
    """Return a tensor on the device of `like`, and of its type if none is named."""
    layout = torch.channels_last if last else torch.contiguous_format
    return torch.empty(shape, dtype=dtype or like.dtype, device=like.device, memory_format=layout)
