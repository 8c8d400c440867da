"""AutoAttack, as RobustBench runs it."""

import io
import json
import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Literal, Self, cast

import torch
from autoattack import AutoAttack as Ensemble  # the name and the class that RobustBench imports
from pydantic import PositiveInt
from torch import Tensor, nn

from regbench.attacks import Attack, Proposal
from regbench.core.incremental import Incremental
from regbench.errors import UserError

__all__ = ["AutoAttack"]


PASSES = {"standard": 9_759.0, "plus": float("nan"), "rand": float("nan")}
"""APGD-CE 103 forward and 101 back, APGD-T 918 and 909, FAB-T 1,828 and 900, Square 5,000."""

ATTACKS = {
    "standard": ("apgd-ce", "apgd-t", "fab-t", "square"),
    "plus": ("apgd-ce", "apgd-dlr", "fab", "square", "apgd-t", "fab-t"),
    "rand": ("apgd-ce", "apgd-dlr"),
}

FEWEST = {"standard": 4, "plus": 4, "rand": 3}
"""Classes from which on its DLR loss exists, the targeted one from 4."""


@dataclass(frozen=True, kw_only=True)
class AutoAttack(Attack):
    """APGD-CE, APGD-T, FAB-T and Square, one after the other on what is left (Croce & Hein 2020).

    Of fewer than 10 classes the targeted attacks try all but the true one, instead of 9.

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

    @property
    def ensemble(self) -> tuple[str, ...]:
        """See `Attack.ensemble`."""
        return ATTACKS[self.version]

    @property
    def own_batch_size(self) -> int:
        """See `Attack.own_batch_size`."""
        return self.batch_size

    def within(self, batch_size: int) -> Self:
        """See `Attack.within`."""
        return replace(self, batch_size=min(self.batch_size, batch_size))

    def refuse_classes(self, classes: int) -> None:
        """Refuse a data set of so few classes that the DLR loss does not exist.

        Raises:
            UserError: AutoAttack is not defined for so few.
        """
        if classes < FEWEST[self.version]:
            raise UserError(
                f"AutoAttack (version: {self.version}) takes at least {FEWEST[self.version]}"
                f" classes, which its DLR loss needs, got {classes}; use PGD instead, say"
                " `pgd: {steps: 100, restarts: 5}`"
            )

    def __call__(
        self, model: nn.Module, x: Tensor, y: Tensor, generator: torch.Generator
    ) -> Proposal:
        """Return the images after all its attacks; those that withstood come back as they were.

        Raises:
            UserError: the model tells too few classes apart.
        """
        classes = _classes(model, x)
        self.refuse_classes(classes)
        witness = _Witness(len(x), self.ensemble)
        with _heard():
            ensemble = Ensemble(
                model,
                norm="Linf",
                eps=self.epsilon,
                seed=generator.initial_seed() % 2**31,
                version=self.version,
                device=x.device,
            )
            for targeted in (ensemble.apgd_targeted, ensemble.fab):
                targeted.n_target_classes = min(targeted.n_target_classes, classes - 1)
            if x.device.type == "cpu":  # on a GPU nobody has measured what it gains
                ensemble.square.predict = Incremental(model)
            # of the path AutoAttack asks only whether it exists, and to be opened
            x_adv: Tensor = ensemble.run_standard_evaluation(
                x, y, bs=self.batch_size, state_path=cast("Path", witness)
            )
        return Proposal(x_adv, witness.fooled_by)


def _classes(model: nn.Module, x: Tensor) -> int:
    # a random defence draws from the global stream, which must stand as AutoAttack expects it
    with torch.no_grad(), torch.random.fork_rng([x.device] if x.is_cuda else []):
        return int(model(x[:1]).shape[1])


class _Witness:
    """Stands where AutoAttack keeps its state after each batch, and sees who falls to which attack.

    Its own account, of one undivided run: nothing of the run is changed to obtain it.
    """

    def __init__(self, count: int, attacks: Sequence[str]) -> None:
        self.fooled_by: list[str | None] = [None] * count
        self._attacks = attacks
        self._stood = [False] * count

    def exists(self) -> bool:
        """Tell that there is no earlier state to go on from."""
        return False

    def open(self, mode: str) -> io.StringIO:
        """Return a file that is read as soon as it is written."""
        return _Page(self._read)

    def _read(self, state: dict[str, Any]) -> None:
        done, stands = len(state["_run_attacks"]), state["_robust_flags"]
        if stands is None:  # nothing has been tried yet
            return
        for image, (before, now) in enumerate(zip(self._stood, stands, strict=True)):
            if before and not now:
                self.fooled_by[image] = self._attacks[done]
        self._stood = stands


class _Page(io.StringIO):
    """A JSON file that hands over its content when it is closed."""

    def __init__(self, read: Callable[[dict[str, Any]], None]) -> None:
        super().__init__()
        self._reader = read

    def close(self) -> None:
        """Hand over what was written."""
        if not self.closed:
            self._reader(json.loads(self.getvalue()))
        super().close()


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
