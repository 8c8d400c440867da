"""Attacks on a trained model: one file each, a frozen dataclass that perturbs images.

An attack only proposes: the caller (regbench.verdicts) clips to the ε-ball and to [0, 1] and counts
success itself, so that a wrong attack can only under-report.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from pydantic import Field, PositiveInt
from torch import Tensor, nn


@dataclass(frozen=True, kw_only=True)
class Attack(ABC):
    """What every attack has: its radius, and how often it is tried afresh.

    Attributes:
        epsilon: attack radius ε, L∞, images in [0, 1].
        restarts: tries per image; the caller stops at the first that succeeds.
        whole: whether the attack wants all images in one call instead of the caller's batches.
    """

    epsilon: Annotated[float, Field(ge=0, le=1)]
    restarts: PositiveInt = 1
    whole: ClassVar[bool] = False

    @property
    def passes(self) -> float:
        """Forward passes' worth of arithmetic per image, at most; NaN: unknown.

        A forward pass is 1, a gradient with respect to the image 2.
        """
        return float("nan")

    @abstractmethod
    def __call__(
        self, model: nn.Module, x: Tensor, y: Tensor, generator: torch.Generator
    ) -> Tensor:
        """Return adversarial images, the shape of `x`.

        Args:
            model: frozen, in eval mode.
            x: images, (m, C, H, W), in [0, 1].
            y: labels, (m,).
            generator: the stream of every random draw, on the device of `x`.
        """
