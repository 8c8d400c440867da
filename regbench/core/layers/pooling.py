"""Pooling of windows that do not overlap."""

from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from regbench.core import kernels
from regbench.core.kernels import plain
from regbench.core.layers.transforms import transformed


class HalvingMaxPool2d(nn.MaxPool2d):
    """A `MaxPool2d` of 2×2 windows that notes where a maximum stood only if a gradient asks.

    PyTorch's kernels for it on CUDA take several times what their bytes need; ours are there
    (regbench.core.kernels).

    Attributes:
        flattened: what follows wants the maxima channel by channel; they may lie so at once.
    """

    flattened = False

    @staticmethod
    def fits(module: nn.Module) -> bool:
        """Tell whether `module` is a max-pooling of 2×2 windows that do not overlap."""
        return (
            type(module) is nn.MaxPool2d
            and module.kernel_size in (2, (2, 2))
            and module.stride in (2, (2, 2))
            and module.padding in (0, (0, 0))
            and module.dilation in (1, (1, 1))
            and not module.return_indices
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return the maxima, (m, C, H/2, W/2), of `x`, (m, C, H, W)."""
        asked = torch.is_grad_enabled() and x.requires_grad
        whole = x.ndim == 4 and x.shape[-2] % 2 == x.shape[-1] % 2 == 0 and not transformed()
        y: Tensor
        if whole and kernels.take(x):
            y = _maxima(x, flattened=self.flattened, asked=asked)
        elif whole and x.device.type == "cpu" and not asked:
            rows = torch.maximum(x[..., ::2, :], x[..., 1::2, :])
            y = torch.maximum(rows[..., ::2], rows[..., 1::2])
        else:
            y = super().forward(x)
        return y


def _maxima(x: Tensor, *, flattened: bool, asked: bool) -> Tensor:
    if asked:
        noted: Tensor = _Halving.apply(x, flattened)
        return noted
    maxima: Tensor
    maxima, _ = _own().halved(x, flattened=flattened, noted=False)
    return maxima


class _Halving(torch.autograd.Function):
    """The maxima, and the way back to where each stood."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, flattened: bool) -> Tensor:
        y: Tensor
        y, where = _own().halved(x, flattened=flattened, noted=True)
        ctx.save_for_backward(where)
        return y

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        (where,) = ctx.saved_tensors
        # what is to be differentiated once more, or batched, by operations that can be
        plainly = torch.is_grad_enabled() or transformed(gradient)
        spread = plain.spread if plainly else _own().spread
        x: Tensor = spread(gradient, where)
        return x, None


def _own() -> ModuleType:
    # only where there is Triton
    from regbench.core.kernels import pooling  # noqa: PLC0415

    return pooling
