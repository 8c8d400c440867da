"""The convolution of an image, there, back to the image, and back to the weights, in float32."""

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from regbench.core.kernels import OPTIONS, channels_last, empty, plain
from regbench.core.kernels.plain import Padding
from regbench.core.kernels.proof import proved_by

PIXELS = 64
"""How many pixels one program takes at once."""

LONG = 256
"""How many pixels one program sums the gradient of the weights over."""

SMALLEST = 16
"""The least size of an operand that Triton multiplies as a matrix."""


class _Sizes(NamedTuple):
    """What a kernel is compiled for: of the image, of the output, of the weights, the padding."""

    C: int
    H: int
    W: int
    K: int
    ROWS: int
    COLUMNS: int
    KH: int
    KW: int
    TOP: int
    LEFT: int

    @classmethod
    def of(cls, weight: Tensor, size: torch.Size, padding: Padding) -> "_Sizes":
        """Return those of `weight` on images of `size`, (H, W)."""
        kernels, channels, high, wide = weight.shape
        rows = size[0] + 2 * padding[0] - high + 1
        columns = size[1] + 2 * padding[1] - wide + 1
        height, width = size
        return cls(channels, height, width, kernels, rows, columns, high, wide, *padding)


@proved_by(plain.convolved)
def convolved(x: Tensor, weight: Tensor, bias: Tensor | None, padding: Padding) -> Tensor:
    """Return x ∗ W + b, (m, K, H', W'), at stride 1, its layout that of the weights.

    Args:
        x: (m, C, H, W).
        weight: W, (K, C, h, w).
        bias: b, (K,).
        padding: zeros above and below, left and right.
    """
    sizes = _Sizes.of(weight, x.shape[2:], padding)
    shape = (len(x), sizes.K, sizes.ROWS, sizes.COLUMNS)
    y = empty(shape, x, last=channels_last(weight))
    count = len(x) * sizes.ROWS * sizes.COLUMNS
    _convolve[(triton.cdiv(count, PIXELS),)](
        x, weight, bias, y, *x.stride(), *weight.stride(), *y.stride(), count,
        **sizes._asdict(), BIASED=bias is not None, LAST=channels_last(y), LANES=_lanes(sizes.K),
        BLOCK=PIXELS, **OPTIONS,
    )  # fmt: skip
    return y


@proved_by(plain.to_image)
def to_image(gradient: Tensor, weight: Tensor, size: torch.Size, padding: Padding) -> Tensor:
    """Return the gradient of the image, (m, C, H, W), contiguous.

    Args:
        gradient: of the output, (m, K, H', W').
        weight: as of `convolved`.
        size: H, W.
        padding: as of `convolved`.
    """
    sizes = _Sizes.of(weight, size, padding)
    x = empty((len(gradient), sizes.C, *size), gradient, last=False)
    count = len(gradient) * size.numel()
    _to_image[(triton.cdiv(count, PIXELS), sizes.C)](
        gradient, weight, x, *gradient.stride(), *weight.stride(), count,
        **sizes._asdict(), LAST=channels_last(gradient), LANES=_lanes(sizes.K),
        BLOCK=PIXELS, **OPTIONS,
    )  # fmt: skip
    return x


@proved_by(plain.to_weight, images=2)
def to_weight(gradient: Tensor, x: Tensor, weight: Tensor, padding: Padding) -> Tensor:
    """Return the gradient of the weights, (K, C, h, w); the same numbers always, bit by bit."""
    sizes = _Sizes.of(weight, x.shape[2:], padding)
    count = len(x) * sizes.ROWS * sizes.COLUMNS
    programs = triton.cdiv(count, LONG)
    parts = x.new_empty((programs, sizes.K, sizes.C, sizes.KH, sizes.KW))
    _to_weight[(programs,)](
        gradient, x, parts, *gradient.stride(), *x.stride(), count, **sizes._asdict(),
        LAST=channels_last(gradient), LANES=_lanes(sizes.K), TAPS=_lanes(weight[0].numel()),
        BLOCK=PIXELS, LONG=LONG, **OPTIONS,
    )  # fmt: skip
    return parts.sum(0)


def _lanes(count: int) -> int:
    return max(SMALLEST, int(triton.next_power_of_2(count)))


@triton.jit
def _pixels(of_pixels, LAST: tl.constexpr):
    """Numbers of pixels, as an axis of a tile whose last axis is the one that lies densely."""
    return of_pixels[:, None] if LAST else of_pixels[None, :]


@triton.jit
def _channels(of_channels, LAST: tl.constexpr):
    """Numbers of channels, likewise."""
    return of_channels[None, :] if LAST else of_channels[:, None]


