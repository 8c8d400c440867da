"""PGD and, without a random start, I-FGSM."""

from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from pydantic import Field, PositiveFloat, PositiveInt
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

__all__ = ["PGD"]

LOSSES: dict[str, Loss] = {"cross_entropy": cross_entropy, "margin": margin}


@dataclass(frozen=True, kw_only=True)
class PGD(Attack):
    """Projected gradient ascent on a loss (Madry 2018, arXiv:1706.06083).

    Attributes:
        steps: gradient steps.
        step_size: length of one step, L∞; none: 2.5 ε/steps, as Madry advises.
        start_radius: the start is uniform in this ball, as a share of ε; 0: no random start.
        loss: `cross_entropy`, or `margin`, the CW margin with κ = 50 (Carlini & Wagner 2017).
    """

    steps: PositiveInt
    step_size: PositiveFloat | None = None
    start_radius: Annotated[float, Field(ge=0, le=1)] = 1.0
    loss: Literal["cross_entropy", "margin"] = "cross_entropy"

    def __call__(
        self, model: nn.Module, x: Tensor, y: Tensor, generator: torch.Generator
    ) -> Tensor:
        """Return the images after the last step."""
        noise = uniform(x, self.start_radius * self.epsilon, generator)
        return sign_ascent(
            lambda x_adv: input_gradient(model, x_adv, y, LOSSES[self.loss]),
            start=project(x + noise, x, self.epsilon),
            x=x,
            epsilon=self.epsilon,
            step_size=self.step_size or 2.5 * self.epsilon / self.steps,
            steps=self.steps,
        )
