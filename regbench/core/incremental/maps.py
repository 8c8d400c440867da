"""The maps of a network that are kept of the images as they stand, and those tried on them."""

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor, fx

from regbench.core.incremental.plan import Plan
from regbench.core.incremental.windows import Piece, Window

SHARED = 1 / 8
"""More than this share of the images change in each pixel of the square that is tried on all.

Of fewer than eight images one is more already: strays are then told of none.
"""


class Difference(NamedTuple):
    """Where images are others than before.

    Attributes:
        window: of all images.
        strays: the numbers of those that have changed elsewhere besides.
    """

    window: Window
    strays: Tensor

    @classmethod
    def between(cls, x: Tensor, before: Tensor) -> "Difference":
        """Return the one of `x` from `before`, both (m, C, H, W).

        Where two tries in a row share pixels an image can be like neither, and then differs from
        what is kept of it until something else is kept: it is better computed anew.
        """
        changed = (x != before).any(1)
        everywhere = Window.around(changed.any(0))
        shared = Window.around(changed.float().mean(0) > SHARED)
        if everywhere.area < 2 * shared.area:
            return cls(everywhere, torch.arange(0))
        shared.of(changed).fill_(False)
        return cls(shared, changed.flatten(1).any(1).nonzero().flatten())


class Maps:
    """What is known of the images before.

    Attributes:
        plan: of the network.
        kept: maps of the images as they stood before the last call.
        tried: what the last call changed of them; an image that comes back with its
            change keeps it.
    """

    def __init__(self, plan: Plan, kept: dict[fx.Node, Tensor]) -> None:
        self.plan, self.kept = plan, kept
        self.tried: dict[fx.Node, Piece] = {}

    @classmethod
    def of(cls, plan: Plan, values: Mapping[fx.Node, Tensor]) -> "Maps":
        """Return those of a network's `values`."""
        return cls(plan, {node: values[node].view(-1, *plan.kept[node][1:]) for node in plan.kept})

    @property
    def image(self) -> Tensor:
        """The images as they stand, (m, C, H, W)."""
        return self.kept[self.plan.image]

    def comparable(self, x: Tensor) -> bool:
        """Tell whether `x` may be of the images before, or of some of them."""
        before = self.image
        alike = before.shape[1:] == x.shape[1:] and before.dtype == x.dtype
        return alike and len(x) <= len(before)

    def follow(self, x: Tensor) -> Difference:
        """Bring what is kept up to images `x`, (m, C, H, W); return where they still differ.

        Any answer of `kept` and window is right. It is a small one if `x` is what stands, changed
        in the same square of each image, some of the images perhaps left out.
        """
        if len(x) < len(self.image):
            self._leave_out(x)
        if self.tried:
            self._settle(x)
        return Difference.between(x, self.image)

    def restored(self, window: Window, x: Tensor, images: Tensor) -> Tensor:
        """Return those of `x` that `images`, (k,), are the numbers of, as before in `window`."""
        stood = x[images]
        window.of(stood).copy_(window.of(self.image[images]))
        return stood

    def replace(self, images: Tensor, values: Mapping[fx.Node, Tensor]) -> None:
        """Keep `values` of those that `images`, (k,), are the numbers of."""
        for node, kept in self.kept.items():
            kept[images] = values[node].view(-1, *kept.shape[1:])

    def _leave_out(self, x: Tensor) -> None:
        """Keep of each image in `x` what is nearest to it; m² comparisons, when an image falls."""
        before = self.image
        nearest = torch.cdist(x.flatten(1), before.flatten(1), p=0).argmin(1)
        self.kept = {node: values[nearest] for node, values in self.kept.items()}
        self.tried = {
            node: Piece(window, values[nearest]) for node, (window, values) in self.tried.items()
        }

    def _settle(self, x: Tensor) -> None:
        """Keep what was tried on those images of `x` in which it stayed."""
        before, square = self.image, self.tried[self.plan.image]
        after = before.clone()
        square.window.of(after).copy_(square.values)
        from_before, from_after = x != before, x != after
        # where an image is like neither, something new is tried on all of them
        new = Window.around((from_before & from_after).any(0).any(0))
        new.of(from_before).fill_(False)
        new.of(from_after).fill_(False)
        counts = [differs.flatten(1).sum(1) for differs in (from_before, from_after)]
        stayed = (counts[1] < counts[0]).nonzero().flatten()
        if len(stayed):
            for node, (window, values) in self.tried.items():
                window.of(self.kept[node])[stayed] = values[stayed]
        self.tried = {}
