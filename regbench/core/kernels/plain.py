"""What the kernels compute, by operations of PyTorch: theirs to equal, and to give way to."""

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.grad import conv2d_input, conv2d_weight

Padding = tuple[int, int]


def halved(x: Tensor, *, flattened: bool, noted: bool) -> tuple[Tensor, Tensor | None]:
    """Return the maxima of 2×2 windows and, if `noted`, where each stood."""
    y, at = F.max_pool2d(x, 2, return_indices=True)
    row, column = at // x.shape[3] % 2, at % x.shape[3] % 2
    where = (2 * row + column).to(torch.int8) if noted else None
    return y.contiguous() if flattened else y, where


def spread(gradient: Tensor, where: Tensor) -> Tensor:
    """Return `gradient` where the maxima stood, 0 elsewhere; this has a way back itself."""
    four = torch.stack([gradient.where(where == k, 0) for k in range(4)], dim=-1)
    count, channels, height, width = where.shape
    windows = four.view(*where.shape, 2, 2).transpose(3, 4)  # (m, C, H/2, 2, W/2, 2)
    return windows.reshape(count, channels, 2 * height, 2 * width)


def convolved(x: Tensor, weight: Tensor, bias: Tensor | None, padding: Padding) -> Tensor:
    """Return x ∗ W + b, (m, K, H', W'), at stride 1."""
    return F.conv2d(x, weight, bias, padding=padding)


def to_image(gradient: Tensor, weight: Tensor, size: torch.Size, padding: Padding) -> Tensor:
    """Return the gradient (m, K, H', W') of the output as that of the image, (m, C, H, W).

    By an operation that autocast leaves alone: to leave a context without autocast would drop the
    weights that were cast already, since a GPU's way back runs in a thread of its own.
    """
    shape = (len(gradient), weight.shape[1], *size)
    image: Tensor = conv2d_input(  # type: ignore[no-untyped-call]
        shape, weight, gradient, padding=padding
    )
    return image


def to_weight(gradient: Tensor, x: Tensor, weight: Tensor, padding: Padding) -> Tensor:
    """Return the gradient of the weights, (K, C, h, w)."""
    by_weight: Tensor = conv2d_weight(  # type: ignore[no-untyped-call]
        x, weight.shape, gradient, padding=padding
    )
    return by_weight


def pooled(
    x: Tensor, weight: Tensor, bias: Tensor | None, padding: Padding, noted: bool
) -> tuple[Tensor, Tensor | None]:
    """Return the maxima of 2×2 windows of x ∗ W + b and, if `noted`, where each stood."""
    return halved(convolved(x, weight, bias, padding), flattened=False, noted=noted)


def pooled_to_image(
    gradient: Tensor, where: Tensor, weight: Tensor, size: torch.Size, padding: Padding
) -> Tensor:
    """Return the gradient of the maxima as that of the image, (m, C, H, W)."""
    return to_image(spread(gradient, where), weight, size, padding)


def pooled_to_weight(
    gradient: Tensor, where: Tensor, x: Tensor, weight: Tensor, padding: Padding
) -> tuple[Tensor, Tensor]:
    """Return the gradients of the weights, (K, C, h, w), and of the bias, (K,)."""
    by_weight = to_weight(spread(gradient, where), x, weight, padding)
    return by_weight, gradient.sum((0, 2, 3))
