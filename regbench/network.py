"""The network of a run, laid out for speed on the device that it is on."""

import torch
from torch import nn

from regbench.cards import RunCard
from regbench.layers import tune
from regbench.members import build
from regbench.prepare import Data


def network(card: RunCard, data: Data, device: torch.device) -> nn.Module:
    """Return the untrained network of `card`, its weights drawn from the card's seed."""
    torch.manual_seed(card.seed)
    arguments = {"shape": data.shape, "classes": data.classes, **card.model.arguments}
    model: nn.Module = build(card.model.architecture, arguments)
    # channels_last is the faster layout on a CPU and on a GPU
    return tune(model).to(device).to(memory_format=torch.channels_last)
