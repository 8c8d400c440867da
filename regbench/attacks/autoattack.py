"""AutoAttack, as RobustBench runs it."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from autoattack import AutoAttack as Ensemble  # the name and the class that RobustBench imports
from pydantic import PositiveInt
from torch import Tensor, nn

from regbench.attacks import Attack

__all__ = ["AutoAttack"]


PASSES = {"standard": 9_759.0, "plus": float("nan"), "rand": float("nan")}
"""APGD-CE 103 forward and 101 back, APGD-T 918 and 909, FAB-T 1,828 and 900, Square 5,000."""


@dataclass(frozen=True, kw_only=True)
class AutoAttack(Attack):
    """APGD-CE, APGD-T, FAB-T and Square, one after the other on what is left (Croce & Hein 2020).

    Its warnings (randomised model, vanishing gradients, Square stronger than white-box) are raised
    as Python warnings, for the caller to keep with the verdicts.

    Attributes:
        restarts: its attacks have their own; they would only be repeated, with the same seed.
        version: `standard`, as on RobustBench's leaderboard; `plus` or `rand`.
        batch_size: images per batch; the noise is drawn per batch, so it is part of the result.
    """

    restarts: Literal[1] = 1
    version: Literal["standard", "plus", "rand"] = "standard"
    batch_size: PositiveInt = 500
    whole: ClassVar[bool] = True

    @property
    def passes(self) -> float:
        """See `Attack.passes`."""
        return PASSES[self.version]

    def __call__(
        self, model: nn.Module, x: Tensor, y: Tensor, generator: torch.Generator
    ) -> Tensor:
        """Return the images after all four attacks; those that withstood come back as they were."""
        with _heard():
            ensemble = Ensemble(
                model,
                norm="Linf",
                eps=self.epsilon,
                seed=generator.initial_seed() % 2**31,
                version=self.version,
                device=x.device,
            )
            x_adv: Tensor = ensemble.run_standard_evaluation(x, y, bs=self.batch_size)
        return x_adv


class _Warnings(logging.Handler):
    """Turns what AutoAttack logs as a warning into a Python warning."""

    def emit(self, record: logging.LogRecord) -> None:
        if record.levelno >= logging.WARNING:
            warnings.warn(record.getMessage(), RuntimeWarning, stacklevel=2)


@contextmanager
def _heard() -> Iterator[None]:
    logger, handler = logging.getLogger("auto-attack"), _Warnings()
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
