"""PGD and, without a random start, I-FGSM."""

from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from pydantic import Field, PositiveInt
from torch import Tensor, nn

from regbench.ascent import (
    Loss,
    cross_entropy,
    input_gradient,
    margin,
    project,
    sign_ascent,
    uniform,
)
from regbench.attacks import Attack
from regbench.core.validation import right
from regbench.lengths import StepSize

__all__ = ["PGD"]

STRIDE = 10
"""Steps between two looks at which images are fooled."""

LOSSES: dict[str, Loss] = {"cross_entropy": cross_entropy, "margin": margin}


@dataclass(frozen=True, kw_only=True)
class PGD(Attack):
    """Projected gradient ascent on a loss (Madry 2018, arXiv:1706.06083).

    Attributes:
        steps: gradient steps.
        step_size: length of one step, L∞; none: 2.5 ε/steps, as Madry advises.
        start_radius: the start is uniform in this ball, as a share of ε; 0: no random start.
        early_stop: leave an image at the first of every ten iterates that fools the network, so
            that no more is spent on it; at least as strong as the last iterate on the network that
            it is crafted on, and weaker on another, so that a config refuses it with `source`.
        loss: `cross_entropy`, or `margin`, the CW margin with κ = 50 (Carlini & Wagner 2017).
    """

    steps: PositiveInt
    step_size: StepSize | None = None
    start_radius: Annotated[float, Field(ge=0, le=1)] = 1.0
    loss: Literal["cross_entropy", "margin"] = "cross_entropy"
    early_stop: bool = False

    @property
    def passes(self) -> float:
        """See `Attack.passes`."""
        return self.restarts * (2 * self.steps + 1)

    def __call__(
        self, model: nn.Module, x: Tensor, y: Tensor, generator: torch.Generator
    ) -> Tensor:
        """Return the images after the last step, or after the step that stopped them."""
        noise = uniform(x, self.start_radius * self.epsilon, generator)
        x_adv = project(x + noise, x, self.epsilon)
        stride = STRIDE if self.early_stop else self.steps
        left = torch.arange(len(x), device=x.device)
        for done in range(0, self.steps, stride):
            steps = min(stride, self.steps - done)
            x_adv[left] = self._climb(model, x_adv[left], x[left], y[left], steps)
            if self.early_stop:
                left = left[_withstands(model, x_adv[left], y[left])]
            if not len(left):
                break
        return x_adv

    def _climb(self, model: nn.Module, start: Tensor, x: Tensor, y: Tensor, steps: int) -> Tensor:
        return sign_ascent(
            lambda x_adv: input_gradient(model, x_adv, y, LOSSES[self.loss]),
            start=start,
            x=x,
            epsilon=self.epsilon,
            step_size=self.step_size or 2.5 * self.epsilon / self.steps,
            steps=steps,
        )


def _withstands(model: nn.Module, x_adv: Tensor, y: Tensor) -> Tensor:
    with torch.no_grad():
        return right(model(x_adv), y)
