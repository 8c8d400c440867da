"""Max-pooling of 2×2 windows that do not overlap, there and back."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from regbench.core.kernels import OPTIONS, channels_last, empty, plain
from regbench.core.kernels.proof import proved_by

BLOCK = 512
"""How many maxima one program takes."""


@proved_by(plain.halved)
def halved(x: Tensor, *, flattened: bool, noted: bool) -> tuple[Tensor, Tensor | None]:
    """Return the maxima of 2×2 windows and, if `noted`, where each stood, int8.

    Args:
        x: (m, C, H, W), H and W even.
        flattened: whether the maxima are to lie channel by channel, whatever the layout of `x`.
        noted: whether to say where: 0 to 3, row by row, the first of equals; NaN beats numbers.
    """
    shape = (*x.shape[:2], x.shape[2] // 2, x.shape[3] // 2)
    last = channels_last(x)
    y = empty(shape, x, last=last and not flattened)
    where = empty(shape, x, last=last, dtype=torch.int8) if noted else None
    _halve[_blocks(y)](
        x, y, where, *x.stride(), *y.stride(), y.numel(), *shape[1:],
        LAST=last, NOTED=noted, BLOCK=BLOCK, **OPTIONS,
    )  # fmt: skip
    return y, where


@proved_by(plain.spread, images=2)
def spread(gradient: Tensor, where: Tensor) -> Tensor:
    """Return `gradient` where the maxima stood, (m, C, H, W), and 0 elsewhere.

    Args:
        gradient: of the maxima, (m, C, H/2, W/2), in any layout.
        where: of `halved`; the result has its layout, where it can be told.
    """
    count, channels, height, width = where.shape
    last = channels_last(where)
    x = empty((count, channels, 2 * height, 2 * width), gradient, last=last)
    _spread[_blocks(where)](
        gradient, where, x, *gradient.stride(), *x.stride(), where.numel(), *where.shape[1:],
        LAST=last, BLOCK=BLOCK, **OPTIONS,
    )  # fmt: skip
    return x


def _blocks(x: Tensor) -> tuple[int]:
    return (triton.cdiv(x.numel(), BLOCK),)


@triton.jit
def _place(at, C: tl.constexpr, H: tl.constexpr, W: tl.constexpr, LAST: tl.constexpr):
    """Image, channel, row and column of the number that lies `at`-th in a dense tensor."""
    if LAST:
        c, at = at % C, at // C
        w, at = at % W, at // W
        h, n = at % H, at // H
    else:
        w, at = at % W, at // W
        h, at = at % H, at // H
        c, n = at % C, at // C
    return n, c, h, w


@triton.jit
def _halve(
    x, y, where, along_n, along_c, along_h, along_w, to_n, to_c, to_h, to_w, size,
    C: tl.constexpr, H: tl.constexpr, W: tl.constexpr,
    LAST: tl.constexpr, NOTED: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    there = at < size
    n, c, h, w = _place(at, C, H, W, LAST)
    first = x + n * along_n + c * along_c + 2 * h * along_h + 2 * w * along_w
    best = tl.load(first, mask=there)
    stood = tl.zeros((BLOCK,), tl.int8)
    for k in tl.static_range(1, 4):
        value = tl.load(first + (k // 2) * along_h + (k % 2) * along_w, mask=there)
        higher = (value > best) | (value != value)  # or NaN
        best = tl.where(higher, value, best)
        stood = tl.where(higher, k, stood).to(tl.int8)
    tl.store(y + n * to_n + c * to_c + h * to_h + w * to_w, best, mask=there)
    if NOTED:
        tl.store(where + at, stood, mask=there)


@triton.jit
def _spread(
    gradient, where, x, from_n, from_c, from_h, from_w, along_n, along_c, along_h, along_w, size,
    C: tl.constexpr, H: tl.constexpr, W: tl.constexpr, LAST: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    there = at < size
    n, c, h, w = _place(at, C, H, W, LAST)
    stood = tl.load(where + at, mask=there)
    slope = tl.load(gradient + n * from_n + c * from_c + h * from_h + w * from_w, mask=there)
    first = x + n * along_n + c * along_c + 2 * h * along_h + 2 * w * along_w
    for k in tl.static_range(4):
        here = first + (k // 2) * along_h + (k % 2) * along_w
        tl.store(here, tl.where(stood == k, slope, 0.0).to(slope.dtype), mask=there)
