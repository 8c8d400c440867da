"""Logits of images that change a little, often: only what a change reaches is computed anew."""

import torch
from torch import Tensor, nn

from regbench.incremental.maps import Maps
from regbench.incremental.plan import Plan
from regbench.incremental.renewal import Whole, renewed
from regbench.incremental.tracing import traced
from regbench.incremental.windows import Window

__all__ = ["Incremental"]

LARGE = 0.5
"""Share of an image from which on a change is taken for one of the whole image."""

MOST_BYTES = 2**31
"""Of the maps that are kept."""

CLOSE = 1e-3
"""Relative and absolute: a wrong window is further off than any rounding."""


class Incremental:
    """A frozen network in eval mode, called without gradients on much the same images again.

    A random search tries thousands of small squares on the same images and keeps those that help
    (Square, Andriushchenko et al. 2020). Each layer's output, its map, is kept of the images as
    they stand; of a convolution or a pooling only the window that a square reaches is computed.
    The logits are the network's own but for rounding, whatever the images are.

    A network that is no fixed graph, or whose maps would take more than `MOST_BYTES`, is called as
    it is, and so is one that does not come out the same: each 1st, 2nd, 4th, 8th… call is compared.
    """

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._graph = traced(model)
        self._plan: Plan | None = None
        self._maps: Maps | None = None
        self._calls = 0

    def __call__(self, x: Tensor) -> Tensor:
        """Return the logits of `x`, (m, C, H, W)."""
        if self._graph is None or torch.is_grad_enabled():
            return self._as_it_is(x)
        known = self._maps is not None and self._maps.comparable(x)
        logits = self._renewed(x) if known else self._anew(x)
        self._calls += 1
        return self._compared(logits, x) if self._calls.bit_count() == 1 else logits

    def _as_it_is(self, x: Tensor) -> Tensor:
        logits: Tensor = self._model(x)
        return logits

    def _anew(self, x: Tensor) -> Tensor:
        """Return the logits, and keep the maps that lead there, if memory allows."""
        assert self._graph is not None
        if self._plan is None:
            self._plan = Plan.of(self._graph, Whole(self._graph).values_of(x[:1]))
        if self._plan.bytes_of(x) > MOST_BYTES:
            self._maps = None
            return self._as_it_is(x)
        whole = Whole(self._graph, self._plan.kept)
        values = whole.values_of(x.clone())  # whoever gave the images may change them
        self._maps = Maps(self._plan, {node: values[node] for node in self._plan.kept})
        return whole.logits

    def _renewed(self, x: Tensor) -> Tensor:
        """Return the logits of `x`, computed of what differs from the images before."""
        assert self._graph is not None
        assert self._maps is not None
        window = self._maps.changed(x)
        if window.area > LARGE * Window.whole(x.shape).area:
            window = Window.whole(x.shape)
        logits, self._maps.tried = renewed(self._graph, self._maps, x, window)
        return logits

    def _compared(self, logits: Tensor, x: Tensor) -> Tensor:
        """Return the network's own logits, and leave the graph if these are others."""
        own = self._as_it_is(x)
        if not torch.allclose(logits, own, CLOSE, CLOSE):
            self._graph = self._maps = None
        return own
