"""Layers that follow one another and are computed as one."""

from collections.abc import Callable
from functools import cache
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from regbench.core.kernels import plain, pooled
from regbench.core.kernels.plain import Padding
from regbench.core.layers.held import Held
from regbench.core.layers.image import ImageConv2d
from regbench.core.layers.pooling import HalvingMaxPool2d
from regbench.core.layers.transforms import transformed


class Joining:
    """Of a `Sequential`: a convolution of an image and the 2×2 pooling behind it are one operation.

    On a CPU the pooling throws away three quarters of what such a convolution computes, and three
    quarters of the gradient that comes back to it are zeros, which PyTorch writes, reads and
    multiplies (regbench.core.kernels.pooled). The layers themselves stay where they are, and are
    called one after the other where anything but logits or a way back is asked for.
    """

    @staticmethod
    def fits(module: nn.Module) -> bool:
        """Tell whether `module` is a `Sequential` with such layers, already tuned themselves."""
        return (
            isinstance(module, nn.Sequential)
            and type(module).forward is nn.Sequential.forward
            and any(_pool(*two) for two in pairwise(module))
        )

    @staticmethod
    def join(module: nn.Module) -> None:
        """Have the layers of `module`, which fits, joined from now on."""
        module.__class__ = _joining(type(module))  # type: ignore[arg-type]

    @staticmethod
    def part(module: nn.Module) -> None:
        """Undo `join`."""
        module.__class__ = type(module).__bases__[1]

    def forward(self, x: Tensor) -> Tensor:
        """Return what the layers make of `x`, one after the other."""
        left: list[nn.Module] = list(self)  # type: ignore[call-overload]
        while left:
            layer, *left = left
            if (
                isinstance(layer, ImageConv2d)
                and left
                and _pool(layer, left[0])
                and _take(layer, x)
            ):
                with torch.autocast("cpu", enabled=False):
                    x, left = _joined(layer, x), left[1:]
            else:
                x = layer(x)
        return x


@cache
def _joining(kind: type[nn.Module]) -> type[nn.Module]:
    return type(kind.__name__, (Joining, kind), {"__module__": kind.__module__})


def _pool(layer: nn.Module, after: nn.Module) -> bool:
    """Tell whether `layer` and `after` are such, and nothing looks at what is between them."""
    return (
        type(layer) is ImageConv2d
        and type(after) is HalvingMaxPool2d
        and not any(one._forward_hooks or one._forward_pre_hooks for one in (layer, after))
    )


def _take(layer: ImageConv2d, x: Tensor) -> bool:
    """Tell whether `layer` and the pooling behind it take `x` at once: on a CPU, in float32."""
    return (
        type(x) is Tensor
        and x.ndim == 4
        and pooled.take(x, layer.weight, _padding(layer))
        and not transformed()
        and not torch.compiler.is_compiling()
        # who counts operations is to see PyTorch's
        and torch._C._len_torch_dispatch_stack() == 0
    )


def _padding(layer: ImageConv2d) -> Padding:
    top, left = layer.padding  # type: ignore[str-unpack]  # no text: ImageConv2d.fits
    return int(top), int(left)


def _joined(layer: ImageConv2d, x: Tensor) -> Tensor:
    padding = _padding(layer)
    trained = layer.weight.requires_grad or (layer.bias is not None and layer.bias.requires_grad)
    if not torch.is_grad_enabled() or not (trained or x.requires_grad):
        maxima: Tensor = pooled.maxima(x, layer.weight, layer.bias, padding, None)
        return maxima
    y, where = _ToWeight.apply(x.detach(), layer.weight, layer.bias, padding, Held(x))
    # a node of its own: an attack asks for the image's gradient without the weights'
    z: Tensor = _ToImage.apply(y, where, x, layer.weight, padding) if x.requires_grad else y
    return z


class _ToWeight(torch.autograd.Function):
    """The maxima of x ∗ W + b, and where each stood, with the way back to W and b."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, padding: Padding, held: Held
    ) -> tuple[Tensor, Tensor]:
        where = pooled.places(x, weight, padding)
        y: Tensor = pooled.maxima(x, weight, bias, padding, where)
        ctx.save_for_backward(where, x, weight)
        ctx.mark_non_differentiable(where)
        ctx.padding, ctx.held = padding, held
        return y, where

    @staticmethod
    def backward(ctx: Any, gradient: Tensor, _: Tensor | None) -> tuple[Tensor | None, ...]:
        where, x, weight = ctx.saved_tensors
        by_weight, by_bias = _way(gradient, pooled.to_weight, plain.pooled_to_weight)(
            gradient, where, ctx.held.x if torch.is_grad_enabled() else x, weight, ctx.padding
        )
        return None, by_weight, by_bias if ctx.needs_input_grad[2] else None, None, None


class _ToImage(torch.autograd.Function):
    """The identity on the maxima, which adds the way back to x; the way to W is their own."""

    @staticmethod
    def forward(
        ctx: Any, y: Tensor, where: Tensor, x: Tensor, weight: Tensor, padding: Padding
    ) -> Tensor:
        ctx.save_for_backward(where, weight)
        ctx.size, ctx.padding = x.shape[2:], padding
        ctx.mark_dirty(y)  # y itself: what is in place behind it may then change it
        return y

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        where, weight = ctx.saved_tensors
        back = _way(gradient, pooled.to_image, plain.pooled_to_image)
        with torch.autocast("cpu", enabled=False):
            return gradient, None, back(gradient, where, weight, ctx.size, ctx.padding), None, None


def _way(
    gradient: Tensor, own: Callable[..., Any], plainly: Callable[..., Any]
) -> Callable[..., Any]:
    """Return the way back: our own, or what can be differentiated once more, or batched."""
    return plainly if torch.is_grad_enabled() or transformed(gradient) else own