@triton.jit
def _convolve(
    x, weight, bias, y, x_n, x_c, x_h, x_w, w_k, w_c, w_h, w_w, y_n, y_k, y_h, y_w, count,
    C: tl.constexpr, H: tl.constexpr, W: tl.constexpr,
    K: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
    KH: tl.constexpr, KW: tl.constexpr, TOP: tl.constexpr, LEFT: tl.constexpr,
    BIASED: tl.constexpr, LAST: tl.constexpr, LANES: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    there = at < count
    column, row, n = at % COLUMNS, at // COLUMNS % ROWS, at // (COLUMNS * ROWS)
    k = tl.arange(0, LANES)
    total = tl.zeros((BLOCK, LANES) if LAST else (LANES, BLOCK), tl.float32)
    for tap in tl.static_range(C * KH * KW):
        c, i, j = tap // (KH * KW), tap // KW % KH, tap % KW
        h, w = row + i - TOP, column + j - LEFT
        inside = there & (h >= 0) & (h < H) & (w >= 0) & (w < W)
        pixel = tl.load(x + n * x_n + c * x_c + h * x_h + w * x_w, mask=inside, other=0.0)
        by = tl.load(weight + k * w_k + c * w_c + i * w_h + j * w_w, mask=k < K, other=0.0)
        total += _pixels(pixel, LAST) * _channels(by, LAST)
    if BIASED:
        total += _channels(tl.load(bias + k, mask=k < K, other=0.0), LAST)
    place = _pixels(n * y_n + row * y_h + column * y_w, LAST) + _channels(k * y_k, LAST)
    tl.store(y + place, total, mask=_pixels(there, LAST) & _channels(k < K, LAST))


@triton.jit
def _to_image(
    gradient, weight, x, g_n, g_k, g_h, g_w, w_k, w_c, w_h, w_w, count,
    C: tl.constexpr, H: tl.constexpr, W: tl.constexpr,
    K: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
    KH: tl.constexpr, KW: tl.constexpr, TOP: tl.constexpr, LEFT: tl.constexpr,
    LAST: tl.constexpr, LANES: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    c = tl.program_id(1)
    there = at < count
    w, h, n = at % W, at // W % H, at // (W * H)
    k = tl.arange(0, LANES)
    total = tl.zeros((BLOCK, LANES) if LAST else (LANES, BLOCK), tl.float32)
    for tap in tl.static_range(KH * KW):
        i, j = tap // KW, tap % KW
        row, column = h + TOP - i, w + LEFT - j
        inside = there & (row >= 0) & (row < ROWS) & (column >= 0) & (column < COLUMNS)
        place = _pixels(n * g_n + row * g_h + column * g_w, LAST) + _channels(k * g_k, LAST)
        some = _pixels(inside, LAST) & _channels(k < K, LAST)
        slope = tl.load(gradient + place, mask=some, other=0.0)
        by = tl.load(weight + k * w_k + c * w_c + i * w_h + j * w_w, mask=k < K, other=0.0)
        total += slope * _channels(by, LAST)
    tl.store(x + (n * C + c) * H * W + h * W + w, tl.sum(total, 1 if LAST else 0), mask=there)


@triton.jit
def _to_weight(
    gradient, x, parts, g_n, g_k, g_h, g_w, x_n, x_c, x_h, x_w, count,
    C: tl.constexpr, H: tl.constexpr, W: tl.constexpr,
    K: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
    KH: tl.constexpr, KW: tl.constexpr, TOP: tl.constexpr, LEFT: tl.constexpr,
    LAST: tl.constexpr, LANES: tl.constexpr, TAPS: tl.constexpr,
    BLOCK: tl.constexpr, LONG: tl.constexpr,
):  # fmt: skip
    k, tap = tl.arange(0, LANES), tl.arange(0, TAPS)
    c, i, j = tap // (KH * KW), tap // KW % KH, tap % KW
    total = tl.zeros((LANES, TAPS), tl.float32)
    for start in range(0, LONG, BLOCK):
        at = tl.program_id(0) * LONG + start + tl.arange(0, BLOCK)
        there = at < count
        column, row, n = at % COLUMNS, at // COLUMNS % ROWS, at // (COLUMNS * ROWS)
        place = _pixels(n * g_n + row * g_h + column * g_w, LAST) + _channels(k * g_k, LAST)
        some = _pixels(there, LAST) & _channels(k < K, LAST)
        slope = tl.load(gradient + place, mask=some, other=0.0)
        h, w = (row - TOP)[:, None] + i[None, :], (column - LEFT)[:, None] + j[None, :]
        inside = there[:, None] & (tap < C * KH * KW)[None, :]
        inside &= (h >= 0) & (h < H) & (w >= 0) & (w < W)
        pixel = (n * x_n)[:, None] + (c * x_c)[None, :] + h * x_h + w * x_w
        patch = tl.load(x + pixel, mask=inside, other=0.0)
        slope = tl.trans(slope) if LAST else slope  # (LANES, BLOCK)
        total = tl.dot(slope, patch, total, input_precision="ieee")
    place = tl.program_id(0) * K * C * KH * KW + k[:, None] * (C * KH * KW) + tap[None, :]
    tl.store(parts + place, total, mask=(k < K)[:, None] & (tap < C * KH * KW)[None, :])
