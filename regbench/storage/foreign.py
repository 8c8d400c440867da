"""Weights as others store them: a state dict of PyTorch's, or a file of safetensors."""

from collections.abc import Mapping
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

SHOWN = 3
"""Names told of each kind that does not fit."""


def weights_of(path: Path, sha256: str) -> dict[str, Tensor]:
    """Return the tensors of a file of weights, by the names that the bare network has for them.

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
        return _bare(_opened(path, content))
    except Exception as error:  # a foreign file fails wherever it is read
        told = str(error).strip().partition("\n")[0]
        raise UserError(
            f"'{path}' holds no weights that can be read safely ({told}); expected what"
            " torch.save(model.state_dict(), …) or safetensors writes"
        ) from error


def fill(model: nn.Module, weights: Mapping[str, Tensor], path: Path) -> None:
    """Put weights into a network that they are of, in its own precision.

    Constants that its class sets may be missing, as mean and deviation in files of RobustBench's
    model zoo.

    Args:
        model: changed in place.
        weights: of `weights_of`.
        path: where they come from, to be told.

    Raises:
        UserError: names or shapes are not the network's.
    """
    own = model.state_dict()
    other = [
        f"{name} {tuple(one.shape)}, here {tuple(own[name].shape)}"
        for name, one in weights.items()
        if name in own and one.shape != own[name].shape
    ]
    kinds = {
        "lacks": sorted(own.keys() - weights.keys() - _constants(model)),
        "has besides": sorted(weights.keys() - own.keys()),
        "has of another shape": other,
    }
    told = [f"{kind} {_few(names)}" for kind, names in kinds.items() if names]
    if told:
        raise UserError(
            f"'{path}' is not of this network: it {'; it '.join(told)}; name another under"
            " `model:`, or a class of your own, package.module:Class"
        )
    model.load_state_dict(dict(weights), strict=False)  # what may be missing is told above


def _constants(model: nn.Module) -> set[str]:
    """Buffers of classes that are not PyTorch's own: those of its layers are found in training."""
    return {
        name
        for prefix, module in model.named_modules()
        if not type(module).__module__.startswith("torch.nn.")
        for name, _ in module.named_buffers(prefix, recurse=False)
    }


def _opened(path: Path, content: bytes) -> Any:
    if path.suffix == ".safetensors":
        return safetensors.torch.load(content)
    return torch.load(BytesIO(content), map_location="cpu", weights_only=True)


def _bare(found: Any) -> dict[str, Tensor]:
    while inside := _inside(found):
        found = inside
    if not _is_state(found):
        raise TypeError(f"it is a {type(found).__name__}, not tensors by name")
    weights = dict(found)
    while prefix := _common_prefix(weights):
        weights = {name.removeprefix(prefix): one for name, one in weights.items()}
    return weights


def _inside(found: Any) -> Any:
    """What a checkpoint holds as its network's; nothing, if it is that itself."""
    if not isinstance(found, Mapping):
        return None
    return next((found[key] for key in INSIDE if isinstance(found.get(key), Mapping)), None)


def _is_state(found: Any) -> bool:
    return (
        isinstance(found, Mapping)
        and bool(found)
        and all(isinstance(name, str) and isinstance(one, Tensor) for name, one in found.items())
    )


def _common_prefix(weights: Mapping[str, Tensor]) -> str:
    return next((one for one in PREFIXES if all(name.startswith(one) for name in weights)), "")


def _few(names: list[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more
