"""A training put together as its card says: the network, the loss, and what they see."""

import math
from collections.abc import Callable

import torch
from torch import nn

from regbench.core.misfit import refuse_misfit
from regbench.core.network import network
from regbench.experiment.cards import RunCard
from regbench.experiment.members import build
from regbench.prepare import Data
from regbench.training.course import Epoch
from regbench.training.descent import TrainingLoss
from regbench.training.keeper import Keeper
from regbench.training.loop import Trained, fit


def trained(
    card: RunCard,
    data: Data,
    device: torch.device,
    progress: Callable[[Epoch], None],
    keeper: Keeper | None = None,
    limit: float = math.inf,
) -> Trained:
    """Return the network of `card`, trained on the training images of `data`.

    Args:
        card: of the run.
        data: what it learns from, and whose validation images pick the best epoch.
        device: to train on.
        progress: called with each row of the learning curve.
        keeper: puts the state down and takes it up; without one, nothing is kept.
        limit: hours after which no further epoch is begun.

    Raises:
        UserError: the network is not for these data, or of `regbench.training.loop.fit`.
        OSError: of `fit`.
    """
    model = network(card, data, device, card.training.precision)
    refuse_misfit(model, card.model.architecture, data.shape, data.classes, device)
    train, held_out = data.split("train", device), data.split("validation", device)
    return fit(card, model, loss_of(card, device), train, held_out, progress, keeper, limit)


def loss_of(card: RunCard, device: torch.device) -> TrainingLoss:
    """Return the training loss of a run, what it carries on `device`."""
    loss: TrainingLoss = build(card.regularizer.loss, card.regularizer.hyperparameters)
    return loss.to(device) if isinstance(loss, nn.Module) else loss
