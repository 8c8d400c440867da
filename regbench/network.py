"""The network of a run, laid out for speed on the device that it is on."""

import torch
from torch import nn

from regbench.cards import ModelCard, RunCard
from regbench.layers import tune
from regbench.members import build
from regbench.prepare import Data


def network(card: RunCard, data: Data, device: torch.device) -> nn.Module:
    """Return the untrained network of `card`, its weights drawn from the card's seed."""
    torch.manual_seed(card.seed)
    return laid_out(plain(card.model, data.shape, data.classes), device)


def plain(card: ModelCard, shape: tuple[int, int, int], classes: int) -> nn.Module:
    """Return the network that `card` names, as its class makes it."""
    arguments = {"shape": shape, "classes": classes, **card.arguments}
    model: nn.Module = build(card.architecture, arguments)
    return model


def laid_out(model: nn.Module, device: torch.device) -> nn.Module:
    """Return `model` on `device`, its layers and memory as they are fastest there."""
    # channels_last is the faster layout on a CPU and on a GPU
    return tune(model).to(device).to(memory_format=torch.channels_last)
