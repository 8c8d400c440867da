"""Linear layers: by how much their output changes is what they make of the change."""

from dataclasses import dataclass
from typing import ClassVar, Protocol

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from regbench.core.incremental.local import Local
from regbench.core.incremental.windows import PIXEL, Piece, Reach, Span, Window
from regbench.core.layers.linear import LargeLinear, linear

WIDE = 5
"""Rows and columns of a kernel from which on a window takes much more than what changes in it."""


class Linear(Protocol):
    """A layer without its bias."""

    @property
    def source(self) -> fx.Node:
        """The map that it reads."""

    @property
    def numbers(self) -> int:
        """How many it keeps of its own."""

    def made_of(self, change: Piece, size: torch.Size) -> Piece:
        """Return by how much the output, (m, C, H, W) of `size`, changes with `change`."""


@dataclass(frozen=True)
class Convolution:
    """A convolution of wide kernels at stride 1: see `Linear`.

    Of a window it would read what lies around the change as well: of 4×4 pixels by 5×5 12×12.
    """

    source: fx.Node
    layer: nn.Conv2d
    reach: tuple[Reach, Reach]
    numbers: ClassVar[int] = 0

    @classmethod
    def of(cls, source: fx.Node, layer: Local) -> "Convolution | None":
        """Return `layer` as one, None if it is none or a window of it costs no more."""
        reach = (layer.rows, layer.columns)
        wide = all(one.kernel >= WIDE and one.stride == 1 for one in reach)
        # an image layer has next to no arithmetic
        return cls(source, layer.whole, reach) if type(layer.whole) is nn.Conv2d and wide else None

    def made_of(self, change: Piece, size: torch.Size) -> Piece:
        """See `Linear`."""
        beyond = tuple(one.dilation * (one.kernel - 1) for one in self.reach)
        layer = self.layer
        every = F.conv2d(change.values, layer.weight, None, 1, beyond, layer.dilation, layer.groups)
        first = (
            span.first - width + one.padding
            for span, width, one in zip(change.window, beyond, self.reach, strict=True)
        )
        around = Window(
            *(Span(at, at + length) for at, length in zip(first, every.shape[2:], strict=True))
        )
        there = around.common(Window.whole(size))
        return Piece(there, there.seen_from(around).of(every))


@dataclass(frozen=True)
class Product:
    """A fully connected layer of many weights on a map, whose output is a map of one pixel.

    See `Linear`. It reads the weights of the features that change, and no others.

    Attributes:
        weight: of each pixel, (H, W, C, K).
    """

    source: fx.Node
    weight: Tensor

    @classmethod
    def of(cls, source: fx.Node, size: torch.Size, layer: LargeLinear) -> "Product":
        """Return `layer`, which takes a map, (m, C, H, W) of `size`, flattened."""
        weight = layer.weight.detach().view(-1, *size[1:])
        return cls(source, weight.permute(2, 3, 1, 0).contiguous())

    @property
    def numbers(self) -> int:
        """See `Linear`."""
        return self.weight.numel()

    def made_of(self, change: Piece, size: torch.Size) -> Piece:  # noqa: ARG002
        """See `Linear`."""
        features = change.values.permute(0, 2, 3, 1).flatten(1)
        rows, columns = (slice(*span) for span in change.window)
        products = linear(features, self.weight[rows, columns].flatten(0, 2).t())
        return Piece(PIXEL, products[..., None, None])
