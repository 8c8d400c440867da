"""What of a network's graph can be computed by windows."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from regbench.core.incremental.linear import Convolution, Linear, Product
from regbench.core.incremental.local import POINTWISE, Local, is_pointwise
from regbench.core.layers import tune
from regbench.core.layers.linear import LargeLinear

FLATTENING = {torch.flatten, torch.reshape, "flatten", "reshape", "view"}
"""Functions, and methods of tensors by their names."""

POOLINGS: Mapping[Any, type[nn.Module]] = {
    F.max_pool2d: nn.MaxPool2d,
    torch.max_pool2d: nn.MaxPool2d,
    F.avg_pool2d: nn.AvgPool2d,
}
"""Functions, and the layers that they are."""


@dataclass(frozen=True)
class Plan:
    """A network's graph, parted.

    Attributes:
        sizes: of each map: an output, (m, C, H, W), of which a window depends on a window of the
            images.
        local: layers of a map by which a window grows; all other maps depend on pixels alone.
        linear: layers that a change can be passed through by itself.
        flattened: what flattens a map for such layers alone.
        kept: maps that are read beyond the window in which they are new, and the sizes of them.
    """

    sizes: Mapping[fx.Node, torch.Size]
    local: Mapping[fx.Node, Local]
    linear: Mapping[fx.Node, Linear]
    flattened: frozenset[fx.Node]
    kept: Mapping[fx.Node, torch.Size]

    @classmethod
    def of(cls, module: fx.GraphModule, values: Mapping[fx.Node, Any]) -> "Plan":
        """Return the plan of `module`.

        Args:
            module: a network's graph, of one input.
            values: of all its nodes, for any one image.
        """
        sizes: dict[fx.Node, torch.Size] = {}
        local: dict[fx.Node, Local] = {}
        for node in module.graph.nodes:
            value = values.get(node)
            if not isinstance(value, Tensor) or value.ndim != 4:
                continue
            layer = _local(module, node)
            if layer is not None and node.all_input_nodes[0] in sizes:
                local[node] = layer
            elif node.op != "placeholder" and not _by_pixels(module, node, sizes, values):
                continue
            sizes[node] = value.shape
        flat = {node: one for node in values if (one := _flattened(module, node, sizes, values))}
        linear = _convolutions(local) | _products(module, flat, sizes)
        flattened = frozenset(node for node in flat if node.users.keys() <= linear.keys())
        kept = {node for node in sizes if any(_beyond(user, sizes, local) for user in node.users)}
        kept |= {one.source for one in linear.values()} | linear.keys()
        kept.add(next(iter(sizes)))  # the images, by which changes are found
        return cls(sizes, local, linear, flattened, {node: _size(values[node]) for node in kept})

    @property
    def image(self) -> fx.Node:
        """The images themselves, the first of the maps."""
        return next(iter(self.sizes))

    def bytes_of(self, x: Tensor) -> int:
        """Return the memory of maps of images `x`, (m, C, H, W), kept and tried, and of weights."""
        numbers = sum(math.prod(size[1:]) for size in self.kept.values())
        weights = sum(one.numbers for one in self.linear.values())
        return (2 * len(x) * numbers + weights) * x.element_size()


def _local(module: fx.GraphModule, node: fx.Node) -> Local | None:
    if len(node.all_input_nodes) != 1:
        return None
    if node.op == "call_module":
        return Local.of(module.get_submodule(str(node.target)))
    pooling = _pooling(module, node)
    return None if pooling is None else Local.of(pooling)


def _pooling(module: fx.GraphModule, node: fx.Node) -> nn.Module | None:
    """Return the layer that `node` calls as a function; none, if it is no pooling."""
    if node.target not in POOLINGS:
        return None
    told = node.normalized_arguments(module, normalize_to_only_use_kwargs=True)
    if told is None:
        return None
    settings = {name: value for name, value in told.kwargs.items() if name != "input"}
    # a function that is given no stride says [], a layer None
    return tune(POOLINGS[node.target](**{**settings, "stride": settings["stride"] or None}))


def _flattened(
    module: fx.GraphModule,
    node: fx.Node,
    sizes: Mapping[fx.Node, torch.Size],
    values: Mapping[fx.Node, Any],
) -> fx.Node | None:
    """Return the map that `node` is, flattened; none, if it is none."""
    maps = [one for one in node.all_input_nodes if one in sizes]
    if node.op == "call_module":
        flattens = type(module.get_submodule(str(node.target))) is nn.Flatten
    else:
        flattens = node.op in ("call_function", "call_method") and node.target in FLATTENING
    if len(maps) != 1 or not flattens:
        return None
    features = (1, math.prod(sizes[maps[0]][1:]))
    return maps[0] if values[node].shape == features else None


def _convolutions(local: Mapping[fx.Node, Local]) -> dict[fx.Node, Linear]:
    made = {node: Convolution.of(node.all_input_nodes[0], one) for node, one in local.items()}
    return {node: one for node, one in made.items() if one is not None}


def _products(
    module: fx.GraphModule,
    flat: Mapping[fx.Node, fx.Node],
    sizes: Mapping[fx.Node, torch.Size],
) -> dict[fx.Node, Linear]:
    products: dict[fx.Node, Linear] = {}
    for user, source in ((user, flat[node]) for node in flat for user in node.users):
        layer = module.get_submodule(str(user.target)) if user.op == "call_module" else None
        if type(layer) is LargeLinear:
            products[user] = Product.of(source, sizes[source], layer)
    return products


def _size(value: Tensor) -> torch.Size:
    """The size of a map, (m, C, H, W); features, (m, n), are one of a single pixel."""
    return value.shape if value.ndim == 4 else value[..., None, None].shape


def _by_pixels(
    module: fx.GraphModule,
    node: fx.Node,
    sizes: Mapping[fx.Node, torch.Size],
    values: Mapping[fx.Node, Any],
) -> bool:
    """Tell whether a pixel of `node` depends on the same pixel of maps and on nothing else."""
    if node.op == "call_module":
        if not is_pointwise(module.get_submodule(str(node.target))):
            return False
    elif node.op not in ("call_function", "call_method") or node.target not in POINTWISE:
        return False
    maps = [one for one in node.all_input_nodes if one in sizes]
    others = [one for one in node.all_input_nodes if one not in sizes]
    return (
        bool(maps)
        and all(sizes[one][-2:] == values[node].shape[-2:] for one in maps)
        and all(one.op == "get_attr" and _the_same_everywhere(values[one]) for one in others)
    )


def _the_same_everywhere(value: object) -> bool:
    return not isinstance(value, Tensor) or all(length == 1 for length in value.shape[-2:])


def _beyond(
    user: fx.Node, sizes: Mapping[fx.Node, torch.Size], local: Mapping[fx.Node, Local]
) -> bool:
    """Tell whether `user` may read a map beyond the window in which the map is new."""
    several = sum(one in sizes for one in user.all_input_nodes) > 1
    return user not in sizes or user in local or several
