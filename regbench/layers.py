"""Layers that are PyTorch's own but faster on a CPU: the same weights, names and logits.

`tune` exchanges the class of a layer where that pays. Each gives an attack the gradient with
respect to its input without computing those with respect to its weights, and can be differentiated
twice.
"""

from typing import Any, NamedTuple

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
        elif _halves(module):
            module.__class__ = HalvingMaxPool2d
    return model


def _halves(module: nn.Module) -> bool:
    """Tell whether `module` is a max-pooling of 2×2 windows that do not overlap."""
    return (
        type(module) is nn.MaxPool2d
        and module.kernel_size in (2, (2, 2))
        and module.stride in (2, (2, 2))
        and module.padding in (0, (0, 0))
        and module.dilation in (1, (1, 1))
        and not module.return_indices
    )


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
        ctx.mark_dirty(y)  # y itself: what is in place behind it may then change it
        return y

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


class HalvingMaxPool2d(nn.MaxPool2d):
    """A `MaxPool2d` of 2×2 windows that notes where a maximum stood only if a gradient asks."""

    def forward(self, x: Tensor) -> Tensor:
        """Return the maxima, (m, C, H/2, W/2), of `x`, (m, C, H, W)."""
        asked = torch.is_grad_enabled() and x.requires_grad
        if asked or x.device.type != "cpu" or x.shape[-2] % 2 or x.shape[-1] % 2:
            y: Tensor = super().forward(x)
            return y
        rows = torch.maximum(x[..., ::2, :], x[..., 1::2, :])
        return torch.maximum(rows[..., ::2], rows[..., 1::2])


class _Packed(NamedTuple):
    """A layer's weights in oneDNN's own layout.

    Attributes:
        weight: what was packed; held, so that no other weights come to lie in its place.
        version: how often it had been changed.
        there: W.
        back: Wᵀ.
    """

    weight: Tensor
    version: int
    there: Tensor
    back: Tensor

    @classmethod
    def of(cls, weight: Tensor) -> "_Packed":
        """Pack W, (K, n)."""
        pack = torch.ops.mkldnn._reorder_linear_weight
        return cls(weight, weight._version, pack(weight), pack(weight.t().contiguous()))

    def still(self, weight: Tensor) -> bool:
        """Tell whether `weight` is what was packed, and unchanged."""
        return weight.data_ptr() == self.weight.data_ptr() and weight._version == self.version


class LargeLinear(nn.Linear):
    """A `Linear` of many weights, in float32 on a CPU computed by oneDNN.

    PyTorch computes it by MKL, which takes up to 1.7 times as long there on processors that are not
    Intel's. bf16 goes to oneDNN anyway, or is rounded first and not packed (regbench.precision).
    Frozen weights, as of a network that is attacked, are packed once instead of at each product,
    and anew when they have changed; a change through `.data` goes unnoticed.
    """

    _kept: _Packed | None = None

    def forward(self, x: Tensor) -> Tensor:
        """Return x Wᵀ + b, x being (m, n)."""
        if not _onednn_takes(x, self.weight):
            return super().forward(x)
        trained = self.weight.requires_grad or (self.bias is not None and self.bias.requires_grad)
        return _linear(x, self.weight, self.bias, None if trained else self._packed())

    def _packed(self) -> _Packed:
        weight = self.weight.detach()
        if self._kept is None or not self._kept.still(weight):
            self._kept = _Packed.of(weight)
        return self._kept

    def __getstate__(self) -> dict[str, Any]:
        """What a copy is made of: not the packed weights, which cannot be copied."""
        return {name: value for name, value in self.__dict__.items() if name != "_kept"}


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Return x Wᵀ + b as a `LargeLinear` would, or as PyTorch does where that is no faster."""
    if weight.numel() < LARGE or not _onednn_takes(x, weight):
        return F.linear(x, weight, bias)
    return _linear(x, weight, bias)


def _linear(
    x: Tensor, weight: Tensor, bias: Tensor | None, packed: _Packed | None = None
) -> Tensor:
    y: Tensor
    if packed is None:
        y = _ToWeights.apply(x.detach(), weight, bias)
    else:
        y = _by_onednn(x.detach(), packed.there, bias)
    z: Tensor = _ToInput.apply(y, x, weight, packed and packed.back) if x.requires_grad else y
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


def _by_onednn(a: Tensor, b: Tensor, bias: Tensor | None = None) -> Tensor:
    """A Bᵀ + bias, b packed or not."""
    product: Tensor = torch.ops.mkldnn._linear_pointwise(a, b, bias, "none", [], "")
    return product


def _product(a: Tensor, b: Tensor, packed: Tensor | None = None) -> Tensor:
    """A Bᵀ; where it is to be differentiated once more, by an operation that can be."""
    if torch.is_grad_enabled() and (a.requires_grad or b.requires_grad):
        return F.linear(a, b)
    if len(a) == 1 and packed is None:
        # MKL reads the weights as they lie, where oneDNN turns them round for a single row
        return F.linear(a, b)
    return _by_onednn(a, b if packed is None else packed)


class _ToWeights(torch.autograd.Function):
    """x Wᵀ + b with the way back to W and b."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x)
        return _by_onednn(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        (x,) = ctx.saved_tensors
        bias = gradient.sum(0) if ctx.needs_input_grad[2] else None
        return None, _product(gradient.t(), x.t()), bias


class _ToInput(torch.autograd.Function):
    """The identity on y = x Wᵀ + b, which adds the way back to x, by Wᵀ packed or not."""

    @staticmethod
    def forward(
        ctx: Any,
        y: Tensor,
        x: Tensor,  # noqa: ARG004
        weight: Tensor,
        packed: Tensor | None,
    ) -> Tensor:
        ctx.save_for_backward(weight)
        ctx.packed = packed
        ctx.mark_dirty(y)
        return y

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        (weight,) = ctx.saved_tensors
        return gradient, _product(gradient, weight.t(), ctx.packed), None, None
