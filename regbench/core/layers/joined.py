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
from regbench.core.layers.transforms import counted, hooked, transformed


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
        rest: list[nn.Module] = list(self)  # type: ignore[call-overload]
        while rest:
            layer, *rest = rest
            if isinstance(layer, ImageConv2d) and rest and _at_once(layer, rest[0], x):
                with torch.autocast("cpu", enabled=False):
                    x, rest = _joined(layer, x), rest[1:]
            else:
                x = layer(x)
        return x

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        """Return how it is copied and pickled: its class is made where it is needed."""
        return _made, (type(self).__bases__[1],), self.__getstate__()


@cache
def _joining(kind: type[nn.Module]) -> type[nn.Module]:
    return type(kind.__name__, (Joining, kind), {"__module__": kind.__module__})


def _made(kind: type[nn.Module]) -> nn.Module:
    joined = _joining(kind)  # type: ignore[arg-type]
    return joined.__new__(joined)


def _pool(layer: nn.Module, after: nn.Module) -> bool:
    """Tell whether `layer` and `after` are such."""
    return type(layer) is ImageConv2d and type(after) is HalvingMaxPool2d


def _at_once(layer: ImageConv2d, after: nn.Module, x: Tensor) -> bool:
    """Tell whether both take `x` as one, and nobody looks at what is between them."""
    return (
        _pool(layer, after)
        and not torch.compiler.is_compiling()
        and torch._C._get_tracing_state() is None
        and not transformed()
        and not counted()
        and not any(hooked(one) or "forward" in vars(one) for one in (layer, after))
        and type(x) is Tensor
        and x.ndim == 4
        and pooled.take(x, layer.weight, _padding(layer))
    )


def _padding(layer: ImageConv2d) -> Padding:
    top, left = layer.padding  # type: ignore[str-unpack]  # no text: ImageConv2d.fits
    return int(top), int(left)


def _joined(layer: ImageConv2d, x: Tensor) -> Tensor:
    padding = _padding(layer)
    trained = layer.weight.requires_grad or (layer.bias is not None and layer.bias.requires_grad)
    if not torch.is_grad_enabled() or not (trained or x.requires_grad):
        maxima: Tensor
        maxima, _ = pooled.maxima(x, layer.weight, layer.bias, padding, False)
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
        y, where = pooled.maxima(x, weight, bias, padding, True)
        assert where is not None
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
    """Return the way back: our own, or what can be differentiated once more, batched, counted."""
    return plainly if torch.is_grad_enabled() or transformed(gradient) or counted() else own
