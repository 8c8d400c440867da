"""A network as a graph of operations, none of which changes a tensor in place."""

import copy
from typing import Any

from torch import fx, nn

from regbench.core.incremental.local import Local, is_pointwise
from regbench.core.layers import FASTER
from regbench.core.layers.transforms import hooked


class _Tracer(fx.Tracer):
    """Takes layers that are known here, ours among them, for one operation each."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        known = is_pointwise(m) or Local.of(m) is not None or isinstance(m, FASTER)
        return known or super().is_leaf_module(m, module_qualified_name)


def traced(model: nn.Module) -> fx.GraphModule | None:
    """Return the graph of `model`, its layers shared; none, if it is no fixed graph of one tensor.

    A network whose operations depend on what its tensors hold has none, nor has one with hooks on
    its layers, which could do anything, or one that is seen to read a tensor after it was changed
    in place. `y += z` looks like `y + z` in a trace: whether another name for y is read later, only
    its logits tell.
    """
    if any(hooked(part) for child in model.children() for part in child.modules()):
        return None
    try:
        graph = _Tracer().trace(model)
    except Exception:  # whatever a network does that cannot be traced
        return None
    module = fx.GraphModule(model, graph)
    inputs = [node for node in graph.nodes if node.op == "placeholder" and not node.args]
    if len(inputs) != 1 or not all(_apart(model, module, node) for node in graph.nodes):
        return None
    return module


def _apart(model: nn.Module, module: fx.GraphModule, node: fx.Node) -> bool:
    """Have `node` write into a tensor of its own; tell whether that is possible and the same."""
    if node.op == "call_module":
        layer = model.get_submodule(str(node.target))
        if not getattr(layer, "inplace", False):
            return True
        own: Any = copy.copy(layer)
        own.inplace = False
        module.add_submodule(str(node.target), own)
    elif node.kwargs.get("inplace"):
        node.update_kwarg("inplace", False)
    else:
        name = str(getattr(node.target, "__name__", node.target))
        called = node.op in ("call_function", "call_method")
        return not (called and (name.endswith("_") or name == "setitem"))
    return all(len(changed.users) == 1 for changed in node.all_input_nodes[:1])
