"""Weights as others store them: a state dict of PyTorch's, or a file of safetensors."""

import re
from collections.abc import Mapping, Set
from io import BytesIO
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn

from regbench.errors import UserError
from regbench.storage.seals import checked

INSIDE = ("state_dict", "model_state_dict", "model", "net")
"""Keys that a checkpoint has its state dict under, beside an optimizer's and the epoch."""

PREFIXES = ("module.", "model.", "_orig_mod.")
"""What DataParallel, a module around the network and the compiler put before every name."""

WITHIN = 3
"""How deep a checkpoint may hold them."""

CONSTANTS = ("mu", "sigma", "mean", "std")
"""Buffers for normalisation that files of RobustBench's model zoo leave to the class."""

UNUSED = "num_batches_tracked"
"""A counter of training steps, which PyTorch before 0.4.1 had not, and which judging needs not."""

SHOWN = 3
"""Names told of each kind that does not fit."""


def weights_of(path: Path, sha256: str) -> dict[str, Tensor]:
    """Return the tensors of a file of weights, by name.

    A PyTorch file is read as tensors and plain containers alone: nothing in it is executed.

    Args:
        path: of a `.safetensors`, or of what `torch.save` wrote: a state dict, by itself or under
            one of the keys `INSIDE`.
        sha256: of the file, 64 hexadecimal digits.

    Raises:
        UserError: it is missing, not the one that the checksum is of, or holds no such thing.
    """
    content = checked(path, sha256)
    try:
        return _state(_opened(path, content))
    except Exception as error:  # a foreign file fails wherever it is read
        raise UserError(
            f"'{path}' holds no weights that can be read safely ({_why(error)}); expected what"
            " torch.save(model.state_dict(), …) or safetensors writes"
        ) from error


def fill(model: nn.Module, weights: Mapping[str, Tensor], path: Path) -> None:
    """Put weights into a network that they are of, in its own precision.

    What wrappers put before every name is taken off, unless the network has such names itself.
    Constants of normalisation (`CONSTANTS`) may be missing, if the class sets them.

    Args:
        model: changed in place.
        weights: of `weights_of`.
        path: where they come from, to be told.

    Raises:
        UserError: names, shapes or kinds of number are not the network's.
    """
    own = model.state_dict()
    named = _as_named(own, weights)
    may_lack = {name for name, _ in model.named_buffers() if _last(name) in (*CONSTANTS, UNUSED)}
    told = _differences(own, named, may_lack)
    if told:
        raise UserError(
            f"'{path}' is not of this network: it {'; it '.join(told)}; name another under"
            " `model:`, or a class of your own, package.module:Class"
        )
    model.load_state_dict(named, strict=False)  # what may be missing is known by now


def _as_named(own: Mapping[str, Tensor], weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    named = dict(weights)
    while not own.keys() & named.keys() and (prefix := _common_prefix(named)):
        named = {name.removeprefix(prefix): one for name, one in named.items()}
    return named


def _differences(
    own: Mapping[str, Tensor], given: Mapping[str, Tensor], may_lack: Set[str]
) -> list[str]:
    """What tells that weights are not the network's, in words; nothing, if they are."""
    both = sorted(own.keys() & given.keys())
    kinds = {
        "lacks": sorted(own.keys() - given.keys() - may_lack),
        "has besides": sorted(given.keys() - own.keys()),
        "has of another shape": [
            f"{name} {tuple(given[name].shape)}, here {tuple(own[name].shape)}"
            for name in both
            if given[name].shape != own[name].shape
        ],
        "has as another kind of number": [
            f"{name} {given[name].dtype}, here {own[name].dtype}"
            for name in both
            if given[name].is_floating_point() != own[name].is_floating_point()
        ],
    }
    return [f"{kind} {_few(names)}" for kind, names in kinds.items() if names]


def _opened(path: Path, content: bytes) -> Any:
    if path.suffix == ".safetensors":
        return safetensors.torch.load(content)
    return torch.load(BytesIO(content), map_location="cpu", weights_only=True)


def _why(error: Exception) -> str:
    """Why a file was not read; PyTorch's own words advise to read it unsafely."""
    found = re.search(r"GLOBAL ([\w.]+)", str(error))
    if found:
        return f"beside tensors it holds {found[1]}, which could run anything"
    if "Weights only load failed" in str(error):
        return "it is damaged, or no file of PyTorch's"
    return " ".join(str(error).split())


def _state(found: Any) -> dict[str, Tensor]:
    """Return the state dict that a file is, or that a checkpoint in it holds."""
    for _ in range(WITHIN):
        found = _inside(found) or found
    held = found.items() if isinstance(found, Mapping) else ()
    if not (held and all(_is_weight(name, one) for name, one in held)):
        raise TypeError(f"it is a {type(found).__name__}, not dense tensors by name")
    return dict(found)


def _inside(found: Any) -> Any:
    """What a checkpoint holds as its network's; nothing, if it is that itself."""
    if not isinstance(found, Mapping):
        return None
    return next((found[key] for key in INSIDE if isinstance(found.get(key), Mapping)), None)


def _is_weight(name: Any, one: Any) -> bool:
    return (
        isinstance(name, str)
        and isinstance(one, Tensor)
        and one.layout is torch.strided
        and one.device.type == "cpu"
        and not (one.is_complex() or one.is_quantized)
    )


def _common_prefix(weights: Mapping[str, Tensor]) -> str:
    return next((one for one in PREFIXES if all(name.startswith(one) for name in weights)), "")


def _last(name: str) -> str:
    return name.rpartition(".")[2]


def _few(names: list[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more
