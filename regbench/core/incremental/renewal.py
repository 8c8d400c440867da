"""Running a network's graph, on whole images or on what is new of them."""

from collections.abc import Collection
from functools import reduce
from typing import Any

from torch import Tensor, fx
from torch.nn import functional as F

from regbench.core.incremental.maps import Maps
from regbench.core.incremental.windows import PIXEL, Piece, Window

MOST = 0.6
"""Share of a map from which on a change in it is not passed on by itself."""


class Whole(fx.Interpreter):
    """Runs a graph on images.

    Args:
        graph: the network's.
        wanted: nodes of which values are remembered; none: all.

    Attributes:
        logits: what came out last.
    """

    logits: Tensor

    def __init__(self, graph: fx.GraphModule, wanted: Collection[fx.Node] | None = None) -> None:
        super().__init__(graph)
        self._wanted = graph.graph.nodes if wanted is None else wanted
        self._values: dict[fx.Node, Any] = {}

    def values_of(self, x: Tensor) -> dict[fx.Node, Any]:
        """Return the values of nodes on images `x`, (m, C, H, W)."""
        self.logits = self.run(x)
        return self._values

    def run_node(self, n: fx.Node) -> Any:
        """Run one node, and remember what it gives."""
        value = super().run_node(n)
        if n in self._wanted:
            self._values[n] = value
        return value


def renewed(
    graph: fx.GraphModule, maps: Maps, x: Tensor, window: Window
) -> tuple[Tensor, dict[fx.Node, Piece]]:
    """Return the logits of `x`, and what is new of the maps that are kept.

    Args:
        graph: the network's.
        maps: of images that `x` differs from in `window` alone.
        x: (m, C, H, W).
        window: what is new of it.
    """
    renewal = _Renewal(graph, maps)
    logits = renewal.run(Piece(window, window.of(x).clone()))
    return logits, renewal.tried


class _Renewal(fx.Interpreter):
    """Runs a graph in which the value of a map is a `Piece`."""

    def __init__(self, graph: fx.GraphModule, maps: Maps) -> None:
        super().__init__(graph)
        # a flattened map is read by whoever reads what it was flattened to
        read = {one.source for one in maps.plan.linear.values()}
        self.user_to_last_uses = {
            user: [node for node in nodes if node not in read]
            for user, nodes in self.user_to_last_uses.items()
        }
        self._plan, self._kept = maps.plan, maps.kept
        self.tried: dict[fx.Node, Piece] = {}

    def run_node(self, n: fx.Node) -> Any:
        value = self._value(n)
        if n in self._plan.kept:
            self.tried[n] = value
        features = n in self._plan.linear and n not in self._plan.sizes
        return value.values.flatten(1) if features else value

    def _value(self, n: fx.Node) -> Any:
        if n.op == "placeholder":
            return super().run_node(n)
        if n in self._plan.flattened:
            return None  # whoever reads it reads the map itself
        if n in self._plan.linear:
            return self._linearly(n)
        if n in self._plan.local:
            return self._locally(n)
        if n in self._plan.sizes:
            return self._by_pixels(n)
        return self._called(n, None)

    def _by_pixels(self, n: fx.Node) -> Piece:
        windows = (self.env[one].window for one in n.all_input_nodes if one in self._plan.sizes)
        window = reduce(Window.hull, windows)
        return Piece(window, self._called(n, window))

    def _linearly(self, n: fx.Node) -> Piece:
        layer = self._plan.linear[n]
        new: Piece = self.env[layer.source]
        if new.window.area > MOST * Window.whole(self._plan.sizes[layer.source]).area:
            return self._locally(n) if n in self._plan.local else self._entirely(n, layer.source)
        change = new.values - new.window.of(self._kept[layer.source])
        window, made = layer.made_of(Piece(new.window, change), self._plan.kept[n])
        return Piece(window, window.of(self._kept[n]) + made)

    def _entirely(self, n: fx.Node, source: fx.Node) -> Piece:
        """Return what a layer makes of all features of a map, as a map of one pixel."""
        features = self._cut(source, None).flatten(1)
        return Piece(PIXEL, self.call_module(n.target, (features,), {})[..., None, None])

    def _locally(self, n: fx.Node) -> Piece:
        layer, (source,) = self._plan.local[n], n.all_input_nodes
        size = self._plan.sizes[n]
        window = layer.reached_by(self.env[source].window, size)
        if window == Window.whole(size):
            return Piece(window, layer.whole(self._cut(source, None)))
        cut = self._cut(source, layer.read_by(window), layer.fill)
        return Piece(window, layer.bare(cut))

    def _called(self, n: fx.Node, window: Window | None) -> Any:
        """Return what `n` makes of `window` of its maps; none: of all of them."""

        def given(one: fx.Node) -> Any:
            return self._cut(one, window) if one in self._plan.sizes else self.env[one]

        args, kwargs = (fx.node.map_arg(part, given) for part in (n.args, n.kwargs))
        return getattr(self, n.op)(n.target, args, kwargs)

    def _cut(self, source: fx.Node, window: Window | None, fill: float = 0.0) -> Tensor:
        """Return `window` of a map, what is new in its place and `fill` beyond its edges.

        No window: all of the map.
        """
        window = window or Window.whole(self._plan.sizes[source])
        piece: Piece = self.env[source]
        if window == piece.window:
            return piece.values
        cut = _filled(self._kept[source], window, fill)
        both = window.common(piece.window)
        if both.area:
            both.seen_from(window).of(cut).copy_(both.seen_from(piece.window).of(piece.values))
        return cut


def _filled(image: Tensor, window: Window, fill: float) -> Tensor:
    """Return a copy of `window` of `image`, (m, C, H, W), and `fill` beyond its edges."""
    there = window.common(Window.whole(image.shape))
    if there == window:
        return window.of(image).clone()
    (above, below), (left, right) = (
        (has.first - wants.first, wants.past - has.past)
        for has, wants in zip(there, window, strict=True)
    )
    return F.pad(there.of(image), (left, right, above, below), value=fill)
