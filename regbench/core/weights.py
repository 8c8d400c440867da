"""A trained network, as a run's folder holds it."""

from pathlib import Path

import torch
from torch import nn

from regbench.core.network import network
from regbench.errors import UserError
from regbench.experiment.cards import AnyCard, card_of
from regbench.prepare import Data
from regbench.storage.seals import digest_of
from regbench.storage.tensors import read_all


def digest(run: Path, checkpoint: str) -> str:
    """Return the SHA-256 of the file of `best` or `last` weights in a run's folder."""
    return digest_of(run / f"{checkpoint}.safetensors")


def trained(
    run: Path, data: Data, checkpoint: str, device: torch.device, precision: str = "fp32"
) -> nn.Module:
    """Return the network of a run, laid out for speed, as `loaded` does.

    Args:
        run: its folder.
        data: what it was trained on.
        checkpoint: `best` or `last`.
        device: where it is to be.
        precision: what is computed with it most, whatever it was trained in.

    Raises:
        UserError: the folder holds no such run, a damaged one, or one trained on other data.
    """
    card = card_of(run)
    untrained = network(card, data.holding(card.data), device, precision)
    return loaded(untrained, card, run, checkpoint)


def loaded(model: nn.Module, card: AnyCard, run: Path, checkpoint: str) -> nn.Module:
    """Return `model` with the weights of `best` or `last` in a run's folder, frozen, in eval mode.

    Raises:
        UserError: there are none, or damaged ones, or those of another card or network.
    """
    path = run / f"{checkpoint}.safetensors"
    weights, about = read_all(path)
    if about.get("card") != card.key:
        raise UserError(
            f"'{path}' holds the weights of the run {about.get('card')}, but card.json beside it is"
            f" of {card.key}; delete both and run snakemake again"
        )
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        raise UserError(f"'{path}' does not fit its network: {error}") from error
    return model.eval().requires_grad_(False)
