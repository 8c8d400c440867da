"""The convolution of an image and the 2×2 pooling behind it as one, on a CPU, in float32."""

import ctypes
from collections.abc import Callable
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from regbench.core import kernels
from regbench.core.kernels import channels_last, empty, plain
from regbench.core.kernels.native import library, target
from regbench.core.kernels.plain import Padding
from regbench.core.kernels.proof import proved_by

SOURCE = Path(__file__).with_name("pooled.c")


class _Sizes(ctypes.Structure):
    """`struct sizes` of the source: of the images, their margins, and how the work is parted."""

    _fields_ = [
        (name, ctypes.c_int64)
        for name in ("images", "height", "width", "top", "left", "parts", "threads", "room")
    ]


def take(x: Tensor, weight: Tensor, padding: Padding) -> bool:
    """Tell whether the kernels take images `x`, (m, C, H, W), to pool what `weight` makes of them.

    There has to be a C compiler.
    """
    floats = x.dtype == weight.dtype == torch.float32
    return (
        kernels.OWN
        and floats
        and x.device.type == weight.device.type == "cpu"
        and kernels.few(weight)
        and len(x) > 0
        and all(size > 0 and size % 2 == 0 for size in _map(x, weight, padding))
        and target() is not None
    )


@proved_by(plain.pooled)
def maxima(
    x: Tensor, weight: Tensor, bias: Tensor | None, padding: Padding, noted: bool
) -> tuple[Tensor, Tensor | None]:
    """Return the maxima of 2×2 windows of x ∗ W + b and, if `noted`, where each stood, int8.

    Args:
        x: (m, C, H, W).
        weight: W, (K, C, h, w).
        bias: b, (K,).
        padding: zeros above and below, left and right; H' and W' are to be even.
        noted: whether to say where: 0 to 3, row by row, the first of equals; NaN beats numbers.
    """
    shape = (len(x), len(weight), *(size // 2 for size in _map(x, weight, padding)))
    y = empty(shape, x, last=True)
    where = empty(shape, x, last=True, dtype=torch.int8) if noted else None
    own = _library(weight.shape)
    sizes, frames = _parted(own, x, x.shape, padding)
    bias = None if bias is None else _dense(bias)
    _run(own.maxima, _last(x), _dense(weight), bias, y, where, frames, sizes=sizes)
    # as a convolution gives it: a network that views its maps as rows relies on that
    return y if channels_last(weight) or channels_last(x) else y.contiguous(), where


@proved_by(plain.pooled_to_image, images=2)
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
    own = _library(weight.shape)
    x = empty((len(gradient), weight.shape[1], *size), gradient, last=True)
    patches = gradient.new_zeros(len(weight), own.room_of_patches())
    sizes, frames = _parted(own, gradient, x.shape, padding)
    given = (_last(gradient), _last(where), _dense(weight), x, patches, frames)
    _run(own.to_image, *given, sizes=sizes)
    return x


@proved_by(plain.pooled_to_weight, images=3)
def to_weight(
    gradient: Tensor, where: Tensor, x: Tensor, weight: Tensor, padding: Padding
) -> tuple[Tensor, Tensor]:
    """Return the gradients of the weights, (K, C, h, w), and of the bias, (K,).

    The same numbers always, bit by bit, by the same number of threads.
    """
    own = _library(weight.shape)
    by_weight = gradient.new_empty(weight.shape)
    sizes, frames = _parted(own, gradient, x.shape, padding)
    by_bias = gradient.new_zeros(sizes.parts, len(weight), dtype=torch.float64)
    sums = gradient.new_zeros(sizes.parts, len(weight), own.room_of_patches())
    given = (_last(gradient), _last(where), _last(x), by_weight, by_bias, sums, frames)
    _run(own.to_weight, *given, sizes=sizes)
    return by_weight, by_bias[0].to(gradient.dtype)


def _map(x: Tensor, weight: Tensor, padding: Padding) -> tuple[int, int]:
    """H' and W' of x ∗ W."""
    height, width = (
        size + 2 * pad - taps + 1
        for size, pad, taps in zip(x.shape[2:], padding, weight.shape[2:], strict=True)
    )
    return height, width


def _parted(
    own: ctypes.CDLL, like: Tensor, shape: torch.Size, padding: Padding
) -> tuple[_Sizes, Tensor]:
    """Return the sizes of a call on images of `shape`, and a frame of zeros for each part."""
    images, _, height, width = shape
    # as many as PyTorch asks for: where OpenMP is PyTorch's own, asking for fewer would end threads
    threads = torch.get_num_threads() if images > 1 else 1
    sizes = _Sizes(images, height, width, *padding, min(images, threads), threads)
    sizes.room = own.room_of_frame(ctypes.byref(sizes))
    return sizes, like.new_zeros(sizes.parts, sizes.room)


@cache
def _library(weights: torch.Size) -> ctypes.CDLL:
    count, channels, rows, columns = weights
    made = library(SOURCE, KERNELS=count, CHANNELS=channels, ROWS=rows, COLUMNS=columns)
    made.room_of_frame.restype = made.room_of_patches.restype = ctypes.c_int64
    return made


def _last(x: Tensor) -> Tensor:
    return x.resolve_neg().contiguous(memory_format=torch.channels_last)


def _dense(x: Tensor) -> Tensor:
    return x.resolve_neg().contiguous()


def _run(function: Callable[..., object], *given: Tensor | None, sizes: _Sizes) -> None:
    """Call `function` with where each lies; all are held until it returns."""
    places = (None if one is None else ctypes.c_void_p(one.data_ptr()) for one in given)
    function(*places, ctypes.byref(sizes))
