"""The network of a run, laid out for speed on the device that it is on."""

import torch
from torch import Tensor, nn

from regbench.core.layers import tune
from regbench.core.misfit import tried
from regbench.errors import UserError
from regbench.experiment.cards import AnyCard, ModelCard
from regbench.experiment.members import build
from regbench.prepare import Data


def network(card: AnyCard, data: Data, device: torch.device, precision: str) -> nn.Module:
    """Return the untrained network of `card`, its weights drawn from the card's seed.

    Args:
        card: architecture and seed.
        data: shape and classes.
        device: where it is to be.
        precision: what it computes in.
    """
    torch.manual_seed(card.seed)
    built = plain(card.model, data.shape, data.classes)
    return laid_out(built, device, precision, data.shape)


def plain(card: ModelCard, shape: tuple[int, int, int], classes: int) -> nn.Module:
    """Return the network that `card` names, as its class makes it.

    Raises:
        UserError: what is made is no network.
    """
    arguments = {"shape": shape, "classes": classes, **card.arguments}
    model = build(card.architecture, arguments)
    if not isinstance(model, nn.Module):
        made = type(model).__name__
        raise UserError(f"'{card.architecture}' gives a {made}, expected a torch.nn.Module")
    return model


def laid_out(
    model: nn.Module,
    device: torch.device,
    precision: str = "fp32",
    shape: tuple[int, int, int] | None = None,
) -> nn.Module:
    """Return `model` on `device`, its layers and memory as they are fastest there.

    Args:
        model: in PyTorch's own layout; changed in place.
        device: where it is to be.
        precision: what it computes in.
        shape: of an image, (C, H, W). If given, a network that relies on PyTorch's own layout, as
            `x.view(len(x), -1)` behind a convolution does, keeps it.
    """
    fastest = layout(device, precision)
    model = tune(model).to(device).to(memory_format=fastest)
    if shape and fastest is torch.channels_last and _views(model, shape, device):
        model.register_forward_pre_hook(_by_channel)
        model = model.to(memory_format=torch.contiguous_format)
    return model


def _views(model: nn.Module, shape: tuple[int, int, int], device: torch.device) -> bool:
    """Tell whether `model` fails for its layout; whatever else it lacks is told elsewhere."""
    try:
        tried(model, shape, device)
    except Exception as error:
        return "view size is not compatible" in str(error)
    return False


def _by_channel(_: nn.Module, images: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return tuple(one.contiguous() for one in images)


def layout(device: torch.device, precision: str) -> torch.memory_format:
    """Return how weights and activations lie where products of `precision` are fastest."""
    # without tensor cores cuDNN is faster channel by channel
    by_channel = device.type == "cuda" and precision == "fp32"
    return torch.contiguous_format if by_channel else torch.channels_last
