"""Logits of images that change a little, often: only what a change reaches is computed anew."""

import torch
from torch import Tensor, fx, nn

from regbench.core.incremental.maps import Maps
from regbench.core.incremental.plan import Plan
from regbench.core.incremental.renewal import Whole, renewed
from regbench.core.incremental.tracing import traced
from regbench.core.incremental.windows import Window

__all__ = ["Incremental"]

LARGE = 0.5
"""Share of an image from which on a change is taken for one of the whole image."""

MOST_BYTES = 2**31
"""Of what is kept and tried; a network that takes more is called as it is."""

OFTEN = 256
"""Calls after which maps to which changes were added are computed anew, since sums round."""

CLOSE = 1e-4
"""Of a logit or of what is usual of the two highest: further than rounding goes."""


class Incremental:
    """A frozen network in eval mode, called without gradients on much the same images again.

    A random search tries thousands of small squares on the same images and keeps those that help
    (Square, Andriushchenko et al. 2020). Each layer's output, its map, is kept of the images as
    they stand; of a convolution or a pooling only the window that a square reaches is computed, and
    what is linear and large takes the change alone. The logits are the network's own but for
    rounding, whatever images in [0, 1] are given.

    A network that is no fixed graph, or whose maps would take more than `MOST_BYTES`, is called as
    it is, and so is one that does not come out the same: each 1st, 2nd, 4th, 8th… call is compared,
    which draws from the random stream what the network alone would.
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
        self._calls += 1
        compared = self._calls.bit_count() == 1
        with torch.random.fork_rng([x.device] if x.is_cuda else [], enabled=compared):
            logits = self._by_graph(self._graph, x)
        if logits is None:
            return self._as_it_is(x)
        return self._compared(logits, x) if compared else logits

    @property
    def renews(self) -> bool:
        """Whether maps are kept of the last images; none are of a network called as it is."""
        return self._maps is not None

    def _as_it_is(self, x: Tensor) -> Tensor:
        logits: Tensor = self._model(x)
        return logits

    def _by_graph(self, graph: fx.GraphModule, x: Tensor) -> Tensor | None:
        """Return the logits; none, if memory or the network does not allow."""
        try:
            known = self._maps is not None and self._maps.comparable(x)
            logits = self._renewed(graph, x) if known else self._anew(graph, x)
        except Exception:  # a layer that is not what its class says: the network itself tells
            self._graph = self._maps = None
            return None
        # whoever asked may write into them, and they may be a view of a map
        return None if logits is None else logits.clone()

    def _anew(self, graph: fx.GraphModule, x: Tensor) -> Tensor | None:
        """Return the logits, and keep the maps that lead there, if memory allows."""
        self._maps = None
        if self._plan is None or self._plan.sizes[self._plan.image][1:] != x.shape[1:]:
            self._plan = Plan.of(graph, Whole(graph).values_of(x[:1]))
        if self._plan.bytes_of(x) > MOST_BYTES:
            return None
        return self._map(graph, x.clone())  # whoever gave the images may change them

    def _map(self, graph: fx.GraphModule, x: Tensor) -> Tensor:
        """Keep the maps of `x`, and return its logits."""
        assert self._plan is not None
        whole = self._whole(graph)
        self._maps = Maps.of(self._plan, whole.values_of(x))
        return whole.logits

    def _whole(self, graph: fx.GraphModule) -> Whole:
        assert self._plan is not None
        return Whole(graph, self._plan.kept)

    def _renewed(self, graph: fx.GraphModule, x: Tensor) -> Tensor:
        """Return the logits of `x`, computed of what differs from the images before."""
        assert self._maps is not None
        window, strays = self._maps.follow(x)
        if len(strays):
            stood = self._maps.restored(window, x, strays)
            self._maps.replace(strays, self._whole(graph).values_of(stood))
        if self._calls % OFTEN == 1:  # after a comparison, which is to see what has added up
            self._map(graph, self._maps.image)
        if window.area > LARGE * Window.whole(x.shape).area:
            window = Window.whole(x.shape)
        logits, self._maps.tried = renewed(graph, self._maps, x, window)
        # what is infinite cannot be taken back from a sum
        return logits if logits.isfinite().all() else self._map(graph, x.clone())

    def _compared(self, logits: Tensor, x: Tensor) -> Tensor:
        """Return the network's own logits, and leave the graph if these are others."""
        own = self._as_it_is(x)
        if not _close(logits, own):
            self._graph = self._maps = None
        return own


def _close(logits: Tensor, own: Tensor) -> bool:
    """Tell whether logits, (m, K), are `own` but for rounding; NaN is not.

    Not by the largest of all: a class that is masked by −10⁹ would let the others be anything.
    """
    usual = own.topk(min(2, own.shape[1])).values.abs().amax(1).median()
    return bool(((logits - own).abs() <= CLOSE * own.abs().clamp(min=usual)).all())
