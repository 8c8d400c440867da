"""The precision that is computed in: part of the card, since it is part of the result."""

from collections.abc import Callable, Collection, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves, tree_map_only

from regbench.core.layers.linear import linear

Precision = Callable[[torch.device], AbstractContextManager[object]]


def fp32(device: torch.device) -> AbstractContextManager[object]:  # noqa: ARG001
    """Single precision throughout; regbench.core.device has turned TF32 off."""
    return nullcontext()


@contextmanager
def tf32(device: torch.device) -> Iterator[None]:  # noqa: ARG001
    """On CUDA, products of float32 rounded to TF32's 10 bits; a CPU has none: there it is fp32."""
    _allow_tf32(True)
    try:
        yield
    finally:
        _allow_tf32(False)


def _allow_tf32(allowed: bool) -> None:
    torch.backends.cudnn.allow_tf32 = allowed
    torch.backends.cuda.matmul.allow_tf32 = allowed


def bf16(device: torch.device) -> AbstractContextManager[object]:
    """Convolutions and matrix products in bfloat16; weights, losses and the first layer float32.

    bfloat16 has the range of float32, so no gradient underflows to 0; float16, which does that
    to most input gradients unless the loss is scaled, is not offered. A CPU without instructions
    for it computes the same from operands rounded to bfloat16, instead of one number at a time.
    """
    if products_in("bf16", device) == "fp32":
        return _rounded()
    return torch.autocast(device.type, torch.bfloat16)


def products_in(precision: str, device: torch.device) -> str:
    """Return the precision that products are taken in: fp32 where bf16 is rounded to.

    A CPU has no TF32.
    """
    there = precision == "fp32" or device.type != "cpu" or (precision == "bf16" and _has_bf16())
    return precision if there else "fp32"


def _has_bf16() -> bool:
    """Tell whether oneDNN computes in bfloat16 on this CPU; without AVX-512, say, it does not."""
    if not hasattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported"):  # a build without oneDNN
        return True
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


@contextmanager
def _rounded() -> Iterator[None]:
    with torch.autocast("cpu", torch.bfloat16), _Rounding():
        yield


class _Rounding(TorchFunctionMode):
    """Products that autocast would take in bfloat16, in float32 on rounded operands.

    That is what instructions for bfloat16 do, which sum in float32 too, and the way back likewise:
    the gradient of rounding is rounded. Weights are rounded once, as autocast casts them once.
    """

    def __init__(self) -> None:
        super().__init__()
        self._kept: dict[int, _Kept] = {}

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Collection[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Return what `func` returns, if it is a product rounded to bfloat16."""
        kwargs = kwargs or {}
        if func in WAYS_BACK:  # the way there has chosen the types, as it does without this
            with torch.autocast("cpu", enabled=False):
                return func(*args, **kwargs)
        if func not in PRODUCTS or "out" in kwargs or not _takes((args, kwargs)):
            return func(*args, **kwargs)
        with torch.autocast("cpu", enabled=False):
            product = linear if func is F.linear else func
            rounded, named = tree_map_only(Tensor, self._rounded, (args, kwargs))
            return product(*rounded, **named).bfloat16()

    def _rounded(self, x: Tensor) -> Tensor:
        if not (isinstance(x, nn.Parameter) and x.requires_grad and torch.is_grad_enabled()):
            return _round(x)
        kept = self._kept.get(id(x))
        if kept is None or kept.version != x._version:
            kept = self._kept[id(x)] = _Kept(x, x._version, _round(x))
        return kept.rounded


class _Kept(NamedTuple):
    """A weight, rounded.

    Attributes:
        weight: what was rounded; held, so that no other comes to be in its place.
        version: how often it had been changed.
        rounded: of the shape of `weight`, with the way back to it.
    """

    weight: Tensor
    version: int
    rounded: Tensor


def _takes(operands: object) -> bool:
    """Tell whether autocast would take a product of these in bfloat16."""
    types = {one.dtype for one in tree_leaves(operands) if isinstance(one, Tensor)}
    return torch.is_autocast_enabled("cpu") and types <= {torch.float32, torch.bfloat16}


def _round(x: Tensor) -> Tensor:
    return x.bfloat16().float()


PRODUCTS = {
    F.linear, torch.conv1d, torch.conv2d, torch.conv3d, torch.conv_transpose1d,
    torch.conv_transpose2d, torch.conv_transpose3d, torch.matmul, torch.mm, torch.bmm, torch.addmm,
    torch.baddbmm, Tensor.matmul, Tensor.__matmul__, Tensor.__rmatmul__, Tensor.mm, Tensor.bmm,
}  # fmt: skip
"""What autocast takes in bfloat16 on a CPU, as far as networks are made of it."""

WAYS_BACK = {torch.autograd.grad, torch.autograd.backward, Tensor.backward}

PRECISIONS: dict[str, Precision] = {"fp32": fp32, "tf32": tf32, "bf16": bf16}
