"""Derivatives that only PyTorch's own layers have."""

import torch
from torch import Tensor
from torch.autograd import forward_ad


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
