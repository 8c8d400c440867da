"""Kernels of our own, where PyTorch's take several times what their bytes or products need.

A GPU's are in Triton, which comes with PyTorch for CUDA; a CPU's in C, compiled where there is a
compiler (regbench.core.kernels.native). Each proves itself before it is taken
(regbench.core.kernels.proof). They count with the code that made a number
(regbench.experiment.fingerprint).
"""

from functools import cache
from importlib.util import find_spec

import torch
from torch import Tensor

OWN = True
"""Whether they are taken; `benchmarks/gains.py kernels` shows what that gains."""

OPTIONS = {"enable_fp_fusion": True}
"""Of the compiler: a product and a sum in one operation, as versions up to 3.9 do by themselves."""

MOST_KERNELS, MOST_TAPS = 128, 128
"""Of a layer that one is for: what a GPU's program keeps in registers, a core in its cache."""

ADDRESSED = 2**30
"""Numbers of a tensor that a kernel can tell apart: of 2³¹ half, padding and a last block aside."""


def take(x: Tensor, times: int = 1) -> bool:
    """Tell whether a GPU's kernels take `x`.

    Args:
        x: what is read, of any shape and layout.
        times: how many times as many numbers the kernels write, at the most.
    """
    return OWN and x.device.type == "cuda" and 0 < times * _extent(x) < ADDRESSED and has_triton()


def few(weight: Tensor) -> bool:
    """Tell whether `weight`, (K, C, h, w), is of few enough kernels, each of few enough taps."""
    return len(weight) <= MOST_KERNELS and weight[0].numel() <= MOST_TAPS


def _extent(x: Tensor) -> int:
    """How many numbers lie from the first of `x` to its last; 0 if there is none."""
    if not x.numel():
        return 0
    return 1 + sum((size - 1) * step for size, step in zip(x.shape, x.stride(), strict=True))


@cache
def has_triton() -> bool:
    """Tell whether Triton is installed."""
    return find_spec("triton") is not None


def channels_last(x: Tensor) -> bool:
    """Tell whether the channels of `x`, (m, C, H, W), or of weights, (K, C, h, w), lie last."""
    return x.stride(1) == 1 and x.shape[2:].numel() > 1


def empty(
    shape: tuple[int, ...], like: Tensor, *, last: bool, dtype: torch.dtype | None = None
) -> Tensor:
    """Return an empty tensor of `shape` on the device of `like`.

    Args:
        shape: (m, C, H, W).
        like: whose type it has if none is named.
        last: whether its channels lie last.
        dtype: its type.
    """
    layout = torch.channels_last if last else torch.contiguous_format
    return torch.empty(shape, dtype=dtype or like.dtype, device=like.device, memory_format=layout)
