"""A network that is not for the data set: told in one line, before it is trained."""

import torch
from torch import Tensor, nn

from regbench.core.memory import exhausted
from regbench.errors import UserError

MACHINE = ("CUDA", "CUBLAS", "CUDNN", "cuDNN")
"""Words of errors that are a GPU's."""


class MisfitError(UserError):
    """A network that is not for this data set."""


def refuse_misfit(
    model: nn.Module, name: str, shape: tuple[int, int, int], classes: int, device: torch.device
) -> None:
    """Raise unless `model` takes such images and gives as many logits.

    Args:
        model: the network, on `device`; left as it was.
        name: how to call it.
        shape: of an image, (C, H, W).
        classes: how many logits an image is to have, K.
        device: where the images are made.

    Raises:
        MisfitError: it does not take images of this shape, or gives anything but (2, K) logits.
    """
    try:
        z = tried(model, shape, device)
    except Exception as error:  # whatever a network of the user's raises
        if exhausted(error) or any(word in str(error) for word in MACHINE):
            raise
        why = f"{type(error).__name__}: {error}"
        raise MisfitError(f"'{name}' does not take images of shape {shape}: {why}") from error
    if not (isinstance(z, Tensor) and z.shape == (2, classes)):
        given = f"shape {tuple(z.shape)}" if isinstance(z, Tensor) else type(z).__name__
        raise MisfitError(f"'{name}' gives {given} for 2 images, expected logits, (2, {classes})")


def tried(model: nn.Module, shape: tuple[int, int, int], device: torch.device) -> object:
    """Return what `model`, in eval mode, makes of two black images; it is left as it was.

    Args:
        model: the network, on `device`.
        shape: of an image, (C, H, W).
        device: where the images are made.
    """
    modes = {one: one.training for one in model.modules()}
    try:
        with torch.no_grad(), torch.random.fork_rng([device] if device.type == "cuda" else []):
            made: object = model.eval()(torch.zeros(2, *shape, device=device))
    finally:
        for one, training in modes.items():
            one.training = training
    return made
