"""What only PyTorch's own layers have: further derivatives, and others who look on."""

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.nn.modules import module as modules


def transformed(gradient: Tensor | None = None) -> bool:
    """Tell whether more is asked for than a way back: `torch.func`, `vmap`, forward mode.

    Args:
        gradient: on a way back, that of the output; several of them in one, where gradients are
            asked for in batches, `is_grads_batched=True`.
    """
    if torch.compiler.is_compiling():
        return False
    functorch = torch._C._functorch
    several = gradient is not None and functorch.is_legacy_batchedtensor(gradient)
    looking_on = functorch.peek_interpreter_stack() is not None
    return several or looking_on or forward_ad._current_level >= 0


def counted() -> bool:
    """Tell whether somebody counts or replaces PyTorch's operations, who is to see them."""
    return bool(torch._C._len_torch_dispatch_stack())


def hooked(layer: nn.Module) -> bool:
    """Tell whether anything else is called with `layer`, on the way there or back."""
    own = vars(layer)
    hooks = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    everywhere = modules._has_any_global_hook()  # type: ignore[no-untyped-call]
    return everywhere or any(own[name] for name in hooks)
