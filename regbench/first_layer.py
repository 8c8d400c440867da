"""The convolution that takes the image, whose input gradient every attack asks for."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

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
            y = super().forward(x.detach())
            # a node of its own: an attack asks for the image's gradient without the weights'
            z: Tensor = _ByInput.apply(y, x, self.weight, self.padding) if x.requires_grad else y
        return z


class _ByInput(torch.autograd.Function):
    """The identity on y = conv(x, w), which adds the way back to x; the way to w is y's own."""

    @staticmethod
    def forward(ctx: Any, y: Tensor, x: Tensor, weight: Tensor, padding: tuple[int, int]) -> Tensor:
        ctx.save_for_backward(weight)
        ctx.shape, ctx.padding = x.shape, padding
        return y.view_as(y)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        (weight,) = ctx.saved_tensors
        with torch.autocast(gradient.device.type, enabled=False):
            by_input = _by_input(gradient, ctx.shape, weight, ctx.padding)
        return gradient, by_input, None, None


def _by_input(
    gradient: Tensor, shape: torch.Size, weight: Tensor, padding: tuple[int, int]
) -> Tensor:
    """The transposed convolution, of operations that can be differentiated once more."""
    if gradient.device.type != "cpu":
        return F.conv_transpose2d(gradient, weight, padding=padding)
    patches = weight.flatten(1).t() @ gradient.flatten(2)
    height, width, *kernel = *shape[2:], *weight.shape[2:]
    return F.fold(patches, (height, width), tuple(kernel), padding=padding)
