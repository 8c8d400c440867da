"""Fully connected layers of many weights."""

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from regbench.core.layers.held import Held
from regbench.core.layers.transforms import transformed

LARGE = 2**20

SPARSE = 0.35
"""Share of a layer's units up to which only the weights of those that have a gradient are read."""


class _Packed(NamedTuple):
    """A layer's weights in oneDNN's own layout.

    Attributes:
        weight: what was packed; held, so that no other weights come to lie in its place.
        version: how often it had been changed.
        there: W.
        back: Wᵀ.
    """

    weight: Tensor
    version: int
    there: Tensor
    back: Tensor

    @classmethod
    def of(cls, weight: Tensor) -> "_Packed":
        """Pack W, (K, n)."""
        pack = torch.ops.mkldnn._reorder_linear_weight
        return cls(weight, weight._version, pack(weight), pack(weight.t().contiguous()))

    def still(self, weight: Tensor) -> bool:
        """Tell whether `weight` is what was packed, and unchanged."""
        return weight.data_ptr() == self.weight.data_ptr() and weight._version == self.version


class LargeLinear(nn.Linear):
    """A `Linear` of many weights, in float32 on a CPU computed by oneDNN.

    PyTorch computes it by MKL, which takes up to 1.7 times as long there on processors that are not
    Intel's. bf16 goes to oneDNN anyway, or is rounded first and not packed
    (regbench.core.precision). Frozen weights, as of a network that is attacked, are packed once
    instead of at each product, and anew when they have changed; a change through `.data` goes
    unnoticed.
    """

    _kept: _Packed | None = None

    @staticmethod
    def fits(module: nn.Module) -> bool:
        """Tell whether `module` is a fully connected layer of at least 2²⁰ weights."""
        return type(module) is nn.Linear and module.weight.numel() >= LARGE

    def forward(self, x: Tensor) -> Tensor:
        """Return x Wᵀ + b, x being (m, n)."""
        if not _onednn_takes(x, self.weight):
            return super().forward(x)
        trained = self.weight.requires_grad or (self.bias is not None and self.bias.requires_grad)
        return _linear(x, self.weight, self.bias, None if trained else self._packed())

    def _packed(self) -> _Packed:
        weight = self.weight.detach()
        if self._kept is None or not self._kept.still(weight):
            self._kept = _Packed.of(weight)
        return self._kept

    def __getstate__(self) -> dict[str, Any]:
        """What a copy is made of: not the packed weights, which cannot be copied."""
        return {name: value for name, value in self.__dict__.items() if name != "_kept"}


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Return x Wᵀ + b as a `LargeLinear` would, or as PyTorch does where that is no faster."""
    if weight.numel() < LARGE or not _onednn_takes(x, weight):
        return F.linear(x, weight, bias)
    return _linear(x, weight, bias)


def _linear(
    x: Tensor, weight: Tensor, bias: Tensor | None, packed: _Packed | None = None
) -> Tensor:
    y: Tensor
    if packed is None:
        y = _ToWeights.apply(x.detach(), weight, bias, Held(x))
    else:
        y = _by_onednn(x.detach(), packed.there, bias)
    z: Tensor = _ToInput.apply(y, x, weight, packed and packed.back) if x.requires_grad else y
    return z


def _onednn_takes(x: Tensor, weight: Tensor) -> bool:
    return (
        x.device.type == "cpu"
        and x.ndim == 2
        and x.dtype == weight.dtype == torch.float32
        and not torch.is_autocast_enabled("cpu")
        and torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
        and hasattr(torch.ops.mkldnn, "_linear_pointwise")
        and not transformed()
    )


def _by_onednn(a: Tensor, b: Tensor, bias: Tensor | None = None) -> Tensor:
    """A Bᵀ + bias, b packed or not."""
    product: Tensor = torch.ops.mkldnn._linear_pointwise(a, b, bias, "none", [], "")
    return product


def _product(a: Tensor, b: Tensor, packed: Tensor | None = None) -> Tensor:
    """A Bᵀ; where it is to be differentiated once more, by an operation that can be."""
    if transformed(a) or (torch.is_grad_enabled() and (a.requires_grad or b.requires_grad)):
        return F.linear(a, b)
    return _by_onednn(a, b if packed is None else packed)


class _ToWeights(torch.autograd.Function):
    """x Wᵀ + b with the way back to W and b."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, held: Held) -> Tensor:
        ctx.save_for_backward(x)
        ctx.held = held
        return _by_onednn(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x = ctx.held.x if torch.is_grad_enabled() else ctx.saved_tensors[0]
        bias = gradient.sum(0) if ctx.needs_input_grad[2] else None
        return None, _product(gradient.t(), x.t()), bias, None


class _ToInput(torch.autograd.Function):
    """The identity on y = x Wᵀ + b, which adds the way back to x, by Wᵀ packed or not."""

    @staticmethod
    def forward(
        ctx: Any,
        y: Tensor,
        x: Tensor,  # noqa: ARG004
        weight: Tensor,
        packed: Tensor | None,
    ) -> Tensor:
        ctx.save_for_backward(weight)
        ctx.packed = packed
        ctx.mark_dirty(y)
        return y

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        (weight,) = ctx.saved_tensors
        if len(gradient) == 1 and not torch.is_grad_enabled() and not transformed(gradient):
            return gradient, _of_one(gradient, weight, ctx.packed), None, None
        return gradient, _product(gradient, weight.t(), ctx.packed), None, None


def _of_one(gradient: Tensor, weight: Tensor, packed: Tensor | None) -> Tensor:
    """g W of a single image, g being (1, K), Wᵀ packed or not: the time goes into reading W.

    Behind a ReLU most of g is 0, and the rows of W that it would multiply are left where they are.
    """
    units = gradient[0].nonzero().squeeze(1)
    if len(units) == 0:  # which no bag can be
        return gradient.new_zeros(1, weight.shape[1])
    if len(units) > SPARSE * len(weight):
        # MKL reads the weights as they lie, where oneDNN turns them round for a single row
        return F.linear(gradient, weight.t()) if packed is None else _by_onednn(gradient, packed)
    # a bag of rows is summed by one thread: as many bags as threads, each of a part of the columns
    parts = math.gcd(torch.get_num_threads(), weight.shape[1])
    rows = units * parts + torch.arange(parts)[:, None]
    sums = F.embedding_bag(
        rows,
        weight.reshape(len(weight) * parts, -1),
        mode="sum",
        per_sample_weights=gradient[0, units].repeat(parts, 1),
    )
    return sums.view(1, -1)
