"""The network of a run, laid out for speed on the device that it is on."""

import torch
from torch import Tensor, nn

from regbench.cards import ModelCard, RunCard
from regbench.errors import UserError
from regbench.layers import tune
from regbench.members import build
from regbench.memory import exhausted
from regbench.prepare import Data


class MisfitError(UserError):
    """A network that is not for this data set."""


def network(
    card: RunCard, data: Data, device: torch.device, precision: str | None = None
) -> nn.Module:
    """Return the untrained network of `card`, its weights drawn from the card's seed.

    Args:
        card: architecture, seed and, for training, precision.
        data: shape and classes.
        device: where it is to be.
        precision: that it is to compute in; none: the one it is trained in.
    """
    torch.manual_seed(card.seed)
    built = plain(card.model, data.shape, data.classes)
    return laid_out(built, device, precision or card.training.precision)


def plain(card: ModelCard, shape: tuple[int, int, int], classes: int) -> nn.Module:
    """Return the network that `card` names, as its class makes it."""
    arguments = {"shape": shape, "classes": classes, **card.arguments}
    model: nn.Module = build(card.architecture, arguments)
    return model


def refuse_misfit(
    model: nn.Module, name: str, shape: tuple[int, int, int], classes: int, device: torch.device
) -> None:
    """Try `model`, in eval mode, on two images.

    Args:
        model: the network, on `device`; left in the mode that it was in.
        name: how to call it.
        shape: of an image, (C, H, W).
        classes: how many logits an image is to have, K.
        device: where the images are made.

    Raises:
        MisfitError: it does not take images of this shape, or gives anything but (2, K) logits.
    """
    mode = model.training
    try:
        with torch.no_grad(), torch.random.fork_rng([device] if device.type == "cuda" else []):
            z = model.eval()(torch.zeros(2, *shape, device=device))
    except Exception as error:  # whatever a network of the user's raises
        if isinstance(error, RuntimeError | MemoryError) and exhausted(error):
            raise
        why = f"{type(error).__name__}: {error}"
        raise MisfitError(f"'{name}' does not take images of shape {shape}: {why}") from error
    finally:
        model.train(mode)
    if not (isinstance(z, Tensor) and z.shape == (2, classes)):
        given = f"shape {tuple(z.shape)}" if isinstance(z, Tensor) else type(z).__name__
        raise MisfitError(f"'{name}' gives {given} for 2 images, expected logits, (2, {classes})")


def laid_out(model: nn.Module, device: torch.device, precision: str = "fp32") -> nn.Module:
    """Return `model` on `device`, its layers and memory as they are fastest there."""
    tuned = tune(model).to(device)
    if device.type == "cuda" and precision == "fp32":
        # without tensor cores cuDNN is faster channel by channel
        return tuned
    return tuned.to(memory_format=torch.channels_last)
