"""Attacks on a trained model: one file each, a frozen dataclass that perturbs images.

An attack only proposes: the caller (regbench.evaluation.verdicts) clips to the ε-ball and to [0, 1]
and counts success itself, so that a wrong attack can only under-report. One that does not tell its
`passes` is left out of the forecast of a run.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar, NamedTuple, Self

import torch
from pydantic import Field, PositiveInt
from torch import Tensor, nn


class Proposal(NamedTuple):
    """What an ensemble of attacks returns.

    Attributes:
        x_adv: adversarial images, (m, C, H, W).
        fooled_by: for each image the first attack that fooled the model; none: it withstood.
    """

    x_adv: Tensor
    fooled_by: Sequence[str | None]


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

    @property
    def ensemble(self) -> tuple[str, ...]:
        """The attacks that this one is made of, in their order; none: it is one itself."""
        return ()

    @property
    def own_batch_size(self) -> int | None:
        """Images per batch, if the attack cuts batches itself, as one that is `whole` may."""
        return None

    def within(self, batch_size: int) -> Self:
        """Return the same attack, the batches that it cuts itself at most `batch_size` images."""
        return self

    @abstractmethod
    def __call__(
        self, model: nn.Module, x: Tensor, y: Tensor, generator: torch.Generator
    ) -> Tensor | Proposal:
        """Return adversarial images, the shape of `x`; of an ensemble, who fooled the model too.

        Args:
            model: frozen, in eval mode.
            x: images, (m, C, H, W), in [0, 1].
            y: labels, (m,).
            generator: the stream of every random draw, on the device of `x`.
        """
