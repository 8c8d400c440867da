"""A network compiled by PyTorch: fewer and larger kernels, which round in other places."""

import copy
from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor, nn

from regbench.errors import UserError
from regbench.layers import untuned

OPTIONS: dict[str, str | int | bool | Callable[..., Any]] = {
    "emulate_precision_casts": True,  # round to bf16 between operations, as without a compiler
    "fallback_random": True,  # draw the numbers that PyTorch draws
}


class Compiled:
    """A network's two ways, compiled; weights and statistics are those of the network itself.

    A network that replaces a buffer instead of changing it in place, or a loss that differentiates
    twice or calls the network by itself, is not for it.

    Attributes:
        trained: in train mode, with a way back to the weights.
        frozen: in eval mode, with a way back to the image alone.

    Args:
        model: what is trained; its weights are changed in place.

    Raises:
        UserError: the compiler does not work here.
    """

    def __init__(self, model: nn.Module) -> None:
        _refuse_broken(next(model.parameters()).device)
        self.trained = _compiled(_sharing(model, frozen=False).train())
        self.frozen = _compiled(_sharing(model, frozen=True).eval())


def _compiled(model: nn.Module) -> nn.Module:
    return cast("nn.Module", torch.compile(model, dynamic=False, options=OPTIONS))


def _sharing(model: nn.Module, *, frozen: bool) -> nn.Module:
    """Return `model` once more, of PyTorch's own layers, on the same weights and statistics."""
    shared: dict[int, Tensor] = {id(buffer): buffer for buffer in model.buffers()}
    for weight in model.parameters():
        shared[id(weight)] = nn.Parameter(weight.detach(), False) if frozen else weight
    return untuned(copy.deepcopy(model, shared))


def _refuse_broken(device: torch.device) -> None:
    """Compile something small: before work is begun, and with one line if that fails."""
    try:
        torch.compile(torch.neg, options=OPTIONS)(torch.zeros(1, device=device))
    except Exception as error:  # whatever the compiler raises
        needs = "Triton" if device.type == "cuda" else "a C++ compiler"
        first = str(error).strip().split("\n")[0]
        raise UserError(
            f"training.compiled: PyTorch's compiler does not work here, which takes {needs}"
            f" ({type(error).__name__}: {first}); install that or set compiled: false"
        ) from error
