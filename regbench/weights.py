"""A trained network, as a run's folder holds it."""

from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import nn

from regbench.cards import RunCard
from regbench.errors import UserError
from regbench.network import network
from regbench.prepare import Data


def trained(run: Path, data: Data, checkpoint: str, device: torch.device) -> nn.Module:
    """Return the network of a run with its weights of `best` or `last`, frozen, in eval mode.

    Raises:
        UserError: the folder holds no such run.
    """
    model = network(RunCard.read(str(run / "card.json")), data, device)
    path = run / f"{checkpoint}.safetensors"
    try:
        model.load_state_dict(load_file(path, device=str(device)))
    except Exception as error:
        raise UserError(f"'{path}' does not hold the weights of this run: {error}") from error
    return model.eval().requires_grad_(False)
