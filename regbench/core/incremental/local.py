"""Layers and operations of which a pixel depends on few pixels, or on one."""

import copy
import operator
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.modules.utils import _pair

from regbench.core.incremental.windows import Reach, Window
from regbench.core.layers.image import FloatConv2d, ImageConv2d
from regbench.core.layers.normalisation import ScalingBatchNorm2d
from regbench.core.layers.pooling import HalvingMaxPool2d

POINTWISE_LAYERS = {
    nn.Identity, nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.ELU, nn.SiLU, nn.GELU, nn.Softplus,
    nn.Sigmoid, nn.Tanh,
}  # fmt: skip
"""These classes themselves: one that is derived from them may compute something else."""

POINTWISE = {
    operator.add, operator.sub, operator.mul, operator.truediv, torch.add, torch.sub, torch.mul,
    torch.div, torch.relu, torch.sigmoid, torch.tanh, torch.clamp, F.relu, F.leaky_relu, F.elu,
    F.silu, F.gelu, F.softplus,
    "add", "sub", "mul", "div", "relu", "sigmoid", "tanh", "clamp",
}  # fmt: skip
"""Functions, and methods of tensors by their names."""


def is_pointwise(layer: nn.Module) -> bool:
    """Tell whether each pixel that `layer` returns depends on the same pixel alone."""
    kind: Any = type(layer)
    if kind in (nn.BatchNorm2d, ScalingBatchNorm2d):
        return not layer.training and layer.running_mean is not None
    if kind in (nn.Dropout, nn.Dropout2d):
        return not layer.training
    return kind in POINTWISE_LAYERS


@dataclass(frozen=True)
class Local:
    """A convolution or a pooling, to be taken of a window.

    Attributes:
        whole: it, as it is.
        bare: the same without padding, for a window with as much around it as it looks at.
        rows, columns: how far it looks.
        fill: what its padding holds.
    """

    whole: nn.Module
    bare: nn.Module
    rows: Reach
    columns: Reach
    fill: float

    @classmethod
    def of(cls, layer: nn.Module) -> "Local | None":
        """Return `layer` as one, None if it is none, or of a kind that is not known here."""
        if not _known(layer):
            return None
        shape: Any = layer
        sizes = [shape.kernel_size, shape.stride, shape.padding, getattr(shape, "dilation", 1)]
        rows, columns = zip(*map(_pair, sizes), strict=True)
        bare = copy.copy(shape)
        bare.padding = _pair(0)
        fill = float("-inf") if isinstance(layer, nn.MaxPool2d) else 0.0
        return cls(layer, bare, Reach(*rows), Reach(*columns), fill)

    def reached_by(self, window: Window, size: torch.Size) -> Window:
        """Return what of the output, (…, H, W) of `size`, depends on `window` of the input."""
        # each shape costs a convolution a kernel that is made for it
        reached_by = Reach.reached_evenly if isinstance(self.whole, nn.Conv2d) else Reach.reached_by
        axes = zip((self.rows, self.columns), window, size[-2:], strict=True)
        return Window(*(reached_by(reach, span, length) for reach, span, length in axes))

    def read_by(self, window: Window) -> Window:
        """Return what of the input `window` of the output is made of, its padding included."""
        axes = zip((self.rows, self.columns), window, strict=True)
        return Window(*(reach.read_by(span) for reach, span in axes))


def _known(layer: nn.Module) -> bool:
    kind, told = type(layer), cast("Any", layer)
    if kind in (nn.Conv2d, FloatConv2d, ImageConv2d):
        return told.padding_mode == "zeros" and not isinstance(told.padding, str)
    if kind in (nn.MaxPool2d, HalvingMaxPool2d):
        return not (told.ceil_mode or told.return_indices)
    return kind is nn.AvgPool2d and not told.ceil_mode and told.count_include_pad
