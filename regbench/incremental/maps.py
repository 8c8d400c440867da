"""The maps of a network that are kept of the images as they stand, and those tried on them."""

from typing import NamedTuple

import torch
from torch import Tensor, fx

from regbench.incremental.plan import Plan
from regbench.incremental.windows import Window


class Piece(NamedTuple):
    """What is new of a map: its `values`, (m, C, h, w), in a `window` of it."""

    window: Window
    values: Tensor


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

    def comparable(self, x: Tensor) -> bool:
        """Tell whether `x` may be of the images before, or of some of them."""
        before = self.kept[self.plan.image]
        alike = before.shape[1:] == x.shape[1:] and before.dtype == x.dtype
        return alike and len(x) <= len(before)

    def follow(self, x: Tensor) -> Window:
        """Bring what is kept up to images `x`, (m, C, H, W); return where they still differ.

        Any answer of `kept` and window is right. It is a small one if `x` is what stands, changed
        in the same square of each image, some of the images perhaps left out.
        """
        if len(x) < len(self.kept[self.plan.image]):
            self._leave_out(x)
        if self.tried:
            self._settle(x)
        return Window.around((x != self.kept[self.plan.image]).any(0).any(0))

    def _leave_out(self, x: Tensor) -> None:
        """Keep of each image in `x` what is nearest to it; m² comparisons, when an image falls."""
        before = self.kept[self.plan.image]
        nearest = torch.cdist(x.flatten(1), before.flatten(1), p=0).argmin(1)
        self.kept = {node: values[nearest] for node, values in self.kept.items()}
        self.tried = {
            node: Piece(window, values[nearest]) for node, (window, values) in self.tried.items()
        }

    def _settle(self, x: Tensor) -> None:
        """Keep what was tried on those images of `x` in which it stayed."""
        before, square = self.kept[self.plan.image], self.tried[self.plan.image]
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
