"""The convolution of an image and the 2×2 pooling behind it as one, on a CPU, in float32."""

import ctypes
from pathlib import Path

import torch
from torch import Tensor

from regbench.core import kernels
from regbench.core.kernels import plain
from regbench.core.kernels.native import library, target
from regbench.core.kernels.plain import Padding
from regbench.core.kernels.proof import proved_by

SOURCE = Path(__file__).with_name("pooled.c")

LAST = torch.channels_last


class _Sizes(ctypes.Structure):
    """`struct sizes` of the source: of the images, their margins, and how the work is parted."""

    _fields_ = [
        (name, ctypes.c_int64)
        for name in ("images", "height", "width", "top", "left", "parts", "threads", "room")
    ]


@proved_by(plain.pooled)
def maxima(
    x: Tensor, weight: Tensor, bias: Tensor | None, padding: Padding, where: Tensor | None
) -> Tensor:
    """Return the maxima of 2×2 windows of x ∗ W + b, (m, K, H'/2, W'/2), channels last.

    Args:
        x: (m, C, H, W).
        weight: W, (K, C, h, w).
        bias: b, (K,).
        padding: zeros above and below, left and right; H' and W' are to be even.
        where: if given, int8 of the shape and layout of the maxima, is told where each stood: 0 to
            3, row by row, the first of equals. NaN beats numbers.
    """
    x, weight = x.contiguous(memory_format=LAST), weight.contiguous()
    y = torch.empty(_halved(x, weight, padding), memory_format=LAST)
    sizes, frames = _parted(x.shape, weight, padding)
    _library(weight).maxima(*map(_place, (x, weight, bias, y, where, frames)), ctypes.byref(sizes))
    return y


@proved_by(plain.pooled_to_image)
def to_image(
    gradient: Tensor, where: Tensor, weight: Tensor, size: torch.Size, padding: Padding
) -> Tensor:
    """Return the gradient of the image, (m, C, H, W), channels last.

    Args:
        gradient: of the maxima, (m, K, H'/2, W'/2).
        where: of `maxima`.
        weight: as of `maxima`.
        size: H, W.
        padding: as of `maxima`.
    """
    gradient, weight = gradient.contiguous(memory_format=LAST), weight.contiguous()
    x = torch.empty((len(gradient), weight.shape[1], *size), memory_format=LAST)
    sizes, frames = _parted(x.shape, weight, padding)
    own = _library(weight)
    own.to_image(*map(_place, (gradient, where, weight, x, frames)), ctypes.byref(sizes))
    return x


@proved_by(plain.pooled_to_weight)
def to_weight(
    gradient: Tensor, where: Tensor, x: Tensor, weight: Tensor, padding: Padding
) -> tuple[Tensor, Tensor]:
    """Return the gradients of the weights, (K, C, h, w), and of the bias, (K,).

    The same numbers always, bit by bit, by the same number of threads.
    """
    gradient, x = gradient.contiguous(memory_format=LAST), x.contiguous(memory_format=LAST)
    by_weight = torch.empty(weight.shape)
    sizes, frames = _parted(x.shape, weight, padding)
    own = _library(weight)
    by_bias = torch.zeros(sizes.parts, len(weight))
    sums = torch.zeros(sizes.parts, len(weight), own.room_of_sums())
    given = (gradient, where, x, by_weight, by_bias, sums, frames)
    own.to_weight(*map(_place, given), ctypes.byref(sizes))
    return by_weight, by_bias[0]


def take(x: Tensor, weight: Tensor, padding: Padding) -> bool:
    """Tell whether the kernels take images `x`, (m, C, H, W), to pool what `weight` makes of them.

    They are compiled here, which takes a C compiler.
    """
    floats = x.dtype == weight.dtype == torch.float32
    return (
        kernels.OWN
        and floats
        and x.device.type == "cpu"
        and kernels.few(weight)
        and len(x) > 0
        and all(size > 0 and size % 2 == 0 for size in _map(x, weight, padding))
        and target() is not None
    )


def places(x: Tensor, weight: Tensor, padding: Padding) -> Tensor:
    """Return where `maxima` may tell where each stood, not yet told."""
    return torch.empty(_halved(x, weight, padding), dtype=torch.int8, memory_format=LAST)


def _map(x: Tensor, weight: Tensor, padding: Padding) -> tuple[int, int]:
    """H' and W' of x ∗ W."""
    height, width = (
        size + 2 * pad - taps + 1
        for size, pad, taps in zip(x.shape[2:], padding, weight.shape[2:], strict=True)
    )
    return height, width


def _halved(x: Tensor, weight: Tensor, padding: Padding) -> tuple[int, int, int, int]:
    """The shape of the maxima, (m, K, H'/2, W'/2)."""
    height, width = _map(x, weight, padding)
    return len(x), len(weight), height // 2, width // 2


def _parted(shape: torch.Size, weight: Tensor, padding: Padding) -> tuple[_Sizes, Tensor]:
    """Return the sizes of a call, and a frame of zeros for each part of the images."""
    images, _, height, width = shape
    # as many as PyTorch has, whose threads these are: they end where fewer are asked for
    threads = torch.get_num_threads() if images > 1 else 1
    sizes = _Sizes(images, height, width, *padding, min(images, threads), threads)
    sizes.room = _library(weight).room_of_frame(ctypes.byref(sizes))
    return sizes, torch.zeros(sizes.parts, sizes.room)


def _library(weight: Tensor) -> ctypes.CDLL:
    kernels, channels, rows, columns = weight.shape
    return library(SOURCE, KERNELS=kernels, CHANNELS=channels, ROWS=rows, COLUMNS=columns)


def _place(x: Tensor | None) -> ctypes.c_void_p | None:
    return None if x is None else ctypes.c_void_p(x.data_ptr())
