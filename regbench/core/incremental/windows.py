"""Windows of an image, and which of them a convolution or a pooling reads and reaches."""

from typing import NamedTuple

import torch
from torch import Tensor


class Span(NamedTuple):
    """Rows, or columns, from `first` to the one before `past`."""

    first: int
    past: int

    @classmethod
    def over(cls, places: list[int]) -> "Span":
        """Return the shortest that holds all of `places`, the first place if there are none."""
        return cls(min(places), max(places) + 1) if places else cls(0, 1)

    @property
    def length(self) -> int:
        """How many there are."""
        return max(self.past - self.first, 0)


class Window(NamedTuple):
    """A rectangle of pixels."""

    rows: Span
    columns: Span

    @classmethod
    def whole(cls, size: torch.Size) -> "Window":
        """Return all of an image of `size`, (…, H, W)."""
        return cls(Span(0, size[-2]), Span(0, size[-1]))

    @classmethod
    def around(cls, there: Tensor) -> "Window":
        """Return the smallest that holds what is true of `there`, (H, W)."""
        lines = (there.any(1), there.any(0))
        return cls(*(Span.over(line.nonzero().flatten().tolist()) for line in lines))

    @property
    def area(self) -> int:
        """How many pixels it has."""
        return self.rows.length * self.columns.length

    def of(self, image: Tensor) -> Tensor:
        """Return the view of it in `image`, (…, H, W)."""
        return image[..., slice(*self.rows), slice(*self.columns)]

    def hull(self, other: "Window") -> "Window":
        """Return the smallest that holds both."""
        pairs = zip(self, other, strict=True)
        return Window(*(Span(min(a.first, b.first), max(a.past, b.past)) for a, b in pairs))

    def common(self, other: "Window") -> "Window":
        """Return what lies in both."""
        pairs = zip(self, other, strict=True)
        return Window(*(Span(max(a.first, b.first), min(a.past, b.past)) for a, b in pairs))

    def seen_from(self, other: "Window") -> "Window":
        """Return the same pixels, counted from the first of `other`."""
        pairs = zip(self, other, strict=True)
        return Window(*(Span(a.first - b.first, a.past - b.first) for a, b in pairs))


PIXEL = Window(Span(0, 1), Span(0, 1))
"""All of an image of one pixel."""


class Piece(NamedTuple):
    """What is new of a map: its `values`, (m, C, h, w), in a `window` of it."""

    window: Window
    values: Tensor


class Reach(NamedTuple):
    """How far a convolution or a pooling looks along one axis."""

    kernel: int
    stride: int
    padding: int
    dilation: int

    def read_by(self, outputs: Span) -> Span:
        """Return which inputs `outputs` are made of, those of the padding included."""
        last = (outputs.past - 1) * self.stride + self.dilation * (self.kernel - 1)
        return Span(outputs.first * self.stride - self.padding, last - self.padding + 1)

    def reached_by(self, inputs: Span, length: int) -> Span:
        """Return outputs, of `length` there are, among which are all that read any of `inputs`."""
        width = self.dilation * (self.kernel - 1)
        first = max(-((width - inputs.first - self.padding) // self.stride), 0)
        past = min((inputs.past - 1 + self.padding) // self.stride + 1, length)
        first = min(first, length - 1)
        return Span(first, max(past, first + 1))

    def reached_evenly(self, inputs: Span, length: int) -> Span:
        """Return what `reached_by` does and more: as many outputs wherever `inputs` lie."""
        width = self.dilation * (self.kernel - 1)
        most = min((inputs.length + width - 1) // self.stride + 1, length)
        first = min(self.reached_by(inputs, length).first, length - most)
        return Span(first, first + most)
