"""One training step as a loss sees it: the mini-batch, the model, its input gradients, noise."""

from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor, nn

from regbench import ascent
from regbench.core.compiled import Compiled


class Objective(NamedTuple):
    """What a training loss returns: two scalars whose sum is minimised, `penalty` with its λ.

    A loss without a penalty has the number 0.0 there.
    """

    cross_entropy: Tensor
    penalty: Tensor | float

    @property
    def total(self) -> Tensor:
        """The number that the step descends."""
        return self.cross_entropy + self.penalty


@dataclass(frozen=True)
class Step:
    """A mini-batch and what can be done with it.

    Adversarial images are crafted with the model in eval mode; `logits` runs it in train mode.

    Attributes:
        model: the network, images in [0, 1] to logits.
        x: m images, (m, C, H, W), in [0, 1].
        y: their labels, (m,), int64.
        epsilon: attack radius ε, L∞.
        generator: the stream that noise is drawn from.
        progress: how much of the training is done, (), 0 at its first step and below 1 at its last.
        compiled: the network's ways, if they are.
    """

    model: nn.Module
    x: Tensor
    y: Tensor
    epsilon: float
    generator: torch.Generator
    progress: Tensor = field(default_factory=lambda: torch.zeros(()))
    compiled: Compiled | None = None

    def logits(self, x: Tensor) -> Tensor:
        """Return f(x), (m, K), in train mode, with a graph down to the weights."""
        return ascent.logits(self._trained(), x)

    def frozen_logits(self, x: Tensor) -> Tensor:
        """Return f(x), (m, K), in eval mode, without a graph."""
        with torch.no_grad():
            return ascent.logits(self._frozen(), x)

    def gradient(
        self, x: Tensor, target: Tensor, loss: ascent.Loss = ascent.cross_entropy
    ) -> Tensor:
        """Return ∇ₓ loss(f(x), target), the shape of `x`, in eval mode, without a graph.

        A penalty on a gradient takes it by `torch.autograd.grad` of what `logits` gives, with
        `create_graph=True`.
        """
        return ascent.input_gradient(self._frozen(), x, target, loss)

    def fgsm(self) -> Tensor:
        """Return clip₀₁(x + ε · sign ∇ₓCE), the batch's FGSM images (Goodfellow 2015)."""
        return ascent.clip(ascent.climb(self.x, self.gradient(self.x, self.y), self.epsilon))

    def project(self, x_adv: Tensor) -> Tensor:
        """Return `x_adv` brought back into the ε-ball around the batch and into [0, 1]."""
        return ascent.project(x_adv, self.x, self.epsilon)

    def uniform(self, radius: float) -> Tensor:
        """Return noise of the shape of the batch, uniform in ±`radius`."""
        return ascent.uniform(self.x, radius, self.generator)

    def normal(self) -> Tensor:
        """Return standard normal noise of the shape of the batch."""
        return ascent.normal(self.x, self.generator)

    def _trained(self) -> nn.Module:
        model = self._in_mode(training=True)
        return self.compiled.trained if self.compiled else model

    def _frozen(self) -> nn.Module:
        model = self._in_mode(training=False)
        return self.compiled.frozen if self.compiled else model

    def _in_mode(self, *, training: bool) -> nn.Module:
        if self.model.training is not training:
            self.model.train(training)
        return self.model
