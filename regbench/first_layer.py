"""The convolution that takes the image, whose input gradient every attack asks for."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.grad import conv2d_input, conv2d_weight

FEW_CHANNELS = 4


def tune(model: nn.Module) -> nn.Module:
    """Return `model` itself, each convolution of an image made an `ImageConv2d`.

    Weights, names and logits stay as they are.
    """
    for module in model.modules():
        if takes_an_image(module):
            module.__class__ = ImageConv2d
    return model


def takes_an_image(module: nn.Module) -> bool:
    """Tell whether `module` is a convolution of so few channels that it can only take an image."""
    return (
        type(module) is nn.Conv2d
        and module.in_channels <= FEW_CHANNELS
        and module.groups == 1
        and module.stride == module.dilation == (1, 1)
        and module.padding_mode == "zeros"
        and not isinstance(module.padding, str)
    )


class ImageConv2d(nn.Conv2d):
    """A `Conv2d` of few channels, at stride 1, that is fast to differentiate by its input.

    oneDNN pads one channel to the 16 lanes of a vector and spends as long on this layer's input
    gradient as on a layer of 16 times its work; here it is a matrix product and a fold.
    Under autocast the layer stays in float32: bf16 would round a pixel by up to 0.5/255.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Return the convolution of `x`, (m, C, H, W)."""
        with torch.autocast(x.device.type, enabled=False):
            x = x.to(self.weight.dtype)
            y: Tensor = _Convolution.apply(x, self.weight, self.bias, self.padding)
        return y


class _Convolution(torch.autograd.Function):
    """conv2d at stride 1; its backward is made of differentiable operations."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, padding: tuple[int, int]
    ) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.padding = padding
        return F.conv2d(x, weight, bias, padding=padding)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        wanted = ctx.needs_input_grad
        with torch.autocast(x.device.type, enabled=False):
            return (
                _by_input(gradient, x, weight, ctx.padding) if wanted[0] else None,
                _by_weight(gradient, x, weight, ctx.padding) if wanted[1] else None,
                gradient.sum((0, 2, 3)) if wanted[2] else None,
                None,
            )


def _by_input(gradient: Tensor, x: Tensor, weight: Tensor, padding: tuple[int, int]) -> Tensor:
    if x.device.type != "cpu":
        return conv2d_input(x.shape, weight, gradient, padding=padding)  # type: ignore[no-any-return, no-untyped-call]
    patches = weight.flatten(1).t() @ gradient.flatten(2)
    height, width, *kernel = *x.shape[2:], *weight.shape[2:]
    return F.fold(patches, (height, width), tuple(kernel), padding=padding)


def _by_weight(gradient: Tensor, x: Tensor, weight: Tensor, padding: tuple[int, int]) -> Tensor:
    return conv2d_weight(x, weight.shape, gradient, padding=padding)  # type: ignore[no-any-return, no-untyped-call]
