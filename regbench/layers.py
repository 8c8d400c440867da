"""Layers that are PyTorch's own but faster on a CPU: the same weights, names and logits.

`tune` exchanges the class of a layer where that pays. Each gives an attack the gradient with
respect to its input without computing those with respect to its weights, and can be differentiated
twice.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.grad import conv2d_input

FEW_CHANNELS = 4
FEW_IMAGES = 8
LARGE = 2**20


def tune(model: nn.Module) -> nn.Module:
    """Return `model` itself, its layers exchanged for faster ones where there are such."""
    for module in model.modules():
        if _takes_an_image(module):
            module.__class__ = ImageConv2d
        elif type(module) is nn.Linear and module.weight.numel() >= LARGE:
            module.__class__ = LargeLinear
    return model


def _takes_an_image(module: nn.Module) -> bool:
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
    gradient as on a layer of 16 times its work; here it is a matrix product and shifted sums.
    Under autocast the layer stays in float32: bf16 would round a pixel by up to 0.5/255.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Return the convolution of `x`, (m, C, H, W)."""
        with torch.autocast(x.device.type, enabled=False):
            x = x.to(self.weight.dtype)
            y = super().forward(x.detach())
            # a node of its own: an attack asks for the image's gradient without the weights'
            z: Tensor = _ToImage.apply(y, x, self.weight, self.padding) if x.requires_grad else y
        return z


class _ToImage(torch.autograd.Function):
    """The identity on y = conv(x, w), which adds the way back to x; the way to w is y's own."""

    @staticmethod
    def forward(ctx: Any, y: Tensor, x: Tensor, weight: Tensor, padding: tuple[int, int]) -> Tensor:
        ctx.save_for_backward(weight)
        ctx.size, ctx.padding = x.shape[2:], padding
        return y.view_as(y)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        (weight,) = ctx.saved_tensors
        if gradient.device.type != "cpu":
            return gradient, _by_library(gradient, weight, ctx.size, ctx.padding), None, None
        with torch.autocast("cpu", enabled=False):
            return gradient, _on_cpu(gradient, weight, ctx.size, ctx.padding), None, None


def _by_library(
    gradient: Tensor, weight: Tensor, size: torch.Size, padding: tuple[int, int]
) -> Tensor:
    """The gradient (m, O, h, w) of the output as that of the input, (m, C, H, W).

    By an operation that autocast leaves alone: to leave a context without autocast would drop the
    weights that were cast already, since a GPU's way back runs in a thread of its own.
    """
    shape = (len(gradient), weight.shape[1], *size)
    image: Tensor = conv2d_input(  # type: ignore[no-untyped-call]
        shape, weight, gradient, padding=padding
    )
    return image


def _on_cpu(gradient: Tensor, weight: Tensor, size: torch.Size, padding: tuple[int, int]) -> Tensor:
    """The same as a matrix product and sums of shifted planes."""
    count, _, height, width = gradient.shape
    channels, rows, columns = weight.shape[1:]
    pixels = gradient.permute(0, 2, 3, 1).flatten(0, 2)
    products = weight.flatten(1).t() @ pixels.t()
    if count <= FEW_IMAGES:  # one operation, but image after image
        patches = products.view(-1, count, height * width).transpose(0, 1)
        return F.fold(patches, size, (rows, columns), padding=padding)
    planes = products.view(channels, rows, columns, count, height, width)
    padded = planes.new_zeros(channels, count, height + rows - 1, width + columns - 1)
    for row in range(rows):
        for column in range(columns):
            window = padded[:, :, row : row + height, column : column + width]
            window += planes[:, row, column]
    top, left = padding
    image = padded[:, :, top : top + size[0], left : left + size[1]]
    return image.transpose(0, 1)


class LargeLinear(nn.Linear):
    """A `Linear` of many weights, in float32 on a CPU computed by oneDNN.

    PyTorch computes it by MKL, which takes up to 1.7 times as long there on processors that are not
    Intel's. bf16 goes to oneDNN anyway.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Return x Wᵀ + b, x being (m, n)."""
        if not _onednn_takes(x, self.weight):
            return super().forward(x)
        y: Tensor = _ToWeights.apply(x.detach(), self.weight, self.bias)
        z: Tensor = _ToInput.apply(y, x, self.weight) if x.requires_grad else y
        return z


def _onednn_takes(x: Tensor, weight: Tensor) -> bool:
    return (
        x.device.type == "cpu"
        and x.ndim == 2
        and x.dtype == weight.dtype == torch.float32
        and not torch.is_autocast_enabled("cpu")
        and torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
        and hasattr(torch.ops.mkldnn, "_linear_pointwise")
    )


def _product(a: Tensor, b: Tensor, bias: Tensor | None = None) -> Tensor:
    """A Bᵀ + bias; where it is to be differentiated once more, by an operation that can be."""
    if torch.is_grad_enabled() and (a.requires_grad or b.requires_grad):
        return F.linear(a, b, bias)
    product: Tensor = torch.ops.mkldnn._linear_pointwise(a, b, bias, "none", [], "")
    return product


class _ToWeights(torch.autograd.Function):
    """x Wᵀ + b with the way back to W and b."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x)
        return _product(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        (x,) = ctx.saved_tensors
        bias = gradient.sum(0) if ctx.needs_input_grad[2] else None
        return None, _product(gradient.t(), x.t()), bias


class _ToInput(torch.autograd.Function):
    """The identity on y = x Wᵀ + b, which adds the way back to x."""

    @staticmethod
    def forward(ctx: Any, y: Tensor, x: Tensor, weight: Tensor) -> Tensor:  # noqa: ARG004
        ctx.save_for_backward(weight)
        return y.view_as(y)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        (weight,) = ctx.saved_tensors
        return gradient, _product(gradient, weight.t()), None
