"""Batch normalisation."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from regbench.core.layers.held import Held
from regbench.core.layers.transforms import transformed


class ScalingBatchNorm2d(nn.BatchNorm2d):
    """A `BatchNorm2d` whose way back to its input is one multiplication while it is frozen.

    In eval mode it is y = s x + t for each channel. PyTorch computes the input gradient s ∂y by the
    kernel that it has for gradients of s and t, which on a GPU ignores the layout of `x`.
    """

    @staticmethod
    def fits(module: nn.Module) -> bool:
        """Tell whether `module` is a batch normalisation of images by kept statistics."""
        return type(module) is nn.BatchNorm2d and module.affine and module.track_running_stats

    def forward(self, x: Tensor) -> Tensor:
        """Return the normalised `x`, (m, C, H, W)."""
        frozen = not self.training and self.running_var is not None
        if not frozen or not x.requires_grad or transformed():
            y: Tensor = super().forward(x)
            return y
        # a node of its own: an attack asks for the image's gradient without the weights'
        y = _ToWeights.apply(
            x.detach(), self.weight, self.bias, self.running_mean, self.running_var, self.eps,
            Held(x),
        )  # fmt: skip
        z: Tensor = _ToInput.apply(y, x, self.weight, self.running_var, self.eps)
        return z


class _ToWeights(torch.autograd.Function):
    """The normalised x with the way back to weight and bias."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor,
        mean: Tensor,
        variance: Tensor,
        epsilon: float,
        held: Held,
    ) -> Tensor:
        ctx.save_for_backward(x, mean, variance)
        ctx.epsilon, ctx.held = epsilon, held
        return F.batch_norm(x, mean, variance, weight, bias, eps=epsilon)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, mean, variance = ctx.saved_tensors
        if torch.is_grad_enabled():
            x = ctx.held.x
        slope = gradient.to(mean.dtype)
        normalised = (x - _channels(mean)) * _channels((variance + ctx.epsilon).rsqrt())
        by_weight = (slope * normalised).sum((0, 2, 3))
        return None, by_weight, slope.sum((0, 2, 3)), None, None, None, None


class _ToInput(torch.autograd.Function):
    """The identity on y = s x + t, which adds the way back to x; that to s and t is y's own."""

    @staticmethod
    def forward(
        ctx: Any,
        y: Tensor,
        x: Tensor,  # noqa: ARG004
        weight: Tensor,
        variance: Tensor,
        epsilon: float,
    ) -> Tensor:
        ctx.save_for_backward(weight, variance)
        ctx.epsilon = epsilon
        ctx.mark_dirty(y)
        return y

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        weight, variance = ctx.saved_tensors
        scale = weight * (variance + ctx.epsilon).rsqrt()
        return gradient, _scaled(gradient, scale), None, None, None


def _channels(x: Tensor) -> Tensor:
    """One number per channel, (C,), as it is spread over images, (C, 1, 1)."""
    return x[:, None, None]


def _scaled(gradient: Tensor, scale: Tensor) -> Tensor:
    """gradient · scale, (C,), in the type of `gradient`, multiplied in that of `scale`."""
    # to be differentiated once more, or batched
    if torch.is_grad_enabled() or transformed(gradient):
        return (gradient * _channels(scale)).to(gradient.dtype)
    if gradient.device.type == "cpu" and gradient.dtype != scale.dtype:
        return _normalised(gradient, scale)
    return torch.mul(gradient, _channels(scale), out=torch.empty_like(gradient))


def _normalised(x: Tensor, scale: Tensor) -> Tensor:
    """x · scale as the normalisation by mean 0 and variance 1, whose kernel takes both types.

    A product of two types first copies `x` to the wider one, on a CPU.
    """
    zero, one = torch.zeros_like(scale), torch.ones_like(scale)
    # not F.batch_norm, which in PyTorch 2.11 refuses an ε of 0
    return torch.native_batch_norm(x, scale, None, zero, one, False, 0.0, 0.0)[0]
