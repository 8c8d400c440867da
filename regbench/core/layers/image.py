"""Convolutions that take an image: of few channels."""

from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from regbench.core import kernels
from regbench.core.kernels import plain
from regbench.core.layers.held import Held
from regbench.core.layers.transforms import transformed

FEW_CHANNELS = 4
FEW_IMAGES = 8


class FloatConv2d(nn.Conv2d):
    """A `Conv2d` that autocast leaves in float32: bf16 would round a pixel by up to 0.5/255."""

    @staticmethod
    def fits(module: nn.Module) -> bool:
        """Tell whether `module` is a convolution of so few channels that it only takes an image."""
        return (
            type(module) is nn.Conv2d and module.in_channels <= FEW_CHANNELS and module.groups == 1
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return the convolution of `x`, (m, C, H, W)."""
        with torch.autocast(x.device.type, enabled=False):
            return super().forward(x.to(self.weight.dtype))


class ImageConv2d(FloatConv2d):
    """A `Conv2d` of few channels, at stride 1, that is fast to differentiate by its input.

    oneDNN pads one channel to the 16 lanes of a vector and spends as long on this layer's input
    gradient as on a layer of 16 times its work; here it is a matrix product and shifted sums. cuDNN
    has none of its fast kernels for so few channels; ours are there (regbench.core.kernels).
    """

    @staticmethod
    def fits(module: nn.Module) -> bool:
        """Tell whether `module` takes an image, pixel by pixel, and pads it with zeros."""
        return (
            FloatConv2d.fits(module)
            and module.stride == module.dilation == (1, 1)
            and module.padding_mode == "zeros"
            and not isinstance(module.padding, str)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return the convolution of `x`, (m, C, H, W)."""
        if x.ndim != 4 or not len(x) or transformed():
            return super().forward(x)
        with torch.autocast(x.device.type, enabled=False):
            x = x.to(self.weight.dtype)
            y = _ToWeight.apply(x.detach(), self.weight, self.bias, self.padding, Held(x))
            # a node of its own: an attack asks for the image's gradient without the weights'
            z: Tensor = _ToImage.apply(y, x, self.weight, self.padding) if x.requires_grad else y
        return z


class _ToWeight(torch.autograd.Function):
    """conv(x, w) + b with the way back to w and b."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        padding: tuple[int, int],
        held: Held,
    ) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.padding, ctx.held = padding, held
        if not _kernels_take(x, weight):
            return F.conv2d(x, weight, bias, padding=padding)
        y: Tensor = _own().convolved(x, weight, bias, padding)
        return y

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        biased = ctx.needs_input_grad[2]
        if not torch.is_grad_enabled() and _kernels_take(x, weight):
            by_bias = gradient.sum((0, 2, 3)) if biased else None
            return None, _own().to_weight(gradient, x, weight, ctx.padding), by_bias, None, None
        x = ctx.held.x if torch.is_grad_enabled() else x
        _, by_weight, by_bias = torch.ops.aten.convolution_backward(
            gradient, x, weight, [len(weight)], [1, 1], ctx.padding, [1, 1], False, [0, 0], 1,
            [False, True, biased],
        )  # fmt: skip
        return None, by_weight, by_bias, None, None


def _kernels_take(x: Tensor, weight: Tensor) -> bool:
    """Tell whether a GPU convolves images by our kernels, which compute in float32."""
    plainly = x.dtype is torch.float32 and not transformed(x)
    return kernels.few(weight) and plainly and kernels.take(x, len(weight))


class _ToImage(torch.autograd.Function):
    """The identity on y = conv(x, w), which adds the way back to x; the way to w is y's own."""

    @staticmethod
    def forward(ctx: Any, y: Tensor, x: Tensor, weight: Tensor, padding: tuple[int, int]) -> Tensor:
        ctx.save_for_backward(weight)
        ctx.size, ctx.padding = x.shape[2:], padding
        ctx.mark_dirty(y)  # y itself: what is in place behind it may then change it
        return y

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        (weight,) = ctx.saved_tensors
        if not torch.is_grad_enabled() and _kernels_take(gradient, weight):
            return gradient, _own().to_image(gradient, weight, ctx.size, ctx.padding), None, None
        if gradient.device.type != "cpu" or transformed(gradient):
            return gradient, plain.to_image(gradient, weight, ctx.size, ctx.padding), None, None
        with torch.autocast("cpu", enabled=False):
            return gradient, _on_cpu(gradient, weight, ctx.size, ctx.padding), None, None


def _on_cpu(gradient: Tensor, weight: Tensor, size: torch.Size, padding: tuple[int, int]) -> Tensor:
    """The gradient of the image, as a matrix product and sums of shifted planes."""
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


def _own() -> ModuleType:
    # only where there is Triton
    from regbench.core.kernels import image  # noqa: PLC0415

    return image
