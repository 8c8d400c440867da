"""A network compiled by PyTorch: fewer and larger kernels, which round in other places."""

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import Tensor, nn

from regbench.core.layers import untuned
from regbench.errors import UserError

OPTIONS: dict[str, str | int | bool | Callable[..., Any]] = {
    "emulate_precision_casts": True,  # round to bf16 between operations, as without a compiler
    "fallback_random": True,  # draw the numbers that PyTorch draws
}


class Compiled:
    """A network's two ways, compiled; weights and statistics are those of the network itself.

    What a loss asks the network itself is not compiled. A network that replaces a buffer instead of
    changing it in place, or a loss that differentiates a gradient, is not for it.

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
        self._model = model
        self._shared = (_sharing(model, frozen=False).train(), _sharing(model, frozen=True).eval())
        self.trained, self.frozen = map(_compiled, self._shared)

    def refuse_replaced(self) -> None:
        """Refuse a network of which a way has not changed, but replaced a buffer.

        Raises:
            UserError: there is one; says which.
        """
        own = _places(self._model)
        for way in self._shared:
            replaced = sorted(own.items() ^ _places(way).items())
            if replaced:
                raise UserError(
                    f"training.compiled: the network replaces its buffer {replaced[0][0]!r} in a"
                    " forward pass, which a compiled one would lose; change it in place"
                    " (`self.x.copy_(…)`) or set compiled: false"
                )


@contextmanager
def differentiable_once() -> Iterator[None]:
    """Say in one line what a compiled network cannot do.

    Raises:
        UserError: a gradient through a compiled network was to be differentiated.
    """
    try:
        yield
    except RuntimeError as error:
        if "double backward" not in str(error):
            raise
        raise UserError(
            "training.compiled: this loss differentiates a gradient, which PyTorch's compiler does"
            " not offer; set compiled: false"
        ) from error


def _places(model: nn.Module) -> dict[str, int]:
    """Where each buffer lies, by its name."""
    named = model.named_buffers(remove_duplicate=False)
    return {name: buffer.data_ptr() for name, buffer in named}


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
